"""Single operations in PyTorch on CUDA, by CUDA's events. Imported only where PyTorch is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.device.alone_cases import Alone

__all__ = ["PEERS", "measure", "torch"]

_REPEATED = 20
_BOTH = (("torch fp32", False), ("torch tf32", True))  # whether products and convolutions may round to TF32
_ONE = (("torch", False),)


def _gradient(of: int) -> Callable[..., Any]:
    wanted = [of == 0, of == 1, False]

    def gradient(x: Any, w: Any, g: Any, pad: int) -> Any:
        backward = torch.ops.aten.convolution_backward
        return backward(g, x, w, None, [1, 1], [pad, pad], [1, 1], False, [0, 0], 1, wanted)[of]

    return gradient


# The function of tensors and settings, and in which ways it is run.
PEERS: dict[str, tuple[Callable[..., Any], tuple[tuple[str, bool], ...]]] = {
    "product float32": (torch.matmul, _BOTH),
    "product bfloat16": (torch.matmul, _ONE),
    "convolution": (lambda x, w, g, pad: torch.nn.functional.conv2d(x, w, padding=pad), _BOTH),
    "input gradient": (_gradient(0), _BOTH),
    "window gradient": (_gradient(1), _BOTH),
    "elementwise": (lambda x, y: torch.exp(x) * y + 1.0, _ONE),
    "sum": (torch.sum, _ONE),
    "softmax": (lambda x: torch.softmax(x, -1), _ONE),
    "column sums": (lambda x: x.sum(0), _ONE),
    "transpose": (lambda x: (x.t() * 2.0).contiguous(), _ONE),
    "embedding gradient": (
        lambda g, ids, words: torch.ops.aten.embedding_dense_backward(g, ids, words, -1, False),
        _ONE,
    ),
}


def _tensor(array: Any) -> Any:
    if array.dtype.kind in "fiu":
        return torch.from_numpy(array).cuda()
    return torch.from_numpy(array.astype(np.float32)).cuda().to(torch.bfloat16)  # a type that NumPy has not


def _microseconds(work: Callable[[], Any]) -> float:
    """Of one of several in a row."""
    for _ in range(3):
        work()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    for _ in range(_REPEATED):
        work()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) * 1e3 / _REPEATED


def measure(case: Alone) -> tuple[dict[str, float], Any]:
    """Microseconds by the way it is run, and the result without TF32."""
    function, ways = PEERS[case.peer]
    tensors = [_tensor(a) for a in case.arrays]

    def work() -> Any:
        return function(*tensors, *case.settings)

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    result = work().float().cpu().numpy()
    times = {}
    for title, tf32 in ways:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        times[title] = round(_microseconds(work), 2)
    return times, result
