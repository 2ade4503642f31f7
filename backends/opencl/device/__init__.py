"""OpenCL devices and how they are found."""
