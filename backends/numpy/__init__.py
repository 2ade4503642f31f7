"""The oracles: a graph interpreter and a kernel-IR interpreter on NumPy."""
