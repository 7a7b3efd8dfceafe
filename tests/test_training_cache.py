"""Finished trainings are found again by what they were made of, and by nothing else."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import told, trained_with

from speechemo_cli.config import AudioConfig, AugmentConfig, Config, MfccConfig
from speechemo_cli.errors import AccessError
from speechemo_cli.evaluation import training_cache
from speechemo_cli.evaluation.training_cache import CachedTraining
from speechemo_cli.features.dataset import Dataset
from speechemo_cli.models import v1, v2, v3
from speechemo_cli.models.training import TrainingState

TRAIN = np.arange(18)
FINISHED = TrainingState(
    [np.random.default_rng(0).normal(size=shape).astype(np.float32) for shape in ((4, 3), (3,), ())],
    2,
    {"train_loss": [1.0, 0.1 + 0.2]},
    12.5,
)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return told(np.random.default_rng(1), speakers=3, clips=3)


def relabelled(data: Dataset, position: int) -> Dataset:
    examples = list(data.examples)
    clip = examples[position].clip
    examples[position] = replace(examples[position], clip=replace(clip, label=f"not {clip.label}"))
    return replace(data, examples=tuple(examples))


def sung(data: Dataset, position: int) -> Dataset:
    examples = list(data.examples)
    examples[position] = replace(examples[position], clip=replace(examples[position].clip, song=True))
    return replace(data, examples=tuple(examples))


def other_sound(data: Dataset, position: int) -> Dataset:
    examples = list(data.examples)
    examples[position] = replace(examples[position], key="f" * 64)
    return replace(data, examples=tuple(examples))


def moved(data: Dataset) -> Dataset:
    """The same recordings elsewhere on the disk."""
    examples = (replace(e, clip=replace(e.clip, path=f"moved/{e.clip.path}")) for e in data.examples)
    return replace(data, examples=tuple(examples))


def run(data: Dataset, /, **changes: Any) -> CachedTraining:
    return CachedTraining(
        **{
            "version": "v1",
            "preset": v1.PRESET,
            "data": data,
            "train": TRAIN,
            "seed": 3,
            "config": Config(),
            **changes,
        }
    )


def test_what_was_kept_comes_back_exactly(data: Dataset) -> None:
    assert run(data).read() is None

    run(data).write(FINISHED)

    received = run(data).read()
    assert received is not None
    for weights, expected in zip(received.values, FINISHED.values, strict=True):
        np.testing.assert_array_equal(weights, expected)
        assert weights.dtype == expected.dtype
    assert received[1:] == FINISHED[1:]


@pytest.mark.parametrize(
    "change",
    [
        lambda data: {"data": relabelled(data, 0)},
        lambda data: {"data": other_sound(data, 0)},
        lambda data: {"data": sung(data, 0)},
        lambda data: {"data": replace(data, labels=data.labels[::-1])},
        lambda _: {"train": TRAIN[1:]},
        lambda _: {"preset": replace(v1.PRESET, epochs=7)},
        lambda _: {"preset": replace(v1.PRESET, batch_size=7)},
        lambda _: {"preset": replace(v1.PRESET, learning_rate=0.7)},
        lambda _: {"preset": replace(v1.PRESET, dropout=0.7)},
        lambda _: {"seed": 4},
        lambda _: {"config": Config(mfcc=MfccConfig(n_mfcc=20))},
        lambda _: {"version": "v2"},
    ],
    ids=[
        *["a label", "a clip", "a weight", "order of labels", "fewer clips", "epochs", "batch size"],
        *["learning rate", "dropout", "seed", "features", "network"],
    ],
)
def test_whatever_decides_the_weights_begins_anew(change: Any, data: Dataset) -> None:
    run(data).write(FINISHED)
    changed = run(data, **change(data))

    assert changed.read() is None
    assert changed.checkpoint.path != run(data).checkpoint.path


@pytest.mark.parametrize(
    "change",
    [
        lambda _: {"preset": replace(v1.PRESET, calibrate=True)},
        lambda _: {"config": Config(jobs=3, store="elsewhere", models="nets", data=("clips",))},
        lambda _: {"config": Config(audio=AudioConfig(max_duration_s=50))},
        lambda _: {"config": trained_with(split="none")},
        lambda data: {"data": moved(data)},
        lambda data: {"data": relabelled(data, 20)},
        lambda data: {"data": data.subset(np.arange(20))},
    ],
    ids=["calibration", "places", "limits of clips", "split", "paths", "a test label", "fewer tests"],
)
def test_what_does_not_decide_the_weights_keeps_them(change: Any, data: Dataset) -> None:
    run(data).write(FINISHED)
    changed = run(data, **change(data))

    assert changed.read() is not None
    assert changed.checkpoint.path == run(data).checkpoint.path


def test_other_augmented_copies_begin_anew_where_they_are_trained_on(data: Dataset) -> None:
    more = Config(augment=AugmentConfig(copies=7))
    for version, module, same in (("v1", v1, True), ("v3", v3, False)):
        paths = {
            run(data, version=version, preset=module.PRESET, config=config).checkpoint.path
            for config in (Config(), more)
        }
        assert (len(paths) == 1) == same


@pytest.mark.parametrize("changed", ["network", "part"])
def test_other_source_of_the_network_begins_anew(
    changed: str, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("network", "part"):
        Path(f"{name}.py").write_text("before")
    part = SimpleNamespace(__file__="part.py")
    monkeypatch.setattr(
        training_cache, "version_module", lambda _: SimpleNamespace(__file__="network.py", PARTS=(part,))
    )
    run(data).write(FINISHED)
    assert run(data).read() is not None

    Path(f"{changed}.py").write_text("after")

    assert run(data).read() is None


def test_networks_name_the_modules_they_share() -> None:
    # v1 and v2 take how they are trained from one module, whose change changes both.
    for network in (v1, v2):
        shared = (network.batches, network.compile_model, network.training_model)
        origins = {function.__module__ for function in shared}
        assert origins <= {network.__name__, *(part.__name__ for part in network.PARTS)}


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_kept_training_that_is_not_whole_is_none(share: float, data: Dataset) -> None:
    run(data).write(FINISHED)
    (path,) = Path("runs").iterdir()
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    assert run(data).read() is None


def test_a_pipe_under_the_name_of_a_training_is_none(data: Dataset) -> None:
    run(data).write(FINISHED)
    (path,) = Path("runs").iterdir()
    path.unlink()
    os.mkfifo(path)

    assert run(data).read() is None


def test_folders_of_runs_share_nothing(data: Dataset) -> None:
    run(data).write(FINISHED)

    assert run(data, config=Config(runs="elsewhere")).read() is None


def test_a_place_that_cannot_be_written_is_an_access_error(data: Dataset) -> None:
    Path("runs").write_text("in the way")

    with pytest.raises(AccessError, match="cannot write runs/v1-"):
        run(data).write(FINISHED)
