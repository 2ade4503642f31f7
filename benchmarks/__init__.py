"""Measurements: whole training steps against peers, the compiler's passes, and the device's own ceilings. Run as
``python -m benchmarks.steps``."""
