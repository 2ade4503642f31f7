"""Every code block of the README and the documents runs, in order, in one namespace a document."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_blocks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.S | re.M)
    namespace: dict[str, object] = {"__name__": "__document__"}
    for number, block in enumerate(blocks, 1):
        code = compile(block, f"{path.name} block {number}", "exec")
        exec(code, namespace)


def test_the_readme_has_its_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in ("train", "tests"):
        assert re.search(rf"<!-- command: {name} -->\n```bash\n[^\n]+\n```", text)
