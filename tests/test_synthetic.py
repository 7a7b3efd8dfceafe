"""The demo corpus: names, repeatability, and manners that go the way they promise."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechemo_cli.audio import reader
from speechemo_cli.config import AudioConfig
from speechemo_cli.corpus import EMOTIONS, synthetic
from speechemo_cli.corpus.layouts import find_clips
from speechemo_cli.corpus.synthetic import MANNERS, SR, Voice, synthesise, voice_of, write_corpus

PLAIN = Voice(pitch=120.0, formants=1.0, tempo=1.0, level_db=-24.0, tilt_db=0.0, strength=1.0)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.wav")}


@pytest.mark.parametrize(
    ("layout", "corpus", "speakers"),
    [
        ("ravdess", "ravdess", ["01", "02"]),
        ("tess", "tess", ["OAF", "YAF"]),
        ("crema-d", "crema-d", ["1001", "1002"]),
        ("emo-db", "emo-db", ["03", "08"]),
        ("folders", "", ["speaker01", "speaker02"]),
    ],
)
def test_write_corpus_gives_names_that_are_known_again(
    layout: str, corpus: str, speakers: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "synthesise", lambda *_: np.zeros(SR // 100))
    n, voices = write_corpus(tmp_path, actors=2, layout=layout)
    found = find_clips(str(tmp_path))
    assert (len(found), voices, found.skipped) == (n, 2, {})
    corpora, labels, names = map(set, zip(*found.counts, strict=True))
    assert corpora == {corpus}
    assert sorted(map(str, names)) == speakers
    assert len(labels) >= 6


def test_write_corpus_gives_sixty_clips_an_actor_in_folders_of_their_own(corpus_folder: Path) -> None:
    clips = tuple(find_clips(str(corpus_folder)))
    assert Counter(clip.speaker for clip in clips) == dict.fromkeys(["01", "02", "03", "04"], 60)
    assert Counter(clip.label for clip in clips if clip.speaker == "01") == {
        emotion: 4 if emotion == "neutral" else 8 for emotion in EMOTIONS
    }
    assert len({(c.speaker, c.label, c.intensity, c.statement, c.repetition) for c in clips}) == 240
    for path in corpus_folder.rglob("*.wav"):
        assert path.parent.name == f"Actor_{path.stem[-2:]}"


def test_write_corpus_gives_clips_that_pass_the_checks_of_the_reader(corpus_folder: Path) -> None:
    hashes = set()
    paths = sorted(corpus_folder.rglob("*.wav"))
    for path in paths:
        recording = reader.read(path, AudioConfig())
        assert recording.sr == SR
        assert recording.warnings == ()
        assert np.abs(recording.y).max() < 1.0
        hashes.add(recording.sha256)
    assert len(hashes) == 240
    info = soundfile.info(str(paths[0]))
    assert (info.format, info.subtype, info.channels, info.samplerate) == ("WAV", "PCM_16", 1, SR)


def test_write_corpus_gives_the_same_bytes_however_many_actors_there_are(corpus_folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    assert write_corpus(Path(), actors=1, on_progress=lambda *step: seen.append(step)) == (60, 1)
    assert seen == [(i, 60) for i in range(1, 61)]
    assert len(contents(Path())) == 60
    assert contents(Path()).items() <= contents(corpus_folder).items()


def test_write_corpus_keeps_clips_that_are_there_and_gives_other_speakers_for_another_seed(
    tmp_path: Path, corpus_folder: Path
) -> None:
    mine = tmp_path / "Actor_01" / "03-01-05-01-01-01-01.wav"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    assert write_corpus(tmp_path, actors=1, seed=1) == (60, 1)
    assert mine.read_bytes() == b"mine"
    assert len(contents(tmp_path)) == 60
    assert not contents(tmp_path).items() & contents(corpus_folder).items()


# --- manners


@cache
def spoken(emotion: str, seed: int, intensity: int = 2) -> np.ndarray:
    """One sentence of a plain voice without the room noise around it."""
    quiet = int(SR * 0.33)
    return synthesise(PLAIN, emotion, intensity, 1, np.random.default_rng(seed))[quiet:-quiet]


def seconds(y: np.ndarray) -> float:
    return len(y) / SR


def level_db(y: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(y.astype(np.float64) ** 2)))


def pitch_hz(y: np.ndarray) -> float:
    """Median of frames, by the autocorrelation of a flattened spectrum, in which formants count less."""
    frames = np.lib.stride_tricks.sliding_window_view(y, 1024)[::256] * np.hanning(1024)
    alike = np.fft.irfft(np.abs(np.fft.rfft(frames, 2048)) ** 0.7)
    first = SR // 220
    return float(np.median(SR / (first + alike[:, first : SR // 70].argmax(axis=1))))


def brightness_db(y: np.ndarray) -> float:
    power = np.abs(np.fft.rfft(y)) ** 2
    high = np.fft.rfftfreq(len(y), 1 / SR) > 1000
    return float(10 * np.log10(power[high].sum() / power[~high].sum()))


@pytest.mark.parametrize(
    ("emotion", "measure", "direction", "least"),
    [
        ("angry", level_db, +1, 6.0),
        ("angry", seconds, -1, 0.1),
        ("angry", pitch_hz, +1, 15.0),
        ("angry", brightness_db, +1, 1.0),
        ("sad", level_db, -1, 4.0),
        ("sad", seconds, +1, 0.2),
        ("sad", pitch_hz, -1, 4.0),
        ("calm", level_db, -1, 2.0),
        ("calm", seconds, +1, 0.1),
        ("happy", level_db, +1, 2.0),
        ("happy", pitch_hz, +1, 15.0),
        ("fearful", seconds, -1, 0.1),
        ("surprised", pitch_hz, +1, 15.0),
    ],
)
def test_synthesise_changes_pitch_and_energy_as_the_manner_says(
    emotion: str, measure, direction: int, least: float
) -> None:
    moved = [direction * (measure(spoken(emotion, s)) - measure(spoken("neutral", s))) for s in range(5)]
    assert np.mean(moved) > least


def test_synthesise_changes_more_for_strong_intensity_than_for_normal() -> None:
    level = {i: np.mean([level_db(spoken("angry", s, i)) for s in range(5)]) for i in (1, 2)}
    neutral = np.mean([level_db(spoken("neutral", s)) for s in range(5)])
    assert level[2] > level[1] + 1 > neutral + 1
    assert set(MANNERS) == set(EMOTIONS)


def test_voice_of_gives_an_actor_one_voice_by_the_seed_and_women_higher_ones_than_men() -> None:
    assert voice_of(3, 0) == voice_of(3, 0)
    assert len({voice_of(3, 0), voice_of(3, 1), voice_of(5, 0)}) == 3
    for seed in range(3):
        men = [voice_of(actor, seed).pitch for actor in range(1, 25, 2)]
        women = [voice_of(actor, seed).pitch for actor in range(2, 25, 2)]
        assert max(men) < min(women)
