"""LiteRT files are run with their outputs in the network's order, by any number of threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from speechemo_cli.litert import LiteRtModel
from speechemo_cli.models import load_keras, model_file

PACKAGED = model_file.litert_path(model_file.PACKAGED)


@pytest.mark.slow
def test_run_gives_the_outputs_of_the_network_in_its_order(tmp_path: Path, rng: np.random.Generator) -> None:
    keras = load_keras()
    x = keras.Input((6,))
    h = keras.layers.Dense(64, activation="gelu")(x)
    network = keras.Model(x, [keras.layers.Dense(n)(h) for n in (3, 1, 2)])
    path = tmp_path / "network.tflite"
    model_file.write_litert(network, path)

    for model in (LiteRtModel(str(path)), LiteRtModel(path.read_bytes())):
        assert model.shapes == ([(1, 6)], [(1, 3), (1, 1), (1, 2)])
        for clip in rng.normal(size=(2, 1, 6)).astype(np.float32):
            for one, expected in zip(model.run(clip), network(clip), strict=True):
                np.testing.assert_allclose(one, expected, atol=1e-5)


def test_run_answers_in_threads_as_in_one_and_gives_copies(rng: np.random.Generator) -> None:
    model = LiteRtModel(str(PACKAGED))
    assert model.shapes == ([(1, 3072)], [(1, 8), (1, 1)])
    inputs = list(rng.normal(size=(200, 1, 3072)).astype(np.float32))
    expected = [model.run(x) for x in inputs]

    with ThreadPoolExecutor(6) as pool:
        received = list(pool.map(LiteRtModel(PACKAGED.read_bytes()).run, inputs))

    for one, other in zip(received, expected, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert not np.array_equal(expected[0][0], expected[1][0])
