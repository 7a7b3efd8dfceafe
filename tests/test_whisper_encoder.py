"""The LiteRT file of Whisper's encoder is what NOTICE says, and computes what its arrays do."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from speechemo_cli.corpus.synthetic import synthesise, voice_of
from speechemo_cli.export.frontend import packaged_encoder
from speechemo_cli.features import whisper
from speechemo_cli.files import sha256_file

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("suffix", [".npz", ".tflite"])
def test_notice_has_the_hashes_of_the_files(suffix: str) -> None:
    path = whisper.ENCODER.with_suffix(suffix)
    hashes = dict(
        reversed(line.split())
        for line in re.findall(r"^[0-9a-f]{64} .+$", (ROOT / "NOTICE").read_text(), re.M)
    )

    assert hashes[path.relative_to(ROOT).as_posix()] == sha256_file(path)


def test_litert_file_gives_the_features_of_the_float_network() -> None:
    network = packaged_encoder()
    y = synthesise(voice_of(1, 0), "happy", 1, 1, np.random.default_rng(0))

    exact = whisper.compute(y, lambda x: np.asarray(network(x, training=False)))

    assert np.corrcoef(exact[0], whisper.compute(y)[0])[0, 1] >= 0.999
