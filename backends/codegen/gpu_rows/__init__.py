"""Reductions along rows on GPUs."""
