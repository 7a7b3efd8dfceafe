"""Other recordings of a clip: always the same ones, and each as its title says."""

from __future__ import annotations

import numpy as np
import pytest

from speechemo_cli.corpus.synthetic import synthesise, voice_of
from speechemo_cli.features import augment

SR = 16000


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    return synthesise(voice_of(1, 0), "angry", 1, 1, np.random.default_rng(0))


@pytest.mark.parametrize("name", augment.CONDITIONS)
def test_apply_is_decided_by_the_key(voice: np.ndarray, name: str) -> None:
    changed = augment.apply_condition(name, voice, SR, "key")

    assert changed.dtype == np.float32
    assert np.isfinite(changed).all()
    np.testing.assert_array_equal(augment.apply_condition(name, voice, SR, "key"), changed)
    random = name.startswith("noise") or name in ("room", "pause")
    assert np.array_equal(augment.apply_condition(name, voice, SR, "other"), changed) != random


@pytest.mark.parametrize("sr", [8000, 16000, 48000])
@pytest.mark.parametrize("name", augment.CONDITIONS)
def test_apply_keeps_the_length_but_for_the_pause(name: str, sr: int) -> None:
    y = np.random.default_rng(0).standard_normal(sr).astype(np.float32) * np.float32(0.1)

    changed = augment.apply_condition(name, y, sr, "key")

    # MP3 works in blocks, which it fills up.
    expected, tolerance = (3 * sr if name == "pause" else sr), (0.3 * sr if name == "mp3" else 2)
    assert len(changed) == pytest.approx(expected, abs=tolerance)


def test_louder_is_30_db(voice: np.ndarray) -> None:
    np.testing.assert_allclose(
        augment.apply_condition("louder", voice, SR, "key"), 10**1.5 * voice, rtol=1e-6
    )


def test_softer_is_20_db_in_16_bits(voice: np.ndarray) -> None:
    softer = augment.apply_condition("softer", voice, SR, "key") * 2**15

    np.testing.assert_array_equal(softer, np.round(softer))
    np.testing.assert_allclose(softer, 0.1 * voice * 2**15, atol=0.501)


@pytest.mark.parametrize(("name", "snr_db"), [("noise-20db", 20), ("noise-10db", 10)])
def test_noise_has_the_ratio_of_its_name(voice: np.ndarray, name: str, snr_db: float) -> None:
    noise = augment.apply_condition(name, voice, SR, "key") - voice

    ratio = augment.speech_power(voice, SR) / np.square(noise).mean()
    assert 10 * np.log10(ratio) == pytest.approx(snr_db, abs=0.1)


def test_pause_is_put_into_the_speech_and_nothing_is_lost(voice: np.ndarray) -> None:
    paused = augment.insert_pause(voice, SR, np.random.default_rng(0))

    n = 2 * SR
    cut = int(np.argmax(paused[: len(voice)] != voice))
    np.testing.assert_array_equal(np.delete(paused, slice(cut, cut + n)), voice)
    # A third of a second of silence is on either side of the speech.
    assert 0.33 * SR + 1000 < cut < len(voice) - 0.33 * SR - 1000
    pause, silence = paused[cut : cut + n], voice[: SR // 4]
    assert 20 * np.log10(pause.std() / silence.std()) == pytest.approx(0, abs=3)


@pytest.mark.parametrize("n", [1, 100, 1000])
def test_pause_goes_into_the_shortest_clip(n: int) -> None:
    y = np.full(n, 0.1, np.float32)

    assert len(augment.insert_pause(y, SR, np.random.default_rng(0))) == n + 2 * SR
