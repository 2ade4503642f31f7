"""The families of schedules, in the order in which they are asked; the loop nest comes last and takes what all others
refuse.

Other packages add their own: by ``register`` while a program runs, or by an entry point of the group
``graphcore.families`` for everyone who has them installed. It names a function that is given ``register``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from types import MappingProxyType

from backends.codegen.cpu_conv.family import Convolution, ConvolutionWeightSums
from backends.codegen.cpu_product.family import Matmul
from backends.codegen.device_model import DeviceModel
from backends.codegen.family import Family
from backends.codegen.gpu_product.family import GpuMatmul
from backends.codegen.gpu_rows.family import GpuRows
from backends.codegen.nest.family import Nest
from backends.codegen.scatter.family import Scatter
from backends.codegen.scatter.gpu_sort import GpuSort
from backends.codegen.scatter.rows import ScatterRows
from backends.codegen.scatter.sort import ScatterSort
from graphcore.base.errors import UsageError

__all__ = ["BY_NAME", "GROUP", "identity", "register", "registered", "schedulers"]

GROUP = "graphcore.families"  # of entry points

_NEST = Nest()
_OWN: tuple[Family, ...] = (
    Convolution(),
    ConvolutionWeightSums(),
    Matmul(),
    Scatter(),
    ScatterSort(),
    GpuSort(),
    ScatterRows(),
    GpuMatmul(),
    GpuRows(),
    _NEST,
)
_NEEDED = ("candidates", "emit", "tasks", "work")  # what a family has to write itself

_order: list[Family] = list(_OWN)
_by_name: dict[str, Family] = {f.name: f for f in _OWN}
_lock = threading.RLock()
_loaded = False  # whether the entry points have been called
BY_NAME: Mapping[str, Family] = MappingProxyType(_by_name)


def register(family: Family, *, before: str = _NEST.name) -> None:
    """Have a family asked about kernels, in all sessions that are opened from now on.

    Args:
        family: an instance of a subclass of ``backends.codegen.family.Family``.
        before: the name of the family before which it is asked: it takes over what it does not reject. By default only
            the loop nest comes after it.

    Raises:
        UsageError: it is no family, lacks a method, or has another's name; or ``before`` names none.
    """
    with _lock:
        _load_installed()
        _add(family, before)


@contextmanager
def registered(family: Family, *, before: str = _NEST.name) -> Iterator[None]:
    """A family for sessions that are opened, used and closed inside the block: to try it."""
    register(family, before=before)
    try:
        yield
    finally:
        with _lock:
            _order.remove(family)
            del _by_name[family.name]


def schedulers(device: DeviceModel) -> tuple[Family, ...]:
    """What is asked about a device's kernels, in order."""
    with _lock:
        _load_installed()
        return tuple(f for f in _order if f.serves(device))


def identity() -> str:
    """What tells programs of this set of families from those of others: empty where all are graphcore's own."""
    with _lock:
        _load_installed()
        return " ".join(f"{f.name}={_class_name(f)}@{f.version}" for f in _order if f not in _OWN)


def _add(family: Family, before: str) -> None:
    if isinstance(family, type) and issubclass(family, Family):
        raise UsageError(f"register takes an instance: write register({family.__name__}(), ...)")
    if not isinstance(family, Family):
        raise UsageError(
            f"register takes a family of schedules, not {type(family).__name__}: extend backends.codegen.family.Family"
        )
    missing = [name for name in _NEEDED if _is_inherited(type(family), name)]
    if missing:
        raise UsageError(f"the family {_class_name(family)} does not define {', '.join(missing)}: write these methods")
    name = vars(type(family)).get("name", vars(family).get("name"))
    if not isinstance(name, str) or not name:
        raise UsageError(
            f"the family {_class_name(family)} has no name of its own: set name = '...', by which plans know it"
        )
    if name in _by_name:
        raise UsageError(
            f"there is a family {name!r} already, {_class_name(_by_name[name])}: {_class_name(family)} needs another "
            f"name, or is registered twice"
        )
    if before not in _by_name:
        raise UsageError(f"{name} cannot be asked before {before!r}: there are {', '.join(f.name for f in _order)}")
    _order.insert(_order.index(_by_name[before]), family)
    _by_name[name] = family


def _is_inherited(found: type[Family], method: str) -> bool:
    """Whether a class has a method from ``Family`` itself, where it only stands for the subclass's."""
    return next(c for c in found.__mro__ if method in vars(c)) is Family


def _class_name(family: Family) -> str:
    return f"{type(family).__module__}.{type(family).__qualname__}"


def _load_installed() -> None:
    """Call the entry points of installed packages, once, in the order of their names; what one that fails has
    registered is taken back."""
    global _loaded
    if _loaded:
        return
    _loaded = True  # they call register
    before = list(_order)
    try:
        for entry in sorted(metadata.entry_points(group=GROUP), key=lambda e: e.name):
            try:
                found: Callable[[Callable[..., None]], None] = entry.load()
                if not callable(found):
                    raise UsageError(f"it names a {type(found).__name__}, and must name a function that calls register")
                found(register)
            except Exception as error:
                error.add_note(f"in the entry point {entry.name} of {GROUP} ({entry.value})")
                raise
    except BaseException:
        _loaded = False
        _order[:] = before
        _by_name.clear()
        _by_name.update({f.name: f for f in before})
        raise
