"""Shapes, problems and schedules shared by the convolution generators for CPU runtimes.

Tensors are NCHW, weights OIHW, both dense. Everything but the batch is a literal in the generated text; the batch
is a run-time ``int``. The text is already written with vector types: one work item runs one task.

A forward convolution and its gradient with respect to the input are the same kind of sum,

    out[n, o, pixel] = sum over c and taps of in[n, c, shifted pixel] * w[o, c, tap],

once the output of a strided gradient is split by its residues modulo the stride (``Phase``). ``ConvProblem``
describes that sum; ``conv_forward_code`` writes it, ``conv_weight_code`` writes the weight gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import gcd

from backends.codegen.language import Language, Space

Pair = tuple[int, int]
Load = Callable[[str, int], str]
"""``load(index, width)``: C expression of ``width`` (16, 8, 4, 2 or 1) consecutive elements from element ``index``."""

CACHE_ELEMENTS = 128 * 1024
"""Floats that one task's scratch may hold before it is cut into bands (half of a 1 MB second-level cache)."""


@dataclass(frozen=True)
class ConvShape:
    """One convolution: per-image sizes, everything but the batch.

    Args:
        channels, height, width: input x is (N, channels, height, width).
        filters: output channels; y is (N, filters, out_height, out_width).
        kernel: (kh, kw); w is (filters, channels // groups, kh, kw).
        stride, padding, dilation: (vertical, horizontal); ``padding`` is at the top and the left.
        padding_end: padding at the bottom and the right, the same as ``padding`` by default.
        groups: divides channels and filters.
    """

    channels: int
    height: int
    width: int
    filters: int
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    padding_end: Pair | None = None

    def __post_init__(self) -> None:
        """Reject sizes that describe no convolution."""
        positive = (self.channels, self.height, self.width, self.filters, *self.kernel, *self.stride, *self.dilation)
        if min(positive) < 1 or self.groups < 1:
            raise ValueError(f"sizes, stride, dilation and groups must be positive: {self}")
        if self.channels % self.groups or self.filters % self.groups:
            raise ValueError(f"groups must divide channels and filters: {self}")
        if self.out_height < 1 or self.out_width < 1:
            raise ValueError(f"the kernel is larger than the padded input: {self}")

    def _out(self, axis: int) -> int:
        size = (self.height, self.width)[axis]
        end = self.padding if self.padding_end is None else self.padding_end
        reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        return (size + self.padding[axis] + end[axis] - reach) // self.stride[axis] + 1

    @property
    def out_height(self) -> int:
        """Rows of the output."""
        return self._out(0)

    @property
    def out_width(self) -> int:
        """Columns of the output."""
        return self._out(1)

    @property
    def flops_per_image(self) -> int:
        """Multiplications and additions of the forward pass for one image (padding counted)."""
        taps = self.kernel[0] * self.kernel[1] * self.channels // self.groups
        return 2 * self.filters * self.out_height * self.out_width * taps


@dataclass(frozen=True)
class Taps:
    """Kernel positions used along one axis, in rising order of the input offset.

    Tap ``t`` is kernel position ``first + t * step`` and reads the input at ``grid * stride + shift + t * gap``.
    """

    count: int
    first: int
    step: int
    shift: int
    gap: int

    def classes(self, stride: int) -> int:
        """Number of residues of the tap offsets modulo ``stride``: taps of one residue share packed rows."""
        return min(self.count, stride // gcd(stride, self.gap)) if self.count else 0

    def class_shift(self, tap: int, stride: int) -> int:
        """Packed rows between ``tap`` and the first tap of its class."""
        return (tap // self.classes(stride)) * self.classes(stride) * self.gap // stride


@dataclass(frozen=True)
class ConvProblem:
    """out = sum of shifted inputs times weights, on a grid of output pixels, once per phase.

    Attributes:
        groups: convolution groups; the next four are sizes per group or per image.
        in_channels, out_channels: per group.
        in_size, out_size: (height, width) of the images read and written.
        grid: (rows, columns) computed per phase; phase (ry, rx) holds outputs (i * ry_step + ry, j * rx_step + rx).
        stride: input step per grid step.
        phase_step: (vertical, horizontal) number of phases.
        taps_y, taps_x: taps of every vertical and every horizontal phase.
        weight_strides: elements between groups, out channels, in channels, kernel rows and kernel columns.
    """

    groups: int
    in_channels: int
    out_channels: int
    in_size: Pair
    out_size: Pair
    grid: Pair
    stride: Pair
    phase_step: Pair
    taps_y: tuple[Taps, ...]
    taps_x: tuple[Taps, ...]
    weight_strides: tuple[int, int, int, int, int]

    @property
    def phases(self) -> int:
        """Number of phases; 1 unless this is the gradient of a strided convolution."""
        return len(self.taps_y) * len(self.taps_x)

    @property
    def grid_pixels(self) -> int:
        """Pixels of one phase of one image."""
        return self.grid[0] * self.grid[1]


def forward_problem(shape: ConvShape) -> ConvProblem:
    """The forward pass: x (N, C, H, W) and w (O, C/groups, kh, kw) to y (N, O, OH, OW)."""
    in_channels, out_channels = shape.channels // shape.groups, shape.filters // shape.groups
    kh, kw = shape.kernel
    taps = [Taps(shape.kernel[a], 0, 1, -shape.padding[a], shape.dilation[a]) for a in (0, 1)]
    out = (shape.out_height, shape.out_width)
    strides = (out_channels * in_channels * kh * kw, in_channels * kh * kw, kh * kw, kw, 1)
    return ConvProblem(
        shape.groups, in_channels, out_channels, (shape.height, shape.width), out, out, shape.stride, (1, 1),
        (taps[0],), (taps[1],), strides,
    )  # fmt: skip


def _gradient_taps(kernel: int, stride: int, padding: int, dilation: int, residue: int) -> Taps:
    """Kernel positions k that reach input positions ``residue`` modulo ``stride``, by rising output offset."""
    found = [
        ((residue + padding - k * dilation) // stride, k)
        for k in range(kernel)
        if (residue + padding - k * dilation) % stride == 0
    ]
    found.sort()
    if len(found) < 2:
        return Taps(len(found), found[0][1] if found else 0, 0, found[0][0] if found else 0, 1)
    return Taps(len(found), found[0][1], found[1][1] - found[0][1], found[0][0], found[1][0] - found[0][0])


def input_gradient_problem(shape: ConvShape) -> ConvProblem:
    """The gradient with respect to the input: dy (N, O, OH, OW) and w (O, C/groups, kh, kw) to dx (N, C, H, W)."""
    in_channels, out_channels = shape.filters // shape.groups, shape.channels // shape.groups
    kh, kw = shape.kernel
    taps = [
        tuple(
            _gradient_taps(shape.kernel[a], shape.stride[a], shape.padding[a], shape.dilation[a], residue)
            for residue in range(shape.stride[a])
        )
        for a in (0, 1)
    ]
    grid = (-(-shape.height // shape.stride[0]), -(-shape.width // shape.stride[1]))
    strides = (in_channels * out_channels * kh * kw, kh * kw, out_channels * kh * kw, kw, 1)
    return ConvProblem(
        shape.groups, in_channels, out_channels, (shape.out_height, shape.out_width), (shape.height, shape.width),
        grid, (1, 1), shape.stride, taps[0], taps[1], strides,
    )  # fmt: skip


@dataclass(frozen=True)
class Names:
    """C names of the function's parameters.

    Args:
        source: pointer to the images read (x, or dy for gradients).
        weight: pointer to the weights (dy's partner x for the weight gradient).
        batch: run-time ``int`` number of images.
        workspace: scratch pointer to global memory, ``workspace_elements`` long, one slice per task.
    """

    source: str = "x"
    weight: str = "w"
    batch: str = "N"
    workspace: str = "ws"


class Writer:
    """Lines of C with indentation."""

    def __init__(self, language: Language, dtype: str) -> None:
        """Start empty; what is written is of a kind of floats."""
        self.language, self.dtype = language, dtype
        self._lines: list[str] = []
        self._depth = 0

    def add(self, *lines: str) -> None:
        """Append lines at the current depth."""
        self._lines.extend("  " * self._depth + line for line in lines)

    @contextmanager
    def block(self, header: str = "") -> Iterator[None]:
        """Braces around what is added inside."""
        self.add(f"{header} {{" if header else "{")
        self._depth += 1
        yield
        self._depth -= 1
        self.add("}")

    def text(self) -> str:
        """All lines as one text."""
        return "\n".join(self._lines) + "\n"


def vector_types(language: Language, dtype: str) -> list[str]:
    """Definitions of vectors with the alignment of an element, for ``load`` and ``store``.

    Dereferencing these is what ``vloadn`` and ``vstoren`` mean, but PoCL leaves those built-ins (and ``fma``, ``mad``)
    as calls inside helper functions, which spills every accumulator: measured 8 against 98 GFLOP/s a core.
    """
    return [language.loose_type(dtype, w, f"gc_{dtype}{w}") for w in (2, 4, 8, 16)]


def load(language: Language, pointer: str, width: int, dtype: str = "float", space: Space = Space.GLOBAL) -> str:
    """C expression that loads ``width`` elements from ``pointer``, inside a generated function."""
    return f"*({pointer})" if width == 1 else language.deref(f"gc_{dtype}{width}", pointer, space, const=True)


def accessed(language: Language, pointer: str, width: int, dtype: str = "float", space: Space = Space.PRIVATE) -> str:
    """C place of ``width`` elements at ``pointer``, inside a generated function."""
    return f"*({pointer})" if width == 1 else language.deref(f"gc_{dtype}{width}", pointer, space)


def store(
    language: Language, value: str, pointer: str, width: int, dtype: str = "float", space: Space = Space.GLOBAL
) -> str:
    """C statement that stores ``width`` elements to ``pointer``, inside a generated function."""
    return f"{accessed(language, pointer, width, dtype, space)} = {value};"


def plain_load(language: Language, pointer: str, dtype: str) -> Load:
    """Loads from ``pointer`` with nothing fused."""
    return lambda index, width: load(language, f"{pointer} + {index}", width, dtype)


def widths_below(width: int) -> list[int]:
    """Vector widths for the rest of a row that is not a multiple of ``width``."""
    return [w for w in (8, 4, 2, 1) if w < width]


def row_pieces(limits: Iterable[int], width: int) -> list[int]:
    """Which vector widths a walk over so many elements takes, the widest first, where it may be any of these counts."""
    found: set[int] = set()
    for limit in limits:
        for piece in (width, *(k for k in widths_below(width) if k != 2)):
            if limit >= piece:
                found.add(piece)
                limit %= piece
    return sorted(found, reverse=True)


def names_of(params: str) -> str:
    """The names in a C parameter list, to hand the parameters on."""
    return ", ".join(declared.split()[-1].lstrip("*") for declared in params.split(",") if declared.strip())


def pieces(count: int, width: int) -> list[Pair]:
    """Cut ``count`` elements into (offset, width) loads, widest first."""
    result, offset = [], 0
    for piece in [width, *widths_below(width)]:
        while count - offset >= piece:
            result.append((offset, piece))
            offset += piece
    return result


def emit_fill(w: Writer, pointer: str, start: int, count: int, width: int) -> None:
    """Set ``count`` elements from ``pointer + start`` to zero."""
    full = count // width
    if full > 4:
        with w.block(f"for (int f = {start}; f < {start + full * width}; f += {width})"):
            w.add(store(w.language, w.language.splat("0", w.dtype, width), f"{pointer} + f", width, w.dtype))
        start, count = start + full * width, count - full * width
    for offset, piece in pieces(count, width):
        w.add(store(w.language, w.language.splat("0", w.dtype, piece), f"{pointer} + {start + offset}", piece, w.dtype))


def emit_copy(w: Writer, source: Load, pointer: str, index: str, count: int, width: int) -> None:
    """Copy ``count`` elements from element ``index`` of the source to ``pointer``."""
    full, start = count // width, 0
    if full > 4:
        with w.block(f"for (int f = 0; f < {full * width}; f += {width})"):
            w.add(store(w.language, source(f"({index} + f)", width), f"{pointer} + f", width, w.dtype))
        start = full * width
    for offset, piece in pieces(count - start, width):
        at = start + offset
        w.add(store(w.language, source(f"({index} + {at})", piece), f"{pointer} + {at}", piece, w.dtype))


def emit_spread(w: Writer, pointer: str, origin: str, count: int, step: int, width: int) -> None:
    """Copy ``count`` scratch elements, ``step`` apart from ``origin``, to ``pointer`` in whole vectors.

    Writes up to ``width - 1`` elements behind the last and reads as many steps further: rows are written in rising
    order, so the next row repairs the start that its predecessor spoilt, and scratch has room behind the last.
    """

    def value(at: int, piece: int, shift: str) -> str:
        if step == 1:
            return load(w.language, f"{origin} + {at}{shift}", piece, w.dtype)
        first = load(w.language, f"{origin} + {at * step}{shift}", piece, w.dtype)
        second = load(w.language, f"{origin} + {at * step + piece}{shift}", piece, w.dtype)
        return w.language.interlaced(first, second, w.dtype, piece)

    if step > 2 or count == 1:
        with w.block(f"for (int f = 0; f < {count}; ++f)"):
            w.add(f"({pointer})[f] = ({origin})[f * {step}];")
        return
    full, start = count // width, 0
    if full > 4:
        with w.block(f"for (int f = 0; f < {full * width}; f += {width})"):
            w.add(store(w.language, value(0, width, f" + f * {step}"), f"{pointer} + f", width, w.dtype))
        start, full = full * width, 0
    for _ in range(full):
        w.add(store(w.language, value(start, width, ""), f"{pointer} + {start}", width, w.dtype))
        start += width
    if start < count:
        piece = next(k for k in (2, 4, 8, 16) if k >= count - start)
        w.add(store(w.language, value(start, piece, ""), f"{pointer} + {start}", piece, w.dtype))
