"""The command line, as a user calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import graphcore
from graphcore.tools import cli

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.endswith(("OCL_ICD_VENDORS", "POCL_CACHE_DIR"))}
    command = [sys.executable, "-m", "graphcore.tools.cli", *arguments]
    environment |= {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)


@pytest.fixture
def without_pyopencl(tmp_path: Path) -> str:
    """A PYTHONPATH under which pyopencl cannot be found."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text('import sys\nsys.modules["pyopencl"] = None\n')
    return f"{folder}{os.pathsep}{ROOT}"


def test_doctor_tries_every_device(tmp_path: Path) -> None:
    pytest.importorskip("pyopencl")
    listed = json.loads(run("devices", "--json").stdout)
    done = run("doctor", GRAPHCORE_CACHE=str(tmp_path))
    assert done.stdout.count("works: kernel ready in") == len(listed) > 0, done.stdout + done.stderr
    assert str(tmp_path) in done.stdout and "numpy" in done.stdout
    assert (done.returncode, "all is well" in done.stdout) == (0, True)
    assert "(from the cache)" in run("doctor", GRAPHCORE_CACHE=str(tmp_path)).stdout


def test_doctor_without_pyopencl_says_what_to_install(without_pyopencl: str) -> None:
    done = run("doctor", PYTHONPATH=without_pyopencl)
    assert done.returncode == 1
    assert "pip install graphcore[cpu]" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_devices_without_pyopencl_says_what_to_install(without_pyopencl: str) -> None:
    done = run("devices", PYTHONPATH=without_pyopencl)
    assert (done.returncode, done.stdout) == (1, "")
    assert "pip install graphcore[cpu]" in done.stderr and "Traceback" not in done.stderr


def test_doctor_names_a_cache_folder_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GRAPHCORE_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(cli, "_LIST", "print([])")
    with pytest.warns(RuntimeWarning):
        assert cli.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "NOT writable" in out and "set GRAPHCORE_CACHE" in out


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("import time; time.sleep(60)", "no answer within 0.5 s"),
        ("import os; os.abort()", "killed by signal 6"),
        ("raise SystemError('out of order')", "SystemError: out of order"),
        ("print('chatter')", "no result"),
        ("pass", "no result"),
    ],
)
def test_doctor_survives_a_runtime_that_fails(
    code: str, problem: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyopencl")
    monkeypatch.setattr(cli, "_LIST", code)
    assert cli.main(["doctor", "--timeout", "0.5" if "sleep" in code else "60"]) == 1
    out = capsys.readouterr().out
    assert problem in out and "reinstall" in out


def test_doctor_names_the_device_that_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyopencl")
    device = {"index": 0, "vendor": "x", "kind": "gpu", "name": "Broken 9000", "platform": "X", "driver": "1"}
    monkeypatch.setattr(cli, "_LIST", f"print({json.dumps(json.dumps([device]))})")
    for outcome in ("import os; os.abort()", "print('{\"right\": false}')"):
        monkeypatch.setattr(cli, "_TRY", outcome)
        assert cli.main(["doctor"]) == 1
        out = capsys.readouterr().out
        assert "FAILED" in out and "do not use opencl:0 (Broken 9000)" in out


def test_devices_table() -> None:
    pytest.importorskip("pyopencl")
    done = run("devices")
    listed = json.loads(run("devices", "--json").stdout)
    lines = done.stdout.splitlines()
    assert len(lines) == len(listed) + 1 and lines[0].startswith("device")
    for line, device in zip(lines[1:], listed, strict=True):
        assert line.startswith(f"opencl:{device['index']}") and line.endswith(device["name"])
        assert isinstance(device["extensions"], list)


def test_cache_shows_and_clears(tmp_path: Path) -> None:
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "a.gck").write_bytes(bytes(2048))
    assert f"{tmp_path}: 1 kernel programs, 2.0 KB" in run("cache", GRAPHCORE_CACHE=str(tmp_path)).stdout
    cleared = run("cache", "--clear", GRAPHCORE_CACHE=str(tmp_path)).stdout
    assert "freed 2.0 KB" in cleared and "0 kernel programs" in cleared
    assert not (tmp_path / "kernels" / "a.gck").exists()


def test_wrong_arguments_and_help() -> None:
    assert run().returncode == 2
    assert run("frobnicate").returncode == 2
    done = run("--help")
    assert done.returncode == 0 and all(word in done.stdout for word in ("doctor", "devices", "cache", "dump"))


# --- dump ------------------------------------------------------------------------------------------------------------

SCRIPT = """
loss = "the loss"
other = ["two", "fetches"]
def build():
    return {"built": __name__}
if __name__ == "__main__":
    raise SystemExit("a training loop started")
"""


@pytest.fixture
def dumped(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, str, str]]:
    """Records calls of `graphcore.dump`, which has tests of its own."""
    calls: list[tuple[Any, str, str]] = []
    monkeypatch.setattr(
        graphcore, "dump", lambda fetches, out, *, stage: calls.append((fetches, out, stage)), raising=False
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    return calls


@pytest.mark.parametrize(
    ("suffix", "fetches"),
    [("", "the loss"), (":other", ["two", "fetches"]), (":build", {"built": "__graphcore_dump__"})],
)
def test_dump_passes_the_fetches_of_a_script(
    suffix: str, fetches: Any, tmp_path: Path, dumped: list[tuple[Any, str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "model.py"
    script.write_text(SCRIPT)
    assert cli.main(["dump", f"{script}{suffix}", "graph.svg", "--stage", "fused"]) == 0
    assert dumped == [(fetches, "graph.svg", "fused")]
    assert "wrote graph.svg" in capsys.readouterr().out


def test_dump_takes_a_module(
    tmp_path: Path, dumped: list[tuple[Any, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_model_module.py").write_text(SCRIPT)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert cli.main(["dump", "a_model_module:other", "graph.json"]) == 0
    assert dumped == [(["two", "fetches"], "graph.json", None)]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("model.py:absent", 'no "absent"'),
        ("nowhere.py", "no file"),
        ("empty.py", "empty.py:NAME"),
        ("no_such_module:x", "no module"),
    ],
)
def test_dump_explains_what_is_wrong(
    source: str,
    message: str,
    tmp_path: Path,
    dumped: list[tuple[Any, str, str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(SCRIPT)
    (tmp_path / "empty.py").write_text("")
    assert cli.main(["dump", source, "graph.dot"]) == 1
    assert message in capsys.readouterr().err
    assert dumped == []
