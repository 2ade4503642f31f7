"""A small convolutional network on scikit-learn's handwritten digits: above 99% on a quarter of them that it never saw.

Shows the layers, a data set that shifts images at random, a cosine schedule computed in the graph, `gc.train.fit`, and
diagrams.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from time import perf_counter

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import graphcore as gc
from graphcore import nn

BATCH = 32


def load() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images (n, 1, 8, 8) from 0 to 1 and labels: a fixed stratified split, 3 to 1."""
    digits = load_digits()
    images, labels = (digits.images / 16).astype(np.float32)[:, None], digits.target.astype(np.int64)
    x_train, x_test, y_train, y_test = train_test_split(images, labels, test_size=0.25, stratify=labels, random_state=0)
    return x_train, y_train, x_test, y_test


class ShiftedDigits(gc.data.Dataset):
    """Images shifted by up to one pixel up, down, left or right, anew each time."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, seed: int) -> None:
        self.padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
        self.labels = labels
        self.rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        images, labels = self.batch(np.array([index]))
        return images[0], labels[0]

    def batch(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows, columns = self.rng.integers(0, 3, (2, len(indices)))
        images = [self.padded[i, :, r : r + 8, c : c + 8] for i, r, c in zip(indices, rows, columns, strict=True)]
        return np.stack(images), self.labels[indices]


def make_model() -> nn.Sequential:
    """Two convolutions, one pooling, one linear layer: 10,000 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 10),
    )


def make_optimizer(steps: int) -> gc.optim.Optimizer:
    """AdamW whose learning rate falls along half a cosine; t counts the steps taken."""
    return gc.optim.AdamW(lr=lambda t: 1.5e-3 * (1 + gc.cos(t * (math.pi / steps))), weight_decay=0.01)


def train(seed: int, epochs: int, device: str) -> float:
    """The test accuracy after training from one seed."""
    x_train, y_train, x_test, y_test = load()
    loader = gc.data.DataLoader(ShiftedDigits(x_train, y_train, seed), BATCH, shuffle=True, drop_last=True, seed=seed)
    with gc.Session(device=device, seed=seed) as session:
        history = gc.train.fit(
            make_model(),
            loader,
            loss=nn.CrossEntropyLoss(),
            optimizer=make_optimizer(epochs * len(loader)),
            epochs=epochs,
            metrics={"accuracy": gc.train.accuracy},
            validation=(x_test, y_test),
            batch_size=225,
            session=session,
        )
    return history.last["val_accuracy"]


def draw(folder: Path, device: str) -> None:
    """The loss as written, and the training step in all stages of compilation on one page."""
    x = gc.placeholder("float32", (BATCH, 1, 8, 8), name="images")
    y = gc.placeholder("int64", (BATCH,), name="labels")
    loss = nn.functional.cross_entropy(make_model()(x), y)
    step = make_optimizer(1000).minimize(loss)
    folder.mkdir(parents=True, exist_ok=True)
    gc.dump(loss, folder / "loss.svg", stage="built")
    gc.dump([loss, step], folder / "digits_cnn.html", device=device)
    print(f"diagrams are in {folder}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto", help="where to run, such as opencl:0 or numpy")
    parser.add_argument("--quick", action="store_true", help="two epochs")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=1, help="train this many times, from seeds 0, 1, ...")
    parser.add_argument("--out", type=Path, default=Path("digits_cnn_diagrams"), help="folder for diagrams")
    options = parser.parse_args()
    epochs = 2 if options.quick else options.epochs

    draw(options.out, options.device)
    scores = []
    for seed in range(options.seeds):
        began = perf_counter()
        scores.append(train(seed, epochs, options.device))
        print(f"seed {seed}: test accuracy {scores[-1]:.4f} in {perf_counter() - began:.1f} s")
    print(f"mean {np.mean(scores):.4f}, worst {min(scores):.4f}")
    assert min(scores) > (0.9 if options.quick else 0.98)


if __name__ == "__main__":
    main()
