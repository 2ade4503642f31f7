"""The files of a package that a document shows, installed as an installer leaves them."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

__all__ = ["ARCHITECTURE", "files_of", "install"]

ARCHITECTURE = Path(__file__).resolve().parents[2] / "docs" / "architecture.md"


def files_of(document: Path) -> dict[str, str]:
    """The files that a document shows whole, by name."""
    text = document.read_text(encoding="utf-8")
    return dict(re.findall(r"^<!-- file: (\S+) -->\n```\w+\n(.*?)^```", text, re.S | re.M))


def install(files: dict[str, str], folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Put a package's modules and what its pyproject.toml says of it where Python finds them, until the test ends.

    Args:
        files: modules and ``pyproject.toml``, by name.
        folder: an empty one, outside of the repository.
        patch: of the test.
    """
    project = tomllib.loads(files["pyproject.toml"])["project"]
    about = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    lines = [f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in e.items()) for group, e in groups]
    (about / "entry_points.txt").write_text("\n".join(lines))
    for name, text in files.items():
        if name.endswith(".py"):
            (folder / name).write_text(text)
            patch.delitem(sys.modules, Path(name).stem, raising=False)
    patch.syspath_prepend(str(folder))
