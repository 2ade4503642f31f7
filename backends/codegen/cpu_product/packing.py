"""Panels of a product's operands on CPUs: the geometry of its blocks and tiles, and how they are packed."""

from __future__ import annotations

from collections.abc import Iterator

from backends.codegen.cpu_product.schedule import GemmConfig, Operand, Terms, added
from backends.codegen.language import Language, Space

__all__ = ["Panels", "block", "indent", "pieces", "up"]


def literal(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def pieces(begin: int, end: int, width: int) -> Iterator[tuple[int, int]]:
    """Yields (start, width) of vectors, each at most ``width`` wide, that cover ``begin`` to ``end``."""
    while begin < end:
        while width > end - begin or width == 2:
            width //= 2
        yield begin, width
        begin += width


def indent(lines: list[str], levels: int = 1) -> list[str]:
    return [" " * (4 * levels) + line for line in lines]


def block(head: str, body: list[str]) -> list[str]:
    return [f"{head} {{", *indent(body), "}"]


class Panels:
    """A product's sizes, and the text that copies panels of its operands to private arrays in the order of reading."""

    def __init__(
        self, language: Language, config: GemmConfig, dims: tuple[str, str, str], a: Operand, b: Operand
    ) -> None:
        self.language, self.config, self.dims, self.a, self.b = language, config, dims, a, b
        self.m, self.n, self.k = (literal(text) for text in dims)
        self.mr = min(config.mr, self.m) if self.m and not config.pack_a else config.mr
        self.nr, self.width = config.nr, config.width
        self.nv = self.nr if config.dot else self.nr // self.width
        self.vector = language.vector(config.dtype, self.width)
        self.kb = self.k_block()
        # Several blocks of K: the block's accumulators wait in a private array while the next panels are packed.
        self.blocked = self.kb > 0 and (self.k is None or self.k > self.kb)
        self.edge_only = self.n is not None and self.n < self.nr
        self._check()

    def stored(self, array: str, index: str, value: str, width: int) -> str:
        """Returns the statement that stores ``width`` elements in a private array."""
        place = self.language.deref(f"gm_v{width}", f"{array} + {index}", Space.PRIVATE)
        return f"{place} = {value};" if width > 1 else f"{array}[{index}] = {value};"

    def left(self, i: Terms, j: Terms, width: int) -> str:
        """Returns ``width`` elements of A from (i, j)."""
        return self.a.at(self.language, i, j, width)

    def right(self, i: Terms, j: Terms, width: int) -> str:
        """Returns ``width`` elements of B from (i, j)."""
        return self.b.at(self.language, i, j, width)

    def k_block(self) -> int:
        if self.config.k_block:
            return min(self.config.k_block, self.k) if self.k else self.config.k_block
        return self.k or 0 if self.config.pack_a or self.config.pack_b else 0

    def _check(self) -> None:
        config, packs = self.config, self.config.pack_a or self.config.pack_b
        if packs and not self.kb:
            raise ValueError("packing with a K known only at run time needs k_block")
        if self.blocked and not (config.m_block and config.n_block):
            raise ValueError("several blocks of K need m_block and n_block, which bound the waiting sums")
        if not config.pack_b and (self.n is None or self.n < self.nr):
            raise ValueError(f"without pack_b N must be a literal of at least nr = {self.nr}, not {self.dims[1]}")
        if config.dot and not (self.a.col == 1 and self.b.row == 1):
            raise ValueError("a dot schedule needs both operands contiguous along K")
        if not config.dot and not config.pack_b and self.b.col != 1:
            raise ValueError("without pack_b the rows of B must be contiguous")

    def remainder(self, unroll: int) -> bool:
        """Whether the number of terms may be no multiple of ``unroll``."""
        if self.k is None or self.config.split_k > 1:
            return True
        return self.k % unroll != 0 or (self.blocked and self.kb % unroll != 0)

    def pack_a_block(self) -> list[str]:
        """Copies all strips of the task. Contiguous columns are read whole, across the strips."""
        strips = f"for (int gm_i0 = gm_ib; gm_i0 < gm_ie; gm_i0 += {self.mr})"
        if self.a.row != 1:
            return block(strips, self.pack_a())
        return block("for (int gm_p = 0; gm_p < gm_kc; ++gm_p)", block(strips, self._pack_a_column()))

    def pack_a(self) -> list[str]:
        """Copies the strip of mr rows at gm_i0 to gm_as as [k][row]."""
        if self.a.load is not None and self.a.col == 1:
            return self._pack_a_turned()
        return block("for (int gm_p = 0; gm_p < gm_kc; ++gm_p)", self._pack_a_column())

    def _pack_a_column(self) -> list[str]:
        """Copies term gm_p of the strip at gm_i0; rows beyond the matrix repeat the last one."""
        mr, a = self.mr, self.a
        at = f"{added(self.strip(), f'gm_p * {mr}')}"
        k = ("(gm_k0 + gm_p)",)
        full = []
        for r, width in pieces(0, mr, self.width if a.row == 1 else 1):
            value = self.left(("gm_i0", str(r)), k, width)
            place = added(at, str(r))
            full.append(self.stored("gm_as", place, value, width))
        if self.m and self.m % mr == 0:
            return full
        row = ("min(gm_i0 + gm_r, gm_m - 1)",)
        edge = [f"for (int gm_r = 0; gm_r < {mr}; ++gm_r) gm_as[{at} + gm_r] = {self.left(row, k, 1)};"]
        return [*block(f"if (gm_i0 + {mr} <= gm_m)", full), *block("else", edge)]

    def _pack_a_turned(self) -> list[str]:
        """Row by row, so that a fused load computes whole vectors; their lanes are scattered."""
        mr, width, at = self.mr, self.width, added(self.strip(), "gm_r")
        row = ("min(gm_i0 + gm_r, gm_m - 1)",)
        body = [
            f"const {self.vector} gm_x = {self.left(row, ('(gm_k0 + gm_p)',), width)};",
            *(f"gm_as[{at} + (gm_p + {t}) * {mr}] = {self.language.lane('gm_x', t)};" for t in range(width)),
        ]
        loops = ["int gm_p = 0;", *block(f"for (; gm_p + {width} <= gm_kc; gm_p += {width})", body)]
        if self.remainder(width):
            value = self.left(row, ("(gm_k0 + gm_p)",), 1)
            loops.append(f"for (; gm_p < gm_kc; ++gm_p) gm_as[{at} + gm_p * {mr}] = {value};")
        return block(f"for (int gm_r = 0; gm_r < {mr}; ++gm_r)", loops)

    def strip(self) -> str:
        """Where the strip of gm_i0 starts in gm_as: strips of one task lie one after the other."""
        return f"(gm_i0 - gm_ib) / {self.mr} * {self.strip_size()}" if self.config.m_block else "0"

    def strip_size(self) -> int:
        """Elements from strip to strip; the odd cache line keeps strips out of each other's cache sets."""
        return up(self.kb * self.mr, self.width) + (self.width if self.config.m_block else 0)

    def pack_b(self) -> list[str]:
        """Copies the panel of nr columns at gm_js to gm_pb as [k][column]."""
        if self.edge_only:
            return self._pack_b_edge(self.n or 0)
        whole = (
            self._pack_b_rows()
            if self.b.col == 1
            else self._pack_b_turned()
            if self.b.row == 1
            else self._pack_b_scalars(f"{self.nr}")
        )
        if self.n is not None:
            return whole
        return [*block(f"if (gm_n >= {self.nr})", whole), *block("else", self._pack_b_scalars("gm_n"))]

    def _pack_b_rows(self) -> list[str]:
        row = ("(gm_k0 + gm_p)",)
        body = [
            f"gm_pb[gm_p * {self.nv} + {v}] = {self.right(row, ('gm_js', str(v * self.width)), self.width)};"
            for v in range(self.nv)
        ]
        return block("for (int gm_p = 0; gm_p < gm_kc; ++gm_p)", body)

    def _pack_b_turned(self) -> list[str]:
        """Transposes squares of width x width elements in registers."""
        width, nv = self.width, self.nv
        body = [
            f"{self.vector} gm_t{t} = {self.right(('(gm_k0 + gm_p)',), (f'(gm_js + gm_v * {width})', str(t)), width)};"
            for t in range(width)
        ]
        body += transpose(self.language, [f"gm_t{t}" for t in range(width)], self.config.dtype)
        body += [f"gm_pb[(gm_p + {t}) * {nv} + gm_v] = gm_t{t};" for t in range(width)]
        scalars = block(
            "for (int gm_q = gm_p; gm_q < gm_kc; ++gm_q)",
            [
                (
                    f"for (int gm_r = 0; gm_r < {width}; ++gm_r) gm_bs[gm_q * {self.nr} + gm_v * {width} + gm_r] = "
                    f"{self.right(('(gm_k0 + gm_q)',), (f'(gm_js + gm_v * {width} + gm_r)',), 1)};"
                )
            ],
        )
        return block(
            f"for (int gm_v = 0; gm_v < {nv}; ++gm_v)",
            [
                "int gm_p = 0;",
                *block(f"for (; gm_p + {width} <= gm_kc; gm_p += {width})", body),
                *(scalars if self.remainder(width) else []),
            ],
        )

    def _pack_b_scalars(self, columns: str) -> list[str]:
        """Element by element; columns beyond the matrix become zeros."""
        value = self.right(("(gm_k0 + gm_p)",), ("(gm_js + gm_r)",), 1)
        if columns == str(self.nr):
            loop = [f"for (int gm_r = 0; gm_r < {columns}; ++gm_r) gm_bs[gm_p * {self.nr} + gm_r] = {value};"]
        else:
            value = f"gm_r < {columns} ? {value} : 0"
            loop = [f"for (int gm_r = 0; gm_r < {self.nr}; ++gm_r) gm_bs[gm_p * {self.nr} + gm_r] = {value};"]
        return block("for (int gm_p = 0; gm_p < gm_kc; ++gm_p)", loop)

    def _pack_b_edge(self, columns: int) -> list[str]:
        """A matrix narrower than one panel."""
        if self.b.col != 1:
            return self._pack_b_scalars(str(columns))
        row = ("(gm_k0 + gm_p)",)
        body = []
        for start, width in [*pieces(0, columns, self.width), *pieces(columns, self.nr, self.width)]:
            place = added(f"gm_p * {self.nr}", str(start))
            zero = self.language.splat("0", self.config.dtype, width) if width > 1 else "0"
            value = self.right(row, (str(start),), width) if start < columns else zero
            body.append(self.stored("gm_bs", place, value, width))
        return block("for (int gm_p = 0; gm_p < gm_kc; ++gm_p)", body)


def transpose(language: Language, names: list[str], kind: str) -> list[str]:
    """Returns statements that transpose the square held by vectors ``names``: swap halves of halves of ... blocks."""
    width, out, lane = len(names), [], language.lane
    vector, step = language.vector(kind, width), 1
    while step < width:
        for i in (i for i in range(width) if not i & step):
            x, y = names[i], names[i + step]
            low = language.lanes([lane(y, c - step) if c & step else lane(x, c) for c in range(width)], kind)
            high = language.lanes([lane(y, c) if c & step else lane(x, c + step) for c in range(width)], kind)
            out.append(f"{{ const {vector} gm_x = {low}; {y} = {high}; {x} = gm_x; }}")
        step *= 2
    return out
