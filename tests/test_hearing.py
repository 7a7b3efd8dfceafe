"""A clip is made ready as the reader, the doubts and the resampler have it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import noisy

from speechemo_cli.audio import doubts, hearing, reader
from speechemo_cli.config import AudioConfig
from speechemo_cli.errors import AudioError, ModelFileError

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


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OverflowError("too large"), r"^internal error: OverflowError: too large$"),
        (KeyError("two\nlines\x1b[31m"), r"^internal error: KeyError: 'two\\nlines\\x1b\[31m'$"),
        (ValueError("a\nb\x07"), r"^internal error: ValueError: a\\nb\\x07$"),
        (RuntimeError("x" * 1000), r"^internal error: RuntimeError: x{170,}$"),
        (MemoryError(), r"^out of memory\. Use fewer --jobs"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
            r"^cannot be decoded \(no space left on device\)$",
        ),
        (AudioError("silent"), "^silent$"),
    ],
)
def test_what_goes_wrong_with_a_clip_is_told_of_it(error: Exception, told: str) -> None:
    with pytest.raises(AudioError, match=told) as caught, hearing.mishaps():
        raise error
    assert len(str(caught.value)) <= 200


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), SystemExit(3), ImportError("no soundfile"), ModelFileError("no LiteRT file")],
)
def test_what_is_no_clip_s_fault_goes_through(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, hearing.mishaps():
        raise error
    assert caught.value is error


def test_who_looks_for_a_mistake_gets_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEECHEMO_DEBUG", "1")
    with pytest.raises(OverflowError, match="of ours"), hearing.mishaps():
        raise OverflowError("of ours")


def test_a_mistake_in_the_reader_is_an_audio_error(
    write_clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OverflowError("of ours")

    monkeypatch.setattr(reader, "check", broken)
    with pytest.raises(AudioError, match=r"^internal error: OverflowError: of ours$"):
        hearing.hear(str(write_clip()), CONFIG, "mix", 16000)
