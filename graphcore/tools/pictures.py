"""Looking at graphs: pictures of every stage of compilation, trees as text, and graphs for networkx."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphcore import viz
from graphcore.api.tensor import Tensor
from graphcore.base.errors import DeviceError, FeedError, UsageError
from graphcore.base.shapes import Dim, bind, format_shape, symbols_of
from graphcore.ir.graph import Graph, Update, collect
from graphcore.ir.leaves import Parameter, Placeholder, RequireShape, StateRead
from graphcore.ir.networkx_export import to_networkx
from graphcore.ir.node import Node, Value, describe
from graphcore.ir.op import Kind
from graphcore.ir.printer import attribute_text
from graphcore.kernel.parts import uncut
from graphcore.plan.backend import Piece
from graphcore.runtime.feeds import feed_points
from graphcore.runtime.fetches import flatten_fetches
from graphcore.runtime.session import Session, default_session
from graphcore.viz.adapters import Splats, graph_diagram, value_name
from graphcore.viz.lowered import fused_diagram, plan_diagram
from graphcore.viz.theme import clip
from passes.fusion.lower import Kernels
from passes.fusion.partition import Group
from passes.pipeline import Compilation, compile_graph, installed
from passes.planning.plan_builder import scheduled

if TYPE_CHECKING:
    from graphcore.runtime.session import Session
    from graphcore.viz import Diagram

__all__ = ["CHOSEN_SIZE", "STAGES", "SUFFIXES", "dprint", "dump", "to_networkx"]

STAGES = ("built", "simplified", "fused", "plan")
SUFFIXES = (".dot", ".svg", ".html", ".json")
CHOSEN_SIZE = 32
_INDENTED = 40  # deeper than this, dprint writes the depth as a number instead of indenting further


def dump(
    fetches: Any,
    path: str | os.PathLike[str],
    stage: str | None = None,
    *,
    session: Session | None = None,
    feeds: Mapping[Tensor, Any] | None = None,
    device: str | None = None,
) -> None:
    """Write a picture of what a run of some fetches does. Nothing is run, and no variable is initialised.

    Args:
        fetches: as in ``Session.run``: a tensor, update or training step, or any nesting of them.
        path: a ``.dot``, ``.svg``, ``.html`` or ``.json`` file; its folder is made, and the file appears whole or not
            at all.
        stage: ``"built"``: the graph as written. ``"simplified"``: after the graph passes. ``"fused"``: the kernels
            around their ops. ``"plan"``: steps, buffers and memory. ``"all"``: a page with every stage as a tab. By
            default ``"built"``, and every stage for pages; where no device can be opened, a page by default has the
            first two and says so.
        session: whose device and passes to compile for. The first two stages need none; for the others the default
            session is taken.
        feeds: tensor to array or shape: what is fed, and the sizes to compile for. Sizes that no feed gives are taken
            to be 32; the picture says so.
        device: instead of a session, a device to compile for, such as ``"opencl:0"`` or ``"numpy"``.

    Raises:
        UsageError: an unknown suffix or stage, several stages for one picture, or both a session and a device.
        FeedError: a feed that does not fit.
        DeviceError: no device for a stage that needs one.

    >>> import graphcore as gc
    >>> x = gc.placeholder("float32", (None, 3), name="x")
    >>> gc.dump(x.sum(), "graph.svg")  # doctest: +SKIP
    """
    target = Path(os.fspath(path))
    suffix = target.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"dump: {target.name!r} does not end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    if stage not in (None, "all", *STAGES):
        raise UsageError(
            f"dump: no stage {stage!r}; use one of {', '.join(map(repr, STAGES))}, or 'all' for an .html page"
        )
    if stage == "all" and suffix != ".html":
        raise UsageError(
            f"dump: only an .html page holds all stages, {target.name!r} holds one: {', '.join(map(repr, STAGES))}"
        )
    if session is not None and device is not None:
        raise UsageError("dump: give a session or a device, not both; the session has a device already")
    subject = _Subject(fetches, feeds, session, device)
    if stage is not None and stage != "all":
        diagrams = [subject.diagram(stage)]
    elif suffix == ".html":
        diagrams = subject.every_stage(insist=stage == "all")
    else:
        diagrams = [subject.diagram("built")]
    _write(target, _render(diagrams, suffix, subject.name))


def dprint(fetches: Any, *, file: Any = None) -> None:
    """Print the graph of a tensor as a tree, operands below their users, with types and the user's lines.

    Args:
        fetches: a tensor, update or training step, or any nesting of them. A value that was printed before is only
            named.
        file: where to print; standard output by default.

    >>> import graphcore as gc
    >>> x = gc.placeholder("float32", (3,), name="x")
    >>> dprint(-x)  # doctest: +SKIP
    %1 = neg : float32(3,)  # <stdin>:1
      %0 = x : float32(3,)  # <stdin>:1
    """
    tensors, updates, _ = flatten_fetches(fetches)
    graph = Graph(tuple(tensors), tuple((u.slot, u.value) for u in updates))
    for line in _tree(graph):
        print(line, file=file)


# Trees


def _tree(graph: Graph) -> Iterator[str]:

    numbers = {n.serial: i for i, n in enumerate(dict.fromkeys((*(t.node for t in graph.inputs), *graph.nodes())))}
    seen: set[int] = set()
    splats = Splats()
    roots = [("", t) for t in graph.outputs] + [(f"{v.name} <- ", t) for v, t in graph.updates]
    # With each value whether the region around it is part of a gradient, and so all of its body.
    stack: list[tuple[int, str, Value, bool]] = [(0, prefix, t, False) for prefix, t in reversed(roots)]
    while stack:
        depth, prefix, t, around = stack.pop()
        node = t.node
        number = numbers.setdefault(node.serial, len(numbers))
        name = f"%{number}" + (f".{t.index}" if len(node.types) > 1 else "")
        indent = "  " * depth if depth <= _INDENTED else "  " * _INDENTED + f"[depth {depth}] "
        if node.serial in seen:
            yield f"{indent}{prefix}{name} (above)"
            continue
        number_text = splats.text(t) if node.op.kind in (Kind.VIEW, Kind.LEAF) else None
        if number_text is not None:
            yield f"{indent}{prefix}{number_text} : {t.type}"
            continue
        seen.add(node.serial)
        types = ", ".join(map(str, node.types))
        gradient = (around or node.origin.derived) and node.op.kind is not Kind.LEAF
        marks = (" [gradient]" if gradient else "") + (" [recomputed]" if node.clone else "")
        yield f"{indent}{prefix}{name} = {_what(node)} : {types}{marks}  # {node.origin}"
        below = [(depth + 1, "", operand, around) for operand in node.inputs]
        if node.op.kind is Kind.REGION:
            for i, body in enumerate(node.op.bodies):  # type: ignore[attr-defined]
                below += [(depth + 1, f"body {i} gives ", root, around or node.origin.derived) for root in body.roots]
        stack.extend(reversed(below))


def _what(node: Node) -> str:
    op: Any = node.op
    if isinstance(op, (Placeholder, Parameter)):
        return f"{op.name} {op.label}" if op.label else str(op.name)
    if op.kind is Kind.LEAF:
        return f"{op.name} {attribute_text(node)}"
    attributes = attribute_text(node)
    return f"{op.name}({attributes})" if attributes else str(op.name)


# Diagrams


class _Subject:
    """What to draw: a run's graph, the sizes to compile it for, and what compiles it."""

    def __init__(
        self, fetches: Any, feeds: Mapping[Tensor, Any] | None, session: Session | None, device: str | None
    ) -> None:
        tensors, updates, _ = flatten_fetches(fetches)
        self.graph = _run_graph(tensors, updates, tuple(feeds or ()))
        self.sizes, self.chosen = _choose_sizes(self.graph, _fed_shapes(feeds or {}))
        self.session, self.device = session, device
        self.name = _title(tensors, updates)
        self.compiled: Compilation | None = None
        self.target: Any = None
        self.device_name = ""

    def diagram(self, stage: str) -> Diagram:
        """A stage's diagram.

        Raises:
            DeviceError: no device for a stage that needs one.
        """
        return replace(self._diagram(stage, f"{stage}: {self.name}"), name=stage)

    def _diagram(self, stage: str, title: str) -> Diagram:
        if stage == "built":
            return graph_diagram(self.graph, title)
        if stage == "simplified":
            return graph_diagram(self.simplified(), title, self.size_facts())

        stages = self.compile()
        if stage == "plan":
            return plan_diagram(stages.plan, stages.placed, stages.simplified, stages.slots, title, self.facts())
        kernels = {made.group.number: made for made in stages.latest(Kernels).listed}

        def pieces(group: Group) -> Sequence[Piece]:
            made = kernels[group.number]
            parts = (made.parts or uncut(made.kernel)).parts if made.kernel.stores else ()
            return [p for part in parts for p in scheduled(part, self.target, self.sizes)]

        return fused_diagram(stages.partition, pieces, self.sizes, title, self.facts())

    def every_stage(self, insist: bool) -> list[Diagram]:
        """All diagrams; unless ``insist``, only those that need no device if there is none."""
        try:
            self.compile()
        except DeviceError as error:
            if insist:
                raise
            reason = str(error).partition("\n")[0]
            drawn = [self.diagram("built"), self.diagram("simplified")]
            return [replace(d, facts=(*d.facts, ("kernels and memory", f"not drawn, {reason}"))) for d in drawn]
        return [self.diagram(stage) for stage in STAGES]

    def simplified(self) -> Graph:
        """The graph after the session's passes, or the default ones, with every extent bound that compiling binds."""

        if self.compiled is not None:
            return self.compiled.simplified
        pipeline = self.session._pipeline if self.session is not None else installed()
        return compile_graph(self.graph, None, self.sizes, pipeline=pipeline, upto=Graph).simplified

    def compile(self) -> Compilation:
        """Every stage of the compilation for the session's device."""
        if self.compiled is None:
            with contextlib.ExitStack() as stack:
                session = self.session or (
                    stack.enter_context(Session(self.device)) if self.device else default_session()
                )
                session._check_alive()
                self.target, self.device_name = session._backend.target, str(session._backend.name)
                self.compiled = compile_graph(self.graph, self.target, self.sizes, pipeline=session._pipeline)
        return self.compiled

    def facts(self) -> tuple[tuple[str, str], ...]:
        return (*self.size_facts(), ("device", self.device_name))

    def size_facts(self) -> tuple[tuple[str, str], ...]:
        """The sizes compiled for, equal ones together: those that feeds give, and those that were taken."""
        facts = []
        for name, chosen in (("sizes", False), ("chosen, not fed", True)):
            by_value: dict[int, list[str]] = {}
            for symbol in sorted(self.sizes, key=_symbol_order):
                if (symbol in self.chosen) == chosen:
                    by_value.setdefault(self.sizes[symbol], []).append(symbol)
            if by_value:
                facts.append(
                    (name, ", ".join(" = ".join((*symbols, str(value))) for value, symbols in by_value.items()))
                )
        return tuple(facts)


def _title(tensors: Sequence[Value], updates: Sequence[Update]) -> str:
    """What the run is: the first fetches by name, and how many variables it updates."""
    names = ", ".join(clip(value_name(t), 60) for t in tensors[:3])
    names += f" and {len(tensors) - 3} more" if len(tensors) > 3 else ""
    changes = f"{len(updates)} update{'s' if len(updates) != 1 else ''}" if updates else ""
    return " + ".join(filter(None, (names, changes))) or "nothing"


def _run_graph(tensors: Sequence[Value], updates: Sequence[Update], fed: tuple[Any, ...]) -> Graph:
    """The graph that a run would compile, with every placeholder fed."""

    for t in fed:
        if not isinstance(t, Tensor):
            raise FeedError(f"dump: feeds must map tensors to arrays or shapes, got a {type(t).__name__}")
        if isinstance(t.node.op, StateRead):
            raise FeedError(f"dump: {t.name!r} is a variable and cannot be fed")
    values = tuple([t.value for t in fed])
    graph, _ = feed_points(collect(tensors, updates, values), values)
    known = {t.node.serial for t in graph.inputs}
    others = [n.output() for n in graph.nodes() if isinstance(n.op, Placeholder) and n.serial not in known]
    return Graph(graph.outputs, graph.updates, (*graph.inputs, *others))


def _fed_shapes(feeds: Mapping[Tensor, Any]) -> list[tuple[Tensor, tuple[int, ...]]]:
    """The shape of every feed; a tuple or list of as many integers as the tensor has axes is a shape itself."""
    shapes = []
    for t, value in feeds.items():
        listed = (
            isinstance(value, (tuple, list))
            and len(value) == t.ndim
            and all(isinstance(e, (int, np.integer)) for e in value)
        )
        shape = tuple(map(int, value)) if listed else tuple(np.shape(value))
        if len(shape) != t.ndim:
            raise FeedError(
                f"dump: feed for {t.name!r} has shape {shape}, it must have rank {t.ndim}: {format_shape(t.shape)}\n"
                f"  {describe(t)}"
            )
        shapes.append((t, shape))
    return shapes


def _choose_sizes(graph: Graph, fed: Sequence[tuple[Tensor, tuple[int, ...]]]) -> tuple[dict[str, int], frozenset[str]]:
    """A value for every symbol: from the feeds, from extents that must be equal to known ones, else ``CHOSEN_SIZE``.

    Returns:
        The values, and the symbols that no feed decides.
    """
    nodes = _all_nodes(graph)
    equal: list[tuple[Any, Any]] = [
        pair
        for n in nodes
        if isinstance(n.op, RequireShape)
        for pair in zip(n.inputs[0].shape, n.types[0].shape, strict=True)
    ]
    equal += [pair for t, shape in fed for pair in zip(t.shape, shape, strict=True)]
    sizes: dict[str, int] = {}
    _propagate(equal, sizes)
    for t, shape in fed:
        for axis, (want, have) in enumerate(zip(t.shape, shape, strict=True)):
            if isinstance(bind(want, sizes), int) and bind(want, sizes) != have:
                raise FeedError(
                    f"dump: feed for {t.name!r} has shape {shape}; axis {axis} must be {bind(want, sizes)}\n"
                    f"  {describe(t)}"
                )
    given = set(sizes)
    for symbol in sorted(symbols_of(e for n in nodes for kind in n.types for e in kind.shape), key=_symbol_order):
        if symbol not in sizes:
            sizes[symbol] = CHOSEN_SIZE
            _propagate(equal, sizes)
    return sizes, frozenset(sizes.keys() - given)


def _symbol_order(symbol: str) -> tuple[int, str]:
    """Unnamed symbols in the order in which they were made."""
    return (int(symbol[1:]), "") if symbol[:1] == "?" and symbol[1:].isdigit() else (-1, symbol)


def _propagate(equal: Sequence[tuple[Any, Any]], sizes: dict[str, int]) -> None:
    """Give symbols the values that equations with one unknown bare symbol leave them."""
    changed = True
    while changed:
        changed = False
        for a, b in equal:
            left, right = bind(a, sizes), bind(b, sizes)
            if isinstance(left, int):
                left, right = right, left
            if isinstance(left, Dim) and left.is_symbol and isinstance(right, int):
                (symbol,) = left.symbols()
                sizes[symbol] = right
                changed = True


def _all_nodes(graph: Graph) -> list[Node]:
    """The nodes of a graph and of its regions' bodies, inputs included."""
    found: list[Node] = []
    pending = [graph]
    while pending:
        current = pending.pop()
        nodes = list(dict.fromkeys((*(t.node for t in current.inputs), *current.nodes())))
        found += nodes
        for node in nodes:
            if node.op.kind is Kind.REGION:
                pending.extend(node.op.bodies)  # type: ignore[attr-defined]
    return found


# Files


def _render(diagrams: Sequence[Diagram], suffix: str, name: str) -> str:
    if suffix == ".html":
        return viz.to_html(diagrams, title=diagrams[0].title if len(diagrams) == 1 else name)
    writer = {".dot": viz.to_dot, ".svg": viz.to_svg, ".json": viz.to_json}[suffix]
    return writer(diagrams[0])


def _write(target: Path, text: str) -> None:
    """Write a file so that it appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
