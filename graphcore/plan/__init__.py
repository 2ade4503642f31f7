"""The plan IR: buffers, steps, and what passes may know of a device."""
