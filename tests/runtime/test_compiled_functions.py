"""What ``explain`` says about functions: how many there are, how long, and who shares them."""

from __future__ import annotations

import re

import numpy as np
import pytest

import graphcore as gc


@pytest.mark.parametrize("device", ["opencl:intel", "opencl:pocl", "opencl:intel:as-gpu"])
def test_explain_lists_functions_and_who_shares_them(device: str) -> None:
    a, b, c = (gc.placeholder("float32", (n, 8), name=f"of_{n}") for n in (3, 5, 7))
    fetches = [gc.exp(a) * 2, gc.exp(b) * 2, gc.log(c).sum(axis=1)]
    feeds = {t: np.ones(t.shape, np.float32) for t in (a, b, c)}
    with gc.Session(device) as session:
        compiled = session.compile(fetches, feeds)
        before = compiled.explain()
        session.run(fetches, feeds)
        after = session.compile(fetches, feeds).explain()  # the texts are gone by now
        source = compiled.as_text("source")
    for text in (before, after):
        head = re.search(r"^functions: (\d+) for (\d+) kernels, ([\d,]+) bytes of text$", text, re.M)
        assert head is not None, text
        found = re.findall(r"^  (\w+): ([\d,]+) bytes, kernels? ([\d ]+)$", text, re.M)
        sizes = [int(nbytes.replace(",", "")) for _, nbytes, _ in found]
        kernels = [int(k) for _, _, callers in found for k in callers.split()]
        assert len(found) == int(head[1]) == 2
        assert sizes == sorted(sizes, reverse=True) and sum(sizes) == int(head[3].replace(",", ""))
        assert sorted(kernels) == list(range(int(head[2]))) == [0, 1, 2]
        assert sorted(len(callers.split()) for _, _, callers in found) == [1, 2]  # both exponentials are one function
        assert all(re.search(rf"\b{name}\(", source) for name, _, _ in found)


def test_the_oracle_has_no_functions() -> None:
    x = gc.placeholder("float32", (3,), name="x")
    with gc.Session("numpy:kernels") as session:
        assert "functions:" not in session.compile(x * 2, {x: (3,)}).explain()
