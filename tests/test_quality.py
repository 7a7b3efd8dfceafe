"""What is wrong with a recording: every warning where it belongs, and none on a good one."""

from __future__ import annotations

import re
import warnings
from functools import cache

import numpy as np
import pytest
from audio_cases import by_libsndfile, encoded
from conftest import harmonic
from hypothesis import given, settings
from hypothesis import strategies as st

from speechemo_cli.audio.quality import long, quality_warnings

RATES = [8000, 11025, 16000, 22050, 44100, 48000, 96000, 192000]
WIDE_RATES = RATES[1:]
BAND = "band-limited"
NARROW = (f"{BAND}: nothing above 4.0 kHz, as on a telephone",)


@cache
def voice(seconds: float = 3.0, sr: int = 16000, noise_db: float = -60.0) -> np.ndarray:
    """Words with something of a voice's spectrum: a buzz with hisses in it, pauses and a room around it."""
    rng = np.random.default_rng(7)
    y = harmonic(seconds, sr)
    hiss = 0.03 * rng.standard_normal(len(y))
    beat = np.sin(2 * np.pi * 1.5 * np.arange(len(y)) / sr)
    y = y * (beat > -0.5) + hiss * (beat > 0.8) + 10 ** (noise_db / 20) * 0.1 * rng.standard_normal(len(y))
    y = y.astype(np.float32)
    y.flags.writeable = False  # all tests get the same
    return y


def low_passed(y: np.ndarray, sr: int, hz: float) -> np.ndarray:
    spectrum = np.fft.rfft(y)
    spectrum[np.fft.rfftfreq(len(y), 1 / sr) > hz] = 0
    return np.fft.irfft(spectrum, len(y)).astype(np.float32)


def in_bits(y: np.ndarray, bits: int = 16) -> np.ndarray:
    steps = 2 ** (bits - 1)
    return (np.clip(np.round(y * steps), -steps, steps - 1) / steps).astype(np.float32)


def coded(y: np.ndarray, sr: int, subtype: str, container: str = "WAV") -> np.ndarray:
    return by_libsndfile(encoded(y, sr, container, subtype))


def tone(hz: float, sr: int = 48000, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * sr)) / sr)


def kinds(y: np.ndarray, sr: int) -> list[str]:
    return [warning.split(":")[0] for warning in quality_warnings(y.astype(np.float32), sr)]


# --- good recordings


@pytest.mark.parametrize("sr", WIDE_RATES)
def test_quality_warnings_are_none_for_a_good_recording_at_any_rate(sr: int) -> None:
    for bits in (8, 16, 24):
        assert quality_warnings(in_bits(voice(sr=sr), bits), sr) == ()


@pytest.mark.parametrize("offset", [-0.5, 0.02, 0.3])
@pytest.mark.parametrize("peak_db", [0, -30])
def test_quality_warnings_are_the_same_with_an_offset(offset: float, peak_db: float) -> None:
    y = 10 ** (peak_db / 20) * voice(sr=48000)
    assert kinds(y + offset, 48000) == []
    assert kinds(low_passed(y, 48000, 3400) + offset, 48000) == [BAND]


def replaced(y: np.ndarray, at: object, by: object) -> np.ndarray:
    y = y.copy()
    y[at] = by
    return y


NOISE = np.random.default_rng(440).standard_normal(80000)
LOW = low_passed(np.pad(voice(1.0, 48000), 4 * 48000), 48000, 3400)
LOUDEST = np.argsort(-np.abs(voice()))[:20]
# Sounds, their rates, and the kinds of their warnings.
SOUNDS: dict[str, tuple[np.ndarray, int, list[str]]] = {
    "rumble": (LOW + 0.01 * tone(10, seconds=9.0), 48000, ["mostly silence", BAND]),
    "clipped above": (np.minimum(voice(), 0.6 * voice().max()), 16000, ["clipped"]),
    "clipped below": (np.maximum(voice(), 0.6 * voice().min()), 16000, ["clipped"]),
    "a few samples clipped": (replaced(0.5 * voice(), LOUDEST, 1.0), 16000, []),
    "one-sided with silence": (np.pad(np.abs(voice(1.0)), 8000), 16000, []),
    **{
        f"{name} of {n} levels": (np.round(n * y) / 32768, 16000, ["very quiet"] if n < 3000 else [])
        for name, y in (("noise", NOISE / 3), ("voice", 3 * voice()))
        for n in (1, 3, 30, 3000)
    },
    **{
        f"words in silence at {db} dB": (np.pad(voice(1.5, noise_db=db), 16000), 16000, [])
        for db in (-90.0, -40.0, -20.0)
    },
    "words and a click": (replaced(0.1 * voice(), slice(20000, 20050), 0.99), 16000, []),
    "click": (np.pad(0.3 * np.sin(np.arange(100)), (20000, 27900)), 16000, ["mostly silence"]),
    "steady noise": (0.1 * NOISE, 16000, []),
    "steady tone": (0.1 * tone(300, 16000, 5.0), 16000, [BAND]),
}


@pytest.mark.parametrize("what", SOUNDS)
def test_quality_warnings_are_of_these_kinds(what: str) -> None:
    y, sr, expected = SOUNDS[what]
    assert kinds(y, sr) == expected


@pytest.mark.parametrize(
    ("y", "sr", "expected"),
    [
        *((np.ones(n), 16000, ("short: 0.0 s",)) for n in (0, 1, 10, 159)),
        *((np.full(20000, value), 16000, ("silent: every sample is the same",)) for value in (0.0, 0.5)),
        *((voice(sr=8000).astype(dtype), 8000, NARROW) for dtype in (np.float16, np.float64, ">f4")),
        *((voice(sr=48000).astype(dtype), 48000, ()) for dtype in (np.float16, np.float64, ">f4")),
        (voice(sr=6000), 6000, (f"{BAND}: nothing above 3.0 kHz, as on a telephone",)),
        (low_passed(voice(sr=48000), 48000, 1500), 48000, (f"{BAND}: nothing above 1.6 kHz",)),
        # A channel of two, which may not be written to.
        (np.broadcast_to(np.repeat(voice(), 2)[::2], 48000), 16000, ()),
    ],
)
def test_quality_warnings_are_these_lines(y: np.ndarray, sr: int, expected: tuple[str, ...]) -> None:
    assert quality_warnings(y, sr) == expected


# --- clipped


@pytest.mark.parametrize("sr", [8000, 16000, 48000])
@pytest.mark.parametrize("raised_db", [6, 12, 20])
@pytest.mark.parametrize("bits", [8, 16, 24])
def test_quality_warnings_say_how_much_is_clipped(sr: int, raised_db: float, bits: int) -> None:
    y = 10 ** (raised_db / 20) * voice(sr=sr) / np.abs(voice(sr=sr)).max()
    share = 100 * np.mean(np.abs(y) >= 1)
    warning = quality_warnings(in_bits(y, bits), sr)[0]
    assert warning.startswith("clipped: ")
    assert warning.endswith(" % of the samples at full scale")
    # Eight bits round what is up to half a step below.
    assert float(warning.split()[1]) == pytest.approx(share, abs=0.06, rel=0.1 if bits == 8 else 0)


@pytest.mark.parametrize("bits", [16, 24])
@pytest.mark.parametrize(("turned_down", "shown"), [(0.5, "-6.0"), (0.1, "-20.0"), (0.01, "-40.0")])
def test_quality_warnings_find_clipping_that_was_turned_down(
    bits: int, turned_down: float, shown: str
) -> None:
    (warning,) = quality_warnings(in_bits(turned_down * np.clip(10 * voice(), -1, 1), bits), 16000)
    assert warning.startswith("clipped: ")
    assert warning.endswith(f" % of the samples cut off at {shown} dB of full scale")


@pytest.mark.parametrize("subtype", ["ULAW", "ALAW"])
def test_quality_warnings_find_clipping_in_a_telephone_s_code_at_full_scale(subtype: str) -> None:
    clipped, narrow = quality_warnings(coded(np.clip(10 * voice(sr=8000), -1, 1), 8000, subtype), 8000)
    assert clipped.endswith("at full scale")
    assert (narrow,) == NARROW
    assert quality_warnings(coded(voice(sr=8000), 8000, subtype), 8000) == NARROW


def test_quality_warnings_call_samples_beyond_full_scale_too_loud() -> None:
    y = voice() * (1.5 / np.abs(voice()).max())
    share = 100 * np.mean(np.abs(y) > 1)
    assert quality_warnings(y, 16000) == (f"too loud: {share:.1f} % of the samples beyond full scale",)
    after_mp3 = coded(np.clip(10 * voice(sr=48000), -1, 1), 48000, "MPEG_LAYER_III", "MP3")
    assert kinds(after_mp3, 48000) == ["too loud"]


@pytest.mark.parametrize("amplitude", [0.999, 0.1, 30 / 32768, 229.5 / 32768])
@pytest.mark.parametrize("sr", [8000, 48000, 192000])
def test_quality_warnings_take_no_tone_for_clipped_however_few_levels_it_has(
    amplitude: float, sr: int
) -> None:
    for hz in (20, 100, 997.3, 1000, 4000, 12000):
        y = amplitude * tone(min(hz, sr / 4), sr)
        for one in (y, in_bits(y, 16), in_bits(y, 24)):
            assert "clipped" not in kinds(one, sr), hz


# --- very quiet


@pytest.mark.parametrize("offset", [0.0, 0.25])
def test_quality_warnings_call_a_peak_below_50_db_very_quiet(offset: float) -> None:
    y = voice() / np.abs(voice()).max()
    assert kinds(10 ** (-49 / 20) * y + offset, 16000) == []
    (warning,) = quality_warnings((10 ** (-52 / 20) * y + offset).astype(np.float32), 16000)
    assert warning == "very quiet: peak at -52 dB of full scale"


# --- mostly silence


@pytest.mark.parametrize("sr", [8000, 48000, 192000])
@pytest.mark.parametrize("noise_db", [-np.inf, -40.0, -20.0])
def test_quality_warnings_call_a_word_in_ten_seconds_mostly_silence(
    sr: int, noise_db: float, rng: np.random.Generator
) -> None:
    word = harmonic(0.6, sr)
    y = np.pad(word, (3 * sr, 10 * sr - 3 * sr - len(word)))
    y += (10 ** (noise_db / 20) * word.std() * rng.standard_normal(len(y))).astype(np.float32)
    warning = next(warning for warning in quality_warnings(y, sr) if warning.startswith("mostly"))
    shown = re.fullmatch(r"mostly silence: speech in (\d) % of 10\.0 s", warning)
    assert 4 <= int(shown[1]) <= 6


# --- short, long


@pytest.mark.parametrize("sr", RATES)
def test_quality_warnings_say_the_length_of_a_short_clip_rounded_down(sr: int) -> None:
    for seconds, shown in ((0.2, "0.2"), (0.3, "0.3"), (0.6, "0.6"), (0.999, "0.9")):
        assert f"short: {shown} s" in quality_warnings(voice(seconds, sr), sr)
    assert "short" not in kinds(voice(1.0, sr), sr)


def test_long_warns_where_the_rounded_lengths_differ() -> None:
    assert long(9.23, 5.27) == "long: 9.2 s, longer than any clip the model was trained on (5.3 s)"
    for duration_s in (0.5, 5.27, 5.34):
        assert long(duration_s, 5.27) is None
    assert long(5.36, 5.27) is not None


# --- band-limited


def edge_khz(y: np.ndarray, sr: int) -> float:
    (warning,) = quality_warnings(y.astype(np.float32), sr)
    shown = re.fullmatch(rf"{BAND}: nothing above (\d\.\d) kHz, as on a telephone", warning)
    return float(shown[1])


@pytest.mark.parametrize("sr", WIDE_RATES)
def test_quality_warnings_tell_a_telephone_s_band_at_any_rate_and_no_wider_one(sr: int) -> None:
    for hz in (3400, 4000):
        assert edge_khz(in_bits(low_passed(voice(sr=sr), sr, hz)), sr) == pytest.approx(hz / 1000, abs=0.25)
    for hz in (5500, 7000, 8000):
        assert quality_warnings(in_bits(low_passed(voice(sr=sr), sr, hz)), sr) == ()


@pytest.mark.parametrize("subtype", ["ULAW", "ALAW", "GSM610"])
@pytest.mark.parametrize("sr", [16000, 48000])
def test_quality_warnings_tell_the_band_of_a_telephone_s_code(subtype: str, sr: int) -> None:
    y = coded(voice(sr=8000), 8000, subtype)
    up = np.fft.irfft(np.fft.rfft(y), len(y) * sr // 8000).astype(np.float32) * (sr / 8000)
    assert edge_khz(in_bits(up), sr) == pytest.approx(4.0, abs=0.25)


def test_quality_warnings_tell_a_band_limit_after_mp3_and_in_noise() -> None:
    y = low_passed(voice(sr=48000), 48000, 3400)
    assert edge_khz(coded(y, 48000, "MPEG_LAYER_III", "MP3"), 48000) == pytest.approx(3.5, abs=0.3)
    noise = 10 ** (-45 / 20) * y.std() * np.random.default_rng(3).standard_normal(len(y))
    assert edge_khz(y + noise, 48000) == pytest.approx(3.4, abs=0.3)


# --- all together


def test_quality_warnings_stand_in_one_order() -> None:
    y = 1e-3 * np.pad(np.clip(10 * harmonic(0.1, 8000), -1, 1), (3000, 3000))
    assert kinds(y, 8000) == ["clipped", "very quiet", "mostly silence", "short", BAND]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(0, 20000),
    exponent=st.integers(-45, 38),
    offset=st.sampled_from([0.0, 0.01, 0.5, -1.0]),
    zeros=st.floats(0, 1),
    sr=st.sampled_from([*RATES, 8001, 9001, 9601, 47999]),
)
def test_quality_warnings_are_lines_at_any_level(
    seed: int, n: int, exponent: int, offset: float, zeros: float, sr: int
) -> None:
    y = np.random.default_rng(seed).uniform(-1, 1, n)
    y[: int(zeros * n)] = 0
    check_lines(((y + offset) * (10.0**exponent)).clip(-3.4e38, 3.4e38).astype(np.float32), sr)


def check_lines(y: np.ndarray, sr: int) -> None:
    before = y.copy()
    with warnings.catch_warnings(), np.errstate(over="warn", divide="warn", invalid="warn"):
        warnings.simplefilter("error")
        found = quality_warnings(y, sr)
    np.testing.assert_array_equal(y, before)
    assert len({warning.split(":")[0] for warning in found}) == len(found)
    for warning in found:
        assert warning.isprintable()
        assert "nan" not in warning
        assert "inf" not in warning
        assert len(warning) < 80
