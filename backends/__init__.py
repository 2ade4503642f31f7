"""Backends: what runs plans. Imports nothing, so that a missing runtime breaks nothing else."""
