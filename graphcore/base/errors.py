"""Exceptions of graphcore: each also derives from the built-in that plain Python code would raise."""

from __future__ import annotations

__all__ = [
    "CompileError",
    "DTypeError",
    "DeviceError",
    "FeedError",
    "FormatError",
    "GradientError",
    "GraphError",
    "GraphcoreError",
    "OutOfMemoryError",
    "OutOfRangeError",
    "SessionError",
    "ShapeError",
    "UsageError",
    "VerifyError",
]


class GraphcoreError(Exception):
    """Base of every error that graphcore raises on purpose."""


class ShapeError(GraphcoreError, ValueError):
    """Shapes do not fit together, or an axis, a size or a permutation is out of range."""


class OutOfRangeError(ShapeError, IndexError):
    """An index, or the number of indices, is beyond the tensor's shape."""


class DTypeError(GraphcoreError, TypeError):
    """A data type is unknown, unsupported by an operation, or would need a lossy cast."""


class FeedError(GraphcoreError, ValueError):
    """A fed value is missing, superfluous, or does not match its placeholder."""


class GradientError(GraphcoreError, ValueError):
    """A gradient was asked for that does not exist."""


class GraphError(GraphcoreError, ValueError):
    """A graph is malformed, or nodes of different graphs were mixed."""


class DeviceError(GraphcoreError, RuntimeError):
    """No such device, no OpenCL runtime, or the runtime failed."""


class OutOfMemoryError(GraphcoreError, MemoryError):
    """The device or a memory limit cannot hold what was asked for."""


class CompileError(GraphcoreError, RuntimeError):
    """A kernel did not compile; the message carries the source around the error and the build log."""


class FormatError(GraphcoreError, ValueError):
    """A file is not what it should be: damaged, truncated, or of an unknown version."""


class VerifyError(GraphcoreError, RuntimeError):
    """An internal consistency check of the compiler failed."""


class SessionError(GraphcoreError, RuntimeError):
    """A session was used after it was closed, in a forked child, or otherwise out of order."""


class UsageError(GraphcoreError, TypeError):
    """A function was called with arguments that make no sense together."""
