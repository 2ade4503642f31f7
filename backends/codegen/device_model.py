"""What code generation needs to know of a device."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from backends.codegen.cnames import register_bytes
from backends.codegen.device_costs import costs_of
from backends.codegen.language import Language
from backends.codegen.recognition import recognised
from backends.codegen.texts import Texts
from graphcore.base.dtypes import int32
from graphcore.kernel.expr import Expr
from graphcore.kernel.ir import Kernel
from graphcore.plan.costs import CostModel

__all__ = ["DeviceModel", "narrow_positions"]


@dataclass(frozen=True)
class DeviceModel:
    """A device as schedules and emitters see it, and the language that its code is written in.

    On GPUs ``group`` is the work items of every work-group (a power of two) and ``local_memory`` the bytes that one may
    use.
    """

    language: Language
    vendor: str
    width: int
    half: bool = False
    cores: int = 1
    device: str = ""
    kind: str = "cpu"
    group: int = 1
    local_memory: int = 0

    @cached_property
    def costs(self) -> CostModel:
        """What the device takes for work."""
        return costs_of(self.vendor, self.kind, self.cores, self.width)

    @cached_property
    def texts(self) -> Texts:
        """What was written for the device and is not a program yet."""
        return Texts()

    @property
    def is_cpu(self) -> bool:
        return self.kind == "cpu"

    @property
    def is_gpu(self) -> bool:
        return self.kind == "gpu"

    def lanes(self, kernel: Kernel) -> int:
        """Lanes of a vector of this kernel: as many float32, fewer when its loops touch wider elements."""
        narrow = narrow_positions(kernel)
        widest = max((register_bytes(v.dtype) for v in kernel.values() if v.axes and v not in narrow), default=4)
        args = [v for v in kernel.reductions() if v.combine.startswith("arg") and v not in narrow]
        if kernel.wide or args:  # vectors of positions
            widest = 8
        return max(1, self.width * 4 // max(widest, 4))


@recognised
def narrow_positions(kernel: Kernel) -> frozenset[Expr]:
    """Positions (of a largest element, say) that are used as int32 only: registers hold them as such."""
    wide = {s.value for s in kernel.stores}
    wide.update(a for v in kernel.values() for a in v.args if not (v.fn == "cast" and v.dtype == int32))
    return frozenset(v for v in kernel.reductions() if v.combine.startswith("arg") and v not in wide)
