"""The OpenCL backend: devices, code generation, programs, execution."""
