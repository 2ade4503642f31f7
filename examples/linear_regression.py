"""Linear regression: placeholders, a feed dictionary, a callable, and the closed solution to compare with."""

from __future__ import annotations

import argparse

import numpy as np

import graphcore as gc


def make_data(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """y = x . w + b + noise, with three known weights."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 3)).astype(np.float32)
    y = x @ np.array([1.5, -2.0, 0.5], np.float32) + 3.0 + 0.1 * rng.normal(size=rows).astype(np.float32)
    return x, y


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto", help="where to run, such as opencl:0 or numpy")
    parser.add_argument("--quick", action="store_true", help="fewer epochs")
    options = parser.parse_args()
    x_data, y_data = make_data(512)

    # The program: None is the batch size, known only when a batch is fed.
    x = gc.placeholder("float32", (None, 3), name="x")
    y = gc.placeholder("float32", (None,), name="y")
    w = gc.Variable(np.zeros(3, np.float32), name="w")
    b = gc.Variable(0.0, name="b")
    loss = gc.nn.functional.mse_loss(x @ w + b, y)
    step = gc.optim.SGD(lr=0.05, momentum=0.9).minimize(loss)

    loader = gc.data.DataLoader(gc.data.TensorDataset(x_data, y_data), batch_size=64, shuffle=True)
    with gc.Session(device=options.device) as sess:
        print(f"loss before: {sess.run(loss, {x: x_data, y: y_data}):.4f}")
        train = sess.make_callable([loss, step], [x, y])  # the fast way to run the same thing again and again
        for _ in range(10 if options.quick else 30):
            for x_batch, y_batch in loader:
                train(x_batch, y_batch)
        print(f"loss after:  {sess.run(loss, {x: x_data, y: y_data}):.4f}")
        found = np.append(sess.get_value(w), sess.get_value(b))

    exact = np.linalg.lstsq(np.c_[x_data, np.ones(len(x_data))], y_data, rcond=None)[0]
    print("gradient descent:", found.round(3))
    print("least squares:   ", exact.round(3))
    assert np.allclose(found, exact, atol=0.03)


if __name__ == "__main__":
    main()
