"""The layers: imports go downwards only, packages import alone and fast, facts are asked. Read from the syntax
trees."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator

from support.syntax_trees import PACKAGES, ROOT, modules, tree

import graphcore as gc

# From low to high; folders of one row may not see each other unless they stand in SIDEWAYS. Imports go down only.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("graphcore.version", "graphcore.base"),
    ("graphcore.kernel",),
    ("graphcore.ir",),
    ("graphcore.plan",),
    ("graphcore.ops",),
    ("passes.stage",),
    ("passes.graph",),
    ("passes.fusion",),
    ("passes.kernels",),
    ("passes.planning",),
    ("passes.driver",),
    ("passes.pipeline",),
    ("graphcore.api",),
    ("graphcore.functional",),
    ("graphcore.nn",),
    ("graphcore.optim",),
    ("graphcore.data", "graphcore.io", "graphcore.runtime", "graphcore.viz", "graphcore.tools"),
    ("graphcore.models", "graphcore.train"),
    ("graphcore", "graphcore.__main__"),
)
SIDEWAYS = {
    ("graphcore.runtime", "graphcore.io"),
    ("graphcore.tools", "graphcore.runtime"),
    ("graphcore.tools", "graphcore.viz"),
}
# Backends stand beside all that: they see plans and what is below, and of each other only code generation.
BACKENDS = {
    "backends.codegen": ("backends.codegen",),
    "backends.numpy": ("backends.numpy", "backends.codegen"),
    "backends.opencl": ("backends.opencl", "backends.codegen"),
}
BELOW_BACKENDS = ("graphcore.base", "graphcore.kernel", "graphcore.ir", "graphcore.plan")
BY_NAME = {"graphcore", "graphcore.base.lazy", "graphcore.tools.cli"}  # modules that import modules by their names
# What is not in its place yet: importing modules and what they import. The list may only get shorter.
ALLOWED: dict[str, set[str]] = {}


def imports(name: str) -> Iterator[tuple[str, int, str]]:
    """``(module, line, when)`` of every import: at "import", "late" inside a function, or for "types" only."""
    yield from _imports(name, tree(name), "import")


def _imports(name: str, parent: ast.AST, when: str) -> Iterator[tuple[str, int, str]]:
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from _imports(name, node, "late")
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _imports(name, node, "types")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, when
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield (whole if whole in modules() else str(node.module)), node.lineno, when
        else:
            yield from _imports(name, node, when)


def folder(module: str) -> str:
    """The layer's name that a module belongs to: its folder, or itself where it stands alone."""
    names = [n for row in LAYERS for n in row] + list(BACKENDS)
    best = max((n for n in names if module == n or module.startswith(n + ".")), key=len, default="")
    assert best and (best != "graphcore" or module == best), f"{module} is in no layer: add it to LAYERS"
    return best


def height(name: str) -> int:
    return next(i for i, row in enumerate(LAYERS) if name in row)


def may_import(module: str, other: str) -> bool:
    """Whether a module may import another one of the packages."""
    here, there = folder(module), folder(other)
    if here in BACKENDS:
        return there in (*BACKENDS[here], *BELOW_BACKENDS)
    if there in BACKENDS:
        return False
    return here == there or height(there) < height(here) or (here, there) in SIDEWAYS


def test_every_module_has_a_layer() -> None:
    for name in modules():
        if name not in PACKAGES:
            folder(name)


def test_imports_go_down_only() -> None:
    found: dict[str, set[str]] = {}
    for name in modules():
        if name in ("passes", "backends"):
            continue
        for module, _, when in imports(name):
            if module in modules() and module not in PACKAGES and when != "types" and not may_import(name, module):
                found.setdefault(name, set()).add(module)
    assert found == ALLOWED


def test_no_module_imports_the_face() -> None:
    wrong = [
        f"{name}:{line}"
        for name in modules()
        for module, line, _ in imports(name)
        if module in PACKAGES and name != module
    ]
    assert not wrong, "\n".join(wrong)


def test_imports_have_no_circles() -> None:
    graph = {
        name: {
            module for module, _, when in imports(name) if when == "import" and module in modules() and module != name
        }
        for name in modules()
    }
    done: dict[str, bool] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert done.get(name) is not False, f"a circle: {' -> '.join((*path, name))}"
        if name not in done:
            done[name] = False
            for other in sorted(graph[name]):
                visit(other, (*path, name))
            done[name] = True

    for name in sorted(graph):
        visit(name, ())


def test_nothing_is_imported_inside_a_function() -> None:
    wrong = [
        f"{name}:{line} imports {module}"
        for name in modules()
        for module, line, when in imports(name)
        if when == "late"
    ]
    assert not wrong, "\n".join(wrong)


def test_imports_by_name_stand_in_few_places() -> None:
    found = set()
    for name in modules():
        for node in ast.walk(tree(name)):
            called = isinstance(node, ast.Attribute) and node.attr == "import_module"
            if called or (isinstance(node, ast.Name) and node.id in ("__import__", "import_module")):
                found.add(name)
    assert found == BY_NAME


def test_the_face_lists_what_modules_offer() -> None:
    for name, words in gc._NAMES.items():
        module = importlib.import_module(name)
        missing = [w for w in words.split() if not hasattr(module, w)]
        assert not missing, (name, missing)
    for name in ("creation", "elementwise", "logic", "padding", "products", "reductions", "shaping", "special"):
        module = importlib.import_module(f"graphcore.api.{name}")
        assert set(gc._NAMES[f"graphcore.api.{name}"].split()) == set(module.__all__), name
    errors = importlib.import_module("graphcore.base.errors")
    assert set(gc._NAMES["graphcore.base.errors"].split()) == set(errors.__all__)
    homes = [w for words in gc._NAMES.values() for w in words.split()]
    assert len(homes) == len({*homes}) and not {*homes} & gc._MODULES.keys(), "a name has two homes"
    assert all(hasattr(gc, name) for name in dir(gc)), "a listed name is not there"


def test_init_files_of_passes_and_backends_import_nothing() -> None:
    for name, path in modules().items():
        if path.name == "__init__.py" and not name.startswith(("graphcore", "passes.graph.simplify")):
            assert not [m for m, _, _ in imports(name) if m != "__future__"], name


# --- fresh interpreters -----------------------------------------------------------------------------------------------


def fresh(source: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_can_be_imported_first() -> None:
    """In one interpreter: each module with all of the packages' modules forgotten before it."""
    fresh(
        "import importlib, sys\n"
        f"for name in {sorted(n for n in modules() if n != 'graphcore.__main__')!r}:\n"
        "    for loaded in [m for m in sys.modules if m.split('.')[0] in ('graphcore', 'passes', 'backends')]:\n"
        "        del sys.modules[loaded]\n"
        "    importlib.import_module(name)\n"
    )


def test_importing_graphcore_imports_nothing_of_it() -> None:
    report = "import sys; before = {*sys.modules}; import graphcore; print(*sorted({*sys.modules} - before))"
    ours = {"graphcore", "passes", "backends", "numpy"}
    assert [m for m in fresh(report).split() if m.split(".")[0] in ours] == ["graphcore"]
    heavy = "{'pyopencl', 'networkx', 'tqdm', 'safetensors', 'backends'} & {m.split('.')[0] for m in sys.modules}"
    use = "import sys; import graphcore as gc; gc.gradients((gc.placeholder('float32', (3,)) * 2).sum(), []); "
    assert fresh(use + f"print(*sorted({heavy}))").split() == []


# --- facts, not names -------------------------------------------------------------------------------------------------

# What tells things apart for people. Code asks facts, classes and enums instead.
NAMING = ("name", "family", "form", "kind")
# Comparisons of such attributes with texts that remain, by file. The numbers may only fall.
COMPARED = {
    "backends/codegen/device_model.py": 2,  # device kinds are parts of device strings: asked once, as is_cpu and is_gpu
    "backends/opencl/device/device.py": 2,
    "backends/opencl/device/icd.py": 2,  # names of folders and libraries
    "backends/opencl/compiler/pocl_cache.py": 1,
    "backends/codegen/cnames.py": 1,  # a table of C types by the names of ours
    "graphcore/base/dtypes.py": 4,  # where is_float and its like are defined
    "graphcore/io/checkpoint.py": 1,  # the operating system
}
ARRAYS = ("array", "a", "value")
OP_CLASSES = ("passes.graph.simplify", "passes.graph.transforms", "graphcore.ops")  # rules match and build by class
BY_CLASS = {
    "graphcore.api.gradients",  # makes regions, which hold graphs and so have no builder method
}


def named(node: ast.AST, aliases: frozenset[str] = frozenset()) -> bool:
    """Whether an expression is an attribute that names something, or a variable that was given one.

    The kinds of NumPy arrays are NumPy's own letters and do not count: arrays are called by one of the names in ARRAYS.
    """
    if isinstance(node, ast.Name):
        return node.id in aliases
    named_so = isinstance(node, ast.Attribute) and node.attr in NAMING
    return named_so and ast.unparse(node) not in {f"{array}.dtype.kind" for array in ARRAYS}


def is_text(node: ast.AST, texts: frozenset[str]) -> bool:
    """Whether an expression is a text, holds texts, or is a constant of the packages that does."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str)
    if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        return any(is_text(e, texts) for e in node.elts)
    if isinstance(node, ast.Dict):
        return any(k is not None and is_text(k, texts) for k in node.keys)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in ("frozenset", "set", "tuple", "list") and any(is_text(e, texts) for e in node.args)
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Attribute) and node.func.attr == "split" and is_text(node.func.value, texts)
    if isinstance(node, ast.Attribute):  # of a module, not a member of an enum
        return node.attr in texts and isinstance(node.value, ast.Name) and node.value.id.islower()
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Name) and node.id in texts)


def text_constants(module: ast.Module) -> set[str]:
    """Module-level names of texts and collections of texts."""
    found = set()
    for node in module.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if value is not None and isinstance(target, ast.Name) and is_text(value, frozenset()):
            found.add(target.id)
        elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and is_text(value, frozenset()):
            found |= {t.id for t in target.elts if isinstance(t, ast.Name)}
    return found


def compared_names(module: ast.Module, texts: frozenset[str]) -> Iterator[int]:
    """Lines that compare what names something with a text, or look it up in a table of texts."""
    for function in (n for n in ast.walk(module) if isinstance(n, (ast.FunctionDef, ast.Module))):
        own = [*_own(function)]
        aliases = frozenset(
            t.id
            for n in own
            if isinstance(n, ast.Assign) and named(n.value)
            for t in n.targets
            if isinstance(t, ast.Name)
        )
        for node in own:
            if isinstance(node, ast.Compare):
                sides = (node.left, *node.comparators)
                hit = any(named(s, aliases) for s in sides) and any(is_text(s, texts) for s in sides)
            elif isinstance(node, ast.Match):
                hit = named(node.subject, aliases) and any(
                    isinstance(n, ast.MatchValue) and is_text(n.value, texts) for n in ast.walk(node)
                )
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                asked, value = node.func.attr, node.func.value
                hit = (asked in ("startswith", "endswith") and named(value, aliases)) or (
                    asked == "get" and is_text(value, texts) and any(named(a, aliases) for a in node.args)
                )
            else:
                hit = isinstance(node, ast.Subscript) and is_text(node.value, texts) and named(node.slice, aliases)
            if hit:
                yield node.lineno


def _own(function: ast.AST) -> Iterator[ast.AST]:
    """What stands in a function, functions inside of it apart."""
    for node in ast.iter_child_nodes(function):
        if not isinstance(node, ast.FunctionDef):
            yield node
            yield from _own(node)


def probed_facts(module: ast.Module, anywhere: bool) -> Iterator[int]:
    """Lines that ask by ``getattr`` or ``hasattr`` whether something has an attribute: with ``anywhere`` of anything,
    else of ops, steps and kernels. Walking over the fields of a dataclass is no question."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
            fixed = len(node.args) == 3 or isinstance(node.args[1], ast.Constant)
            asked = ast.unparse(node.args[0]).rsplit(".", maxsplit=1)[-1]
            if fixed and (anywhere or asked in ("op", "choices", "step", "kernel", "plan", "node", "group")):
                yield node.lineno


def relative(name: str) -> str:
    return str(modules()[name].relative_to(ROOT))


def test_nothing_compares_names_with_texts() -> None:
    """Facts, classes and enums decide; names, kinds and templates are for people."""
    texts = frozenset().union(*(text_constants(tree(name)) for name in modules()))
    found = {relative(name): len({*compared_names(tree(name), texts)}) for name in modules()}
    assert {path: n for path, n in found.items() if n} == COMPARED


def test_facts_are_declared_not_probed() -> None:
    found = [
        f"{relative(name)}:{line}"
        for name in modules()
        for line in probed_facts(tree(name), not name.startswith("graphcore"))
    ]
    assert not found


def test_ops_are_named_by_rules_only() -> None:
    """Passes and backends know leaves and kinds of ops; rewrite rules and gradients also know classes."""
    found = {
        name
        for name in modules()
        if not name.startswith(OP_CLASSES) and any(m.startswith("graphcore.ops.") for m, _, _ in imports(name))
    }
    assert found == BY_CLASS


def test_the_checks_see_what_they_look_for() -> None:
    text = "import a.b\nif TYPE_CHECKING:\n    import c\ndef f():\n    from p.q import r\nclass K:\n    import d"
    found = list(_imports("probe", ast.parse(text), "import"))
    assert found == [("a.b", 1, "import"), ("c", 3, "types"), ("p.q", 5, "late"), ("d", 7, "import")]
    assert height("graphcore.nn") > height("graphcore.functional") > height("graphcore.ops") > height("graphcore.base")
    assert may_import("graphcore.api.gradients", "passes.pipeline")
    assert not may_import("passes.pipeline", "graphcore.api.gradients")
    assert not may_import("passes.fusion.fuse", "backends.codegen.registry")
    assert not may_import("backends.codegen.registry", "graphcore.ops.view")
    assert may_import("backends.numpy.runtime", "backends.codegen.loads")
    assert not may_import("backends.codegen.loads", "backends.numpy.runtime")
    assert not may_import("backends.numpy.runtime", "backends.opencl.runtime")


def test_the_checks_of_facts_see_what_they_look_for() -> None:
    texts = frozenset(text_constants(ast.parse("INVERTIBLE = ('reshape', 'permute')\nA, B = 'a', 'b'\nN = 3")))
    assert texts == {"INVERTIBLE", "A", "B"}
    compares = (
        "op.name == 'constant'",
        "'conv' != node.op.family",
        "step.family not in ('nest', 'scatter')",
        "node.op.name in INVERTIBLE",
        "axis.kind == index.A",
        "axis.name == f'i{n}'",
        "op.name in frozenset(['a'])",
        "op.name in 'a b'.split()",
        "op.name.startswith('conv')",
        "{'variable': 1}[op.name]",
        "{'variable': 1}.get(op.name, 2)",
        "x.dtype.kind in 'iu'",
    )
    for text in compares:
        assert [*compared_names(ast.parse(text), texts)] == [1], text
    assert [*compared_names(ast.parse("def f(op):\n    word = op.name\n    return word == 'cast'"), texts)] == [3]
    assert [*compared_names(ast.parse("match op.kind:\n    case 'map':\n        pass"), texts)] == [1]
    free = (
        "op.kind is Kind.A",
        "op.kind in (Kind.MAP, Kind.VIEW)",
        "a.name == b.name",
        "array.dtype.kind in 'iu'",
        "role == 'feed'",
        "sizes[axis.name]",
        "f(op.name, 'cast')",
        "node.op.array.size == N",
    )
    for text in free:
        assert not [*compared_names(ast.parse(text), texts)], text
    probes = ast.parse(
        "getattr(op, 'loops', False)\nhasattr(step.choices, 'describe')\ngetattr(op, f.name)\nhasattr(value, 'dtype')"
    )
    assert [*probed_facts(probes, anywhere=False)] == [1, 2]
    assert [*probed_facts(probes, anywhere=True)] == [1, 2, 4]
