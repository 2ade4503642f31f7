"""What a device does, measured in one go: ``python -m benchmarks.device --device opencl:gpu``."""
