"""The demo corpus: names, repeatability, and manners that go the way they promise."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import librosa
import numpy as np
import pytest
import soundfile

from speechemo_cli.audio import reader
from speechemo_cli.config import AudioConfig
from speechemo_cli.corpus import synthetic
from speechemo_cli.corpus.labels import EMOTIONS
from speechemo_cli.corpus.layouts import find_clips
from speechemo_cli.corpus.synthetic import MANNERS, SR, Voice, synthesise, voice_of, write_corpus

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = Voice(pitch=120.0, formants=1.0, tempo=1.0, level_db=-24.0, tilt_db=0.0, strength=1.0)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def spoken(emotion: str, seed: int, intensity: int = 2) -> np.ndarray:
    """One sentence of a plain voice without the room noise around it."""
    quiet = int(SR * 0.33)
    return synthesise(PLAIN, emotion, intensity, 1, np.random.default_rng(seed))[quiet:-quiet]


def seconds(y: np.ndarray) -> float:
    return len(y) / SR


def level_db(y: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(y.astype(np.float64) ** 2)))


def pitch_hz(y: np.ndarray) -> float:
    return float(np.median(librosa.yin(y, fmin=70, fmax=220, sr=SR, frame_length=1024)))


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
    assert set(found.counts.labels) == {corpus}
    assert sorted(map(str, found.counts.speakers[corpus])) == speakers
    assert len(found.counts.labels[corpus]) >= 6


def test_sixty_clips_an_actor_carry_names_that_parse_back(corpus_folder: Path) -> None:
    corpus = find_clips(str(corpus_folder))
    assert corpus.skipped == {}
    assert Counter(clip.speaker for clip in tuple(corpus)) == dict.fromkeys(["01", "02", "03", "04"], 60)
    assert Counter(clip.label for clip in corpus if clip.speaker == "01") == {
        emotion: 4 if emotion == "neutral" else 8 for emotion in EMOTIONS
    }
    fields = {(c.speaker, c.label, c.intensity, c.statement, c.repetition) for c in corpus}
    assert len(fields) == 240
    assert not any(clip.song for clip in tuple(corpus))
    assert {clip.gender for clip in corpus if clip.speaker in ("01", "03")} == {"m"}


def test_each_actors_clips_lie_in_a_folder_of_their_own(corpus_folder: Path) -> None:
    for path in corpus_folder.rglob("*.wav"):
        assert path.parent.name == f"Actor_{path.stem[-2:]}"


def test_every_clip_passes_the_readers_checks(corpus_folder: Path) -> None:
    config = AudioConfig()
    hashes = set()
    for path in sorted(corpus_folder.rglob("*.wav")):
        recording = reader.read(path, config)
        assert recording.sr == SR
        assert recording.warnings == ()
        assert np.abs(recording.y).max() < 1.0
        hashes.add(recording.sha256)
    assert len(hashes) == 240


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    write_corpus(tmp_path / "a", actors=1, seed=5)
    write_corpus(tmp_path / "b", actors=1, seed=5)
    one, other = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert len(one) == 60
    assert one == other


def test_another_seed_gives_other_voices(tmp_path: Path, corpus_folder: Path) -> None:
    write_corpus(tmp_path / "a", actors=1, seed=1)
    one = contents(tmp_path / "a")
    seed_0 = contents(corpus_folder)
    assert all(seed_0[name] != content for name, content in one.items())


def test_an_actors_clips_do_not_depend_on_how_many_actors_there_are(
    tmp_path: Path, corpus_folder: Path
) -> None:
    write_corpus(tmp_path / "a", actors=1, seed=0)
    everyone = contents(corpus_folder)
    assert all(everyone[name] == content for name, content in contents(tmp_path / "a").items())


def test_clips_that_are_there_stay_and_the_missing_ones_come(tmp_path: Path) -> None:
    write_corpus(tmp_path, actors=1)
    clips = sorted(tmp_path.rglob("*.wav"))
    clips[0].write_bytes(b"mine")
    lost = clips[1].read_bytes()
    clips[1].unlink()
    assert write_corpus(tmp_path, actors=1) == (60, 1)
    assert clips[0].read_bytes() == b"mine"
    assert clips[1].read_bytes() == lost


def test_progress_counts_every_clip(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    assert write_corpus(tmp_path, actors=1, on_progress=lambda *step: seen.append(step)) == (60, 1)
    assert seen == [(i, 60) for i in range(1, 61)]


def test_clips_are_16_bit_mono_wav(corpus_folder: Path) -> None:
    info = soundfile.info(str(corpus_folder / "Actor_01" / "03-01-01-01-01-01-01.wav"))
    assert (info.format, info.subtype, info.channels, info.samplerate) == ("WAV", "PCM_16", 1, SR)


def test_every_emotion_has_a_manner() -> None:
    assert set(MANNERS) == set(EMOTIONS)


@pytest.mark.parametrize(
    ("emotion", "measure", "direction", "least"),
    [
        ("angry", level_db, +1, 6.0),
        ("angry", seconds, -1, 0.1),
        ("angry", pitch_hz, +1, 15.0),
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
def test_an_emotion_moves_the_voice_the_way_its_manner_promises(
    emotion: str,
    measure,
    direction: int,
    least: float,
) -> None:
    moved = [direction * (measure(spoken(emotion, s)) - measure(spoken("neutral", s))) for s in range(5)]
    assert np.mean(moved) > least


def test_an_angry_voice_is_brighter() -> None:
    def brightness(y: np.ndarray) -> float:
        power = np.abs(np.fft.rfft(y)) ** 2
        high = np.fft.rfftfreq(len(y), 1 / SR) > 1000
        return float(10 * np.log10(power[high].sum() / power[~high].sum()))

    angry, neutral = (np.mean([brightness(spoken(e, s)) for s in range(5)]) for e in ("angry", "neutral"))
    assert angry > neutral + 1


def test_strong_intensity_moves_a_voice_further_than_normal() -> None:
    level = {i: np.mean([level_db(spoken("angry", s, i)) for s in range(5)]) for i in (1, 2)}
    neutral = np.mean([level_db(spoken("neutral", s)) for s in range(5)])
    assert level[2] > level[1] + 1 > neutral + 1


def test_women_speak_higher_than_men() -> None:
    for seed in range(3):
        men = [voice_of(actor, seed).pitch for actor in range(1, 25, 2)]
        women = [voice_of(actor, seed).pitch for actor in range(2, 25, 2)]
        assert max(men) < min(women)


def test_an_actor_has_one_voice_and_another_seed_another_one() -> None:
    assert voice_of(3, 0) == voice_of(3, 0)
    assert voice_of(3, 0) != voice_of(3, 1)
    assert voice_of(3, 0) != voice_of(5, 0)
