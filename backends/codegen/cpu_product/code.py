"""Matrix products for CPU devices, as text.

One work item computes a block of the output, a register tile of ``mr`` x ``nr`` accumulators at a time (the scheme of
Goto and van de Geijn, "Anatomy of high-performance matrix multiplication"): panels of B, and where its rows are not
contiguous also strips of A, are copied to private arrays in the order in which the tile loop reads them.

Edges cost no second tile loop. The last tile of a row or column of tiles starts early enough to end at the matrix's
border and stores only what its neighbour has not: it may load twice, never store twice, so an epilogue that works in
place stays legal. Everything in this module is a pure function from sizes to text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from backends.codegen.cpu_product.packing import Panels, block, indent, up
from backends.codegen.cpu_product.schedule import GemmConfig, Operand, added, choose, tasks
from backends.codegen.language import Language, Space

__all__ = ["GemmConfig", "Operand", "choose", "emit_gemm", "tasks"]

Epilogue = Callable[[str, str, str, int], list[str]]

# The sums may use fused multiply-adds (``Language.contract``) even in a program that turns contraction off elsewhere.
# Not fma() or mad(): PoCL's library does not inline them (a factor of eight).


def emit_gemm(
    language: Language,
    name: str,
    params: str,
    config: GemmConfig,
    dims: tuple[str, str, str],
    a: Operand,
    b: Operand,
    epilogue: Epilogue,
    before: Sequence[str] = (),
    after: Sequence[str] = (),
) -> str:
    """Returns a C function ``name(params, int task)`` that computes one block of C[i, j] = sum_k A[i, k] B[k, j].

    The caller defines ``GC_NOINLINE`` and calls the function once for each task in ``range(tasks(config, M, N))``, in
    any order. Local names start with ``gm_``; of use to callbacks are the types ``gm_v4``, ``gm_v8`` and ``gm_v16``,
    vectors with the alignment of an element, for fast loads and stores such as ``Language.deref`` spells of them. With
    ``split_k`` > 1 the epilogue gets partial sums of part ``gm_split`` (an int from 0 to split_k - 1) and must keep the
    parts apart.

    Args:
        language: what it is written in.
        name: name of the function.
        params: C parameter list that declares everything the operands, the epilogue and ``dims`` mention.
        config: the schedule.
        dims: M, N and K, each an integer literal or the name of an int parameter.
        a: the left matrix, (M, K).
        b: the right matrix, (K, N).
        epilogue: ``epilogue(row, col, acc, width)`` returns the statements that consume C[row, col:col + width], held
            by the variable ``acc`` (a scalar if ``width`` is 1). It is called for full vectors and for each narrower
            width that the edges need.
        before, after: statements around all of a task's work, which covers rows gm_ib to gm_ie and columns gm_jb to
            gm_je.

    Raises:
        ValueError: the schedule does not fit the operands or the sizes.
    """
    return "\n".join(_Gemm(language, name, params, config, dims, a, b, epilogue).lines(before, after)) + "\n"


class _Gemm(Panels):
    """The text of one product; each method returns the lines of one part of it."""

    def __init__(
        self,
        language: Language,
        name: str,
        params: str,
        config: GemmConfig,
        dims: tuple[str, str, str],
        a: Operand,
        b: Operand,
        epilogue: Epilogue,
    ) -> None:
        super().__init__(language, config, dims, a, b)
        self.name, self.params, self.epilogue = name, params, epilogue
        self.zero = language.zero(config.dtype, config.width)

    # -- the frame: what the task covers -------------------------------------------------------------------------

    def lines(self, before: Sequence[str], after: Sequence[str]) -> list[str]:
        """The whole function."""
        m, n, k = self.dims
        # Plain loads through under-aligned types: PoCL's library does not inline vload and vstore (a factor of three).
        types = [
            self.language.loose_type(self.config.dtype, width, f"gm_v{width}")
            for width in (2, 4, 8, 16)
            if width <= self.width
        ]
        body = [
            *types,
            f"const int gm_m = {m}, gm_n = {n}, gm_k = {k};",
            *self._arrays(),
            *self._ranges(),
            *before,
            *self._k_loop(),
            *after,
        ]
        return block(f"GC_NOINLINE static void {self.name}({self.params}, int task)", body)

    def _arrays(self) -> list[str]:
        config, kind, private = self.config, self.vector, self.language.private
        scalars = self.language.pointer(config.dtype, Space.PRIVATE)
        tiles = config.m_block * config.n_block if self.blocked else 1
        size = up(self.config.mr * self.nr, self.width) // self.width
        out = [private(f"{kind} gm_c[{tiles * size}];")]
        if config.pack_b:
            out.append(private(f"{kind} gm_pb[{self.kb * self.nv}];"))
        if config.pack_a:
            out.append(private(f"{kind} gm_pa[{self.strip_size() * (config.m_block or 1) // self.width}];"))
            out.append(f"{scalars} const gm_as = ({scalars})gm_pa;")
        out.append(f"{scalars} const gm_cs = ({scalars})gm_c;")
        if config.pack_b:
            out.append(f"{scalars} const gm_bs = ({scalars})gm_pb;")
        return out

    def _ranges(self) -> list[str]:
        """Decodes the task: rows gm_ib..gm_ie, columns gm_jb..gm_je, terms gm_kb..gm_ke; neighbours share B."""
        config, out = self.config, ["int gm_t = task;"]
        rows, cols = config.mr * config.m_block, self.nr * config.n_block
        if rows:
            out += [
                f"const int gm_ms = (gm_m + {rows - 1}) / {rows};",
                f"const int gm_ib = (gm_t % gm_ms) * {rows}, gm_ie = min(gm_m, gm_ib + {rows});",
                "gm_t /= gm_ms;",
            ]
        else:
            out.append("const int gm_ib = 0, gm_ie = gm_m;")
        if cols:
            out += [
                f"const int gm_ns = (gm_n + {cols - 1}) / {cols};",
                f"const int gm_jb = (gm_t % gm_ns) * {cols}, gm_je = min(gm_n, gm_jb + {cols});",
                "gm_t /= gm_ns;",
            ]
        else:
            out.append("const int gm_jb = 0, gm_je = gm_n;")
        if config.split_k > 1:
            unit = config.k_unroll * (self.width if config.dot else 1)
            parts = config.split_k
            out += [
                "const int gm_split = gm_t;",
                f"const int gm_part = ((gm_k + {parts - 1}) / {parts} + {unit - 1}) / {unit} * {unit};",
                "const int gm_kb = min(gm_k, gm_split * gm_part), gm_ke = min(gm_k, gm_kb + gm_part);",
            ]
        else:
            out.append("const int gm_kb = 0, gm_ke = gm_k;")
        return out

    def _k_loop(self) -> list[str]:
        body = self._columns()
        if self.config.pack_a and self.config.m_block:
            body = [*self.pack_a_block(), *body]
        if not self.blocked:
            return ["const int gm_k0 = gm_kb, gm_kc = gm_ke - gm_kb;", *body]
        # do-while: an empty part of a split sum must still store its zeros.
        return [
            "int gm_k0 = gm_kb;",
            "do {",
            *indent([f"const int gm_kc = min({self.kb}, gm_ke - gm_k0);", *body]),
            f"    gm_k0 += {self.kb};",
            "} while (gm_k0 < gm_ke);",
        ]

    def _columns(self) -> list[str]:
        start = (
            "0"
            if self.edge_only
            else "gm_j0"
            if self.n and self.n % self.nr == 0
            else (f"min(gm_j0, gm_n - {self.nr})" if self.n else f"max(0, min(gm_j0, gm_n - {self.nr}))")
        )
        body = [f"const int gm_j1 = min(gm_je, gm_j0 + {self.nr}), gm_js = {start};"]
        if self.n and self.n % self.nr == 0:
            body = [f"const int gm_j1 = gm_j0 + {self.nr}, gm_js = gm_j0;"]
        if self.config.pack_b:
            body += self.pack_b()
        body += self._rows()
        return block(f"for (int gm_j0 = gm_jb; gm_j0 < gm_je; gm_j0 += {self.nr})", body)

    def _rows(self) -> list[str]:
        if self.config.pack_a or self.m or self.mr == 1:
            return self._row_tiles(self.mr)
        # The early start of the last tile needs mr rows; a smaller batch goes row by row.
        return [*block(f"if (gm_m >= {self.mr})", self._row_tiles(self.mr)), *block("else", self._row_tiles(1))]

    def _row_tiles(self, mr: int) -> list[str]:
        exact = self.config.pack_a or mr == 1 or (self.m is not None and self.m % mr == 0)
        body = [
            f"const int gm_i1 = min(gm_ie, gm_i0 + {mr});",
            f"const int gm_is = {'gm_i0' if exact else f'min(gm_i0, gm_m - {mr})'};",
        ]
        if self.m and self.m % mr == 0:
            body = [f"const int gm_i1 = gm_i0 + {mr}, gm_is = gm_i0;"]
        if self.config.pack_a and not self.config.m_block:
            body += self.pack_a()
        offset = "0"
        if self.blocked:
            offset = "gm_co"
            rows = self.config.m_block * self.config.mr
            body.append(f"const int gm_co = ((gm_j0 - gm_jb) / {self.nr} * {rows} + gm_i0 - gm_ib) * {self.nr};")
        if self.config.pack_a:
            body.append(f"const int gm_ap = {self.strip()};")
        body += self._dot_tile(mr) if self.config.dot else self._tile(mr, offset)
        store = self._store(offset)
        body += block(f"if (gm_k0 + {self.kb} >= gm_ke)", store) if self.blocked else store
        return block(f"for (int gm_i0 = gm_ib; gm_i0 < gm_ie; gm_i0 += {mr})", body)

    # -- the tile: accumulators in registers ---------------------------------------------------------------------

    def _tile(self, mr: int, offset: str) -> list[str]:
        """Outer products: A's elements broadcast against vectors of B's rows."""
        names = [[f"gm_c{r}_{v}" for v in range(self.nv)] for r in range(mr)]
        places = [
            (name, added(offset if offset == "0" else f"{offset} / {self.width}", str(r * self.nv + v)))
            for r, row in enumerate(names)
            for v, name in enumerate(row)
        ]
        out = [f"{self.vector} {', '.join(f'{name} = {self.zero}' for name in row)};" for row in names]
        if self.blocked:
            out += block("if (gm_k0 > gm_kb)", [f"{name} = gm_c[{place}];" for name, place in places])
        unroll = self.config.k_unroll
        out.append("int gm_p = 0;")
        # Every variable's life is marked in what compilers read, so there is one for all of a kind.
        operands = ", ".join(["gm_a", *(f"gm_b{v}" for v in range(self.nv))])
        start = [self.language.contract, f"{self.vector} {operands};"]
        steps = [line for u in range(unroll) for line in self._step(names, u)]
        out += block(f"for (; gm_p + {unroll} <= gm_kc; gm_p += {unroll})", [*start, *steps])
        if unroll > 1 and self.remainder(unroll):
            out += block("for (; gm_p < gm_kc; ++gm_p)", [*start, *self._step(names, 0)])
        return out + [f"gm_c[{place}] = {name};" for name, place in places]

    def _step(self, names: list[list[str]], u: int) -> list[str]:
        """One term of the sum, number gm_p + u."""
        p = added("gm_p", str(u))
        out = []
        for v in range(self.nv):
            if self.config.pack_b:
                value = f"gm_pb[({p}) * {self.nv} + {v}]"
            else:
                value = self.right((f"(gm_k0 + {p})",), ("gm_js", str(v * self.width)), self.width)
            out.append(f"gm_b{v} = {value};")
        for r, row in enumerate(names):
            if self.config.pack_a:
                value = f"gm_as[gm_ap + ({p}) * {self.mr} + {r}]"
            else:
                value = self.left(("gm_is", str(r)), (f"(gm_k0 + {p})",), 1)
            fmas = " ".join(f"{name} += gm_a * gm_b{v};" for v, name in enumerate(row))
            out.append(f"gm_a = {self.language.splat(value, self.config.dtype, self.width)}; {fmas}")
        return out

    def _dot_tile(self, mr: int) -> list[str]:
        """Inner products: vectors along K, summed across their lanes at the end."""
        names = [[f"gm_c{r}_{c}" for c in range(self.nr)] for r in range(mr)]
        kind, width = self.config.dtype, self.width
        out = [f"{self.vector} {', '.join(f'{name} = {self.zero}' for name in row)};" for row in names]
        out.append("int gm_p = gm_kb;")
        rows = [self.left(("gm_is", str(r)), ("gm_p",), width) for r in range(mr)]
        cols = [self.right(("gm_p",), ("gm_js", str(c)), width) for c in range(self.nr)]
        step = [self.language.contract, *(f"const {self.vector} gm_a{r} = {value};" for r, value in enumerate(rows))]
        for c, value in enumerate(cols):
            fmas = " ".join(f"{names[r][c]} += gm_a{r} * gm_b;" for r in range(mr))
            step.append(f"{{ const {self.vector} gm_b = {value}; {fmas} }}")
        out += block(f"for (; gm_p + {width} <= gm_ke; gm_p += {width})", step)
        for r in range(mr):
            for c in range(self.nr):
                out.append(f"gm_cs[{r * self.nr + c}] = {self._lane_sum(names[r][c])};")
        left = [self.left(("(gm_is + gm_r)",), ("gm_q",), 1), self.right(("gm_q",), ("(gm_js + gm_c)",), 1)]
        sums = [
            self.language.contract,
            f"{kind} gm_v = gm_cs[gm_r * {self.nr} + gm_c];",
            f"for (int gm_q = gm_p; gm_q < gm_ke; ++gm_q) gm_v += {left[0]} * {left[1]};",
            f"gm_cs[gm_r * {self.nr} + gm_c] = gm_v;",
        ]
        if self.k is None or self.k % width or self.config.split_k > 1:
            out += block(
                "if (gm_p < gm_ke)",
                block(
                    f"for (int gm_r = 0; gm_r < {mr}; ++gm_r)",
                    block(f"for (int gm_c = 0; gm_c < {self.nr}; ++gm_c)", sums),
                ),
            )
        return out

    def _store(self, offset: str) -> list[str]:
        """The epilogue over the tile's rows, in vectors as wide as the row allows."""
        kind, nr = self.config.dtype, self.nr
        out = [f"const int gm_s = {added(offset, f'(gm_i - gm_is) * {nr} - gm_js')};", "int gm_j = gm_j0;"]
        widths = [w for w in (16, 8, 4, 1) if w <= self.width]
        for width in widths:
            if not self._needs_width(width, widths):
                continue
            place = self.language.deref(f"gm_v{width}", "gm_cs + gm_s + gm_j", Space.PRIVATE, const=True)
            load = place if width > 1 else "gm_cs[gm_s + gm_j]"
            body = [
                f"const {self.language.vector(kind, width)} gm_v = {load};",
                *self.epilogue("gm_i", "gm_j", "gm_v", width),
            ]
            out += block(f"for (; gm_j + {width} <= gm_j1; gm_j += {width})", body)
        return block("for (int gm_i = gm_i0; gm_i < gm_i1; ++gm_i)", out)

    def _needs_width(self, width: int, widths: list[int]) -> bool:
        """Whether some row of some tile has a vector of this width, given that wider ones come first."""
        columns = {self.nr} if self.n is None else {min(self.nr, self.n), self.n % self.nr}
        for count in columns:
            for wider in widths:
                if wider > width:
                    count %= wider
            if count >= width:
                return True
        return self.n is None

    def _lane_sum(self, name: str) -> str:
        """Returns the sum of a vector's lanes, added pairwise."""
        terms = [self.language.lane(name, i) for i in range(self.width)]
        while len(terms) > 1:
            half = len(terms) // 2
            terms = [f"({terms[i]} + {terms[i + half]})" for i in range(half)]
        return terms[0]
