"""The languages of OpenCL's runtimes: OpenCL C with each one's quirks."""

from __future__ import annotations

from backends.codegen.language import Quirks
from backends.codegen.opencl_c import OpenCL

__all__ = ["language_of"]

_QUIRKS = {
    "intel": Quirks(vectorizes_sums=True, inexact_fmod=True, merges_sincos=True, unrolls_at_length=True),
    "pocl": Quirks(
        calls_fma=True,
        calls_any=True,
        inexact_fmod=True,
        short_vectors_differ=True,
        own_pow=True,
        lanes_spoil_sines=True,
        tanh_below_one=True,
    ),
}


def language_of(vendor: str) -> OpenCL:
    """The language of a runtime by the key in ``DeviceInfo.vendor``; one that nothing is known of has no quirks."""
    return OpenCL(_QUIRKS.get(vendor, Quirks()))
