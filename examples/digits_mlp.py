"""A two-layer perceptron on scikit-learn's handwritten digits (8 x 8 pixels), with the training loop written out."""

from __future__ import annotations

import argparse

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import graphcore as gc
from graphcore import nn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto", help="where to run, such as opencl:0 or numpy")
    parser.add_argument("--quick", action="store_true", help="a few epochs")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    epochs = 6 if options.quick else 20

    digits = load_digits()
    images, labels = (digits.data / 16).astype(np.float32), digits.target.astype(np.int64)
    x_train, x_test, y_train, y_test = train_test_split(images, labels, test_size=0.25, stratify=labels, random_state=0)

    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 10))
    print(model)

    # Two programs over the same variables: one to train, one to evaluate (without dropout).
    x = gc.placeholder("float32", (None, 64), name="x")
    y = gc.placeholder("int64", (None,), name="y")
    loss = nn.functional.cross_entropy(model.train()(x), y)
    step = gc.optim.Adam(lr=3e-3).minimize(loss)
    accuracy = gc.train.accuracy(model.eval()(x), y)

    loader = gc.data.DataLoader(gc.data.TensorDataset(x_train, y_train), batch_size=32, shuffle=True, seed=options.seed)
    with gc.Session(device=options.device, seed=options.seed) as sess:
        train = sess.make_callable([loss, step], [x, y])
        test = sess.make_callable(accuracy, [x, y])
        for epoch in range(epochs):
            with gc.train.Progress(len(x_train), f"epoch {epoch + 1}/{epochs}") as progress:
                for x_batch, y_batch in loader:
                    value, _ = train(x_batch, y_batch)
                    progress.set_metrics(loss=value)
                    progress.update(len(x_batch))
        score = float(test(x_test, y_test))
    print(f"test accuracy: {score:.4f}")
    assert score > (0.9 if options.quick else 0.95)


if __name__ == "__main__":
    main()
