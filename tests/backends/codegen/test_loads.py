"""How often schedules say that they load an operand, and what fusion makes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphcore as gc
from backends.codegen.loads import loads_on
from backends.numpy.runtime import open_numpy
from graphcore.base.dtypes import float32
from graphcore.ir.graph import Graph
from graphcore.ir.op import TensorType, lookup
from passes.pipeline import compile_graph

CORES = 8
GEOMETRY: dict[str, Any] = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1}
IMAGES = (2, 16, 8, 8)


def loads(op: Any, operand: int, *shapes: tuple[int, ...], elements: float = 0.0) -> float | None:
    inputs = tuple(TensorType(s, float32) for s in shapes)
    roles, whole = op.contraction_roles(*inputs), (*shapes, op.infer(*inputs)[0].shape)
    return loads_on(CORES)(roles, whole, operand, elements or float(np.prod(shapes[operand])))


@pytest.mark.parametrize(("columns", "expected"), [(64, 1.0), (128, 1.0), (256, 2.0), (384, 3.0), (4096, 4.0)])
def test_a_product_loads_an_operand_once_a_panel_of_the_other(columns: int, expected: float) -> None:
    assert loads(lookup("matmul")(), 0, (1000, 300), (300, columns)) == expected
    assert loads(lookup("matmul")(), 1, (columns, 300), (300, 1000)) == expected
    assert loads(lookup("matmul")(), 0, (5, 1000, 300), (5, 300, columns)) == expected


def test_an_element_that_an_operand_repeats_is_loaded_more_often() -> None:
    assert loads(lookup("matmul")(), 0, (1000, 300), (300, 64), elements=300.0) == 4.0
    assert loads(lookup("matmul")(), 0, (4, 300), (300, 64), elements=300.0) == 2.0


@pytest.mark.parametrize(("images", "groups", "expected"), [(64, 1, 1.0), (16, 1, 2.0), (16, 2, 1.0), (2, 1, 4.0)])
def test_a_convolution_packs_images_once_a_part_of_its_channels(images: int, groups: int, expected: float) -> None:
    op = lookup("conv2d")(**{**GEOMETRY, "groups": groups})
    assert loads(op, 0, (images, 16, 8, 8), (32, 16 // groups, 3, 3)) == expected


def test_an_input_gradient_packs_once_a_phase() -> None:
    op = lookup("conv2d_input_grad")(**{**GEOMETRY, "stride": (2, 1)}, input_size=(8, 8))
    assert loads(op, 0, (64, 32, 4, 8), (32, 16, 3, 3)) == 2.0
    one = lookup("conv2d_input_grad")(**{**GEOMETRY, "stride": (3, 1), "padding": (0, 0, 0, 0)}, input_size=(9, 8))
    assert loads(one, 0, (64, 32, 3, 6), (32, 16, 2, 3)) == 2.0  # no more phases than taps


def test_a_weight_gradient_walks_gradients_again_for_sums_beyond_the_cache() -> None:
    op = lookup("conv2d_weight_grad")(**GEOMETRY, kernel_size=(3, 3))
    assert loads(op, 0, IMAGES, (2, 32, 8, 8)) == 1.0
    assert loads(op, 1, IMAGES, (2, 32, 8, 8)) == 1.0
    assert loads(op, 1, (2, 128, 8, 8), (2, 128, 8, 8)) == 128 * 128 * 9 / 65536
    assert loads(op, 1, (2, 512, 8, 8), (2, 128, 8, 8)) == 4.0


def test_weights_and_windows_of_one_tap_are_read_from_memory() -> None:
    conv = lookup("conv2d")(**GEOMETRY)
    assert loads(conv, 1, IMAGES, (32, 16, 3, 3)) is None
    assert loads(lookup("conv2d_input_grad")(**GEOMETRY, input_size=(8, 8)), 1, (2, 32, 8, 8), (32, 16, 3, 3)) is None
    single = {**GEOMETRY, "padding": (0, 0, 0, 0)}
    assert loads(lookup("conv2d")(**single), 0, IMAGES, (32, 16, 1, 1)) is None
    assert loads(lookup("conv2d_weight_grad")(**single, kernel_size=(1, 1)), 1, IMAGES, (2, 32, 8, 8)) is None


@pytest.mark.parametrize(("given", "kernels"), [(loads_on(1), 1), (None, 2), (lambda *_: None, 2)])
def test_fusion_asks_the_target(given: Any, kernels: int) -> None:
    """A product computes a cast of its operand only on a target whose schedules load computed operands."""
    x, w = gc.placeholder("int32", (64, 32)), gc.placeholder("float32", (32, 64))
    graph = Graph((gc.matmul(x.astype("float32"), w),), (), (x, w))
    target = replace(open_numpy("numpy:kernels").target, loads=given)
    assert len(compile_graph(graph, target, {}).plan.steps) == kernels
