"""A clip is made ready as the reader, the doubts and the resampler have it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import noisy

from speechemo_cli.audio import doubts, hearing, reader
from speechemo_cli.config import AudioConfig
from speechemo_cli.errors import AudioError

CONFIG = AudioConfig()


def test_what_is_heard_is_what_reader_and_doubts_say(tmp_path: Path, rng: np.random.Generator) -> None:
    path = str(tmp_path / "clip.wav")
    soundfile.write(path, np.clip(6 * noisy(rng, 1.0, 44100), -1, 1), 44100)
    recording = reader.read(path, CONFIG)

    (sound,) = hearing.hear(path, CONFIG, "mix", 16000)

    assert isinstance(sound, hearing.Sound)
    np.testing.assert_array_equal(sound.y, reader.resample(recording.y, 44100, 16000))
    assert (sound.duration_s, sound.sha256) == (recording.duration_s, recording.sha256)
    assert sound.channel is None
    assert sound.warnings == doubts.doubts(recording.y, 44100)
    assert sound.warnings[0].startswith("clipped")


def test_a_silent_channel_is_refused_and_the_other_heard(tmp_path: Path, rng: np.random.Generator) -> None:
    path = str(tmp_path / "clip.wav")
    y = noisy(rng, 1.0, 16000)
    soundfile.write(path, np.stack([y, 0 * y], 1), 16000)

    left, right = hearing.hear(path, CONFIG, "each", 16000)

    assert isinstance(left, hearing.Sound)
    assert left.channel == "left"
    assert isinstance(right, hearing.Refused)
    assert right.channel == "right"
    assert right.error.startswith("silent")


def test_a_clip_that_cannot_be_read_is_an_audio_error(write_clip: Callable[..., Path]) -> None:
    with pytest.raises(AudioError, match="no such file"):
        hearing.hear("gone.wav", CONFIG, "mix", 16000)
    with pytest.raises(AudioError, match="no left one"):
        hearing.hear(str(write_clip()), CONFIG, "left", 16000)
