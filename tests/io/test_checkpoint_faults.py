"""No failure while saving a checkpoint loses the old file: failed calls, full disks, kills, neighbours."""

from __future__ import annotations

import errno
import os
import resource
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphcore.io import checkpoint, load_arrays, save_arrays

ROOT = Path(__file__).resolve().parents[2]
OLD: dict[str, np.ndarray] = {"a": np.arange(1000, dtype=np.int64)}
NEW: dict[str, np.ndarray] = {"a": np.arange(300_000, dtype=np.int64), "b": np.ones(3, np.float32)}


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()


def failing(real: Callable[..., Any], code: int, after: int = 0) -> Callable[..., Any]:
    """`real`, which fails with this error from its call number `after` on."""
    calls = iter(range(10**9))

    def fail(*args: Any, **kwargs: Any) -> Any:
        if next(calls) >= after:
            raise OSError(code, os.strerror(code))
        return real(*args, **kwargs)

    return fail


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize(
    ("function", "code", "after"),
    [
        ("open", errno.EACCES, 0),
        ("write", errno.ENOSPC, 0),
        ("write", errno.ENOSPC, 1),
        ("write", errno.EIO, 2),
        ("fsync", errno.EIO, 0),
        ("replace", errno.EPERM, 0),
        ("replace", errno.ENOSPC, 0),
    ],
)
def test_failed_calls_leave_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, code: int, after: int, old: bool
) -> None:
    path = tmp_path / "c"
    if old:
        save_arrays(path, OLD)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, function, failing(getattr(os, function), code, after))
        with pytest.raises(OSError) as caught:
            save_arrays(path, NEW)
    assert caught.value.errno == code
    assert str(path) in "".join(caught.value.__notes__)
    assert os.listdir(tmp_path) == (["c"] if old else [])
    if old:
        assert_same(load_arrays(path)[0]["a"], OLD["a"])
    save_arrays(path, NEW)
    assert_same(load_arrays(path)[0]["a"], NEW["a"])


def test_failed_flush_of_the_folder_is_told_and_leaves_a_complete_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_arrays(tmp_path / "c", OLD)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "fsync", failing(os.fsync, errno.EIO, after=1))
        with pytest.raises(OSError):
            save_arrays(tmp_path / "c", NEW)
    assert_same(load_arrays(tmp_path / "c")[0]["a"], NEW["a"])
    assert os.listdir(tmp_path) == ["c"]


def test_the_file_is_flushed_before_the_rename_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[str, int]] = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        steps.append(("folder" if stat.S_ISDIR(status.st_mode) else "file", status.st_size))
        fsync(descriptor)

    def recorded_replace(source: Any, target: Any) -> None:
        steps.append(("rename", os.stat(source).st_size))
        replace(source, target)

    monkeypatch.setattr(checkpoint.os, "fsync", recorded_fsync)
    monkeypatch.setattr(checkpoint.os, "replace", recorded_replace)
    save_arrays(tmp_path / "c", NEW)
    size = (tmp_path / "c").stat().st_size
    assert [step for step, _ in steps] == ["file", "rename", "folder"]
    assert steps[0][1] == steps[1][1] == size


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(checkpoint.os, "write", lambda descriptor, data: write(descriptor, data[:100_001]))
    save_arrays(tmp_path / "c", NEW)
    assert_same(load_arrays(tmp_path / "c")[0]["a"], NEW["a"])


def test_lying_disk_does_not_replace_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_arrays(tmp_path / "c", OLD)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "write", lambda descriptor, data: len(data))
        with pytest.raises(OSError, match="cannot be read back"):
            save_arrays(tmp_path / "c", NEW)
    assert_same(load_arrays(tmp_path / "c")[0]["a"], OLD["a"])
    assert os.listdir(tmp_path) == ["c"]


def test_interrupt_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    save_arrays(tmp_path / "c", OLD)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            save_arrays(tmp_path / "c", NEW)
    assert os.listdir(tmp_path) == ["c"]
    assert_same(load_arrays(tmp_path / "c")[0]["a"], OLD["a"])


def test_file_size_limit_of_the_system_leaves_the_old_file(tmp_path: Path) -> None:
    # A real failure of the system, in the middle of the data: the nearest to a full disk that needs no disk of its own.
    save_arrays(tmp_path / "c", OLD)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(OSError) as caught:
            save_arrays(tmp_path / "c", NEW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert os.listdir(tmp_path) == ["c"]
    assert_same(load_arrays(tmp_path / "c")[0]["a"], OLD["a"])


# --- kills and neighbours ---------------------------------------------------------------------------------------------

# One parent forks a child for each kill, so that Python starts once. The child saves number after number without a
# pause; every array and the metadata of a save hold its number, so that a mixture of two saves shows.
KILLER = """
import os, random, signal, sys, time
import numpy as np
from graphcore.io import load_arrays, save_arrays

path, kills = sys.argv[1], int(sys.argv[2])
arrays = lambda n: {f"a{i}": np.full(50_000 + 1000 * (n % 7), n, np.int64) for i in range(5)}

def check():
    found, metadata = load_arrays(path)
    n = int(metadata["n"])
    expected = arrays(n)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[k], expected[k]) for k in expected)
    return n

random.seed(0)
save_arrays(path, arrays(0), {"n": "0"})
last = dirty = saves = done = 0
# At least so many kills, and on until enough of them hit a save half way: when they do is the machine's affair.
while done < kills or (dirty <= kills // 4 and done < 50 * kills):
    done += 1
    child = os.fork()
    if child == 0:
        n = last
        while True:
            n += 1
            save_arrays(path, arrays(n), {"n": str(n)})
    time.sleep(random.uniform(0.001, 0.06))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    left = [name for name in os.listdir(os.path.dirname(path)) if name.endswith(".tmp")]
    assert len(left) <= 1, left   # the child removed what the one before it left, if it came so far
    dirty += len(left)
    now = check()
    assert now >= last, (now, last)
    saves += now - last
    last = now
save_arrays(path, arrays(last + 1), {"n": str(last + 1)})
assert check() == last + 1
print(dirty, saves, os.listdir(os.path.dirname(path)))
"""


def kill_while_saving(path: Path, kills: int) -> None:
    result = subprocess.run(
        [sys.executable, "-c", KILLER, str(path), str(kills)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    dirty, saves, files = result.stdout.split(" ", 2)
    assert int(dirty) > kills // 4  # kills must hit saves half way, or this test tests nothing
    assert int(saves) > 0
    assert files.strip() == "['c']"


def test_kill_at_random_moments_leaves_the_old_or_the_new_file(tmp_path: Path) -> None:
    kill_while_saving(tmp_path / "c", 20)


@pytest.mark.slow
def test_many_kills_at_random_moments_leave_the_old_or_the_new_file(tmp_path: Path) -> None:
    kill_while_saving(tmp_path / "c", 200)


def test_leftovers_are_removed_but_not_those_in_use_or_of_others(tmp_path: Path) -> None:
    mine, other, text = f".c.{'0' * 16}.tmp", f".cc.{'0' * 16}.tmp", ".c.notes.tmp"
    for name in [mine, other, text]:
        (tmp_path / name).write_bytes(b"half")
    with checkpoint._temporary(tmp_path / "c", None) as (_, in_use):
        save_arrays(tmp_path / "c", OLD)
        assert sorted(os.listdir(tmp_path)) == sorted([other, text, in_use.name, "c"])
        os.unlink(in_use)


def test_a_save_whose_temporary_file_was_taken_for_a_leftover_starts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = checkpoint.fcntl.flock
    removed: list[str] = []

    def remove_the_first(descriptor: int, flags: int) -> None:
        if not removed:
            (name,) = os.listdir(tmp_path)
            os.unlink(tmp_path / name)
            removed.append(name)
        flock(descriptor, flags)

    monkeypatch.setattr(checkpoint.fcntl, "flock", remove_the_first)
    save_arrays(tmp_path / "c", NEW)
    assert removed and os.listdir(tmp_path) == ["c"]
    assert_same(load_arrays(tmp_path / "c")[0]["a"], NEW["a"])


def test_file_systems_without_locks_save_and_keep_leftovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leftover = tmp_path / f".c.{'0' * 16}.tmp"
    leftover.write_bytes(b"half")
    monkeypatch.setattr(checkpoint.fcntl, "flock", failing(checkpoint.fcntl.flock, errno.ENOLCK))
    save_arrays(tmp_path / "c", NEW)
    assert_same(load_arrays(tmp_path / "c")[0]["a"], NEW["a"])
    assert leftover.exists()


def test_leftover_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"data")
    (tmp_path / f".c.{'0' * 16}.tmp").symlink_to(tmp_path / "precious")
    save_arrays(tmp_path / "c", OLD)
    assert sorted(os.listdir(tmp_path)) == sorted([f".c.{'0' * 16}.tmp", "c", "precious"])
    assert (tmp_path / "precious").read_bytes() == b"data"


def test_threads_saving_to_one_target_leave_one_complete_file(tmp_path: Path) -> None:
    path = tmp_path / "c"
    errors: list[BaseException] = []

    def save(number: int) -> None:
        try:
            for _ in range(10):
                save_arrays(path, {"a": np.full(20_000, number)}, {"n": str(number)})
                found, metadata = load_arrays(path)
                assert set(found["a"]) == {int(metadata["n"])}
        except BaseException as error:  # handed to the main thread
            errors.append(error)

    threads = [threading.Thread(target=save, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert os.listdir(tmp_path) == ["c"]
