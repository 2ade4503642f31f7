"""The package's version, and that of the code it generates."""

__version__ = "0.1.0"
CODEGEN_VERSION = 1
