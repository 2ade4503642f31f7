"""Gradients of your own: reversed, clipped, and recomputed instead of stored."""

from __future__ import annotations

import argparse

import numpy as np

import graphcore as gc


@gc.custom_gradient
def reverse_gradient(x):
    """The identity, whose gradient has the opposite sign: what trains a network to fool a discriminator."""
    return x, lambda g: -g


def clip_gradient(x, limit):
    """The identity, whose gradient is limited; the limit reaches the rule by closure."""

    @gc.custom_gradient
    def identity(x):
        return x, lambda g: gc.clip(g, -limit, limit)

    return identity(x)


@gc.custom_gradient
def stable_log1pexp(x):
    """log(1 + e^x). The gradient that the rules would give is inf/inf for large x; this one is right everywhere."""
    return gc.log1p(gc.exp(x)), lambda g: g * gc.sigmoid(x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto", help="where to run, such as opencl:0 or numpy")
    parser.add_argument("--quick", action="store_true", help="nothing to leave out here")
    options = parser.parse_args()

    x = gc.placeholder("float32", (3,), name="x")
    feed = np.array([-1.0, 2.0, 100.0], np.float32)
    plain = gc.gradients((x * x).sum(), x)[0]
    reversed_ = gc.gradients((reverse_gradient(x) ** 2).sum(), x)[0]
    clipped = gc.gradients((clip_gradient(x, 1.0) ** 2).sum(), x)[0]
    stable = gc.gradients(stable_log1pexp(x).sum(), x)[0]

    # The values between the layers of a checkpointed block are not kept for the gradient but computed again.
    weights = [gc.Variable(np.eye(3, dtype=np.float32) * 0.5, name=f"w{i}") for i in range(4)]

    def block(h):
        for w in weights:
            h = gc.tanh(h @ w)
        return h

    stored = gc.gradients(block(x[None]).sum(), weights[0])[0]
    recomputed = gc.gradients(gc.checkpoint(block)(x[None]).sum(), weights[0])[0]

    with gc.Session(device=options.device) as sess:
        plain, reversed_, clipped, stable, stored, recomputed = sess.run(
            [plain, reversed_, clipped, stable, stored, recomputed], {x: feed}
        )
    print("x                ", feed)
    print("plain gradient   ", plain)
    print("reversed         ", reversed_)
    print("clipped to 1     ", clipped)
    print("of log(1 + e^x)  ", stable)
    assert (
        np.allclose(reversed_, -plain)
        and np.allclose(clipped, [-1, 1, 1])
        and np.allclose(stable, 1 / (1 + np.exp(-feed)))
    )
    assert np.allclose(stored, recomputed)
    print("a checkpointed block has the same gradient")


if __name__ == "__main__":
    main()
