"""LiteRT files are run with their outputs in the network's order, by any number of threads."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speechemo_cli.litert import LiteRtModel
from speechemo_cli.models import model_file
from speechemo_cli.models.keras_backend import load_keras


def network() -> Any:
    """One input and three outputs of their own shapes, each a sum of weights that tells it apart."""
    keras = load_keras()
    keras.utils.set_random_seed(0)
    x = keras.Input((6,))
    h = keras.layers.Dense(64, activation="gelu")(x)
    return keras.Model(x, [keras.layers.Dense(n)(h) for n in (3, 1, 2)])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """The network, and its LiteRT file."""
    path = tmp_path_factory.mktemp("litert") / "network.tflite"
    model_file.write_litert(network(), path)
    return network(), path


def test_shapes_are_those_of_the_network_in_its_order(model: tuple[Any, Path]) -> None:
    assert LiteRtModel(str(model[1])).shapes == ([(1, 6)], [(1, 3), (1, 1), (1, 2)])


@pytest.mark.parametrize("kind", [str, Path.read_bytes])
def test_run_gives_the_outputs_of_the_network(
    model: tuple[Any, Path], kind: Any, rng: np.random.Generator
) -> None:
    keras_model, path = model
    x = rng.normal(size=(1, 6)).astype(np.float32)

    received = LiteRtModel(kind(path)).run(x)

    for one, expected in zip(received, keras_model(x), strict=True):
        np.testing.assert_allclose(one, expected, atol=1e-5)


def test_run_answers_in_threads_as_in_one(model: tuple[Any, Path], rng: np.random.Generator) -> None:
    litert = LiteRtModel(str(model[1]))
    inputs = list(rng.normal(size=(200, 1, 6)).astype(np.float32))
    expected = [litert.run(x) for x in inputs]

    with ThreadPoolExecutor(6) as pool:
        received = list(pool.map(litert.run, inputs))

    for one, other in zip(received, expected, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_run_gives_copies(model: tuple[Any, Path], rng: np.random.Generator) -> None:
    litert = LiteRtModel(str(model[1]))
    first = litert.run(np.zeros((1, 6), np.float32))
    before = [output.copy() for output in first]

    litert.run(np.ones((1, 6), np.float32))

    assert all(np.array_equal(a, b) for a, b in zip(first, before, strict=True))


def test_what_is_no_litert_file_is_refused() -> None:
    with pytest.raises(ValueError, match="not a valid Flatbuffer"):
        LiteRtModel(b"no model at all")


def test_without_litert_it_is_an_import_error(
    model: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)

    with pytest.raises(ImportError):
        LiteRtModel(str(model[1]))
