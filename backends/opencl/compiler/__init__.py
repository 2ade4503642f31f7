"""Programs built and kept."""
