"""What a matrix product on a CPU does: operations of its register tiles, packing, and the epilogue."""

from __future__ import annotations

from backends.codegen.amounts import Amounts, below
from backends.codegen.cpu_product.product import Product, find_product, is_plain
from backends.codegen.cpu_product.schedule import GemmConfig
from backends.codegen.nest.schedule import blocks
from graphcore.base.shapes import Extent, product
from graphcore.kernel.expr import Expr
from graphcore.kernel.index import Axis
from graphcore.kernel.ir import Kernel
from graphcore.plan.costs import Work

__all__ = ["product_work"]

_LATENCY = 4  # multiply-adds that must be under way for one to begin in every cycle
_COPIED, _TURNED = 2, 6  # instructions for a vector of a panel: as it lies, and transposed with its neighbours


def product_work(kernel: Kernel, config: GemmConfig) -> Work:
    """The work of all of a kernel's products, for any sizes."""
    found = find_product(kernel)
    assert isinstance(found, Product)
    m, n, k = _extent(found.row), _extent(found.col), found.term.extent
    batch = product(a.extent for a in found.batch)
    down, across = blocks(m, config.mr), blocks(n, config.nr)
    amounts = Amounts(kernel, found.col, config.width)
    # A step of the tile is bound by its multiply-adds, by the loads that they need, or by the adders' latency.
    vectors = config.nr if config.dot else config.nr // config.width
    cycles = max(config.mr * vectors, config.mr + vectors, _LATENCY)
    terms = blocks(k, config.width) * config.width if config.dot else k
    lanes = 1 if config.dot else config.width
    products = batch * down * across * terms * (2 * lanes * cycles)
    rounds = blocks(k, config.k_block) if config.k_block else 1
    amounts.instructions = batch * down * across * rounds * (2 * config.mr * vectors)  # sums to memory and back
    repeats = blocks(n, config.nr * (config.n_block if config.m_block else 1)) if config.n_block else 1
    _load(amounts, found.left, found.row, found.term, config.pack_a, batch * down * config.mr * k, repeats)
    repeats = blocks(m, config.mr * config.m_block) if config.m_block else 1
    _load(amounts, found.right, found.col, found.term, config.pack_b, batch * across * config.nr * k, repeats)
    _finish(amounts, found, batch * m * blocks(n, config.width))
    return amounts.work(products, found.total.dtype.name)


def _extent(axis: Axis | None) -> Extent:
    return 1 if axis is None else axis.extent


def _load(
    amounts: Amounts, factor: Expr, own: Axis | None, term: Axis, packed: bool, elements: Extent, repeats: Extent
) -> None:
    """Count an operand: what of memory it is made of, and, where it is packed, making its panels."""
    for value in below(factor):
        if value.fn == "load":
            amounts.touch(value.param, value.index)
    if not packed:
        return
    vectors = blocks(elements, amounts.width) * repeats
    if not is_plain(factor, own, term):
        loops = Amounts(amounts.kernel, term, amounts.width)
        for value in below(factor):
            loops.value(value, vectors)
        amounts.add(loops)
        amounts.instructions = amounts.instructions + vectors * _COPIED
    elif own is not None and factor.index.stride(own) == 1:
        amounts.instructions = amounts.instructions + vectors * _COPIED
    elif factor.index.stride(term) == 1:
        amounts.instructions = amounts.instructions + vectors * _TURNED
    else:
        amounts.scattered = amounts.scattered + elements * repeats


def _finish(amounts: Amounts, found: Product, vectors: Extent) -> None:
    """Count what is made of the sums, vector by vector."""
    stores = amounts.kernel.stores
    for value in below(*(s.value for s in stores), stop=found.total):
        amounts.value(value, vectors)
    for store in stores:
        amounts.access(store.param, store.index, vectors)
    amounts.instructions = amounts.instructions + vectors * 2
