"""Speech is found at any level and in noise, and noise alone is none."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import harmonic

from speechemo_cli.audio import vad
from speechemo_cli.corpus.synthetic import synthesise, voice_of

SR = 16000


def sentence(actor: int = 1) -> np.ndarray:
    """About two seconds, with a third of a second of room noise before and after."""
    return synthesise(voice_of(actor, 0), "neutral", 1, 1, np.random.default_rng(actor))


def between_pauses(*sentences: np.ndarray) -> np.ndarray:
    pause = np.zeros(SR, np.float32)
    return np.concatenate([pause, *(part for one in sentences for part in (one, pause))])


def runs(y: np.ndarray, sr: int = SR) -> np.ndarray:
    return vad.detect_speech(vad.measure([y.astype(np.float32)], sr).levels)


# --- speech


@pytest.mark.parametrize("gain_db", [0, -20, -40])
@pytest.mark.parametrize("noise_db", [None, -30])
def test_detect_speech_finds_sentences_where_they_are_at_any_level(
    gain_db: int, noise_db: int | None, rng: np.random.Generator
) -> None:
    first, second = sentence(1), sentence(2)
    y = between_pauses(first, second)
    if noise_db is not None:
        y = y + 10 ** (noise_db / 20) * first.std() * rng.standard_normal(len(y))

    found = vad.join(runs(10 ** (gain_db / 20) * y), 0.3) / 100

    edge = 0.33
    begin = [1 + edge, 2 + edge + len(first) / SR]
    end = [1 - edge + len(first) / SR, 2 - edge + (len(first) + len(second)) / SR]
    np.testing.assert_allclose(found, np.stack([begin, end], axis=1), atol=0.15)


def test_detect_speech_finds_a_speaker_thirty_decibel_quieter() -> None:
    y = between_pauses(sentence(1), 10**-1.5 * sentence(2), sentence(1))

    assert len(vad.join(runs(y), 0.3)) == 3


def test_detect_speech_bridges_closed_consonants_and_no_pauses() -> None:
    for silence_s, parts in ((0.08, 1), (0.5, 2)):
        gap = np.zeros(round(silence_s * SR), np.float32)
        assert len(runs(between_pauses(np.concatenate([harmonic(1, SR), gap, harmonic(1, SR)])))) == parts


def test_detect_speech_finds_speech_from_end_to_end() -> None:
    y = sentence(3)[round(0.4 * SR) : round(-0.4 * SR)]
    ((first, last),) = vad.join(runs(y), 0.3)

    assert first < 10
    assert last > len(y) / SR * 100 - 10


def test_detect_speech_is_the_same_with_an_offset() -> None:
    y = between_pauses(sentence())

    np.testing.assert_array_equal(runs(y + 0.4), runs(y))


# --- no speech


T = np.arange(6 * SR) / SR
NOISE = np.random.default_rng(440).standard_normal(len(T))
NOISES = {
    "digital silence": 0 * T,
    "dither": np.round(0.5 * NOISE) / 32768,
    "quiet noise": 1e-4 * NOISE,
    "loud noise": 0.2 * NOISE,
    "offset": np.full(len(T), 0.5),
    "hum": 0.1 * np.sin(2 * np.pi * 50 * T) + 1e-3 * NOISE,
    "whistle": 0.3 * np.sin(2 * np.pi * 1000 * T),
    "clicks": (T % 1 == 0) * 0.9,
    "noise after silence": (T > 3) * 0.05 * NOISE,
    "waves": 0.1 * (1 + 0.3 * np.sin(np.pi * T)) * NOISE,
}


@pytest.mark.parametrize("what", NOISES)
def test_detect_speech_finds_none_in_noises(what: str) -> None:
    assert len(runs(NOISES[what])) == 0


def test_detect_speech_takes_no_machine_for_speech_for_long(rng: np.random.Generator) -> None:
    n = 40 * SR
    y = np.where(np.arange(n) < n / 2, 1e-3, 0.05) * rng.standard_normal(n)

    found = runs(y)

    assert (found[:, 1] - found[:, 0]).sum() < 200


def test_measure_and_detect_speech_take_no_samples() -> None:
    sound = vad.measure([], SR)

    assert len(sound.levels) == 0
    assert sound.envelope.shape == (0, 2)
    assert vad.detect_speech(sound.levels).shape == (0, 2)


# --- what is kept of a recording


@pytest.mark.parametrize("n", [50, 159, 160, 7000])
def test_measure_gives_the_same_in_blocks_of_any_length(n: int) -> None:
    y = sentence()[: SR // 2]
    whole = vad.measure([y], SR)
    parts = vad.measure((y[i : i + n] for i in range(0, len(y), n)), SR)

    np.testing.assert_array_equal(parts.levels, whole.levels)
    np.testing.assert_array_equal(parts.envelope, whole.envelope)


def test_detect_speech_looks_at_long_recordings_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    y = between_pauses(sentence(1), sentence(2))
    whole = runs(y)

    monkeypatch.setattr(vad, "_PART", 37)

    np.testing.assert_array_equal(runs(y), whole)


@pytest.mark.parametrize("sr", [8000, 22050, 44100])
def test_measure_gives_decibel_of_full_scale_every_ten_milliseconds(sr: int) -> None:
    y = (0.1 * np.sin(2 * np.pi * 400 * np.arange(2 * sr) / sr)).astype(np.float32)
    sound = vad.measure([y], sr)

    assert sound.frame_length / sr == pytest.approx(0.01, rel=0.003)
    assert len(sound.levels) == pytest.approx(200, abs=1)
    np.testing.assert_allclose(sound.levels, -23.0, atol=0.1)


@pytest.mark.parametrize("block", [SR // 20, 7000, 30 * SR])
def test_measure_gives_the_extremes_of_a_bounded_number_of_parts(block: int) -> None:
    y = np.zeros(30 * SR, np.float32)
    y[15 * SR + 5], y[20 * SR], y[-1] = 0.75, -0.5, 0.25

    envelope = vad.measure((y[i : i + block] for i in range(0, len(y), block)), SR).envelope

    assert envelope.shape == (2000, 2)
    assert np.flatnonzero(envelope[:, 1]).tolist() == [1000, 1999]
    assert np.flatnonzero(envelope[:, 0]).tolist() == [1333]
    assert (envelope.max(), envelope.min()) == (0.75, -0.5)


# --- runs


def test_join_bridges_short_pauses_only() -> None:
    three = np.array([[0, 50], [60, 90], [140, 200]])

    np.testing.assert_array_equal(vad.join(three, 0.1), [[0, 90], [140, 200]])
    np.testing.assert_array_equal(vad.join(three, 0.5), [[0, 200]])
    np.testing.assert_array_equal(vad.join(three, 0.05), three)


def test_widen_grows_into_pauses_but_not_into_other_runs() -> None:
    two = np.array([[3, 50], [60, 90]])

    np.testing.assert_array_equal(vad.widen(two, 0.02, 0.02, 95), [[1, 52], [58, 92]])
    np.testing.assert_array_equal(vad.widen(two, 0.1, 0.1, 95), [[0, 55], [55, 95]])
    assert vad.widen(two[:0], 0.1, 0.1, 95).shape == (0, 2)
