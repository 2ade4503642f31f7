"""Contractions on GPUs: tiles in local memory, a small block of sums in every work item's registers, any elementwise
epilogue.

A contraction is one sum of products over any number of axes. The axes of the result that only one factor depends on are
its rows, those that only the other depends on its columns, those of both its batch. Factors are arbitrary expressions:
what is loaded into a tile is whatever the kernel's body says, guards and divided indices included. So products of
matrices, batched or transposed, and convolutions with both their gradients (as implicit products) are one piece of
code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backends.codegen.amounts import Amounts, below
from backends.codegen.cnames import register_bytes
from backends.codegen.device_model import DeviceModel
from backends.codegen.family import Family
from backends.codegen.gpu_product.shape import TileConfig, TiledProduct, find_contraction
from backends.codegen.gpu_product.tiles import product_text
from backends.codegen.language import Space
from backends.codegen.nest.schedule import blocks
from backends.codegen.sharing import among_groups, at_most
from backends.codegen.template import NAME, signature
from graphcore.base.shapes import Extent, bind, product
from graphcore.kernel.index import Axis
from graphcore.kernel.ir import Kernel
from graphcore.plan.costs import Work
from graphcore.plan.target import Reject, Sharing

__all__ = ["GpuMatmul", "choose_tile", "tiles_of"]

_SMALLEST = 8  # rows or columns below which a tile is mostly empty
_SHORTEST = 8  # terms below which the tiles are not used again
_GROUPS_PER_CORE = 16
_BUSY = 2  # tiles a multiprocessor that keep it busy
_RESULTS = ((8, 8), (8, 4), (4, 8), (4, 4), (4, 2), (2, 4), (2, 2))  # of a work item: rows, columns
_DEPTHS = ((16, 2), (8, 2), (16, 1), (8, 1))  # terms in local memory, and how many blocks of them, the best first
_BESIDE_OTHERS = 32  # results of a work item where its registers hold more than them and the factors
_REGISTERS = 32  # bytes of a work item's elements of one factor
_VECTOR_BYTES = 16  # that one load from local memory brings
# Per cent of the peak that the inner loop allows, by the results of a work item: of the last places none, so that the
# work of twice as many tiles is twice the work.
_SHARES = {(8, 8): 80, (8, 4): 64, (4, 8): 64, (4, 4): 50, (4, 2): 40, (2, 4): 40, (2, 2): 25}


def tiles_of(itemsize: int, model: DeviceModel) -> list[TileConfig]:
    """The tiles that a device can hold, the largest first."""
    across = 1
    while across * across < model.group:
        across *= 2
    down = model.group // across
    found = []
    for rows, cols in _RESULTS:
        if max(rows, cols) * itemsize > _REGISTERS:
            continue
        along, downward = (min(n, _VECTOR_BYTES // itemsize) for n in (cols, rows))
        for depth, buffers in _DEPTHS:
            config = TileConfig(across, down, rows, cols, depth, along, downward, buffers)
            if config.nbytes(itemsize) <= model.local_memory:
                found.append(config)
                break
    return found


def choose_tile(m: int, n: int, batch: int, itemsize: int, model: DeviceModel, bare: bool = True) -> TileConfig | None:
    """The tile with which the multiprocessor that has most to do is done first; None if the device can hold none.

    Only a ``bare`` product, of loaded factors and with nothing done to its results, leaves work items the registers for
    most results.
    """

    def turns(config: TileConfig) -> float:
        height, width = config.tile
        tiles = batch * -(-m // height) * -(-n // width)
        return -(-tiles // model.cores) * height * width / _SHARES[config.rows, config.cols]

    fitting = [t for t in tiles_of(itemsize, model) if bare or t.rows * t.cols <= _BESIDE_OTHERS]
    return min(fitting, key=turns, default=None)


class GpuMatmul(Family):
    """Sums of products on GPUs."""

    name = "gpu-matmul"
    choices = TileConfig

    def serves(self, model: DeviceModel) -> bool:
        return model.is_gpu

    def candidates(self, kernel: Kernel, model: DeviceModel, hints: Mapping[str, int]) -> Sequence[TileConfig] | Reject:
        found = find_contraction(kernel)
        if isinstance(found, Reject):
            return found
        m, n, k, batch = (_count(axes, hints) for axes in (found.rows, found.cols, found.terms, found.batch))
        if m < _SMALLEST or n < _SMALLEST or k < _SHORTEST:
            return Reject(f"{m}x{n}x{k} is too small for tiles")
        bare = {found.left.fn, found.right.fn} == {"load"} and all(s.value is found.total for s in kernel.stores)
        config = choose_tile(m, n, batch, register_bytes(found.total.dtype), model, bare)
        return Reject("its tiles do not fit the local memory") if config is None else [config]

    def local_bytes(self, kernel: Kernel, config: TileConfig, model: DeviceModel) -> int:
        return config.nbytes(register_bytes(_contraction(kernel).total.dtype))

    def tasks(self, kernel: Kernel, config: TileConfig, model: DeviceModel) -> Extent:
        """Work-groups: one a tile, but no more than keep the device busy."""
        return at_most(_tiles(_contraction(kernel), config), _GROUPS_PER_CORE * model.cores)

    def sharing(self, kernel: Kernel, config: TileConfig, model: DeviceModel, sizes: Mapping[str, int]) -> Sharing:
        tiles = int(bind(_tiles(_contraction(kernel), config), sizes))
        return among_groups(kernel, _BUSY * model.cores // max(tiles, 1), model, sizes)

    def work(self, kernel: Kernel, config: TileConfig) -> Work:
        found = _contraction(kernel)
        (height, width), terms, tiles = config.tile, _extent(found.terms), _tiles(found, config)
        amounts = Amounts(kernel, None, 1)
        loads = tiles * blocks(terms, config.depth) * config.depth  # of a row of both tiles
        for factor, side in ((found.left, height), (found.right, width)):
            for value in below(factor):
                amounts.value(value, loads * side)
        results = product(a.extent for a in kernel.axes)
        for value in below(*(s.value for s in kernel.stores), stop=found.total):
            amounts.value(value, results)
        for store in kernel.stores:
            amounts.access(store.param, store.index, results)
        operations = tiles * height * width * terms * 2
        return amounts.work(operations * 100 // _SHARES[config.rows, config.cols], found.total.dtype.name)

    def emit(self, kernel: Kernel, config: TileConfig, model: DeviceModel) -> str:
        body = "\n".join("  " + line for line in product_text(kernel, _contraction(kernel), config, model))
        return (
            f"GC_NOINLINE static void {NAME}({signature(model.language, kernel)}, const int task, const int tasks, "
            f"{model.language.pointer('char', Space.LOCAL)} pool) {{\n{body}\n}}\n"
        )


def _contraction(kernel: Kernel) -> TiledProduct:
    found = find_contraction(kernel)
    assert isinstance(found, TiledProduct)
    return found


def _tiles(found: TiledProduct, config: TileConfig) -> Extent:
    """How many tiles the result has."""
    height, width = config.tile
    return _extent(found.batch) * blocks(_extent(found.rows), height) * blocks(_extent(found.cols), width)


def _extent(axes: Sequence[Axis]) -> Extent:
    return product(a.extent for a in axes)


def _count(axes: Sequence[Axis], sizes: Mapping[str, int]) -> int:
    return int(bind(product(a.extent for a in axes), sizes))
