"""The smallest program: find the minimum of (x - 3)^2 + 1 by gradient descent: by hand, then with an optimizer."""

from __future__ import annotations

import argparse

import graphcore as gc


def by_hand(device: str, steps: int) -> float:
    """Build the gradient and the update yourself."""
    x = gc.Variable(-4.0, name="x")
    y = (x - 3) ** 2 + 1
    (slope,) = gc.gradients(y, x)
    step = x.assign(x - 0.1 * slope)

    with gc.Session(device=device) as sess:
        for i in range(steps):
            value, position, _ = sess.run([y, x, step])
            if i % 10 == 0:
                print(f"step {i:3d}: x = {position:7.4f}, y = {value:8.4f}")
        return float(sess.get_value(x))


def with_optimizer(device: str, steps: int) -> float:
    """Let an optimizer do both."""
    x = gc.Variable(-4.0, name="x")
    y = (x - 3) ** 2 + 1
    step = gc.optim.SGD(lr=0.1).minimize(y)

    with gc.Session(device=device) as sess:
        train = sess.make_callable([y, step], [])
        for _ in range(steps):
            train()
        return float(sess.get_value(x))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto", help="where to run, such as opencl:0 or numpy")
    parser.add_argument("--quick", action="store_true", help="fewer steps")
    options = parser.parse_args()

    steps = 40 if options.quick else 100
    for name, method in (("by hand", by_hand), ("with an optimizer", with_optimizer)):
        x = method(options.device, steps)
        print(f"{name}: x = {x:.4f}")
        assert abs(x - 3) < 1e-2, "the minimum is at 3"


if __name__ == "__main__":
    main()
