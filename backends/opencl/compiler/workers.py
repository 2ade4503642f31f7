"""Compiles several programs at once, each in a process of its own: a vendor's compiler serialises the builds of one.

The processes are subprocesses that import nothing of the user's. They belong to a `with` block: however it is left,
none of them runs on, and they write no files. They get no Ctrl-C of the terminal's, but end when their input does, so
that they do not outlive this process even if it is killed.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import IO

from backends.opencl.compiler.worker import pack_request, unpack_answer
from backends.opencl.device import icd
from backends.opencl.device.device import Device

__all__ = ["Worker", "builds_apart", "workers"]

_START = "import sys; sys.path[:] = {path!r}\nfrom backends.opencl.compiler.worker import main\nmain()\n"
_WAIT = 5.0  # seconds for a killed process to end


def builds_apart(device: Device) -> bool:
    """Whether another process can compile for a device: where a binary holds all that the compiler does.

    PoCL compiles at first launches, Oclgrind interprets, and a GPU's driver finishes binaries where they are loaded.
    """
    info = device.info
    return info.is_cpu and not (info.compiles_late or info.is_simulated) and bool(sys.executable)


class Worker:
    """A process that compiles one program.

    Attributes:
        process: its handle.
    """

    def __init__(self, device: Device, options: tuple[str, ...], source: str) -> None:
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            [sys.executable, "-c", _START.format(path=sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a build that fails is done again here, and then says why
            env=icd.environment_of_children(),
            start_new_session=True,
        )
        # From a thread: the pipe holds less than a source, and the process reads when it has started.
        request = pack_request(device, options, source)
        threading.Thread(target=_write, args=(self.process.stdin, request), daemon=True).start()

    def binary(self) -> bytes | None:
        """Wait for the compiled program; None if the process failed at it."""
        assert self.process.stdout is not None
        try:
            return unpack_answer(self.process.stdout.read())
        except ValueError:
            return None

    def warn(self) -> None:
        """Tell that the process failed at what this one could do."""
        warnings.warn(
            f"a process that was to compile ended with status {self.process.wait(_WAIT)}; its part was compiled here, "
            f"which takes longer",
            RuntimeWarning,
            stacklevel=2,
        )

    def end(self) -> None:
        """Kill the process, if it still runs, and wait until it has ended."""
        with contextlib.suppress(OSError):
            self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_WAIT)
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()


def _write(pipe: IO[bytes], request: bytes) -> None:
    with contextlib.suppress(OSError, ValueError):  # it has ended, or was ended
        pipe.write(request)
        pipe.flush()  # and stays open: its end is the sign to stop


@contextlib.contextmanager
def workers(device: Device, options: tuple[str, ...], sources: Sequence[str]) -> Iterator[dict[str, Worker]]:
    """Start a process for every source; none of them outlives the block.

    Yields:
        The processes by source; fewer, with a warning, where the system starts no more.
    """
    started: dict[str, Worker] = {}
    try:
        for source in sources:
            try:
                started[source] = Worker(device, options, source)
            except OSError as error:  # no more processes, or no memory for one
                warnings.warn(
                    f"no process to compile in could be started ({error}); compiling takes longer",
                    RuntimeWarning,
                    stacklevel=2,
                )
                break
        yield started
    finally:
        for worker in started.values():
            worker.end()
