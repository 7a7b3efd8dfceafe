"""Recordings are read whole and in blocks: samples, hashes, warnings, and what is refused."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_cases import SR, by_libsndfile, decoded, encoded, joined, voice
from conftest import harmonic

from speechemo_cli.audio import quality, reader
from speechemo_cli.audio.reader import channel_names, cut, open_blocks, read, resample
from speechemo_cli.config import AudioConfig
from speechemo_cli.errors import AudioError, ExitCode, ModelFileError

CONFIG = AudioConfig()
WriteClip = Callable[..., Path]


# --- what is read


def test_read_gives_samples_rate_hash_and_duration_of_the_file(write_clip: WriteClip) -> None:
    path = write_clip(seconds=1.5)
    before = path.stat()
    recording = read(path, CONFIG)
    np.testing.assert_array_equal(recording.y, soundfile.read(path, dtype="float32")[0])
    assert recording.y.dtype == np.float32
    assert (recording.sr, recording.duration_s, recording.warnings) == (16000, 1.5, ())
    assert recording.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize(
    ("container", "subtype"),
    [
        *(("WAV", subtype) for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")),
        *(("WAV", "ULAW"), ("AU", "ALAW"), ("AIFF", "PCM_S8"), ("CAF", "FLOAT"), ("NIST", "PCM_24")),
        *((container, "PCM_16") for container in ("WAVEX", "FLAC", "AIFF", "AU", "W64", "RF64")),
    ],
)
def test_read_gives_the_samples_of_libsndfile_whatever_the_name(container: str, subtype: str) -> None:
    content = encoded(voice(), SR, container, subtype)
    for name in ("clip.wav", "clip.mp3", "clip"):
        Path(name).write_bytes(content)
        np.testing.assert_array_equal(read(name, CONFIG).y, by_libsndfile(content))


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_read_averages_channels_also_in_pieces(
    channels: int, write_clip: WriteClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    y = np.stack([harmonic(0.5, SR, f0=100 + 40 * i) for i in range(channels)], axis=1)
    path = write_clip(y=y, subtype="FLOAT")
    got = read(path, CONFIG).y
    np.testing.assert_allclose(got, y.astype(np.float64).mean(axis=1), atol=1e-7)
    monkeypatch.setattr(reader, "PIECE", 5000)
    np.testing.assert_array_equal(read(path, CONFIG).y, got)


def test_read_takes_a_file_without_a_header_at_the_given_rate() -> None:
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
    for path, reason in (
        ("gone.wav", "^no such file$"),
        ("", "^no such file$"),
        ("folder.wav", "^a folder, not a clip$"),
        ("a\0b.wav", "^not a possible file name$"),
        ("x" * 5000, "^file name too long$"),
        (write_clip() / "below.wav", "^not a directory$"),
        (os.devnull, "^not a regular file$"),
    ):
        check_refused(path, reason)


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
@pytest.mark.parametrize(("channels", "offset"), [(1, 0.0), (2, 0.05)])
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


def test_samples_sha256_differs_for_other_samples_and_another_rate(rng: np.random.Generator) -> None:
    y = sixteen_bit(rng, 1)[:, 0]
    changed = y.copy()
    changed[4000] += 1
    clips = ((y, 16000), (changed, 16000), (y[:-1], 16000), (y, 16001))
    assert len({decoded(encoded(one, sr)).samples_sha256 for one, sr in clips}) == 4


# --- whatever goes wrong


@pytest.mark.parametrize(
    ("error", "message"),
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
def test_clip_errors_tell_what_goes_wrong_with_a_clip(error: Exception, message: str) -> None:
    with pytest.raises(AudioError, match=message) as caught, reader.clip_errors():
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


# --- rates, channels and offsets


@pytest.mark.parametrize("sr", [8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 96000, 192000])
@pytest.mark.parametrize("target", [16000, 22050])
def test_resample_keeps_a_tone(sr: int, target: int) -> None:
    y = resample((0.5 * np.sin(2 * np.pi * 440 * np.arange(sr // 2) / sr)).astype("f"), sr, target)
    inside = slice(target // 20, -target // 20)  # the filter rings at the ends
    analytic = 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(y)) / target)
    assert len(y) == -(-(sr // 2) * target // sr)
    np.testing.assert_allclose(y[inside], analytic[inside], atol=2e-3)


@pytest.mark.slow  # librosa compiles for a while
@pytest.mark.parametrize("target", [8000, 16000, 22050])
@pytest.mark.parametrize("sr", [8000, 11025, 16000, 44100, 48000])
def test_resample_is_that_of_librosa_load(
    sr: int, target: int, write_clip: WriteClip, rng: np.random.Generator
) -> None:
    import librosa

    # A length that divides by nothing, so that the rounding of the number of samples shows.
    y = (0.1 * rng.standard_normal((round(0.25 * sr) + 7, 2))).astype(np.float32)
    path = write_clip(y=y, sr=sr)
    expected, _ = librosa.load(path, sr=target)
    got = resample(read(path, CONFIG).y, sr, target)
    assert (got.dtype, got.shape) == (np.float32, expected.shape)
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("gains", "warned"),
    [
        *(([1, -0.5], []), ([1, -0.75], ["channels cancel"]), ([1, -0.9], ["channels cancel"])),
        *((np.eye(n)[1], []) for n in (2, 3, 8, 32)),
    ],
)
def test_read_channels_warns_of_channels_that_cancel_and_not_of_silent_ones(
    gains: list[float], warned: list[str]
) -> None:
    warnings = decoded(encoded(np.outer(voice(), gains))).warnings

    assert [warning.split(":")[0] for warning in warnings] == warned


@pytest.mark.parametrize("offset", [-0.4, 0.02, 0.3])
def test_as_recording_takes_an_offset_out(offset: float) -> None:
    y = 0.5 * voice()

    recording = reader.as_recording(y + np.float32(offset), SR, CONFIG)

    np.testing.assert_allclose(recording.y, y - y.mean(), atol=1e-6)
    assert [warning.split(" of")[0] for warning in recording.warnings] == [f"offset: {offset:+.2g}"]


@pytest.mark.parametrize(
    ("offset", "bad"), [(0.0, 0.0), (0.001, 0.0), (0.3, np.nan), (0.3, np.inf), (0.3, -np.inf)]
)
def test_as_recording_leaves_samples_without_an_offset_or_not_finite(offset: float, bad: float) -> None:
    y = voice() + np.float32(offset)
    y[::7] += np.float32(bad)

    recording = reader.as_recording(y, SR, CONFIG)

    assert recording.y is y
    assert recording.warnings == ()


# --- blocks


@pytest.mark.parametrize(
    ("sr", "target"), [(8000, 16000), (11025, 8000), (16000, 16000), (44100, 22050), (48000, 16000)]
)
def test_blocks_in_a_row_are_the_whole_file_resampled(
    sr: int, target: int, write_clip: WriteClip, rng: np.random.Generator
) -> None:
    # A length that divides by nothing, and noise, in which a joint would show.
    path = write_clip(y=0.1 * rng.standard_normal(round(3.3 * sr) + 7), sr=sr)

    got, _ = joined(path, target)

    expected = resample(read(path, CONFIG).y, sr, target)
    assert (got.dtype, got.shape) == (np.float32, expected.shape)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_blocks_are_a_second_long_whatever_the_rate_and_the_channels(write_clip: WriteClip) -> None:
    path = write_clip(y=np.stack([harmonic(4.5, 48000)] * 3, axis=1), sr=48000)

    with open_blocks(path, 16000, CONFIG) as blocks:
        lengths = [len(block) for block in blocks]

        assert max(lengths) < 1.1 * 16000
        assert sum(lengths) == 4.5 * 16000
        assert blocks.duration_s == blocks.promised_s == 4.5


@pytest.mark.parametrize("names", [("left", "right"), ("1", "2", "3")])
def test_blocks_of_a_channel_are_its_samples(names: tuple[str, ...], write_clip: WriteClip) -> None:
    y = np.stack([harmonic(1.5, 16000, 100.0 + 70 * i) for i in range(len(names))], axis=1)
    path = write_clip(y=y, subtype="FLOAT")

    assert channel_names(path, CONFIG) == channel_names(path.read_bytes(), CONFIG) == names
    for i, name in enumerate(names):
        np.testing.assert_array_equal(joined(path, channel=name)[0], y[:, i])


def test_blocks_are_refused_of_a_channel_that_is_not_there(write_clip: WriteClip) -> None:
    with pytest.raises(AudioError, match=r"^has 3 channels, no left one$"):
        joined(write_clip("three.wav", y=np.ones((SR, 3))), channel="left")
    with pytest.raises(AudioError, match=r"^has 1 channel, no right one$"):
        joined(write_clip("one.wav"), channel="right")


def test_blocks_tell_the_place_of_what_is_no_number_in_the_recording(write_clip: WriteClip) -> None:
    y = harmonic(4, 16000)
    y[40000] = np.nan
    path = write_clip(y=y, subtype="FLOAT")

    for sr in (16000, 8000):
        with pytest.raises(AudioError, match=r"^contains NaN at 2\.500 s$"):
            joined(path, sr)


def test_open_blocks_lets_through_what_its_user_raises(write_clip: WriteClip) -> None:
    with pytest.raises(ValueError, match="mine"), open_blocks(write_clip(), 16000, CONFIG):
        raise ValueError("mine")


def test_blocks_keep_an_offset_and_tell_it(write_clip: WriteClip) -> None:
    y, warnings = joined(write_clip(y=0.5 * harmonic(2.5, 16000) - 0.2))

    assert y.mean() == pytest.approx(-0.2, abs=0.01)
    assert warnings == ("offset: -0.2 of full scale is on every sample, which spoils answers",)


# --- pieces of what streams by


def in_blocks(y: np.ndarray, n: int) -> Iterator[np.ndarray]:
    return (y[i : i + n] for i in range(0, len(y), n))


@pytest.mark.parametrize("n", [1, 7, 50, 1000])
def test_cut_gives_the_same_pieces_however_the_samples_are_blocked(n: int, rng: np.random.Generator) -> None:
    y = np.arange(400, dtype=np.float32)
    first = np.sort(rng.integers(0, 350, 30))
    spans = np.stack([first, first + rng.integers(1, 50, 30)], axis=1)

    for (a, b), piece in zip(spans, cut(in_blocks(y, n), spans), strict=True):
        np.testing.assert_array_equal(piece, y[a:b])


def test_cut_asks_for_no_more_than_the_last_piece_needs() -> None:
    blocks = in_blocks(np.arange(1000, dtype=np.float32), 10)

    pieces = list(cut(blocks, np.array([[5, 12], [20, 45]])))

    assert [len(piece) for piece in pieces] == [7, 25]
    assert next(blocks)[0] == 50


def test_cut_refuses_samples_that_end_too_soon() -> None:
    pieces = cut(in_blocks(np.zeros(30, np.float32), 10), np.array([[0, 20], [20, 31]]))

    assert len(next(pieces)) == 20
    with pytest.raises(AudioError, match="changed while it was being read"):
        next(pieces)
