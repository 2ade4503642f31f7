"""Kernel templates: each turns a kernel of the IR into the text of a C function."""
