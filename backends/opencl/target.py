"""OpenCL devices as code generation and the passes see them."""

from __future__ import annotations

from dataclasses import replace

from backends.codegen.device_model import DeviceModel
from backends.codegen.target import target_of
from backends.opencl.device.device import DeviceInfo
from backends.opencl.language import language_of
from backends.opencl.memory import section_bytes
from graphcore.plan.target import Target

__all__ = ["device_model", "make_target"]

_GROUP = 256  # work items of every work-group on GPUs, where the device allows as many
# GPUs where a work item should load vectors. Elsewhere four scalar loads of neighbouring work items coalesce at least
# as well as vectors whose alignment the compiler does not know.
_VECTOR_GPUS = ("intel", "arm", "qualcomm")


def device_model(info: DeviceInfo) -> DeviceModel:
    """Code generation's view of a device."""
    language = language_of(info.vendor)
    if info.is_gpu:
        width = info.vector_width if info.vendor in _VECTOR_GPUS else 1
        group = 1 << (min(info.max_work_group, _GROUP).bit_length() - 1)
        return DeviceModel(
            language,
            info.vendor,
            width,
            "cl_khr_fp16" in info.extensions,
            info.compute_units,
            info.name,
            info.kind,
            group,
            info.local_mem,
        )
    return DeviceModel(
        language,
        info.vendor,
        info.vector_width,
        "cl_khr_fp16" in info.extensions,
        info.compute_units,
        info.name,
        info.kind,
    )


def make_target(info: DeviceInfo, model: DeviceModel | None = None) -> Target:
    """The passes' view of a device, with the families of schedules that are registered now.

    Args:
        info: the device.
        model: code generation's view of it, which then keeps the texts that were written to compare schedules.
    """
    mark = ":gpu" if info.is_gpu else ""
    name = f"opencl:{info.vendor}:{info.name}:{info.driver}:{info.vector_width}{mark}"
    return replace(
        target_of(model or device_model(info), name),
        vector_width=info.vector_width,
        local_memory=info.local_mem,
        max_alloc=section_bytes(info),
        memory=info.global_mem,
        fp64=info.fp64,
    )
