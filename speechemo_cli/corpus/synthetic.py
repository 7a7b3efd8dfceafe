"""A small synthetic corpus named like a public one: source-filter voices whose manner follows the emotion.

It lets every command run without data. The voices are caricatures: pitch, energy, tempo and timbre
move with the emotion in the directions that studies of vocal expression report (Juslin & Laukka
2003, Psychological Bulletin 129:770, table 7), by amounts chosen to be audible. What a network scores
on them says nothing about people.
"""

from __future__ import annotations

import io
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from speechemo_cli.choices import Layout
from speechemo_cli.corpus import EMOTIONS
from speechemo_cli.files import atomic_path, open_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

SR = 16000
# Stands in each file: their names are those of RAVDESS, which they must not be taken for.
_COMMENT = "synthetic voice of speechemo synth"

# First four formants in Hz of an average male voice (after Peterson & Barney 1952), by vowel.
_VOWELS = {
    "i": (270, 2290, 3010, 3700),
    "e": (530, 1840, 2480, 3600),
    "a": (730, 1090, 2440, 3500),
    "o": (570, 840, 2410, 3400),
    "u": (300, 870, 2240, 3300),
    "@": (500, 1500, 2500, 3500),
}
_BANDWIDTHS = (60.0, 90.0, 140.0, 200.0)
# The vowels of RAVDESS's two statements, roughly, with the hiss that goes before each syllable:
# "Kids are talking by the door", "Dogs are sitting by the door".
_STATEMENTS = (
    (("i", 0.5), ("a", 0.0), ("o", 0.6), ("i", 0.4), ("a", 0.2), ("@", 0.1), ("o", 0.2)),
    (("o", 0.2), ("a", 0.0), ("i", 0.9), ("i", 0.4), ("a", 0.2), ("@", 0.1), ("o", 0.2)),
)


class _Manner(NamedTuple):
    """How an emotion changes a voice, at strong intensity.

    `pitch`, `pitch_range` and `tempo` are factors on the speaker's own. `tilt_db` is added above 1 kHz: a
    tense voice has more, a soft voice less. `jitter` is the relative deviation of the pitch from period to
    period, `breath` the noise mixed into the buzz, `fall` the slope of the pitch in octaves a sentence.
    """

    pitch: float
    pitch_range: float
    tempo: float
    level_db: float
    tilt_db: float
    jitter: float
    breath: float
    fall: float


_NEUTRAL = _Manner(1.0, 1.0, 1.0, 0.0, 0.0, 0.005, 0.02, -0.15)
MANNERS = {
    "neutral": _NEUTRAL,
    "calm": _Manner(0.95, 0.8, 0.85, -4.0, -4.0, 0.004, 0.05, -0.2),
    "happy": _Manner(1.45, 2.0, 1.1, 4.0, 3.0, 0.008, 0.02, 0.1),
    "sad": _Manner(0.9, 0.6, 0.75, -7.0, -6.0, 0.012, 0.10, -0.35),
    "angry": _Manner(1.35, 1.6, 1.2, 9.0, 7.0, 0.020, 0.02, -0.1),
    "fearful": _Manner(1.6, 1.1, 1.3, 2.0, 1.0, 0.030, 0.08, 0.15),
    "disgust": _Manner(0.85, 1.3, 0.8, 0.0, 2.0, 0.025, 0.06, -0.3),
    "surprised": _Manner(1.7, 2.4, 1.05, 5.0, 2.0, 0.006, 0.03, 0.5),
}


class Voice(NamedTuple):
    """A speaker: pitch in Hz, vocal-tract length as a factor on formants, tempo, and habits."""

    pitch: float
    formants: float
    tempo: float
    level_db: float
    tilt_db: float
    strength: float


def voice_of(actor: int, seed: int) -> Voice:
    """Invent the voice of an actor. Odd numbers are men, as in RAVDESS."""
    rng = np.random.default_rng((seed, actor))
    male = actor % 2 == 1
    return Voice(
        pitch=float(rng.uniform(95, 140) if male else rng.uniform(170, 235)),
        formants=float(rng.normal(1.0 if male else 1.17, 0.04)),
        tempo=float(rng.normal(1.0, 0.08)),
        level_db=float(rng.normal(-24.0, 3.0)),
        tilt_db=float(rng.normal(0.0, 2.0)),
        strength=float(rng.uniform(0.7, 1.2)),
    )


def synthesise(
    voice: Voice, emotion: str, intensity: int, statement: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Speak one sentence: [shape=(n,)] at `SR`, with a third of a second of room noise before and after.

    `intensity`: 1 normal, 2 strong; `statement`: 1 or 2; `rng`: what differs between repetitions.
    """
    amount = voice.strength * (0.7 if intensity == 1 else 1.1)
    # The neutral manner, moved towards that of the emotion.
    manner = _Manner(*(n + amount * (e - n) for n, e in zip(_NEUTRAL, MANNERS[emotion], strict=True)))
    syllables = _STATEMENTS[statement - 1]
    pieces = []
    for i, (vowel, hiss) in enumerate(syllables):
        n = int(SR * 0.17 / (voice.tempo * manner.tempo) * rng.uniform(0.9, 1.1))
        along = (i + np.linspace(0, 1, n)) / len(syllables)
        accent = 0.10 * manner.pitch_range * np.sin(2 * np.pi * (2.1 * along + rng.uniform(-0.05, 0.05)))
        pitch = voice.pitch * manner.pitch * 2.0 ** (accent + manner.fall * (along - 0.5))
        buzz = _source(pitch, manner, rng)
        sound = _tract(buzz, vowel, voice.formants * rng.normal(1.0, 0.01))
        sound *= np.hanning(n) ** 0.5
        if hiss:
            head = n // 4
            sound[:head] += hiss * 0.3 * sound.std() * rng.standard_normal(head) * np.hanning(head)
        pieces.append(sound)
    speech = _tilt(np.concatenate(pieces), voice.tilt_db + manner.tilt_db)
    level = 10 ** ((voice.level_db + manner.level_db + rng.normal(0, 0.7)) / 20)
    speech *= level / max(float(np.sqrt(np.mean(speech**2))), 1e-9)
    quiet = int(SR * 0.33)
    y = np.concatenate([np.zeros(quiet), speech, np.zeros(quiet)]) + 1e-4 * rng.standard_normal(
        len(speech) + 2 * quiet
    )
    return np.clip(y, -0.99, 0.99).astype(np.float32)


def _source(pitch: NDArray[np.float64], manner: _Manner, rng: np.random.Generator) -> NDArray[np.float64]:
    """Glottal buzz: one smoothed pulse a period, with jitter and breath."""
    wobble = 1.0 + manner.jitter * np.repeat(rng.standard_normal(len(pitch) // 80 + 1), 80)[: len(pitch)]
    phase = np.cumsum(pitch * wobble) / SR
    pulses = np.diff(np.floor(phase), prepend=0.0)
    return np.asarray(pulses + manner.breath * rng.standard_normal(len(pitch)))


def _tract(source: NDArray[np.float64], vowel: str, scale: float) -> NDArray[np.float64]:
    """Formants: a cascade of two-pole resonators (Klatt 1980)."""
    from scipy.signal import lfilter

    sound = lfilter([1.0], [1.0, -0.95], source)  # the spectrum of a glottal pulse falls off
    for frequency, bandwidth in zip(_VOWELS[vowel], _BANDWIDTHS, strict=True):
        radius = np.exp(-np.pi * bandwidth / SR)
        cosine = 2 * radius * np.cos(2 * np.pi * min(frequency * scale, 0.48 * SR) / SR)
        sound = lfilter([1 - cosine + radius**2], [1.0, -cosine, radius**2], sound)
    return np.asarray(np.diff(sound, prepend=0.0))  # radiation from the lips


def _tilt(y: NDArray[np.float64], gain_db: float) -> NDArray[np.float64]:
    """Raise or lower what lies above about 1 kHz."""
    from scipy.signal import lfilter

    a = np.exp(-2 * np.pi * 1000.0 / SR)
    low = lfilter([1 - a], [1.0, -a], y)
    return np.asarray(low + 10 ** (gain_db / 20) * (y - low))


class Take(NamedTuple):
    """A recording to make: its name below the corpus, and how it is said."""

    name: str
    emotion: str
    intensity: int
    statement: int
    repetition: int


def _ravdess(actor: int) -> Iterator[Take]:
    for code, emotion in enumerate(EMOTIONS, start=1):
        for said in product((1,) if emotion == "neutral" else (1, 2), (1, 2), (1, 2)):
            name = "-".join(f"{part:02d}" for part in (3, 1, code, *said, actor))
            yield Take(f"Actor_{actor:02d}/{name}.wav", emotion, *said)


def _tess(actor: int) -> Iterator[Take]:
    who = ("OAF", "YAF")[actor // 2 - 1]
    for emotion, word in {**_WORDS, "surprised": "ps"}.items():
        folder = f"{who}_{'pleasant_surprised' if word == 'ps' else word}"
        for i, said in enumerate(("back", "bar", "base", "bath", "bean", "beg")):
            yield Take(f"{folder}/{who}_{said}_{word}.wav", emotion, 2, 1 + i % 2, i)


def _crema_d(actor: int) -> Iterator[Take]:
    for (emotion, word), (i, said) in product(_WORDS.items(), enumerate(("DFA", "IEO", "IOM", "ITH"))):
        levels = {"LO": 1, "MD": 2, "HI": 2} if said == "IEO" and emotion != "neutral" else {"XX": 1 + i % 2}
        for take, (level, intensity) in enumerate(levels.items()):
            name = f"{1000 + actor}_{said}_{word[:3].upper()}_{level}"
            yield Take(f"AudioWAV/{name}.wav", emotion, intensity, 1 + i % 2, 4 * i + take)


def _emo_db(actor: int) -> Iterator[Take]:
    speaker = ("03", "08", "10", "09", "11", "13", "12", "14", "15", "16")[actor - 1]  # men and women in turn
    codes = dict(zip(EMOTIONS[:7], "NLFTWAE", strict=True))
    for (emotion, code), (i, text) in product(codes.items(), enumerate(("a01", "a02", "b01", "b02"))):
        yield Take(f"wav/{speaker}{text}{code}a.wav", emotion, 2, 1 + i % 2, i)  # boredom is said calmly


def _folders(actor: int) -> Iterator[Take]:
    for emotion, i in product(EMOTIONS, range(6)):
        yield Take(f"{emotion}/speaker{actor:02d}/clip{i + 1}.wav", emotion, 2, 1 + i % 2, i)


_WORDS = {emotion: emotion.replace("ful", "") for emotion in EMOTIONS if emotion not in ("calm", "surprised")}
# By name: which actors speak (even ones are women's), and what each of them says.
LAYOUTS: dict[str, tuple[range, Callable[[int], Iterator[Take]]]] = {
    Layout.ravdess: (range(1, 25), _ravdess),
    Layout.tess: (range(2, 5, 2), _tess),
    Layout.crema_d: (range(1, 25), _crema_d),
    Layout.emo_db: (range(1, 11), _emo_db),
    Layout.folders: (range(1, 25), _folders),
}


def is_synthetic(path: str) -> bool:
    """Whether a file is one that `write_corpus` has written; no, where it cannot be read."""
    try:
        with open_regular(Path(path)) as handle:
            return _COMMENT.encode() in handle.read(200)
    except (OSError, ValueError):
        return False


def write_corpus(
    folder: Path,
    actors: int = 8,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
    layout: str = "ravdess",
) -> tuple[int, int]:
    """Write clips named like a public corpus, or in plain folders: (number of clips, of speakers).

    The same seed gives the same bytes. Clips that are there already stay. No more actors (1 to 24) speak than
    the layout has. `on_progress` gets (clips done, clips). AccessError: a clip cannot be written.
    """
    import soundfile

    speakers, takes_of = LAYOUTS[layout]
    seed += 1_000_000 * list(LAYOUTS).index(layout)  # other speakers in each, as in real corpora
    plan = [(actor, take) for actor in speakers[:actors] for take in takes_of(actor)]
    for done, (actor, take) in enumerate(plan, start=1):
        path = folder / take.name
        if not path.exists():
            said = take.intensity, take.statement, take.repetition
            rng = np.random.default_rng((seed, actor, EMOTIONS.index(take.emotion) + 1, *said))
            y = synthesise(voice_of(actor, seed), take.emotion, take.intensity, take.statement, rng)
            content = io.BytesIO()
            with soundfile.SoundFile(content, "w", SR, 1, "PCM_16", format="WAV") as sound:
                sound.comment = _COMMENT
                sound.write(y)
            with atomic_path(path, durable=False) as temp:
                temp.write_bytes(content.getvalue())
        if on_progress:
            on_progress(done, len(plan))
    return len(plan), len(speakers[:actors])
