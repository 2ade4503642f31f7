"""The same training steps in graphcore, PyTorch and JAX: each gives a function that runs one step and returns its loss.

Every competitor is fed NumPy arrays and gives the loss as a Python number, trains with Adam (learning rate 1e-3) on the
mean cross entropy, and starts from U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["CASES", "PEERS", "Case", "graphcore_step"]

Step = Callable[[], float]


@dataclass(frozen=True)
class Case:
    """A network and its batch.

    Attributes:
        name: for the command line.
        title: for tables.
        batch: samples of a step.
        inputs: a sample's shape.
        convs: channels of convolutions 5x5 (padding 2), each followed by relu and 2x2 max pooling.
        hidden: widths of the hidden linear layers, each followed by relu.
        classes: of the cross entropy.
    """

    name: str
    title: str
    batch: int
    inputs: tuple[int, ...]
    convs: tuple[int, ...]
    hidden: tuple[int, ...]
    classes: int = 10

    @property
    def flat(self) -> int:
        """Features of the first linear layer."""
        if not self.convs:
            return self.inputs[0]
        size = self.inputs[1] >> len(self.convs)
        return self.convs[-1] * size * size

    def batches(self, label_type: Any = np.int64) -> Iterator[tuple[Any, Any]]:
        """Endless batches. The same samples come with other labels each time: once a network has learned its batch,
        gradients fade into denormal numbers, which slow some competitors down tenfold."""
        rng = np.random.default_rng(0)
        features = rng.standard_normal((self.batch, *self.inputs), dtype=np.float32)
        labels = [rng.integers(0, self.classes, self.batch).astype(label_type) for _ in range(64)]
        return ((features, y) for y in itertools.cycle(labels))


CASES = {
    case.name: case
    for case in (
        Case("mlp-small", "MLP 64-64-10, batch 32", 32, (64,), (), (64,)),
        Case("mlp", "MLP 784-512-512-10, batch 128", 128, (784,), (), (512, 512)),
        Case("lenet", "CNN 1-32-64 5x5, 3136-1024-10, 28x28, batch 64", 64, (1, 28, 28), (32, 64), (1024,)),
    )
}


def graphcore_step(case: Case, device: str) -> tuple[Step, Any]:
    """One step of graphcore on a device, and what was compiled for it."""
    import graphcore as gc
    from graphcore import nn, optim

    layers: list[Any] = []
    channels = case.inputs[0]
    for out in case.convs:
        layers += [nn.Conv2d(channels, out, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
        channels = out
    layers += [nn.Flatten()] if case.convs else []
    width = case.flat
    for out in case.hidden:
        layers += [nn.Linear(width, out), nn.ReLU()]
        width = out
    model = nn.Sequential(*layers, nn.Linear(width, case.classes))
    x = gc.placeholder("float32", (None, *case.inputs))
    y = gc.placeholder("int64", (None,))
    loss = nn.CrossEntropyLoss()(model(x), y)
    train = optim.Adam(1e-3).minimize(loss)
    session = gc.Session(device, seed=1)
    call = session.make_callable([loss, train], [x, y])
    batches = case.batches()

    def step() -> float:
        return float(call(*next(batches))[0])

    step()
    features, labels = next(batches)
    return step, session.compile([loss, train], {x: features, y: labels})


def _torch_parts(case: Case) -> tuple[Any, Any, Any, Any]:
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(1)
    layers: list[Any] = []
    channels = case.inputs[0]
    for out in case.convs:
        layers += [torch.nn.Conv2d(channels, out, 5, padding=2), torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
        channels = out
    layers += [torch.nn.Flatten()] if case.convs else []
    width = case.flat
    for out in case.hidden:
        layers += [torch.nn.Linear(width, out), torch.nn.ReLU()]
        width = out
    model = torch.nn.Sequential(*layers, torch.nn.Linear(width, case.classes))
    return torch, model, torch.optim.Adam(model.parameters(), 1e-3), case.batches()


def torch_eager(case: Case) -> Step:
    """PyTorch, eager."""
    torch, model, optimizer, batches = _torch_parts(case)
    cross_entropy = torch.nn.functional.cross_entropy

    def step() -> float:
        features, labels = next(batches)
        optimizer.zero_grad(set_to_none=True)
        loss = cross_entropy(model(torch.from_numpy(features)), torch.from_numpy(labels))
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step


def torch_compile(case: Case) -> Step:
    """PyTorch with torch.compile over model and loss, and over the optimizer."""
    torch, model, optimizer, batches = _torch_parts(case)
    cross_entropy = torch.nn.functional.cross_entropy
    forward = torch.compile(lambda x, y: cross_entropy(model(x), y))
    advance = torch.compile(optimizer.step)

    def step() -> float:
        features, labels = next(batches)
        optimizer.zero_grad(set_to_none=True)
        loss = forward(torch.from_numpy(features), torch.from_numpy(labels))
        loss.backward()
        advance()
        return float(loss.item())

    return step


def jax_jit(case: Case) -> Step:
    """JAX: one jitted function for the whole step, its state donated."""
    import jax
    import jax.numpy as jnp

    from benchmarks.jax_steps import adam

    batches = case.batches(np.int32)  # its integers have 32 bits
    parameters = _jax_parameters(case)

    def forward(p: Any, x: Any) -> Any:
        for i in range(len(case.convs)):
            weight, bias = p[i]
            x = jax.lax.conv_general_dilated(x, weight, (1, 1), [(2, 2), (2, 2)]) + bias[:, None, None]
            x = jax.lax.reduce_window(jax.nn.relu(x), -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
        x = x.reshape(x.shape[0], -1)
        for weight, bias in p[len(case.convs) : -1]:
            x = jax.nn.relu(x @ weight + bias)
        weight, bias = p[-1]
        return x @ weight + bias

    def loss_of(p: Any, x: Any, y: Any) -> Any:
        return -jnp.take_along_axis(jax.nn.log_softmax(forward(p, x)), y[:, None], 1).mean()

    def train(state: Any, x: Any, y: Any) -> Any:
        p, m, v, t = state
        loss, g = jax.value_and_grad(loss_of)(p, x, y)
        p, m, v = adam(p, m, v, t + 1, g)
        return (p, m, v, t + 1), loss

    compiled = jax.jit(train, donate_argnums=0)
    zeros = jax.tree.map(jnp.zeros_like, parameters)
    state = [(parameters, zeros, jax.tree.map(jnp.zeros_like, parameters), jnp.float32(0))]

    def step() -> float:
        state[0], loss = compiled(state[0], *next(batches))
        return float(loss)

    return step


def _jax_parameters(case: Case) -> list[tuple[Any, Any]]:
    import jax.numpy as jnp

    rng = np.random.default_rng(1)

    def pair(shape: tuple[int, ...], fan_in: int, out: int) -> tuple[Any, Any]:
        bound = 1 / math.sqrt(fan_in)
        weight, bias = (jnp.asarray(rng.uniform(-bound, bound, s).astype(np.float32)) for s in (shape, (out,)))
        return weight, bias

    found = []
    channels = case.inputs[0]
    for out in case.convs:
        found.append(pair((out, channels, 5, 5), channels * 25, out))
        channels = out
    width = case.flat
    for out in (*case.hidden, case.classes):
        found.append(pair((width, out), width, out))
        width = out
    return found


# Name on the command line: the module it needs, and how its step is made.
PEERS: dict[str, tuple[str, Callable[[Case], Step]]] = {
    "pytorch": ("torch", torch_eager),
    "torch.compile": ("torch", torch_compile),
    "jax": ("jax", jax_jit),
}
