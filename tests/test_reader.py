"""Clips are read whole: their samples, hashes and warnings, and what is wrong with one costs it alone."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from audio_cases import by_libsndfile, encoded, voice
from conftest import harmonic

from speechemo_cli.audio import quality, reader
from speechemo_cli.audio.reader import PreparedClip, read
from speechemo_cli.config import AudioConfig
from speechemo_cli.errors import AudioError, ClipError, ExitCode, ModelFileError

CONFIG = AudioConfig()
WriteClip = Callable[..., Path]


# --- what is read


def test_read_gives_samples_rate_hash_and_duration_of_the_file(write_clip: WriteClip) -> None:
    path = write_clip(seconds=1.5, sr=16000)
    before = path.stat()
    recording = read(path, CONFIG)
    expected, sr = librosa.load(path, sr=None)
    np.testing.assert_array_equal(recording.y, expected)
    assert recording.sr == sr == 16000
    assert recording.y.dtype == np.float32
    assert recording.duration_s == 1.5
    assert recording.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert recording.warnings == ()
    assert path.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize(
    ("container", "subtype"),
    [
        *(("WAV", subtype) for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")),
        *(("WAV", "ULAW"), ("AU", "ALAW"), ("AIFF", "PCM_S8"), ("CAF", "FLOAT"), ("NIST", "PCM_24")),
        *((container, "PCM_16") for container in ("WAVEX", "FLAC", "AIFF", "AU", "W64", "RF64")),
    ],
)
@pytest.mark.parametrize("name", ["clip.wav", "clip.mp3", "clip"])
def test_read_gives_the_samples_of_libsndfile_whatever_the_name(
    container: str, subtype: str, name: str
) -> None:
    Path(name).write_bytes(encoded(voice(), 16000, container, subtype))
    expected, _ = soundfile.read(name, dtype="float32")
    np.testing.assert_array_equal(read(name, CONFIG).y, expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_read_averages_channels_as_librosa_does(channels: int, write_clip: WriteClip) -> None:
    y = np.stack([harmonic(0.5, 16000, f0=100 + 40 * i) for i in range(channels)], axis=1)
    path = write_clip(y=y, subtype="FLOAT")
    got = read(path, CONFIG).y
    np.testing.assert_allclose(got, y.astype(np.float64).mean(axis=1), atol=1e-7)
    np.testing.assert_allclose(got, librosa.load(path, sr=None, mono=True)[0], atol=1e-7)


def test_read_takes_a_file_without_a_header_at_the_rate_that_is_told() -> None:
    whole = encoded(voice())
    Path("clip.pcm").write_bytes(whole[44:] + b"x")  # and half a sample

    recording = read("clip.pcm", AudioConfig(raw_sr=16000))

    np.testing.assert_array_equal(recording.y, by_libsndfile(whole))
    assert (recording.sr, recording.warnings) == (16000, ())


# --- what is refused


def check_refused(path: str | Path, reason: str, config: AudioConfig = CONFIG) -> None:
    with pytest.raises(AudioError, match=reason) as caught:
        read(path, config)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == ExitCode.SOME_FAILED


def test_read_refuses_a_clip_that_is_too_long_and_does_not_cut_it(write_clip: WriteClip) -> None:
    config = AudioConfig(max_duration_s=2.0)
    check_refused(write_clip(seconds=3.0), r"^3 s is longer than 2 s\. .*audio\.max_duration_s", config)
    check_refused(write_clip(y=harmonic(2.0001, 16000)), "is longer than 2 s", config)
    assert read(write_clip(seconds=2.0), config).duration_s == 2.0


@pytest.mark.parametrize("dc", [0.0, 0.5])
def test_read_takes_for_silence_what_is_below_its_threshold_whatever_the_offset(
    dc: float, write_clip: WriteClip
) -> None:
    wave = quality.SILENCE_PEAK * np.sin(2 * np.pi * 100 * np.arange(16000) / 16000)
    check_refused(write_clip(y=dc + 0.9 * wave, subtype="FLOAT"), "^silent")
    assert read(write_clip(y=dc + 1.1 * wave, subtype="FLOAT"), CONFIG).duration_s == 1.0


def test_read_refuses_what_is_no_file(write_clip: WriteClip, tmp_path: Path) -> None:
    (tmp_path / "folder.wav").mkdir()
    check_refused("gone.wav", "^no such file$")
    check_refused("", "^no such file$")
    check_refused("folder.wav", "^a folder, not a clip$")
    check_refused("a\0b.wav", "^not a possible file name$")
    check_refused("x" * 5000, "^file name too long$")
    check_refused(write_clip() / "below.wav", "^not a directory$")
    check_refused(os.devnull, "^not a regular file$")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs")
def test_read_refuses_a_fifo_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "clip.wav")
    caught: list[Exception] = []

    def attempt() -> None:
        try:
            read(tmp_path / "clip.wav", CONFIG)
        except Exception as error:
            caught.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(20)
    assert [str(error) for error in caught] == ["not a regular file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_read_says_of_a_clip_that_it_may_not_be_read(write_clip: WriteClip) -> None:
    path = write_clip()
    path.chmod(0)
    check_refused(path, "^permission denied$")


# --- the hash of the samples


def sixteen_bit(rng: np.random.Generator, channels: int, offset: float = 0.0) -> np.ndarray:
    y = 0.1 * rng.standard_normal((8000, channels)) + offset
    return np.round(32767 * y.clip(-1, 1)).astype(np.int16)


@pytest.mark.parametrize(
    ("name", "subtype"),
    [
        *(("copy.flac", "PCM_16"), ("copy.flac", "PCM_24"), ("copy.aiff", "PCM_16"), ("copy.wav", "PCM_24")),
        *(("copy.wav", "PCM_32"), ("copy.wav", "FLOAT")),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("offset", [0.0, 0.05])
def test_samples_sha256_is_the_same_in_every_lossless_container(
    name: str, subtype: str, channels: int, offset: float, rng: np.random.Generator
) -> None:
    soundfile.write("original.wav", sixteen_bit(rng, channels, offset), 16000, subtype="PCM_16")
    y, sr = soundfile.read("original.wav", dtype="float32")
    soundfile.write(name, y, sr, subtype=subtype)
    original, copy = (read(path, CONFIG) for path in ("original.wav", name))
    assert bool(original.warnings) == bool(offset)
    assert copy.sha256 != original.sha256
    assert copy.samples_sha256 == original.samples_sha256


def test_samples_sha256_tells_other_samples_and_another_rate_apart(rng: np.random.Generator) -> None:
    y = sixteen_bit(rng, 1)[:, 0]
    changed = y.copy()
    changed[4000] += 1
    hashes = set()
    for one, sr in ((y, 16000), (changed, 16000), (y[:-1], 16000), (y, 16001)):
        soundfile.write("clip.wav", one, sr, subtype="PCM_16")
        hashes.add(read("clip.wav", CONFIG).samples_sha256)
    assert len(hashes) == 4


# --- ready for the features


def test_load_clip_resamples_and_adds_the_warnings_of_its_quality(write_clip: WriteClip) -> None:
    path = str(write_clip(y=np.clip(6 * voice(1.0, 44100), -1, 1), sr=44100))
    recording = read(path, CONFIG)

    (clip,) = reader.load_clip(path, CONFIG, "mix", 16000)

    assert isinstance(clip, PreparedClip)
    np.testing.assert_array_equal(clip.y, reader.resample(recording.y, 44100, 16000))
    assert clip[1:3] == (recording.duration_s, recording.sha256)
    assert clip.channel is None
    assert clip.warnings == quality.quality_warnings(recording.y, 44100)
    assert clip.warnings[0].startswith("clipped")


def test_load_clip_refuses_a_silent_channel_and_takes_the_other(write_clip: WriteClip) -> None:
    path = str(write_clip(y=np.stack([voice(1.0), np.zeros(16000)], axis=1)))

    left, right = reader.load_clip(path, CONFIG, "each", 16000)

    assert isinstance(left, PreparedClip)
    assert left.channel == "left"
    assert right == ClipError(path, "silent (peak below 0.0001 of full scale)", "right")


def test_load_clip_refuses_what_cannot_be_read(write_clip: WriteClip) -> None:
    with pytest.raises(AudioError, match="no such file"):
        reader.load_clip("gone.wav", CONFIG, "mix", 16000)
    with pytest.raises(AudioError, match="no left one"):
        reader.load_clip(str(write_clip()), CONFIG, "left", 16000)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OverflowError("too large"), r"^internal error: OverflowError: too large$"),
        (KeyError("two\nlines\x1b[31m"), r"^internal error: KeyError: 'two\\nlines\\x1b\[31m'$"),
        (ValueError("a\nb\x07"), r"^internal error: ValueError: a\\nb\\x07$"),
        (RuntimeError("x" * 1000), r"^internal error: RuntimeError: x{170,}$"),
        (MemoryError(), r"^out of memory\. Use fewer --jobs"),
        (OSError(errno.ENOSPC, "No space left"), r"^internal error: OSError: \[Errno 28\] No space left$"),
        (AudioError("silent"), "^silent$"),
    ],
)
def test_clip_errors_tell_what_goes_wrong_with_a_clip(error: Exception, told: str) -> None:
    with pytest.raises(AudioError, match=told) as caught, reader.clip_errors():
        raise error
    assert len(str(caught.value)) <= 200


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), SystemExit(3), ImportError("no soundfile"), ModelFileError("no LiteRT file")],
)
def test_clip_errors_let_through_what_is_no_fault_of_the_clip(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, reader.clip_errors():
        raise error
    assert caught.value is error


def test_clip_errors_leave_its_traceback_to_who_looks_for_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEECHEMO_DEBUG", "1")
    with pytest.raises(OverflowError, match="of ours"), reader.clip_errors():
        raise OverflowError("of ours")
