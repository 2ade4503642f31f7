"""Schedules of CPU matrix products: what can be chosen, and what to choose.

The numbers behind ``choose`` were measured per core on Zen 4 (AVX-512 through the Intel runtime, AVX2 through PoCL);
where Intel's cores are known to behave otherwise (they suffer more from rows whose distance is a power of two) the
processor's name decides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from backends.codegen.language import Language
from backends.codegen.nest.schedule import blocks
from graphcore.base.shapes import Extent

__all__ = ["PANEL", "GemmConfig", "Operand", "added", "choose", "menu", "tasks", "times"]

PANEL = 128  # rows or columns of one operand that share a load of the other one from memory

Load = Callable[[str, str, int], str]
Terms = tuple[str, ...]
"""Summands of an index in C, each a name, a number or parenthesised."""


@dataclass(frozen=True)
class Operand:
    """A matrix in memory: element (i, j) is at ``pointer[i * row + j * col]``.

    Args:
        pointer: C expression of a pointer to constant elements in global memory.
        row: distance between rows, in elements.
        col: distance between columns, in elements.
        load: if given, ``load(i, j, width)`` returns the C expression of ``width`` elements from (i, j), along the
            direction whose distance is 1 (a light prologue such as a cast, a scale or a gather); the pointer is then
            unused, and distances other than 1 say nothing. Vector widths other than 1 are 4, 8 and 16.
    """

    pointer: str
    row: int
    col: int
    load: Load | None = None

    def at(self, language: Language, i: Terms, j: Terms, width: int) -> str:
        """Returns the C expression of ``width`` elements that start at (i, j), each given by its summands."""
        if self.load is not None:
            return self.load(added(*i), added(*j), width)
        index = added(*(times(t, self.row) for t in i), *(times(t, self.col) for t in j))
        if width == 1:
            return f"{self.pointer}[{index}]"
        return language.deref(f"gm_v{width}", f"{self.pointer} + ({index})", const=True)


def added(*terms: str) -> str:
    """Returns a C sum without its zero terms."""
    kept = [term for term in terms if term not in ("0", "")]
    return " + ".join(kept) if kept else "0"


def times(index: str, factor: int) -> str:
    """Returns ``index * factor`` in C, for an ``index`` that is a name, a number or parenthesised."""
    if factor == 0 or index == "0":
        return "0"
    if index.isdigit():
        return str(int(index) * factor)
    return index if factor == 1 else f"{index} * {factor}"


@dataclass(frozen=True)
class GemmConfig:
    """The schedule of one product.

    Args:
        mr: rows of a register tile.
        nr: columns of a register tile, in elements; a multiple of ``width`` unless ``dot``.
        width: elements of a vector.
        k_block: terms summed before the next panel is packed; 0 = all at once (needs a literal K where packing).
        k_unroll: terms per turn of the inner loop.
        m_block: tiles per task downwards; 0 = all rows.
        n_block: tiles per task across; 0 = all columns.
        pack_a: copy strips of A to a private array.
        pack_b: copy panels of B to a private array.
        split_k: number of parts the sum is split into, each a task of its own (see ``emit_gemm``).
        dot: vectors run along K instead of along the columns (few rows times a transposed matrix).
        dtype: "float" or "double".
    """

    mr: int
    nr: int
    width: int
    k_block: int = 0
    k_unroll: int = 2
    m_block: int = 0
    n_block: int = 1
    pack_a: bool = False
    pack_b: bool = False
    split_k: int = 1
    dot: bool = False
    dtype: str = "float"

    def __post_init__(self) -> None:
        if min(self.mr, self.nr, self.width, self.k_unroll, self.split_k) < 1:
            raise ValueError(f"sizes must be positive: {self}")
        if self.width not in (2, 4, 8, 16) or (not self.dot and self.nr % self.width):
            raise ValueError(f"nr must be a multiple of a vector width of 2, 4, 8 or 16: {self}")
        if self.dot and (self.pack_a or self.pack_b or self.k_block):
            raise ValueError(f"a dot schedule neither packs nor blocks: {self}")


def tasks(config: GemmConfig, m: Extent, n: Extent) -> Extent:
    """Returns the number of independent tasks that cover an (m, n) output."""
    down = blocks(m, config.mr * config.m_block) if config.m_block else 1
    across = blocks(n, config.nr * config.n_block) if config.n_block else 1
    return down * across * config.split_k


_MOST_TILES = 3  # that are ranked for one product
_PACKED = 128 * 1024  # bytes: what one private array may take of the second-level cache and of the stack


def choose(
    m: int,
    n: int,
    k: int,
    a: Operand,
    b: Operand,
    width: int,
    cores: int,
    vendor: str,
    dtype: str = "float",
    literal_n: bool = True,
    splits: int = 1,
    task: int = 65536,
    *,
    rank: int = 0,
) -> GemmConfig:
    """Returns a good schedule; it is valid also for other values of M and K, which may be known only at run time.

    Args:
        m: rows of the output that are typical.
        n: columns of the output.
        k: terms of each sum that are typical.
        a: the left matrix.
        b: the right matrix.
        width: elements of the device's fastest vector of ``dtype``.
        cores: compute units that work at the same time.
        vendor: text that names the processor, such as the device's name and vendor together.
        dtype: "float" or "double".
        literal_n: whether N is known when the text is built.
        splits: the largest ``split_k`` that the caller can sum up afterwards.
        task: multiply-adds that are worth a task of their own.
        rank: which of the register tiles to take, 0 for the best; of those that there are, the last for a higher one.
    """
    amd = "amd" in vendor.lower()
    if a.col == 1 and b.row == 1 and b.col != 1 and m <= 24 and k >= 2 * width and n >= 8 and literal_n:
        return _choose_dot(m, n, k, width, cores, dtype, task)
    wide = _wide(width, dtype)
    turned_a = a.row == 1 and a.col != 1  # a weight gradient: A's columns are contiguous
    pack_a = turned_a and wide and k >= (512 if amd else 256) and m >= 32
    pack_a = pack_a or (a.load is not None and n > 2 * width)
    # A panel of B that few rows use is read where it lies.
    few = 160 if amd and k <= 1024 else 40
    pack_b = not literal_n or b.col != 1 or (m > few and (k >= 512 and not wide if turned_a else True))
    pack_b = pack_b or (b.load is not None and m > 16)
    tiles = _ranked_tiles(m, n, width, cores, dtype, amd, pack_b)
    mr, nr = tiles[min(rank, len(tiles) - 1)]
    pack_b = pack_b or n < nr
    element = 8 if dtype == "double" else 4
    k_block = 0
    if pack_a:
        k_block = _even(k, 256)
    elif pack_b:
        k_block = _even(k, 256 if turned_a else _PACKED // (nr * element))
    down, across = -(-m // mr), -(-n // nr)
    want = max(1, min(4 * cores, m * n * k // task))
    if turned_a and wide and not pack_a and not pack_b and down >= 2 * want:
        # Two strips of A stay in the first-level cache while all of B passes.
        return _split(GemmConfig(mr, nr, width, 0, 2, 2, 0, dtype=dtype), m, n, k, cores, splits)
    n_block = max(1, min(8, across * down // (8 * want))) if pack_a else 1
    most = (64 if pack_a else 512 if pack_b else 128) // mr  # tiles downwards: accumulators and A stay in the cache
    m_block = max(1, min(down, most, down // max(1, -(-want * n_block // across))))
    config = GemmConfig(mr, nr, width, k_block, 2, m_block, n_block, pack_a, pack_b, dtype=dtype)
    return _split(config, m, n, k, cores, splits)


def menu(*args: Any, **options: Any) -> tuple[GemmConfig, ...]:
    """Returns what can be chosen, the schedule of ``choose`` first, then those with other register tiles.

    Takes the arguments of ``choose``. With ``splits`` 1 none of them changes the bits of the product: every tile adds
    terms up in their order, whatever the blocks, and whether a schedule is a dot one does not depend on the tile. They
    do change those of sums that are gathered in the epilogue, block of rows by block of rows.
    """
    found = (choose(*args, **options, rank=rank) for rank in range(_MOST_TILES))
    return tuple(dict.fromkeys(found))


def _wide(width: int, dtype: str) -> bool:
    """Whether vectors have 64 bytes, which comes with 32 registers for them rather than 16."""
    return width * (8 if dtype == "double" else 4) >= 64


def _choose_dot(m: int, n: int, k: int, width: int, cores: int, dtype: str, task: int) -> GemmConfig:
    mr, nr = (1, 8) if m == 1 else (2, 4) if m == 2 else (4, 4)
    want = max(1, min(4 * cores, m * n * k // task))
    return GemmConfig(mr, nr, width, 0, 1, 0, max(1, n // nr // want), dot=True, dtype=dtype)


def _ranked_tiles(m: int, n: int, width: int, cores: int, dtype: str, amd: bool, pack_b: bool) -> list[tuple[int, int]]:
    """Returns the tiles (mr, nr) that fit the registers, those with the least padding and idle time first."""
    wide = _wide(width, dtype)
    if m < (8 if wide else 4):
        vectors = {1: 8, 2: 8, 3: 6, 4: 4, 5: 4, 6: 4}.get(m, 3) if wide else {1: 8, 2: 4}.get(m, 3)
        while vectors > 1 and (vectors * width > n or n * 2 < cores * vectors * width):
            vectors //= 2
        return [(m, vectors * width)]
    if wide:
        tiles = [(8, 2, 1.0 if amd else 1.04), (8, 3, 1.01 if amd else 1.0), (8, 1, 1.1)]
    else:
        tiles = [(4, 3, 1.0), (6, 2, 1.06), (8, 1, 1.2)]

    def cost(tile: tuple[int, int, float]) -> float:
        mr, vectors, factor = tile
        panels = -(-n // (vectors * width))
        parts = panels * max(1, -(-m // 512)) if pack_b else 64
        idle = -(-parts // cores) * cores / parts if parts >= cores else 1.0
        return factor * idle * (-(-m // mr) * mr) * (panels * vectors * width)

    return [(mr, vectors * width) for mr, vectors, _ in sorted(tiles, key=cost)]


def _even(k: int, limit: int) -> int:
    """Returns the block that cuts ``k`` terms into equal parts of at most ``limit``, a multiple of 16 if cut."""
    if k <= limit:
        # A batch of another size must not pack more than the limit either.
        return max(k, min(limit, 256))
    parts = -(-k // limit)
    return min(limit, -(-k // (parts * 16)) * 16)


def _split(config: GemmConfig, m: int, n: int, k: int, cores: int, splits: int) -> GemmConfig:
    """Splits the sum of a small output with many terms, so that every core has work."""
    parts = min(splits, 4 * cores // int(tasks(config, m, n)), k // 1024)
    return replace(config, split_k=parts) if parts > 1 else config
