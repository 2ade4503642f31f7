"""A process that compiles one program for another process: `main` is all that it runs.

It reads the name of a device, the options and the source from its standard input, and writes the driver's binary to
its standard output. When its input ends, whoever started it is gone or wants no more of it, and it ends at once.
Whatever goes wrong ends it with an exit status: the process that started it then compiles the program itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import sys
import threading
from typing import Any, BinaryIO

from backends.opencl.device import icd
from backends.opencl.device.device import Device, open_device

__all__ = ["identity", "main", "pack_answer", "pack_request", "unpack_answer"]

_LENGTHS = struct.Struct("<QQ")
_DIGEST = hashlib.sha256().digest_size


def identity(device: Device) -> list[str]:
    """What two processes must agree on for a binary of one to run in the other."""
    info = device.info
    return [info.platform, info.name, info.version, info.driver]


def pack_request(device: Device, options: tuple[str, ...], source: str) -> bytes:
    """What a worker is given on its standard input."""
    head = json.dumps([device.info.spec, identity(device), list(options)]).encode()
    text = source.encode()
    return _LENGTHS.pack(len(head), len(text)) + head + text


def pack_answer(binary: bytes) -> bytes:
    """What a worker writes to its standard output."""
    return hashlib.sha256(binary).digest() + binary


def unpack_answer(data: bytes) -> bytes:
    """The binary in a worker's answer.

    Raises:
        ValueError: the answer is not whole.
    """
    checksum, binary = data[:_DIGEST], data[_DIGEST:]
    if not binary or hashlib.sha256(binary).digest() != checksum:
        raise ValueError("the answer is not whole")
    return binary


def main() -> None:
    """Serve one request."""
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the vendor's library prints is no part of the answer
    asked = sys.stdin.buffer
    head, text = _LENGTHS.unpack(asked.read(_LENGTHS.size))
    spec, wanted, options = json.loads(asked.read(head))
    source = asked.read(text).decode()
    threading.Thread(target=_end_with, args=(asked,), daemon=True).start()
    device = open_device(spec)
    if identity(device) != wanted:
        raise SystemExit(f"{spec} is another device here")
    answer.write(pack_answer(_compiled(device, source, options)))
    answer.flush()
    os._exit(0)  # the runtime's own clearing up takes time, and the thread waits for input


def _compiled(device: Device, source: str, options: list[str]) -> bytes:
    cl: Any = icd.load()
    raw = cl._cl._Program(device.context, source)
    raw._build(options=" ".join(options).encode(), devices=None)  # lets other threads run meanwhile
    binaries: list[bytes] = raw.get_info(cl.program_info.BINARIES)
    return binaries[0]


def _end_with(asked: BinaryIO) -> None:
    while asked.read(1):
        pass
    os._exit(1)
