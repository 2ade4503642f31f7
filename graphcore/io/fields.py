"""Frozen data as canonical JSON: one text for equal data, and back, by the types that the fields declare.

Integers are numbers, floating-point numbers are text in hexadecimal (``float.hex``; of a NaN its bits), enumerations
are named, tuples and lists are lists, dataclasses are objects with a key for every field. What is read is checked field
by field, so that a damaged document gives an error that names the field, whatever is wrong with it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import struct
import types
import typing
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, Union

import numpy as np
from numpy.typing import NDArray

from graphcore.base.dtypes import ALL, DType
from graphcore.base.errors import FormatError, GraphcoreError, UsageError
from graphcore.base.shapes import Dim, Extent

__all__ = ["At", "Codec", "digest_of", "parse", "render"]

_BUILT_IN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)
_LIMIT = 2**64  # of the magnitude of integers
_DTYPES = {d.name: d for d in ALL}


@dataclass(frozen=True)
class At:
    """A part of a document, and where it stands there."""

    value: Any
    path: str

    def fault(self, why: str) -> FormatError:
        """The error that says what is wrong here."""
        return FormatError(f"{self.path}: {why}")

    def expect(self, kind: type) -> Any:
        """The value, if it is of this kind.

        Raises:
            FormatError: it is of another one.
        """
        if not isinstance(self.value, kind) or (isinstance(self.value, bool) and kind is not bool):
            raise self.fault(f"expected {_KINDS[kind]}, got {_shown(self.value)}")
        return self.value

    def integer(self, low: int = -_LIMIT, high: int = _LIMIT) -> int:
        """An integer in ``low <= n < high``."""
        found: int = self.expect(int)
        if not low <= found < high:
            raise self.fault(f"{_shown(found)} is not in {low} .. {high - 1}")
        return found

    def items(self) -> list[At]:
        """The elements of a list."""
        return [At(value, f"{self.path}[{i}]") for i, value in enumerate(self.expect(list))]

    def fields(self, *names: str) -> dict[str, At]:
        """The values of an object that has these keys and no others."""
        given = self.expect(dict)
        for name in names:
            if name not in given:
                raise self.fault(f"lacks the field {name!r}")
        for name in given:
            if name not in names:
                raise self.fault(f"has the field {_shown(name)}, which is unknown")
        return {name: self.at(name) for name in names}

    def at(self, name: str) -> At:
        """One value of an object."""
        return At(self.value[name], f"{self.path}.{name}")

    def guarded(self, make: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """What a constructor or a verifier makes; whatever it refuses is a fault here."""
        try:
            return make(*args, **named)
        except FormatError:
            raise
        except (GraphcoreError, *_BUILT_IN) as error:
            raise self.fault(str(error) or type(error).__name__) from error


_KINDS = {bool: "true or false", int: "an integer", str: "a text", list: "a list", dict: "an object"}


def _shown(value: Any) -> str:
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "an object"
    text = repr(value) if not isinstance(value, int) or abs(value) <= _LIMIT else "a huge integer"
    return text if len(text) <= 60 else f"{text[:57]}..."


def render(data: Any) -> str:
    """The canonical text of JSON values."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def parse(text: str, what: str, version: int) -> At:
    """The document in a text.

    Args:
        text: as ``render`` makes it.
        what: the document's ``format``; paths begin with it.
        version: the one that is understood.

    Raises:
        FormatError: it is no JSON, another format or another version.
    """
    try:
        found = At(json.loads(text), what)
    except (RecursionError, ValueError) as error:
        raise FormatError(f"{what}: it is no JSON: {error}") from None
    head = found.expect(dict)
    if head.get("format") != what:
        raise found.fault(f"the format is {_shown(head.get('format'))}, not {what!r}")
    if head.get("version") != version or isinstance(head["version"], bool):
        raise found.fault(f"the version is {_shown(head.get('version'))}, and this graphcore reads {version}")
    return found


def digest_of(array: NDArray[Any]) -> str:
    """What names an array in documents: by type, shape and bytes."""
    text = f"{array.dtype.name}{array.shape}".encode()
    return hashlib.blake2b(text + np.ascontiguousarray(array).tobytes(), digest_size=16).hexdigest()


class Codec:
    """Between data and JSON values, by types.

    Args:
        store: arrays by digest: where they are put, or taken from. None: data with arrays is refused.
        variants: subclasses that may stand where a class is declared.
    """

    def __init__(
        self,
        store: MutableMapping[str, NDArray[Any]] | None = None,
        variants: Mapping[type, tuple[type, ...]] | None = None,
    ) -> None:
        self.store = store
        self.variants = variants or {}

    # To JSON

    def encode(self, value: Any, hint: Any) -> Any:
        """The JSON value of data that has a declared type."""
        arms = self.arms(hint)
        if len(arms) > 1:
            return None if value is None else self.encode_arm(value, _chosen(value, arms), tagged=_is_tagged(arms))
        return self.encode_arm(value, arms[0], tagged=False)

    def encode_arm(self, value: Any, hint: Any, tagged: bool) -> Any:
        """Like ``encode``, of a type that is no union."""
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if hint is Dim:
            return _dim_out(value)
        if hint is float:
            return _float_out(float(value))
        if hint in (bool, int, str):
            return hint(value)
        if hint is DType:
            return value.name
        if origin is Literal:
            return value
        if origin in (tuple, list):
            return [self.encode(v, h) for v, h in zip(value, _each(args, len(value)), strict=True)]
        if origin is dict:
            return {str(k): self.encode(v, args[1]) for k, v in value.items()}
        if np.ndarray in (hint, origin):
            return self.encode_array(value)
        if isinstance(hint, type) and issubclass(hint, Enum):
            return value.name.lower()
        if dataclasses.is_dataclass(hint):
            return self.encode_fields(value, tagged)
        raise UsageError(f"JSON: {hint} is no type of plain data")

    def encode_fields(self, value: Any, tagged: bool) -> dict[str, Any]:
        """A dataclass, with its class's name where several are possible."""
        cls: type = type(value)
        found = {name: self.encode(getattr(value, name), hint) for name, hint in self.hints(cls).items()}
        return {"is": cls.__name__, **found} if tagged else found

    def encode_array(self, array: NDArray[Any]) -> dict[str, Any]:
        """An array, which goes to the store."""
        if self.store is None:
            raise UsageError("JSON: data with arrays needs a store for them")
        digest = digest_of(array)
        self.store[digest] = array
        return {"digest": digest, "dtype": array.dtype.name, "shape": list(array.shape)}

    # From JSON

    def decode(self, at: At, hint: Any) -> Any:
        """The data of a declared type that a JSON value stands for.

        Raises:
            FormatError: it stands for none; the message names the field.
        """
        arms = self.arms(hint)
        if len(arms) == 1:
            return self.decode_arm(at, arms[0])
        if at.value is None and type(None) in arms:
            return None
        return self.decode_arm(*self.arm_of(at, [arm for arm in arms if arm is not type(None)]))

    def arm_of(self, at: At, arms: list[Any]) -> tuple[At, Any]:
        """Which type of a union a value is of."""
        if _is_tagged(arms):
            by_name = {arm.__name__: arm for arm in arms}
            name = at.expect(dict).get("is")
            if not isinstance(name, str) or name not in by_name:
                raise at.fault(f"is {_shown(name)}, not one of {', '.join(sorted(by_name))}")
            return At({k: v for k, v in at.value.items() if k != "is"}, at.path), by_name[name]
        if len(arms) == 1:
            return at, arms[0]
        is_object = isinstance(at.value, dict)
        return at, next(arm for arm in arms if (arm is Dim or dataclasses.is_dataclass(arm)) == is_object)

    def decode_arm(self, at: At, hint: Any) -> Any:
        """Like ``decode``, of a type that is no union."""
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if hint is Dim:
            return _dim_in(at)
        if hint is float:
            return _float_in(at)
        if hint is int:
            return at.integer()
        if hint in (bool, str):
            return at.expect(hint)
        if hint is DType:
            return _named(at, _DTYPES)
        if origin is Literal:
            return _named(at, {name: name for name in args})
        if origin in (tuple, list):
            return origin(self.decode(item, h) for item, h in zip(*_matched(at, args), strict=True))
        if origin is dict:
            return {key: self.decode(At(v, f"{at.path}.{key}"), args[1]) for key, v in at.expect(dict).items()}
        if np.ndarray in (hint, origin):
            return self.decode_array(at)
        if isinstance(hint, type) and issubclass(hint, Enum):
            return _named(at, {member.name.lower(): member for member in hint})
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            return self.decode_fields(at, hint)
        raise UsageError(f"JSON: {hint} is no type of plain data")

    def decode_fields(self, at: At, hint: type) -> Any:
        """A dataclass."""
        hints = self.hints(hint)
        given = at.fields(*hints)
        return at.guarded(hint, **{name: self.decode(given[name], h) for name, h in hints.items()})

    def decode_array(self, at: At) -> NDArray[Any]:
        """An array of the store."""
        given = at.fields("digest", "dtype", "shape")
        digest = given["digest"].expect(str)
        found = None if self.store is None else self.store.get(digest)
        if found is None:
            raise given["digest"].fault(f"no array of the digest {digest!r} is given")
        if found.dtype != self.decode(given["dtype"], DType).storage:
            raise given["dtype"].fault(f"the array {digest!r} is of {found.dtype.name}")
        if found.shape != tuple(item.integer(0) for item in given["shape"].items()):
            raise given["shape"].fault(f"the array {digest!r} has the shape {found.shape}")
        if digest_of(found) != digest:
            raise given["digest"].fault("the array's bytes are others than when it was saved")
        return found

    def hints(self, cls: type) -> dict[str, Any]:
        """The types of a dataclass's fields, in order."""
        return _hints(cls)

    def arms(self, hint: Any) -> tuple[Any, ...]:
        """The types that a declared one may be."""
        if typing.get_origin(hint) in (Union, types.UnionType):
            return tuple(arm for h in typing.get_args(hint) for arm in self.arms(h))
        found: tuple[Any, ...] = self.variants.get(hint, (hint,)) if isinstance(hint, type) else (hint,)
        return found


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    """The types of the fields that a dataclass is made of; the others hold what follows from them."""
    found = typing.get_type_hints(cls)
    return {f.name: found[f.name] for f in dataclasses.fields(cls) if f.init and f.repr}


def _is_tagged(arms: Any) -> bool:
    """Whether several dataclasses are possible, so that the text has to say which it is."""
    return sum(dataclasses.is_dataclass(arm) for arm in arms) > 1


def _chosen(value: Any, arms: tuple[Any, ...]) -> Any:
    """The type of a union that a value is of."""
    exact = [arm for arm in arms if arm is type(value)]
    fitting = [arm for arm in arms if isinstance(arm, type) and isinstance(value, arm)]
    rest = [arm for arm in arms if typing.get_origin(arm) is type(value)]
    for found in (exact, fitting, rest):
        if found:
            return found[0]
    raise UsageError(f"JSON: {value!r} is none of {', '.join(map(str, arms))}")


def _each(args: tuple[Any, ...], count: int) -> Iterator[Any]:
    """The types of a tuple's or list's elements."""
    if len(args) == 1 or args[1:] == (...,):
        return iter(args[:1] * count)
    return iter(args)


def _matched(at: At, args: tuple[Any, ...]) -> tuple[list[At], list[Any]]:
    items = at.items()
    hints = list(_each(args, len(items)))
    if len(hints) != len(items):
        raise at.fault(f"has {len(items)} elements, not {len(hints)}")
    return items, hints


def _named(at: At, members: Mapping[str, Any]) -> Any:
    name = at.expect(str)
    if name not in members:
        raise at.fault(f"{_shown(name)} is not one of {', '.join(members)}")
    return members[name]


def _float_out(value: float) -> str:
    if value != value:
        return f"nan:{struct.pack('>d', value).hex()}"
    return value.hex()


def _float_in(at: At) -> float:
    text = at.expect(str)
    head, _, bits = text.partition(":")
    if head == "nan":
        value: float = at.guarded(lambda: struct.unpack(">d", bytes.fromhex(bits))[0])
    else:
        value = at.guarded(float.fromhex, text)
    if _float_out(value) != text:
        raise at.fault(f"{_shown(text)} is no number in its canonical form")
    return value


# Symbolic extents: a list of terms, each the coefficient and then what is multiplied with it: symbols as
# ["size", name], and operations such as ["//", a, b].


def _extent_out(extent: Extent) -> Any:
    return _dim_out(extent) if isinstance(extent, Dim) else int(extent)


def _dim_out(dim: Dim) -> dict[str, Any]:
    return {"dim": [[c, *map(_atom_out, monomial)] for monomial, c in dim._terms]}


def _atom_out(atom: tuple[Any, ...]) -> Any:
    return ["size", atom[1]] if atom[0] == "sym" else [atom[0], *map(_extent_out, atom[1:])]


def _extent_in(at: At) -> Extent:
    return _dim_in(at) if isinstance(at.value, dict) else at.integer()


def _dim_in(at: At) -> Dim:
    terms: dict[tuple[Any, ...], int] = {}
    for term in at.fields("dim")["dim"].items():
        items = term.items()
        if not items:
            raise term.fault("is a term without a coefficient")
        terms[tuple(map(_atom_in, items[1:]))] = items[0].integer()
    # Built as it stands, without arithmetic: what it is made of was simplified before it was written.
    found = Dim._build(terms)
    if not isinstance(found, Dim) or _dim_out(found) != at.value or any([*m] != sorted(m, key=repr) for m in terms):
        raise at.fault(f"is not the canonical form of {found}")
    return found


def _atom_in(at: At) -> tuple[Any, ...]:
    parts = at.items()
    if len(parts) == 2 and parts[0].value == "size":
        if not parts[1].expect(str):
            raise parts[1].fault("a size has a name")
        return "sym", parts[1].value
    if len(parts) != 3 or parts[0].value not in ("//", "%", "min"):
        raise at.fault("is no size with its name, and no operation with its two operands")
    a, b = map(_extent_in, parts[1:])
    if isinstance(a, int) and isinstance(b, int):
        raise at.fault(f"the {parts[0].value} of {a} and {b} is no symbolic extent")
    if b == 0 and parts[0].value != "min":
        raise parts[2].fault("divides by 0")
    return parts[0].value, a, b
