"""Tensor's sugar: Python operators, indexing and methods, put on ``Tensor`` by ``install``.

Type checkers see the class ``Operators`` as the base of ``Tensor``, so what stands here is declared by standing here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol, TypeAlias

from graphcore.api import elementwise, gradients, indexing, logic, reductions, shaping, special
from graphcore.api import products as linear
from graphcore.api.at import At
from graphcore.api.foreign import array_function, array_ufunc, other_name
from graphcore.api.operands import fail, is_operand
from graphcore.api.tensor import Tensor
from graphcore.api.variable import Variable
from graphcore.base.errors import UsageError
from graphcore.base.shapes import Dim, Extent, Shape, format_shape
from graphcore.base.signposts import DEVICE

__all__ = ["Casts", "Operators", "Refusals", "install"]

_RUN = "fetch it with sess.run(t)"


class _Array(Protocol):
    """Arrays and scalars of NumPy, and what converts to them."""

    def __array__(self) -> Any: ...


# What is_operand accepts.
_Operand: TypeAlias = Tensor | Dim | bool | int | float | list[Any] | tuple[Any, ...] | _Array
_Operator = Callable[[Any, _Operand], Tensor]


def _shape_of(values: tuple[Any, ...]) -> Shape:
    """``f(2, 3)`` and ``f((2, 3))`` as a tuple."""
    return tuple(values[0]) if len(values) == 1 and isinstance(values[0], (tuple, list)) else values


def _operator(function: Callable[[Any, Any], Tensor]) -> _Operator:
    """A function as an operator; other types are left to Python."""

    def method(self: Any, other: _Operand) -> Tensor:
        return function(self, other) if is_operand(other) else NotImplemented

    return method


def _both(function: Callable[[Any, Any], Tensor]) -> tuple[_Operator, _Operator]:
    """A function as an operator, and its reflection."""
    return _operator(function), _operator(lambda self, other: function(other, self))


def _bits(logical: Callable[[Any, Any], Tensor], bitwise: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
    """``& | ^``: logic on bools, bits on integers."""

    def function(a: Any, b: Any) -> Tensor:
        both = all(t.dtype.is_bool if isinstance(t, Tensor) else isinstance(t, bool) for t in (a, b))
        return logical(a, b) if both else bitwise(a, b)

    return function


def _cast(dtype: str) -> Callable[[Any], Tensor]:
    def method(self: Any) -> Tensor:
        return elementwise.astype(self, dtype)

    method.__doc__ = f"As {dtype}."
    return method


class Casts:
    """Conversions named like types. They stand apart: in the class that holds them ``int`` is no type any more."""

    __slots__ = ()

    float = _cast("float32")
    double = _cast("float64")
    half = _cast("float16")
    bfloat16 = _cast("bfloat16")
    int = _cast("int32")
    long = _cast("int64")
    bool = logic.as_bool


class Operators(Casts):
    """The operators and methods of ``Tensor``. A method that is a function of the package has its documentation."""

    __slots__ = ()

    __add__, __radd__ = _both(elementwise.add)
    __sub__, __rsub__ = _both(elementwise.subtract)
    __mul__, __rmul__ = _both(elementwise.multiply)
    __truediv__, __rtruediv__ = _both(elementwise.divide)
    __floordiv__, __rfloordiv__ = _both(elementwise.floor_divide)
    __mod__, __rmod__ = _both(elementwise.remainder)
    __pow__, __rpow__ = _both(elementwise.pow)
    __matmul__, __rmatmul__ = _both(linear.matmul)
    __and__, __rand__ = _both(_bits(logic.logical_and, logic.bitwise_and))
    __or__, __ror__ = _both(_bits(logic.logical_or, logic.bitwise_or))
    __xor__, __rxor__ = _both(_bits(logic.logical_xor, logic.bitwise_xor))
    __lshift__, __rlshift__ = _both(logic.bitwise_left_shift)
    __rshift__, __rrshift__ = _both(logic.bitwise_right_shift)
    __lt__ = _operator(logic.less)
    __le__ = _operator(logic.less_equal)
    __gt__ = _operator(logic.greater)
    __ge__ = _operator(logic.greater_equal)
    # Declared, for a checker takes what has no declaration as the base class, object here, has it: bool.
    __eq__: ClassVar[_Operator] = _operator(logic.equal)  # type: ignore[assignment]
    __ne__: ClassVar[_Operator] = _operator(logic.not_equal)  # type: ignore[assignment]
    __neg__ = elementwise.negative
    __pos__ = elementwise.positive
    __abs__ = elementwise.abs
    __getitem__ = indexing.getitem

    abs = elementwise.abs
    exp = elementwise.exp
    expm1 = elementwise.expm1
    log = elementwise.log
    log1p = elementwise.log1p
    log2 = elementwise.log2
    sqrt = elementwise.sqrt
    rsqrt = elementwise.rsqrt
    reciprocal = elementwise.reciprocal
    square = elementwise.square
    tanh = elementwise.tanh
    sigmoid = elementwise.sigmoid
    relu = elementwise.relu
    softplus = special.softplus
    sin = elementwise.sin
    cos = elementwise.cos
    tan = elementwise.tan
    erf = special.erf
    floor = elementwise.floor
    ceil = elementwise.ceil
    round = elementwise.round
    trunc = elementwise.trunc
    sign = elementwise.sign
    isnan = logic.isnan
    isinf = logic.isinf
    isfinite = logic.isfinite
    logical_not = logic.logical_not
    clip = clamp = logic.clip
    astype = elementwise.astype
    detach = elementwise.stop_gradient

    sum = reductions.sum
    prod = reductions.prod
    mean = reductions.mean
    var = reductions.var
    std = reductions.std
    max = reductions.max
    min = reductions.min
    any = reductions.any
    all = reductions.all
    argmax = reductions.argmax
    argmin = reductions.argmin
    logsumexp = reductions.logsumexp
    norm = reductions.norm

    swapaxes = shaping.swapaxes
    flatten = ravel = shaping.flatten
    broadcast_to = shaping.broadcast_to
    split = shaping.split
    flip = shaping.flip
    take = indexing.take
    gather = indexing.gather

    def __invert__(self: Any) -> Tensor:
        return logic.logical_not(self) if self.dtype.is_bool else logic.bitwise_invert(self)

    def __len__(self: Any) -> int:
        if self.ndim == 0:
            raise fail(UsageError, "len() of a tensor of rank 0", self)
        if isinstance(self.shape[0], Dim):
            raise fail(
                UsageError,
                f"len() of a tensor whose first extent {self.shape[0]} is symbolic; use t.shape[0] in shapes and "
                f"gc.dim_value(t.shape[0]) "
                "as a number in the graph",
                self,
            )
        return self.shape[0]  # type: ignore[no-any-return]

    def __format__(self: Any, spec: str) -> str:
        if spec:
            raise fail(
                UsageError, f"format {spec!r} of a symbolic tensor: its values exist only in a run; {_RUN}", self
            )
        return repr(self)

    @property
    def at(self: Any) -> At:
        """``x.at[i].set(v)``, ``.add(v)``, ...: copies with elements changed."""
        return At(self)

    @property
    def T(self) -> Tensor:
        """The axes reversed."""
        return shaping.transpose(self)

    @property
    def mT(self) -> Tensor:
        """The last two axes swapped."""
        return shaping.matrix_transpose(self)

    def reshape(self, *shape: Any) -> Tensor:
        """``x.reshape(2, -1)`` or ``x.reshape((2, -1))``."""
        return shaping.reshape(self, _shape_of(shape))

    view = reshape

    def permute(self, *axes: Any) -> Tensor:
        """The axes in another order."""
        return shaping.permute_dims(self, _shape_of(axes))

    def transpose(self: Any, *axes: Any) -> Tensor:
        """The axes reversed, in a given order (NumPy), or, for two axes of a tensor of higher rank, swapped
        (PyTorch)."""
        order = _shape_of(axes)
        if not order or order[0] is None:
            return shaping.transpose(self)
        if len(axes) == 2 and self.ndim == 2 and tuple(a % 2 for a in axes) == (0, 1):
            raise fail(
                UsageError,
                f"transpose({axes[0]}, {axes[1]}) of a matrix means nothing to do in NumPy and a swap in PyTorch; "
                f"write x.T, or x.permute(...)",
                self,
            )
        if len(axes) == 2 and self.ndim > 2:
            return shaping.swapaxes(self, axes[0], axes[1])
        return shaping.transpose(self, order)

    def squeeze(self, axis: Any = None, *, dim: Any = None) -> Tensor:
        """Axes of extent 1 removed."""
        return shaping.squeeze(self, axis if dim is None else dim)

    def unsqueeze(self, dim: Any) -> Tensor:
        """A new axis of extent 1."""
        return shaping.expand_dims(self, dim)

    expand_dims = unsqueeze

    def expand(self: Any, *shape: Any) -> Tensor:
        """Broadcast to a shape; -1 keeps an extent."""
        wanted = _shape_of(shape)
        lead = len(wanted) - self.ndim
        if lead < 0 or any(isinstance(e, int) and e == -1 for e in wanted[:lead]):
            raise fail(
                UsageError,
                f"expand: {format_shape(self.shape)} to {wanted}: as many extents as axes, new ones first and none of "
                f"those -1",
                self,
            )
        return shaping.broadcast_to(
            self, tuple(self.shape[i - lead] if isinstance(e, int) and e == -1 else e for i, e in enumerate(wanted))
        )

    def to(self: Any, dtype: Any) -> Tensor:
        """As another element type."""
        if isinstance(dtype, str) and dtype.partition(":")[0] in ("cuda", "gpu", "cpu", "mps", "xpu", "opencl"):
            raise fail(UsageError, f"to({dtype!r}): {DEVICE}", self)
        return elementwise.astype(self, dtype)

    def numel(self: Any) -> Extent:
        """The number of elements, ``t.size``."""
        return self.size  # type: ignore[no-any-return]

    nelement = numel

    def dim(self: Any) -> Any:
        """The number of axes, ``t.ndim``."""
        return self.ndim

    def contiguous(self: Any) -> Tensor:
        """The tensor itself: it has no memory layout."""
        return self  # type: ignore[no-any-return]

    def clone(self: Any) -> Tensor:
        """The tensor itself: it is immutable."""
        return self  # type: ignore[no-any-return]

    def pow(self, exponent: _Operand) -> Tensor:
        """x ** exponent."""
        return elementwise.pow(self, exponent)

    def matmul(self, other: _Operand) -> Tensor:
        """The matrix product."""
        return linear.matmul(self, other)

    def dot(self, other: _Operand) -> Tensor:
        """The inner or matrix product."""
        return linear.dot(self, other)

    def masked_fill(self, mask: _Operand, value: _Operand) -> Tensor:
        """The value where the mask holds."""
        return logic.where(mask, value, self)

    def backward(
        self: Any, gradient: Any = None, retain_graph: Any = None, create_graph: Any = False, inputs: Any = None
    ) -> None:
        """Add the gradient of this scalar to ``w.grad`` of every trainable variable that it depends on (symbolically,
        while building); see ``gc.backward``. The graph stays, and gradients can be differentiated: ``retain_graph`` and
        ``create_graph`` say nothing new."""
        gradients.backward(self, inputs, gradient)

    def retain_grad(self: Any) -> None:
        """Ask ``backward`` to leave the gradient of this tensor in ``.grad``, as it does for trainable variables."""
        gradients.retain_grad(self)


def _refuse(what: str, advice: str) -> Any:
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        raise fail(UsageError, f"{what} of a symbolic tensor: its values exist only in a run; {advice}", self)

    return method


class Refusals:
    """What a symbolic tensor cannot do, or does for those who come from elsewhere: on ``Tensor``, and kept from type
    checkers, which so report it before the program does."""

    __slots__ = ()

    __bool__ = _refuse(
        "bool()",
        f"{_RUN} and test the result, or select with gc.where(t, a, b); "
        "to ask whether two tensors are the same value, a.same(b)",
    )
    __int__ = _refuse("int()", f"{_RUN}, or convert with t.astype('int64')")
    __index__ = _refuse("an index or range", f"{_RUN} first, or index with gc.take(x, t)")
    __float__ = _refuse("float()", f"{_RUN}, or convert with t.astype('float32')")
    __complex__ = _refuse("complex()", _RUN)
    __array__ = _refuse(
        "np.asarray()", f"{_RUN}, which returns a NumPy array; in the graph use gc.* functions for np.* ones"
    )
    __iter__ = _refuse(
        "iteration",
        "use gc.unstack(t, axis) for a list of slices, or range(t.shape[0]) with t[i]",
    )
    __contains__ = _refuse("'in'", f"{_RUN}, or build gc.any(t == value)")
    __getattr__ = other_name
    __array_ufunc__ = array_ufunc
    __array_function__ = array_function
    item = _refuse(".item()", _RUN)
    numpy = _refuse(".numpy()", _RUN)
    tolist = _refuse(".tolist()", _RUN)

    def __setitem__(self: Any, key: Any, value: Any) -> None:
        raise fail(UsageError, "item assignment: tensors are immutable; write x = x.at[index].set(value)", self)


def _assign_operator(symbol: str) -> Any:
    def method(self: Variable, other: Any) -> Any:
        raise fail(
            UsageError,
            f"w {symbol}= value on the variable {self.name!r}: a variable changes in a run only; fetch the update "
            f"w.assign(w {symbol} value), "
            f"or write y = w {symbol} value",
            self,
        )

    return method


def install() -> None:
    """Put operators and methods on ``Tensor``. Doing so again changes nothing."""
    for source in (Casts, Operators, Refusals):
        for name, member in vars(source).items():
            if hasattr(member, "__get__"):  # methods and properties, not the class's own __doc__ or __slots__
                setattr(Tensor, name, member)
    for name, symbol in (("add", "+"), ("sub", "-"), ("mul", "*"), ("truediv", "/"), ("matmul", "@"), ("pow", "**")):
        setattr(Variable, f"__i{name}__", _assign_operator(symbol))


install()
