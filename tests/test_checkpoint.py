"""A training that was killed goes on as if nothing had happened, or begins anew where it cannot."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from speechemo_cli.errors import AccessError
from speechemo_cli.models import training, v3
from speechemo_cli.models.keras_backend import load_keras
from speechemo_cli.models.training import Checkpoint, Rows

PATH = Path("runs/state.npz")
PRESET = replace(v3.PRESET, epochs=3, batch_size=8)


def rows() -> Rows:
    rng = np.random.default_rng(11)
    x = rng.normal(-12, 4, (24, 10)).astype(np.float32)
    return Rows(x, np.arange(24) % 3, rng.choice([0.5, 1.0], 24).astype(np.float32))


def fit(kept: Checkpoint | None = None, on_epoch: Any = None, preset: Any = PRESET) -> training.Training:
    return training.fit("v3", preset, rows(), 3, seed=4, on_epoch=on_epoch, checkpoint=kept)


def killed_after(epochs: int) -> Any:
    def on_epoch(done: int, _total: int, _values: object) -> None:
        if done == epochs:
            raise KeyboardInterrupt

    return on_epoch


def weights(trained: training.Training) -> list[np.ndarray]:
    return trained.model.get_weights()


def same(one: training.Training, other: training.Training) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


@pytest.fixture(scope="module")
def whole() -> training.Training:
    """The training without a break, and without a checkpoint."""
    return fit()


@pytest.mark.parametrize("killed", [1, 3])
def test_a_killed_training_ends_with_the_weights_of_one_without_a_break(
    killed: int, whole: training.Training
) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(Checkpoint(PATH, every_s=0), killed_after(killed))
    assert PATH.is_file()
    reported: list[int] = []

    resumed = fit(Checkpoint(PATH, every_s=0), lambda done, *_: reported.append(done))

    assert reported == [1, 2, 3][killed:]
    assert same(resumed, whole)
    assert resumed.history == whole.history
    assert list(PATH.parent.iterdir()) == [PATH]  # until the network is in a file


def compiled(width: int = 6) -> Any:
    """A network with the optimizer of v3, ready to be trained."""
    keras = load_keras()
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(width, activation="relu"), keras.layers.Dense(3)]
    )
    v3.compile_model(model, PRESET, steps=3)
    model.optimizer.build(model.trainable_variables)
    return model


def test_weights_optimizer_and_history_come_back(rng: np.random.Generator) -> None:
    model, again = compiled(), compiled()
    for variable in [*model.trainable_variables, *model.optimizer.variables]:
        variable.assign(rng.integers(0, 9, variable.shape))
    history = {"train_loss": [1.5, 0.1 + 0.2]}
    Checkpoint(PATH, every_s=0).keep(model, 2, history)

    assert Checkpoint(PATH).restore(again) == (2, history)

    states = zip(
        [*model.variables, *model.optimizer.variables],
        [*again.variables, *again.optimizer.variables],
        strict=True,
    )
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in states)


def cut(share: float) -> Any:
    def damage(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])

    return damage


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(4 * np.float32(7).tobytes())] ^= 0xFF
    path.write_bytes(bytes(content))


def of_another_network(path: Path) -> None:
    Checkpoint(path, every_s=0).keep(compiled(width=5), 2, {})


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def of_nobody(path: Path) -> None:
    np.savez(path, something=np.arange(3))


@pytest.mark.parametrize(
    "damage",
    [
        cut(0),
        cut(0.5),
        cut(0.99),
        flip,
        of_another_network,
        of_nobody,
        pipe,
        lambda path: path.write_text("text"),
        lambda path: path.unlink(),
    ],
    ids=["empty", "half", "cut", "flipped", "other shapes", "foreign", "pipe", "text", "gone"],
)
def test_a_file_that_does_not_fit_means_a_fresh_start(damage: Any) -> None:
    trained, fresh = compiled(), compiled()
    trained.layers[0].set_weights([np.full((4, 6), 7.0), np.full(6, 7.0)])
    Checkpoint(PATH, every_s=0).keep(trained, 2, {"train_loss": [1.0, 2.0]})
    damage(PATH)

    assert Checkpoint(PATH).restore(fresh) == (0, {})

    assert all(
        np.array_equal(a, b) for a, b in zip(fresh.get_weights(), compiled().get_weights(), strict=True)
    )
    assert fresh.optimizer.iterations == 0


def test_it_writes_no_more_often_than_asked_and_counts_the_time_before_a_break(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: now[0]))
    model = compiled()
    kept = Checkpoint(PATH, every_s=20)

    now[0] = 119.0
    kept.keep(model, 1, {})
    assert not kept.exists()
    now[0] = 130.0
    kept.keep(model, 2, {})
    now[0] = 140.0
    kept.keep(model, 3, {})

    now[0] = 1000.0
    after = Checkpoint(PATH)
    assert after.restore(model) == (2, {})
    now[0] = 1007.0
    assert after.seconds == 37


def test_dropping_can_be_done_twice() -> None:
    kept = Checkpoint(PATH, every_s=0)
    kept.keep(compiled(), 1, {})

    kept.drop()
    kept.drop()

    assert not kept.exists()


def test_a_place_that_cannot_be_written_is_an_access_error() -> None:
    Path("runs").write_text("in the way")

    with pytest.raises(AccessError, match=r"cannot write runs/state\.npz"):
        Checkpoint(PATH, every_s=0).keep(compiled(), 1, {})
