"""Augmented copies and recording conditions are drawn from the clip's hash, and each is what it says."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import noisy

from speechemo_cli.corpus.synthetic import synthesise, voice_of
from speechemo_cli.features import augment

SR = 16000


def tone(hz: float, seconds: float = 1.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * SR)) / SR)).astype(np.float32)


def click(n: int, at: int) -> np.ndarray:
    return np.eye(1, n, at, dtype=np.float32)[0]


def power_above(y: np.ndarray, hz: float) -> float:
    """Share of the power above a frequency."""
    spectrum = np.square(np.abs(np.fft.rfft(y * np.hanning(len(y)))))
    return float(spectrum[np.fft.rfftfreq(len(y), 1 / SR) > hz].sum() / spectrum.sum())


def decibel(power: float) -> float:
    return float(10 * np.log10(power))


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    return synthesise(voice_of(1, 0), "angry", 1, 1, np.random.default_rng(0))


def test_augmented_copy_is_sound_and_decided_by_key_and_number(rng: np.random.Generator) -> None:
    y = noisy(rng, 0.5, SR)

    copies = [augment.augmented_copy(y, SR, "key", number) for number in range(1, 31)]

    assert all(copy.dtype == np.float32 and np.isfinite(copy).all() and copy.any() for copy in copies)
    lengths = np.array([len(copy) for copy in copies]) / len(y)
    assert 0.85 < lengths.min() < 0.95
    assert 1.05 < lengths.max() < 1.2
    np.testing.assert_array_equal(augment.augmented_copy(y, SR, "key", 1), copies[0])
    for other in (copies[1], augment.augmented_copy(y, SR, "other", 1)):
        assert other.shape != copies[0].shape or not np.allclose(other, copies[0])


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_change_speed_moves_length_and_pitch(factor: float) -> None:
    changed = augment.change_speed(tone(1000.0), SR, factor)

    assert len(changed) == pytest.approx(SR / factor, abs=2)
    peak = np.abs(np.fft.rfft(changed * np.hanning(len(changed)))).argmax() * SR / len(changed)
    assert peak == pytest.approx(1000 * factor, abs=2)


def test_speech_power_leaves_pauses_out() -> None:
    y = np.concatenate([np.zeros(SR, np.float32), tone(1000.0), np.zeros(3 * SR, np.float32)])

    assert augment.speech_power(y, SR) == pytest.approx(0.3**2 / 2, rel=1e-3)


@pytest.mark.parametrize(("snr_db", "exponent"), [(5.0, 0.0), (30.0, 1.0), (5.0, 2.0)])
def test_add_noise_has_the_ratio_and_the_colour_asked_for(snr_db: float, exponent: float) -> None:
    y = tone(1000.0, 4.0)

    noise = augment.add_noise(y, SR, snr_db, exponent, np.random.default_rng(0)) - y

    assert decibel(np.square(y).mean() / np.square(noise).mean()) == pytest.approx(snr_db, abs=0.05)
    power = np.square(np.abs(np.fft.rfft(noise)))
    hz = np.fft.rfftfreq(len(noise), 1 / SR)
    low, high = (power[(hz > one) & (hz < 1.2 * one)].mean() for one in (200, 3200))
    assert decibel(low / high) == pytest.approx(10 * exponent * np.log10(16), abs=1.5)


def test_room_adds_an_echo_that_decays() -> None:
    echoed = augment.room(click(SR, 1000), SR, 0.5, 1.0, np.random.default_rng(0))

    assert not np.abs(echoed[:1000]).max() > 1e-6
    assert np.square(echoed[1000]) == pytest.approx(0.5, rel=0.01)
    assert np.square(echoed[1001:]).sum() == pytest.approx(0.5, rel=0.01)
    # 60 dB in half a second: 12 in a tenth.
    early, late = (np.square(echoed[n : n + 800]).sum() for n in (1001, 2601))
    assert decibel(early / late) == pytest.approx(12, abs=1.5)


def test_microphone_colours_smoothly() -> None:
    curves = [augment.microphone(click(4096, 2048), SR, np.random.default_rng(seed)) for seed in range(60)]
    gain_db = 20 * np.log10(np.abs(np.fft.rfft(curves)))

    octaves = np.round(60 * 2.0 ** np.arange(1, 7) / SR * 4096).astype(int)
    assert gain_db[:, octaves].std() == pytest.approx(4, abs=0.6)
    assert np.abs(np.diff(gain_db)[:, 100:]).max() < 0.5


def test_overdrive_cuts_the_peaks() -> None:
    driven = augment.overdrive(tone(100.0), 6.0)

    assert np.abs(driven).max() == 1.0
    # asin(1/2) is a third of 90 degrees.
    assert (np.abs(driven) == 1.0).mean() == pytest.approx(2 / 3, abs=0.02)


@pytest.mark.parametrize("line", [("WAV", "ULAW"), ("WAV", "ALAW"), ("WAV", "GSM610")])
def test_telephone_lets_a_narrow_band_through(line: tuple[str, str]) -> None:
    noise = (0.1 * np.random.default_rng(0).standard_normal(2 * SR)).astype(np.float32)

    received = augment.telephone(noise, SR, 300.0, 3400.0, line)

    assert len(received) == pytest.approx(len(noise), abs=400)  # GSM works in blocks of 320 samples
    assert power_above(received, 3900.0) < 1e-3
    assert power_above(received, 300.0) > 0.97


@pytest.mark.parametrize("kind", [("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS")])
def test_codec_loses_something_but_not_the_sound(kind: tuple[str, str]) -> None:
    y = tone(440.0)

    decoded = augment.codec(y, SR, kind, SR, 0.8)

    assert power_above(decoded, 400.0) - power_above(decoded, 480.0) > 0.98
    assert not np.array_equal(decoded[: len(y)], y[: len(decoded)])


@pytest.mark.parametrize("name", augment.CONDITIONS)
def test_condition_is_decided_by_the_key_and_keeps_the_length_but_for_the_pause(
    voice: np.ndarray, name: str
) -> None:
    changed = augment.apply_condition(name, voice, SR, "key")

    assert changed.dtype == np.float32
    assert np.isfinite(changed).all()
    np.testing.assert_array_equal(augment.apply_condition(name, voice, SR, "key"), changed)
    random = name.startswith("noise") or name in ("room", "pause")
    assert np.array_equal(augment.apply_condition(name, voice, SR, "other"), changed) != random
    for sr in (8000, SR, 48000):
        y = voice[:sr]
        expected = len(y) + 2 * sr * (name == "pause")
        # MP3 works in blocks, which it fills up.
        tolerance = 0.3 * sr if name == "mp3" else 2
        assert len(augment.apply_condition(name, y, sr, "key")) == pytest.approx(expected, abs=tolerance)


def test_condition_has_the_level_of_its_name(voice: np.ndarray) -> None:
    changed = {name: augment.apply_condition(name, voice, SR, "key") for name in augment.CONDITIONS}

    np.testing.assert_allclose(changed["louder"], 10**1.5 * voice, rtol=1e-6)
    softer = changed["softer"] * 2**15
    np.testing.assert_array_equal(softer, np.round(softer))
    np.testing.assert_allclose(softer, 0.1 * voice * 2**15, atol=0.501)
    for snr_db in (10, 20):
        noise = changed[f"noise-{snr_db}db"] - voice
        ratio = augment.speech_power(voice, SR) / np.square(noise).mean()
        assert decibel(ratio) == pytest.approx(snr_db, abs=0.1)


def test_pause_is_put_into_the_speech_and_nothing_is_lost(voice: np.ndarray) -> None:
    paused = augment.insert_pause(voice, SR, np.random.default_rng(0))

    n = 2 * SR
    cut = int(np.argmax(paused[: len(voice)] != voice))
    np.testing.assert_array_equal(np.delete(paused, slice(cut, cut + n)), voice)
    # A third of a second of silence is on either side of the speech.
    assert 0.33 * SR + 1000 < cut < len(voice) - 0.33 * SR - 1000
    pause, silence = paused[cut : cut + n], voice[: SR // 4]
    assert 2 * decibel(pause.std() / silence.std()) == pytest.approx(0, abs=3)


@pytest.mark.parametrize("n", [1, 100, 1000])
def test_pause_goes_into_the_shortest_clip(n: int) -> None:
    assert len(augment.insert_pause(np.full(n, 0.1, np.float32), SR, np.random.default_rng(0))) == n + 2 * SR
