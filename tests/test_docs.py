"""Every code block of the README and the documents runs, in order, in one namespace a document."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.documents import files_of, install

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_blocks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = files_of(path)
    if files:
        if shutil.which("cc") is None:
            pytest.skip("a package of this document needs a C compiler")
        install(files, tmp_path / "installed", monkeypatch)
    blocks = re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.S | re.M)
    namespace: dict[str, object] = {"__name__": "__document__"}
    for block in blocks:
        exec(compile(block, "example.py", "exec", dont_inherit=True), namespace)


@pytest.mark.parametrize(
    "path", [p for p in DOCUMENTS if "<!-- dump:" in p.read_text(encoding="utf-8")], ids=lambda p: p.name
)
def test_dumps_are_what_the_program_prints(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    dumps = re.findall(r"<!-- dump: (\w+) -->\n```text\n(.*?)\n```", text, re.S)
    assert dumps
    namespace: dict[str, Any] = {}
    first = re.search(r"^```python\n(.*?)^```", text, re.S | re.M)
    assert first is not None
    exec(compile(first[1], "example.py", "exec", dont_inherit=True), namespace)
    for stage, shown in dumps:
        assert namespace["compiled"].as_text(stage) == shown, stage


def test_the_readme_has_its_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in ("train", "tests"):
        assert re.search(rf"<!-- command: {name} -->\n```bash\n[^\n]+\n```", text)
