"""Blocks are the file that `reader` reads whole, in memory that does not grow with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import harmonic

from speechemo_cli.audio import reader
from speechemo_cli.audio.reader import channel_names, cut, open_blocks, resample
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


def test_blocks_are_a_second_long_whatever_the_rate_and_the_channels(write_clip: WriteClip) -> None:
    path = write_clip(y=np.stack([harmonic(4.5, 48000)] * 3, axis=1), sr=48000)

    with open_blocks(path, 16000, CONFIG) as blocks:
        lengths = [len(block) for block in blocks]

        assert max(lengths) < 1.1 * 16000
        assert sum(lengths) == 4.5 * 16000
        assert blocks.duration_s == blocks.promised_s == 4.5


def test_blocks_of_a_channel_are_those_of_the_reader(write_clip: WriteClip) -> None:
    y = np.stack([harmonic(1.5, 16000, 110), harmonic(1.5, 16000, 250)], axis=1)
    path = write_clip(y=y, subtype="FLOAT")

    assert channel_names(path, CONFIG) == ("left", "right")
    np.testing.assert_array_equal(joined(path, 16000, "left"), y[:, 0])
    np.testing.assert_array_equal(joined(path, 16000, "right"), y[:, 1])
    np.testing.assert_allclose(joined(path, 16000), y.mean(axis=1), atol=1e-7)


def test_channel_names_of_other_files_are_numbers(write_clip: WriteClip) -> None:
    three = write_clip("three.wav", y=np.stack([harmonic(0.5, 16000, 100 * f) for f in (1, 2, 3)], axis=1))

    assert channel_names(three, CONFIG) == ("1", "2", "3")
    assert np.abs(np.fft.rfft(joined(three, 16000, "2"))).argmax() / 0.5 == pytest.approx(200, abs=2)
    with pytest.raises(AudioError, match=r"^has 3 channels, no left one$"):
        joined(three, 16000, "left")
    with pytest.raises(AudioError, match=r"^has 1 channel, no right one$"):
        joined(write_clip("one.wav"), 16000, "right")


def test_blocks_have_no_longest_duration(write_clip: WriteClip) -> None:
    with open_blocks(write_clip(seconds=2.5), 16000, AudioConfig(max_duration_s=0.5)) as blocks:
        assert sum(len(block) for block in blocks) == 2.5 * 16000


def test_blocks_tell_the_place_of_what_is_no_number_in_the_recording(
    write_clip: WriteClip,
) -> None:
    y = harmonic(4, 16000)
    y[40000] = np.nan
    path = write_clip(y=y, subtype="FLOAT")

    for sr in (16000, 8000):
        with pytest.raises(AudioError, match=r"^contains NaN at 2\.500 s$"):
            joined(path, sr)


def test_blocks_may_be_silent(write_clip: WriteClip) -> None:
    assert not joined(write_clip(y=np.zeros(16000)), 8000).any()


def test_open_blocks_lets_through_what_its_user_raises(write_clip: WriteClip) -> None:
    path = write_clip()

    def work() -> None:
        with open_blocks(path, 16000, CONFIG):
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        work()


def test_blocks_keep_an_offset_and_tell_it(write_clip: WriteClip) -> None:
    path = write_clip(y=0.5 * harmonic(2.5, 16000) - 0.2)

    assert warned(path) == ("offset: -0.2 of full scale is on every sample, which spoils answers",)


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
    asked = []

    def blocks() -> Iterator[np.ndarray]:
        for i in range(100):
            asked.append(i)
            yield np.full(10, i, np.float32)

    pieces = list(cut(blocks(), np.array([[5, 12], [20, 45]])))

    assert [len(piece) for piece in pieces] == [7, 25]
    assert asked == [0, 1, 2, 3, 4]


def test_cut_refuses_samples_that_end_too_soon() -> None:
    pieces = cut(in_blocks(np.zeros(30, np.float32), 10), np.array([[0, 20], [20, 31]]))

    assert len(next(pieces)) == 20
    with pytest.raises(AudioError, match="changed while it was being read"):
        next(pieces)
