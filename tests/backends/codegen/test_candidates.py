"""What families offer for a kernel: frozen choices, the best guess first, each of them right."""

from __future__ import annotations

import numpy as np
import pytest
from support.device_names import CPUS

import graphcore as gc
from backends.codegen.cpu_conv.family import Convolution
from backends.codegen.cpu_product.family import Matmul
from backends.codegen.family import Family
from backends.codegen.nest.family import Nest
from backends.codegen.registry import registered


def taking(parent: type[Family], number: int) -> Family:
    """The family with its choice of a number, or its last one, as the best guess; ``seen`` keeps kernels and what was
    offered for them."""

    class Other(parent):  # type: ignore[misc, valid-type]
        name = f"{parent.name}-{number}"

        def __init__(self):
            self.seen = []

        def candidates(self, kernel, model, hints):
            found = super().candidates(kernel, model, hints)
            if not isinstance(found, list):
                return found
            self.seen.append((kernel, found))
            return [found[min(number, len(found) - 1)]]

    return Other()


def results(device, parent, number, fetches, feeds):
    family = taking(parent, number)
    with registered(family, before=parent.name), gc.Session(device) as session:
        values = session.run(fetches, feeds)
        used = {s.family for s in session.compile(fetches, feeds).plan.steps}
    assert family.name in used, used
    for _, found in family.seen:
        assert len(set(found)) == len(found) and all(c.describe() for c in found)
    kernel, found = max(family.seen, key=lambda one: len(one[1]))
    return values, [family.order_of_sums(kernel, c) for c in found]


@pytest.mark.parametrize("device", CPUS)
@pytest.mark.parametrize(
    ("m", "k", "n", "turned"),
    [(70, 130, 45, False), (64, 700, 96, False), (70, 530, 45, True), (257, 33, 16, False)],
    ids=["edges", "long", "gradient", "narrow"],
)
def test_all_tiles_of_a_product_give_the_same_bits(device: str, m: int, k: int, n: int, turned: bool) -> None:
    rng = np.random.default_rng(7)
    a = gc.placeholder("float32", (k, m) if turned else (m, k), name="a")
    b = gc.placeholder("float32", (k, n), name="b")
    feeds = {t: rng.standard_normal(t.shape).astype(np.float32) for t in (a, b)}
    product = gc.relu((gc.transpose(a) if turned else a) @ b + 1)
    left = feeds[a].T if turned else feeds[a]
    wanted = np.maximum(left.astype(np.float64) @ feeds[b].astype(np.float64) + 1, 0)
    first, orders = results(device, Matmul, 0, product, feeds)
    np.testing.assert_allclose(first, wanted, rtol=1e-4, atol=1e-4)
    assert len(orders) >= 2 and len(set(orders)) == 1
    for number in range(1, len(orders)):
        other, _ = results(device, Matmul, number, product, feeds)
        np.testing.assert_array_equal(other.view(np.int32), first.view(np.int32))


@pytest.mark.parametrize("device", CPUS)
def test_all_widths_of_the_loop_nest(device: str) -> None:
    rng = np.random.default_rng(8)
    x, y = (gc.placeholder("float32", (None, 37), name=n) for n in "xy")
    feeds = {t: rng.standard_normal((5, 37)).astype(np.float32) for t in (x, y)}
    fetches = [gc.tanh(x) * 2 + 1, gc.softmax(y, axis=1)]
    with gc.Session("numpy") as oracle:
        wanted = oracle.run(fetches, feeds)
    firsts, orders = results(device, Nest, 0, fetches, feeds)
    assert len(orders) >= 4
    for number in range(len(orders)):
        values, _ = results(device, Nest, number, fetches, feeds)
        for value, right in zip(values, wanted, strict=True):
            np.testing.assert_allclose(value, right, rtol=1e-5, atol=1e-6)
        # Lanes along an axis that is not summed keep the bits.
        np.testing.assert_array_equal(values[0].view(np.int32), firsts[0].view(np.int32))


@pytest.mark.parametrize("device", CPUS)
@pytest.mark.parametrize("axis", [0, 1])
def test_widths_of_one_order_of_sums_give_the_same_bits(device: str, axis: int) -> None:
    x = gc.placeholder("float32", (43, 53), name="x")
    feeds = {x: np.random.default_rng(9).standard_normal((43, 53)).astype(np.float32)}
    total = gc.exp(x).sum(axis=axis)
    by_order: dict[object, set[bytes]] = {}
    _, orders = results(device, Nest, 0, total, feeds)
    for number, order in enumerate(orders):
        value, again = results(device, Nest, number, total, feeds)
        np.testing.assert_allclose(value, np.exp(feeds[x].astype(np.float64)).sum(axis), rtol=1e-5)
        assert again == orders
        by_order.setdefault(order, set()).add(value.tobytes())
    assert all(len(bits) == 1 for bits in by_order.values())
    assert len(by_order) == (1 if axis == 0 else len(orders))  # along summed rows every width is another order


@pytest.mark.parametrize("device", CPUS)
@pytest.mark.parametrize(
    ("channels", "filters", "size", "stride", "batch"),
    [(5, 26, 9, 1, 3), (16, 40, 16, 2, 2), (33, 21, 7, 1, 4), (64, 30, 12, 1, 1)],
    ids=["edges", "strided", "several images", "one image"],
)
def test_all_tiles_of_a_convolution_give_the_same_bits(
    device: str, channels: int, filters: int, size: int, stride: int, batch: int
) -> None:
    rng = np.random.default_rng(10)
    x = gc.placeholder("float32", (batch, channels, size, size), name="x")
    w = gc.placeholder("float32", (filters, channels, 3, 3), name="w")
    feeds = {t: rng.standard_normal(t.shape).astype(np.float32) for t in (x, w)}
    y = gc.relu(gc.nn.functional.conv2d(x, w, stride=stride, padding=1) * 0.5 + 1)
    sums = y.mean(axis=(0, 2, 3))  # gathered in the epilogue
    (grad,) = gc.gradients((y * y).sum(), [x])
    fetches = [y, sums, grad]
    with gc.Session("numpy") as oracle:
        wanted = oracle.run(fetches, feeds)
    first, orders = results(device, Convolution, 0, fetches, feeds)
    assert len(orders) >= 2 and len(set(orders)) == 1
    for value, right in zip(first, wanted, strict=True):
        np.testing.assert_allclose(value, right, rtol=2e-4, atol=2e-4)
    for number in range(1, 4):
        others, _ = results(device, Convolution, number, fetches, feeds)
        for value, other in zip(first, others, strict=True):
            np.testing.assert_array_equal(other.view(np.int32), value.view(np.int32))
