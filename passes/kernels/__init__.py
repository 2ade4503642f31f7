"""Rewrites of kernels: one kernel as several, proven on the kernel oracle."""
