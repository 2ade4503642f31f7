"""Sums that indices address."""
