"""Order: fewest levels by default, fewest bytes under a memory limit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphcore as gc
from graphcore.base.errors import OutOfMemoryError
from passes.planning.flow import Access, Flow


def _branches() -> tuple[Any, Any]:
    """Eight products of the same size that are each reduced at once: side by side they need eight buffers, in turn
    one."""
    x = gc.placeholder("float32", (64, 64), name="x")
    weights = [gc.Variable(np.eye(64, dtype=np.float32) * (i + 1), name=f"w{i}") for i in range(8)]
    totals = [gc.exp(x @ w).max(axis=0) for w in weights]
    return x, sum(totals[1:], totals[0]).sum()


def _arena(session: Any, fetch: Any, x: Any) -> tuple[int, int]:
    c = session.compile(fetch, {x: (64, 64)})
    return c.memory_analysis()["arena_bytes"], c.cost_analysis()["levels"]


def test_a_memory_limit_orders_for_memory() -> None:
    x, y = _branches()
    feed = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32) * 0.1
    with gc.Session("numpy:kernels") as plain:
        wide, levels = _arena(plain, y, x)
        expected = plain.run(y, {x: feed})
    variables = 8 * 64 * 64 * 4
    with gc.Session("numpy:kernels", memory_limit=variables + wide // 2) as tight:
        narrow, single = _arena(tight, y, x)
        assert narrow <= wide // 2 and single > levels
        np.testing.assert_allclose(tight.run(y, {x: feed}), expected, rtol=1e-6)
    with (
        gc.Session("numpy:kernels", memory_limit=variables + 100) as hopeless,
        pytest.raises(OutOfMemoryError, match="memory limit"),
    ):
        hopeless.run(y, {x: feed})


def test_earliest_and_latest_levels() -> None:
    flow = Flow([Access((), (), 0, after) for after in ((), (0,), (1,), (0,), (2, 3))])
    early = flow.levels()
    assert early == [0, 1, 2, 1, 3]
    assert flow.latest_levels(early) == [0, 1, 2, 2, 3]
