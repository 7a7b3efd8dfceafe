"""Blocks are the file that `reader` reads whole, in memory that does not grow with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import harmonic

from speechemo_cli.audio import reader
from speechemo_cli.audio.blocks import channel_names, cut, open_blocks
from speechemo_cli.audio.samples import resample
from speechemo_cli.config import AudioConfig
from speechemo_cli.errors import AudioError

CONFIG = AudioConfig()
WriteClip = Callable[..., Path]


def joined(path: str | Path, sr: int, channel: str = "mix") -> np.ndarray:
    with open_blocks(path, sr, CONFIG, channel) as blocks:
        return np.concatenate(list(blocks))


def warned(path: Path, sr: int = 16000) -> tuple[str, ...]:
    with open_blocks(path, sr, CONFIG) as blocks:
        assert blocks.warnings == ()
        for _ in blocks:
            pass
        return blocks.warnings


# --- what is read


@pytest.mark.parametrize("target", [8000, 16000, 22050])
@pytest.mark.parametrize("sr", [8000, 11025, 16000, 44100, 48000])
def test_blocks_in_a_row_are_the_whole_file_resampled(
    sr: int, target: int, write_clip: WriteClip, rng: np.random.Generator
) -> None:
    # A length that divides by nothing, and noise, in which a joint would show.
    path = write_clip(y=0.1 * rng.standard_normal(round(3.3 * sr) + 7), sr=sr)
    whole = reader.read(path, CONFIG)

    got = joined(path, target)

    expected = resample(whole.y, sr, target)
    assert got.dtype == np.float32
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("container", "subtype", "sr"),
    [
        ("FLAC", "PCM_16", 44100),
        ("OGG", "VORBIS", 44100),
        ("OGG", "OPUS", 48000),
        ("MP3", "MPEG_LAYER_III", 44100),
        ("WAV", "IMA_ADPCM", 44100),
        ("WAV", "GSM610", 8000),
    ],
)
def test_codecs_with_a_memory_have_no_joints_either(
    container: str, subtype: str, sr: int, tmp_path: Path
) -> None:
    path = tmp_path / "clip"
    soundfile.write(path, harmonic(3.3, sr), sr, format=container, subtype=subtype)

    np.testing.assert_allclose(joined(path, sr), reader.read(path, CONFIG).y, atol=1e-5)


def test_blocks_are_a_second_long_whatever_the_rate_and_the_channels(write_clip: WriteClip) -> None:
    path = write_clip(y=np.stack([harmonic(4.5, 48000)] * 3, axis=1), sr=48000)

    with open_blocks(path, 16000, CONFIG) as blocks:
        lengths = [len(block) for block in blocks]

        assert max(lengths) < 1.1 * 16000
        assert sum(lengths) == 4.5 * 16000
        assert blocks.duration_s == blocks.promised_s == 4.5


def test_a_channel_is_that_of_the_reader(write_clip: WriteClip) -> None:
    y = np.stack([harmonic(1.5, 16000, 110), harmonic(1.5, 16000, 250)], axis=1)
    path = write_clip(y=y, subtype="FLOAT")

    assert channel_names(path) == ("left", "right")
    np.testing.assert_array_equal(joined(path, 16000, "left"), y[:, 0])
    np.testing.assert_array_equal(joined(path, 16000, "right"), y[:, 1])
    np.testing.assert_allclose(joined(path, 16000), y.mean(axis=1), atol=1e-7)


def test_channels_of_other_files_have_numbers(write_clip: WriteClip) -> None:
    three = write_clip("three.wav", y=np.stack([harmonic(0.5, 16000, 100 * f) for f in (1, 2, 3)], axis=1))

    assert channel_names(three) == ("1", "2", "3")
    assert np.abs(np.fft.rfft(joined(three, 16000, "2"))).argmax() / 0.5 == pytest.approx(200, abs=2)
    with pytest.raises(AudioError, match=r"^has 3 channels, no left one$"):
        joined(three, 16000, "left")
    with pytest.raises(AudioError, match=r"^has 1 channel, no right one$"):
        joined(write_clip("one.wav"), 16000, "right")


def test_the_longest_duration_of_a_clip_does_not_apply(write_clip: WriteClip) -> None:
    with open_blocks(write_clip(seconds=2.5), 16000, AudioConfig(max_duration_s=0.5)) as blocks:
        assert sum(len(block) for block in blocks) == 2.5 * 16000


# --- what is refused, in the words of the reader


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "^empty file$"),
        (b"just some text\n" * 100, r"^not audio that can be read \(it is text\)$"),
        (b"RIFF", "^not audio that can be read"),
    ],
)
def test_content_that_is_no_audio_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "clip.wav").write_bytes(content)

    with pytest.raises(AudioError, match=reason):
        joined("clip.wav", 16000)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path, reason in (
        ("gone.wav", "^no such file$"),
        ("folder", "^a folder, not a clip$"),
        (os.devnull, "^not a regular file$"),
        ("a\0b.wav", "^not a possible file name$"),
    ):
        with pytest.raises(AudioError, match=reason):
            joined(path, 16000)


def test_samples_that_are_no_numbers_are_refused_with_their_place_in_the_recording(
    write_clip: WriteClip,
) -> None:
    y = harmonic(4, 16000)
    y[40000] = np.nan
    path = write_clip(y=y, subtype="FLOAT")

    for sr in (16000, 8000):
        with pytest.raises(AudioError, match=r"^contains NaN at 2\.500 s$"):
            joined(path, sr)


def test_samples_that_are_no_sound_are_refused(write_clip: WriteClip) -> None:
    with pytest.raises(AudioError, match=r"^samples of up to .*expected 1 at full scale$"):
        joined(write_clip(y=1e25 * harmonic(1, 16000), subtype="FLOAT"), 16000)


def test_nothing_or_next_to_nothing_is_refused(write_clip: WriteClip) -> None:
    with pytest.raises(AudioError, match=r"^no samples$"):
        joined(write_clip(y=np.zeros(0)), 8000)
    with pytest.raises(AudioError, match=r"^0\.100 s is shorter than 0\.2 s$"):
        joined(write_clip(y=harmonic(0.1, 16000)), 8000)


def test_silence_is_no_error(write_clip: WriteClip) -> None:
    assert not joined(write_clip(y=np.zeros(16000)), 8000).any()


def test_what_the_reader_of_the_blocks_raises_stays_what_it_is(write_clip: WriteClip) -> None:
    path = write_clip()

    def work() -> None:
        with open_blocks(path, 16000, CONFIG):
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        work()


# --- what is damaged


@pytest.mark.parametrize("container", ["WAV", "AIFF", "W64"])
def test_a_cut_file_gives_what_it_holds_with_the_warning_of_the_reader(
    container: str, tmp_path: Path
) -> None:
    path = tmp_path / "cut"
    soundfile.write(path, harmonic(3.0, 16000), 16000, format=container, subtype="PCM_16")
    assert warned(path) == ()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    assert len(joined(path, 16000)) == len(reader.read(path, CONFIG).y)
    assert warned(path) == reader.read(path, CONFIG).warnings
    assert warned(path)[0].startswith("truncated: the header promises 3.0")


def test_what_comes_before_a_damage_is_kept_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "call.flac"
    y = harmonic(6.0, 16000)
    soundfile.write(path, y, 16000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    got = joined(path, 16000)

    assert 16000 < len(got) < 5 * 16000
    np.testing.assert_allclose(got, y[: len(got)], atol=1e-4)
    assert warned(path)[0].split(":")[0] in ("damaged", "truncated")


@pytest.mark.parametrize("container", ["FLAC", "OGG", "MP3", "CAF"])
@pytest.mark.parametrize("share", [0.05, 0.4, 0.7, 0.99])
def test_any_cut_file_gives_samples_or_an_audio_error(container: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / "cut"
    soundfile.write(path, harmonic(2.5, 16000), 16000, format=container)
    whole = len(joined(path, 16000))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    try:
        held = len(joined(path, 16000))
    except AudioError:
        held = 0
    assert held <= whole


def test_an_offset_is_warned_about(write_clip: WriteClip) -> None:
    path = write_clip(y=0.5 * harmonic(2.5, 16000) - 0.2)

    assert warned(path) == ("offset: -0.2 of full scale is on every sample, which spoils answers",)


def test_channels_that_cancel_are_warned_about_as_the_reader_does(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    y = harmonic(2.5, 16000)
    soundfile.write(path, np.stack([y, -0.8 * y], 1), 16000)

    assert warned(path) == reader.read(path, CONFIG).warnings
    assert warned(path)[0].startswith("channels cancel: ")

    soundfile.write(path, np.stack([y, -y], 1), 16000)
    with pytest.raises(AudioError, match="silent: the channels cancel each other out"):
        joined(path, 16000)


# --- pieces of what streams by


def in_blocks(y: np.ndarray, n: int) -> Iterator[np.ndarray]:
    return (y[i : i + n] for i in range(0, len(y), n))


@pytest.mark.parametrize("n", [1, 7, 50, 1000])
def test_pieces_are_the_same_however_the_samples_are_blocked(n: int, rng: np.random.Generator) -> None:
    y = np.arange(400, dtype=np.float32)
    first = np.sort(rng.integers(0, 350, 30))
    spans = np.stack([first, first + rng.integers(1, 50, 30)], axis=1)

    for (a, b), piece in zip(spans, cut(in_blocks(y, n), spans), strict=True):
        np.testing.assert_array_equal(piece, y[a:b])


def test_no_more_is_asked_for_than_the_last_piece_needs() -> None:
    asked = []

    def blocks() -> Iterator[np.ndarray]:
        for i in range(100):
            asked.append(i)
            yield np.full(10, i, np.float32)

    pieces = list(cut(blocks(), np.array([[5, 12], [20, 45]])))

    assert [len(piece) for piece in pieces] == [7, 25]
    assert asked == [0, 1, 2, 3, 4]


def test_samples_that_end_too_soon_have_changed() -> None:
    pieces = cut(in_blocks(np.zeros(30, np.float32), 10), np.array([[0, 20], [20, 31]]))

    assert len(next(pieces)) == 20
    with pytest.raises(AudioError, match="changed while it was being read"):
        next(pieces)
