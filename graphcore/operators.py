"""Tensor's sugar: Python operators, indexing and methods, put on ``Tensor`` by ``install``."""

from __future__ import annotations

from typing import Any

from graphcore import elementwise, indexing, linear, reductions, shaping
from graphcore.at import At
from graphcore.coercion import fail, is_operand
from graphcore.errors import UsageError
from graphcore.node import Tensor
from graphcore.shapes import Dim, Shape, format_shape
from graphcore.variable import Variable

__all__ = ["Operators", "install"]

_RUN = "fetch it with sess.run(t)"


def _shape_of(values: tuple[Any, ...]) -> Shape:
    """``f(2, 3)`` and ``f((2, 3))`` as a tuple."""
    return tuple(values[0]) if len(values) == 1 and isinstance(values[0], (tuple, list)) else values


def _binary(function: Any) -> tuple[Any, Any]:
    """An operator and its reflection; other types are left to Python."""

    def forward(self: Tensor, other: Any) -> Any:
        return function(self, other) if is_operand(other) else NotImplemented

    def reflected(self: Tensor, other: Any) -> Any:
        return function(other, self) if is_operand(other) else NotImplemented

    return forward, reflected


def _bits(logical: Any, bitwise: Any) -> Any:
    """``& | ^``: logic on bools, bits on integers."""

    def function(a: Any, b: Any) -> Tensor:
        both = all(t.dtype.is_bool if isinstance(t, Tensor) else isinstance(t, bool) for t in (a, b))
        return logical(a, b) if both else bitwise(a, b)  # type: ignore[no-any-return]

    return function


def _refuse(what: str, advice: str) -> Any:
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        raise fail(UsageError, f"{what} of a symbolic tensor: its values exist only in a run; {advice}", self)

    return method


class Operators:
    """The methods and operators of ``Tensor``. Functions of the same name have the full documentation."""

    __slots__ = ()

    __add__, __radd__ = _binary(elementwise.add)
    __sub__, __rsub__ = _binary(elementwise.subtract)
    __mul__, __rmul__ = _binary(elementwise.multiply)
    __truediv__, __rtruediv__ = _binary(elementwise.divide)
    __floordiv__, __rfloordiv__ = _binary(elementwise.floor_divide)
    __mod__, __rmod__ = _binary(elementwise.remainder)
    __pow__, __rpow__ = _binary(elementwise.pow)
    __matmul__, __rmatmul__ = _binary(linear.matmul)
    __and__, __rand__ = _binary(_bits(elementwise.logical_and, elementwise.bitwise_and))
    __or__, __ror__ = _binary(_bits(elementwise.logical_or, elementwise.bitwise_or))
    __xor__, __rxor__ = _binary(_bits(elementwise.logical_xor, elementwise.bitwise_xor))
    __lshift__, __rlshift__ = _binary(elementwise.bitwise_left_shift)
    __rshift__, __rrshift__ = _binary(elementwise.bitwise_right_shift)
    __lt__, _ = _binary(elementwise.less)
    __le__, _ = _binary(elementwise.less_equal)
    __gt__, _ = _binary(elementwise.greater)
    __ge__, _ = _binary(elementwise.greater_equal)
    __eq__, _ = _binary(elementwise.equal)
    __ne__, _ = _binary(elementwise.not_equal)
    del _

    __bool__ = _refuse(
        "bool()",
        f"{_RUN} and test the result, or use gc.cond(pred, true_fn, false_fn) or gc.where; "
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
        "use gc.unstack(t, axis) for a list of slices, gc.scan to loop in the graph, or range(t.shape[0]) with t[i]",
    )
    __contains__ = _refuse("'in'", f"{_RUN}, or build gc.any(t == value)")
    item = _refuse(".item()", _RUN)
    numpy = _refuse(".numpy()", _RUN)
    tolist = _refuse(".tolist()", _RUN)

    def __neg__(self: Any) -> Tensor:
        return elementwise.negative(self)

    def __pos__(self: Any) -> Tensor:
        return elementwise.positive(self)

    def __abs__(self: Any) -> Tensor:
        return elementwise.abs(self)

    def __invert__(self: Any) -> Tensor:
        return elementwise.logical_not(self) if self.dtype.is_bool else elementwise.bitwise_invert(self)

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

    def __getitem__(self: Any, key: Any) -> Tensor:
        return indexing.getitem(self, key)

    def __setitem__(self: Any, key: Any, value: Any) -> None:
        raise fail(UsageError, "item assignment: tensors are immutable; write x = x.at[index].set(value)", self)

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
    def T(self: Any) -> Tensor:  # noqa: N802 - NumPy's name
        """The axes reversed."""
        return shaping.transpose(self)

    @property
    def mT(self: Any) -> Tensor:  # noqa: N802 - the array API's name
        """The last two axes swapped."""
        return shaping.matrix_transpose(self)

    def reshape(self: Any, *shape: Any) -> Tensor:
        """``x.reshape(2, -1)`` or ``x.reshape((2, -1))``."""
        return shaping.reshape(self, _shape_of(shape))

    view = reshape

    def permute(self: Any, *axes: Any) -> Tensor:
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

    def swapaxes(self: Any, axis1: int, axis2: int) -> Tensor:
        """Two axes swapped."""
        return shaping.swapaxes(self, axis1, axis2)

    def flatten(self: Any, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Axes joined into one."""
        return shaping.flatten(self, start_dim, end_dim)

    ravel = flatten

    def squeeze(self: Any, axis: Any = None, *, dim: Any = None) -> Tensor:
        """Axes of extent 1 removed."""
        return shaping.squeeze(self, axis if dim is None else dim)

    def unsqueeze(self: Any, dim: Any) -> Tensor:
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

    def broadcast_to(self: Any, shape: Any) -> Tensor:
        """Broadcast to a shape."""
        return shaping.broadcast_to(self, shape)

    def split(self: Any, indices_or_sections: Any, axis: int = 0) -> list[Tensor]:
        """Equal parts, or parts between positions."""
        return shaping.split(self, indices_or_sections, axis)

    def flip(self: Any, axis: Any = None) -> Tensor:
        """Reversed along axes."""
        return shaping.flip(self, axis)

    def sum(self: Any, axis: Any = None, keepdims: bool = False, **options: Any) -> Tensor:
        """The sum over axes."""
        return reductions.sum(self, axis, keepdims, **options)

    def prod(self: Any, axis: Any = None, keepdims: bool = False, **options: Any) -> Tensor:
        """The product over axes."""
        return reductions.prod(self, axis, keepdims, **options)

    def mean(self: Any, axis: Any = None, keepdims: bool = False, **options: Any) -> Tensor:
        """The mean over axes."""
        return reductions.mean(self, axis, keepdims, **options)

    def var(self: Any, axis: Any = None, correction: float = 0, keepdims: bool = False, **options: Any) -> Tensor:
        """The variance over axes."""
        return reductions.var(self, axis, correction, keepdims, **options)

    def std(self: Any, axis: Any = None, correction: float = 0, keepdims: bool = False, **options: Any) -> Tensor:
        """The standard deviation over axes."""
        return reductions.std(self, axis, correction, keepdims, **options)

    def max(self: Any, axis: Any = None, keepdims: bool = False, **options: Any) -> Tensor:
        """The largest element over axes."""
        return reductions.max(self, axis, keepdims, **options)

    def min(self: Any, axis: Any = None, keepdims: bool = False, **options: Any) -> Tensor:
        """The smallest element over axes."""
        return reductions.min(self, axis, keepdims, **options)

    def any(self: Any, axis: Any = None, keepdims: bool = False, **options: Any) -> Tensor:
        """Whether some element holds."""
        return reductions.any(self, axis, keepdims, **options)

    def all(self: Any, axis: Any = None, keepdims: bool = False, **options: Any) -> Tensor:
        """Whether all elements hold."""
        return reductions.all(self, axis, keepdims, **options)

    def argmax(self: Any, axis: Any = None, keepdims: bool = False, **options: Any) -> Tensor:
        """The position of the first largest element."""
        return reductions.argmax(self, axis, keepdims, **options)

    def argmin(self: Any, axis: Any = None, keepdims: bool = False, **options: Any) -> Tensor:
        """The position of the first smallest element."""
        return reductions.argmin(self, axis, keepdims, **options)

    def logsumexp(self: Any, axis: Any = None, keepdims: bool = False, **options: Any) -> Tensor:
        """log(sum(e ** x)) over axes."""
        return reductions.logsumexp(self, axis, keepdims, **options)

    def norm(self: Any, ord: Any = 2, axis: Any = None, keepdims: bool = False, **options: Any) -> Tensor:
        """The vector norm over axes."""
        return reductions.norm(self, ord, axis, keepdims, **options)

    def astype(self: Any, dtype: Any) -> Tensor:
        """Converted to a dtype."""
        return elementwise.astype(self, dtype)

    def to(self: Any, dtype: Any) -> Tensor:
        """PyTorch's name of ``astype``."""
        return elementwise.astype(self, dtype)

    def detach(self: Any) -> Tensor:
        """The value, through which no gradient flows."""
        return elementwise.stop_gradient(self)

    def clip(self: Any, min: Any = None, max: Any = None) -> Tensor:
        """Limited to min .. max."""
        return elementwise.clip(self, min, max)

    clamp = clip

    def pow(self: Any, exponent: Any) -> Tensor:
        """x ** exponent."""
        return elementwise.pow(self, exponent)

    def matmul(self: Any, other: Any) -> Tensor:
        """The matrix product."""
        return linear.matmul(self, other)

    def dot(self: Any, other: Any) -> Tensor:
        """The inner or matrix product."""
        return linear.dot(self, other)

    def take(self: Any, indices: Any, axis: Any = None) -> Tensor:
        """Slices at indices along an axis."""
        return indexing.take(self, indices, axis)

    def gather(self: Any, dim: int, index: Any) -> Tensor:
        """Elements at indices along an axis."""
        return indexing.gather(self, dim, index)

    def masked_fill(self: Any, mask: Any, value: Any) -> Tensor:
        """The value where the mask holds."""
        return elementwise.where(mask, value, self)

    def backward(self: Any) -> None:
        """Add the gradient of this scalar to ``w.grad`` of every trainable variable that it depends on (symbolically,
        while building)."""
        from graphcore.gradients import backward  # the door to differentiation lies above this module

        backward(self)


_CASTS = {
    "float": "float32",
    "double": "float64",
    "half": "float16",
    "bfloat16": "bfloat16",
    "int": "int32",
    "long": "int64",
    "bool": "bool",
}
_UNARY = (
    "abs",
    "exp",
    "expm1",
    "log",
    "log1p",
    "log2",
    "sqrt",
    "rsqrt",
    "reciprocal",
    "square",
    "tanh",
    "sigmoid",
    "relu",
    "sin",
    "cos",
    "tan",
    "erf",
    "floor",
    "ceil",
    "round",
    "trunc",
    "sign",
    "isnan",
    "isinf",
    "isfinite",
    "softplus",
    "logical_not",
)


def _unary(name: str) -> Any:
    function = getattr(elementwise, name)

    def method(self: Tensor) -> Tensor:
        return function(self)  # type: ignore[no-any-return]

    method.__name__, method.__doc__ = name, function.__doc__
    return method


def _caster(dtype: str) -> Any:
    def method(self: Tensor) -> Tensor:
        return elementwise.as_bool(self) if dtype == "bool" else elementwise.astype(self, dtype)

    method.__doc__ = f"As {dtype}."
    return method


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
    hidden = {
        "__module__",
        "__doc__",
        "__slots__",
        "__qualname__",
        "__dict__",
        "__weakref__",
        "__hash__",
        "__firstlineno__",
        "__static_attributes__",
    }
    for name, member in vars(Operators).items():
        if name not in hidden:
            setattr(Tensor, name, member)
    for name in _UNARY:
        setattr(Tensor, name, _unary(name))
    for name, dtype in _CASTS.items():
        setattr(Tensor, name, _caster(dtype))
    for name, symbol in (("add", "+"), ("sub", "-"), ("mul", "*"), ("truediv", "/"), ("matmul", "@"), ("pow", "**")):
        setattr(Variable, f"__i{name}__", _assign_operator(symbol))
