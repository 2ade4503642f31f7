"""Derivatives of derivatives: Newton's method, with a Hessian and with Hessian-vector products only."""

from __future__ import annotations

import argparse

import numpy as np

import graphcore as gc


def rosenbrock(x: gc.Tensor) -> gc.Tensor:
    """Rosenbrock's valley; its minimum, 0, is where all coordinates are 1."""
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def newton(device: str) -> np.ndarray:
    """x <- x - H^-1 g. Gradients are ordinary tensors, so each row of H is the gradient of a gradient's element."""
    x = gc.placeholder("float32", (2,), name="x")
    (gradient,) = gc.gradients(rosenbrock(x), x)
    hessian = gc.stack([gc.gradients(gradient[i], x)[0] for i in range(2)])

    position = np.array([-1.2, 1.0], np.float32)
    with gc.Session(device=device) as sess:
        derivatives = sess.make_callable([rosenbrock(x), gradient, hessian], [x])
        for i in range(8):
            value, g, h = derivatives(position)
            print(f"step {i}: f = {value:.6f} at {position.round(4)}")
            position = (position - np.linalg.solve(h, g)).astype(np.float32)
    return position


def newton_without_a_hessian(device: str, size: int, steps: int) -> np.ndarray:
    """The same in many dimensions: solve H d = g by conjugate gradients, which need H only as H v."""
    x = gc.placeholder("float32", (size,), name="x")
    v = gc.placeholder("float32", (size,), name="v")
    (gradient,) = gc.gradients(rosenbrock(x), x)
    (product,) = gc.hvp(rosenbrock, [x], [v])

    position = np.full(size, 0.9, np.float32)
    with gc.Session(device=device) as sess:
        gradient_at = sess.make_callable(gradient, [x])
        product_at = sess.make_callable(product, [x, v])
        for _ in range(steps):
            g = gradient_at(position)
            direction, residual = np.zeros(size, np.float32), g.copy()
            search = residual.copy()
            for _ in range(2 * size):
                hs = product_at(position, search)
                curvature = search @ hs
                if residual @ residual < 1e-10 or curvature <= 0:
                    break
                length = (residual @ residual) / curvature
                direction, following = direction + length * search, residual - length * hs
                search, residual = following + (following @ following) / (residual @ residual) * search, following
            position = position - direction
    return position


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto", help="where to run, such as opencl:0 or numpy")
    parser.add_argument("--quick", action="store_true", help="fewer dimensions")
    options = parser.parse_args()

    found = newton(options.device)
    print("Newton found", found.round(4))
    assert np.allclose(found, 1, atol=1e-2)

    size = 10 if options.quick else 50
    found = newton_without_a_hessian(options.device, size, steps=8)
    print(f"in {size} dimensions: largest distance from the minimum {np.abs(found - 1).max():.5f}")
    assert np.allclose(found, 1, atol=1e-2)


if __name__ == "__main__":
    main()
