"""The training loop: what it measures, validates, saves, resumes, and refuses."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("graphcore.runtime.session")

import graphcore as gc
from graphcore import nn, optim
from graphcore.train import EarlyStop, History, accuracy, fit


def blobs(n: int = 90, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three separable clouds in the plane."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    centres = np.array([[0, 3], [3, -2], [-3, -2]])
    return (centres[labels] + rng.normal(size=(n, 2))).astype(np.float32), labels.astype(np.int64)


def small_model() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 3))


def train(model=None, data=None, **options):
    arguments = {
        "loss": nn.CrossEntropyLoss(),
        "optimizer": optim.Adam(lr=0.05),
        "epochs": 3,
        "progress": False,
        "seed": 0,
        "batch_size": 16,
    }
    return fit(model or small_model(), data or blobs(), **(arguments | options))


def test_learns_and_measures():
    history = train(epochs=6, validation=blobs(seed=1), metrics={"accuracy": accuracy})
    assert [row["epoch"] for row in history.epochs] == [1, 2, 3, 4, 5, 6]
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert history.last["accuracy"] > 0.9 and history.last["val_accuracy"] > 0.9
    assert set(history.last) == {
        "epoch",
        "loss",
        "accuracy",
        "val_loss",
        "val_accuracy",
        "seconds",
        "samples_per_second",
    }
    assert len(str(history).splitlines()) == 7
    history.session.close()


def test_means_weigh_a_small_last_batch_by_its_samples():
    x, y = np.arange(5, dtype=np.float32)[:, None], np.zeros((5, 1), np.float32)
    history = fit(
        nn.Identity(),
        [(x[:4], y[:4]), (x[4:], y[4:])],
        loss=lambda p, t: (p - t + 0 * scale).mean(),
        optimizer=optim.SGD(lr=0.0),
        progress=False,
        validation=[(x[:3], y[:3]), (x[3:], y[3:])],
    )
    np.testing.assert_allclose([history.last["loss"], history.last["val_loss"]], 2.0, rtol=1e-6)


scale = gc.Variable(1.0, name="scale")


def test_same_seed_same_run():
    first, second, third = train(), train(), train(seed=1)
    assert first["loss"] == second["loss"] != third["loss"]


def test_evaluation_mode_and_modes_afterwards():
    model = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.999))
    model[1].eval()
    history = train(model, optimizer=optim.SGD(lr=0.0), validation=blobs(), epochs=1)
    plain = train(
        nn.Sequential(model[0]), optimizer=optim.SGD(lr=0.0), validation=blobs(), epochs=1, session=history.session
    )
    np.testing.assert_allclose(history["val_loss"], plain["val_loss"], rtol=1e-5)
    assert abs(history["loss"][0] - plain["loss"][0]) > 1e-4  # dropout was on in training
    assert model.training and not model[1].training


def test_model_may_be_a_function_of_several_inputs():
    w = gc.Variable(np.zeros((), np.float32), name="w")
    a = np.linspace(-1, 1, 32).astype(np.float32)
    history = fit(
        lambda p, q: w * p * q,
        (a, a, 3 * a * a),
        loss=nn.MSELoss(),
        optimizer=optim.SGD(lr=1.0),
        epochs=20,
        progress=False,
    )
    np.testing.assert_allclose(history.session.get_value(w), 3.0, atol=1e-2)


def test_early_stop():
    history = train(optimizer=optim.SGD(lr=0.0), epochs=10, early_stop=2, validation=blobs(), shuffle=False)
    assert history.stopped_early and len(history) == 3
    stop = EarlyStop(patience=2, mode="max", min_delta=0.1)
    assert [stop.stale(values) for values in ([1.0], [1.0, 1.05], [1.0, 1.05, 1.2], [1.0, 0.5, 0.4])] == [0, 1, 0, 2]
    assert EarlyStop().stale([float("nan"), float("nan")]) == 2


def test_fast_dev_run_and_overfit_batches(tmp_path):
    calls: list[int] = []

    class Counting(gc.data.Dataset):
        def __len__(self):
            return 64

        def __getitem__(self, index):
            calls.append(index)
            return np.zeros(2, np.float32), np.int64(0)

    history = train(
        data=Counting(), epochs=5, fast_dev_run=True, checkpoint=tmp_path / "x.safetensors", validation=Counting()
    )
    assert len(history) == 1 and "val_loss" in history.last and not list(tmp_path.iterdir())
    assert len(calls) <= 4 * 16
    history = train(epochs=60, overfit_batches=1, validation=blobs())
    assert history.last["loss"] < 0.05 and "val_loss" not in history.last


def test_checkpoint_and_resume(tmp_path):
    path = tmp_path / "run.safetensors"
    whole = train(epochs=4)
    train(epochs=2, checkpoint=path)
    resumed = train(epochs=4, checkpoint=path, resume=True)
    assert [row["epoch"] for row in resumed.epochs] == [3, 4]
    np.testing.assert_allclose(resumed["loss"], whole["loss"][2:], rtol=1e-5)
    assert len(train(epochs=4, checkpoint=path, resume=True)) == 0


class Recorded:
    """Batches that write down what is asked of them."""

    def __init__(self, count: int = 3) -> None:
        self.count, self.log = count, []

    def __iter__(self):
        self.log.append("epoch")
        for i in range(self.count):
            self.log.append(f"draw {i}")
            yield np.full((4, 1), i, np.float32), np.zeros((4, 1), np.float32)


@pytest.mark.parametrize("epochs", [0, 1, 2])
def test_every_batch_that_is_drawn_is_trained_on(epochs):
    batches, seen = Recorded(), []
    w = gc.Variable(0.0, name="w")

    class Spy(optim.SGD):
        def minimize(self, loss, variables=None):
            seen.append(list(batches.log))
            return super().minimize(loss, variables)

    history = fit(
        lambda x: x + w * 0, batches, loss=lambda p, t: p.mean(), optimizer=Spy(lr=0.0), epochs=epochs, progress=False
    )
    assert batches.log == ["epoch", "draw 0", "draw 1", "draw 2"] * epochs
    assert [row["loss"] for row in history.epochs] == [1.0] * epochs  # the mean of 0, 1, 2: none is left out
    assert seen == ([["epoch", "draw 0"]] if epochs else [])  # built when the first is there


def test_the_order_and_the_draws_of_a_loader_are_those_without_fit():
    drawn: list[int] = []

    class Drawing(gc.data.Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, index):
            drawn.append(index)
            return np.float32([index]), np.float32([0])

    def loader() -> gc.data.DataLoader:
        return gc.data.DataLoader(Drawing(), batch_size=2, shuffle=True, seed=5)

    plain = loader()
    for _ in range(2):
        list(plain)
    by_hand, drawn[:] = list(drawn), []
    used = loader()
    w = gc.Variable(0.0)
    fit(lambda x: x + w, used, loss=nn.MSELoss(), optimizer=optim.SGD(lr=0.0), epochs=2, progress=False)
    assert drawn == by_hand and used.state_dict() == plain.state_dict()


def test_a_run_that_is_complete_is_restored_and_needs_a_checkpoint_of_fit(tmp_path):
    path, model = tmp_path / "run.safetensors", small_model()
    done = train(model, epochs=1, checkpoint=path)
    again = train(model, epochs=1, checkpoint=path, resume=True)
    assert len(again) == 0
    for key, value in done.session.state_dict(model).items():
        np.testing.assert_array_equal(again.session.state_dict(model)[key], value)
    with gc.Session("numpy") as session:
        session.get_value(gc.Variable(1.0, name="other"))
        session.save(path)
    with pytest.raises(gc.FormatError, match="no checkpoint of fit"):
        train(epochs=2, checkpoint=path, resume=True)


def test_progress_shows_metrics(capsys):
    train(epochs=1, progress=None, metrics={"accuracy": accuracy})
    text = capsys.readouterr().err
    assert "epoch 1/1: 90/90 samples (100%)" in text and "loss" in text and "accuracy" in text


def test_loader_of_the_user_and_epoch_callback():
    rows: list[dict[str, float]] = []
    loader = gc.data.DataLoader(gc.data.TensorDataset(*blobs()), batch_size=20, shuffle=True, drop_last=True)
    train(data=loader, on_epoch_end=rows.append, epochs=2)
    assert len(rows) == 2 and rows[0]["samples_per_second"] > 0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"data": iter([blobs()])}, gc.UsageError, "only once"),
        ({"data": blobs()[0]}, gc.UsageError, "must be a DataLoader"),
        ({"data": [blobs()[0]]}, gc.UsageError, "must be a tuple"),
        ({"data": [({}, {})][:0]}, gc.UsageError, "empty"),
        ({"epochs": -1}, gc.UsageError, "negative"),
        ({"resume": True}, gc.UsageError, "checkpoint"),
        ({"loss": nn.CrossEntropyLoss(reduction="none")}, gc.ShapeError, "loss must be a scalar"),
        ({"metrics": {"shape": lambda p, t: p}}, gc.ShapeError, "shape must be a scalar"),
    ],
)
def test_errors(options, error, message):
    arguments = {"loss": nn.CrossEntropyLoss(), "optimizer": optim.Adam(), "progress": False, "data": blobs()} | options
    data = arguments.pop("data")
    with pytest.raises(error, match=message):
        fit(small_model(), data, **arguments)


def test_history_without_epochs():
    assert str(History()) == "no epochs" and History().last == {} and History()["loss"] == []
    with pytest.raises(KeyError, match="no metric 'x'"):
        History([{"loss": 1.0}])["x"]
