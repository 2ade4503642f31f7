"""The languages of OpenCL's runtimes: OpenCL C with each one's quirks."""

from __future__ import annotations

from backends.codegen.language import Quirks
from backends.codegen.opencl_c import OpenCL

__all__ = ["language_of"]

# By Khronos' line, products and sums reach Intel's optimiser as calls of mad, which it has to look up and to inline.
_INTEL_CONTRACT = "#pragma clang fp contract(fast)"
_LANGUAGES = {
    "intel": OpenCL(
        Quirks(vectorizes_sums=True, inexact_fmod=True, merges_sincos=True, unrolls_at_length=True),
        contract=_INTEL_CONTRACT,
    ),
    "pocl": OpenCL(
        Quirks(
            calls_fma=True,
            calls_any=True,
            inexact_fmod=True,
            short_vectors_differ=True,
            own_pow=True,
            lanes_spoil_sines=True,
            tanh_below_one=True,
        )
    ),
}


def language_of(vendor: str) -> OpenCL:
    """The language of a runtime by the key in ``DeviceInfo.vendor``; one that nothing is known of has no quirks."""
    return _LANGUAGES.get(vendor, OpenCL())
