"""Published results on RAVDESS speech by protocol, to show beside a run's own.

Only works whose protocol could be read are listed, each with what makes its figure easier or harder
to reach. Where an erratum or a later re-run corrected a figure, the corrected one stands here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from speechemo_cli.corpus.known import RAVDESS
from speechemo_cli.corpus.labels import EMOTIONS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from speechemo_cli.corpus.splits import Example

_ACTORS = frozenset(f"{RAVDESS}/{actor:02d}" for actor in range(1, 25))


@dataclass(frozen=True)
class Anchor:
    """A published figure.

    Attributes
    ----------
    work : str
    year : int or None
        None where the source does not tell.
    system : str
        A few words, short enough for a picture.
    metric : str
    value : float
        0 to 1.
    pretrained : bool or None
        On other recordings or pictures; None for people.
    parameters : str
        Empty where not stated.
    caveat : str
    """

    work: str
    year: int | None
    system: str
    metric: Literal["accuracy", "UAR"]
    value: float
    pretrained: bool | None
    parameters: str
    caveat: str


_LISTENERS = Anchor(
    "Livingstone & Russo",
    2018,
    "247 listeners",
    "accuracy",
    0.624,
    None,
    "",
    "people, not a network: no folds; neutral and calm are interchangeable, “none” was allowed",
)


def _linear(system: str, value: float, parameters: str = "", caveat: str = "") -> Anchor:
    work = "hsn07pk, ravdess-speaker-independent-ser"
    words = "not peer reviewed" + (f"; {caveat}" if caveat else "")
    return Anchor(work, 2026, system, "accuracy", value, True, parameters, words)


def _by_hand(system: str, value: float) -> Anchor:
    work = "hsn07pk, ravdess-speaker-independent-ser"
    caveat = "hand-made features, logistic regression; not peer reviewed"
    return Anchor(work, 2026, system, "accuracy", value, False, "", caveat)


def _emobox(system: str, value: float) -> Anchor:
    caveat = "frozen network, small trained head; official folds"
    return Anchor("EmoBox, Ma et al.", 2024, system, "accuracy", value, True, "", caveat)


# fmt: off
ANCHORS: dict[str, tuple[Anchor, ...]] = {
    "speaker-5fold": (
        Anchor("Luna-Jiménez et al., Appl. Sci. 12:327", 2022, "XLSR-53 fine-tuned", "accuracy", 0.8182,
               True, "317M", "same folds; checkpoints were picked on the test folds: optimistic"),
        Anchor("Luna-Jiménez et al., Sensors 21:7665", 2021, "CNN-14 fine-tuned", "accuracy", 0.7658,
               True, "81M", "same folds; how the epoch was picked was not checked"),
        _LISTENERS,
        Anchor("ResLSTM-SA", 2026, "ResLSTM-SA", "UAR", 0.623, False, "46.8k",
               "same folds, mean of 10 runs (best 65.2 %); scaled over all clips and tuned on the test UAR"),
    ),
    "speaker-6fold": (
        _emobox("Whisper-L-v3", 0.759),
        Anchor("HiCMAE", 2024, "WavLM-Base+", "accuracy", 0.754, True, "",
               "six folds by actor, but which actors is not published"),
        _emobox("WavLM-L", 0.722),
        _emobox("data2vec2-L", 0.716),
        _emobox("HuBERT-L", 0.703),
        _emobox("HuBERT-base", 0.662),
        _LISTENERS,
        _emobox("WavLM-base", 0.621),
        _emobox("wav2vec2-base", 0.554),
    ),
    "loso": (
        _linear("XLS-R, linear", 0.817, "300M", "layer chosen in inner folds"),
        _linear("WavLM-L, linear", 0.812),
        _linear("Whisper-L-v3, linear", 0.803, caveat="what Whisper was trained on is not known"),
        Anchor("George & P", 2025, "Whisper-L, linear", "UAR", 0.793, True, "", "as stated, not re-checked"),
        _linear("HuBERT-L, linear", 0.776),
        _linear("WavLM-L fine-tuned", 0.724, caveat="untuned; training diverged in two folds"),
        _linear("emotion2vec, linear", 0.663),
        _by_hand("ComParE 2016", 0.634),
        _LISTENERS,
        _by_hand("eGeMAPS", 0.527),
        _by_hand("MFCC + pYIN", 0.508),
    ),
    "random-5fold": (
        Anchor("Pepino et al., “Issa setup”", 2021, "wav2vec2, frozen", "accuracy", 0.837, True, "",
               "other clips: speech and song together"),
        Anchor("EmoCatcher", None, "EmoCatcher", "accuracy", 0.8187, False, "170k",
               "last epoch; 84.2 % with the epoch picked on the test fold"),
        Anchor("Issa et al., BSPC 59:101894", 2020, "1-D CNN", "accuracy", 0.7161, False, "0.52M",
               "random folds, how many could not be checked"),
    ),
    "random-10fold": (
        Anchor("TIM-Net", 2023, "TIM-Net", "accuracy", 0.9007, False, "107k",
               "corrected: the paper's 92.1 % picked the epoch on the test fold; not stratified"),
        Anchor("GM-TCNet", 2022, "GM-TCNet", "accuracy", 0.8262, False, "",
               "corrected by TIM-Net's authors for the same reason; folds not stated"),
        Anchor("CTL-MTNet", 2022, "CPAC", "accuracy", 0.8047, False, "",
               "corrected by TIM-Net's authors for the same reason; folds not stated"),
    ),
}
# fmt: on


def anchors_for(protocol: str, labels: Iterable[str], examples: Iterable[Example]) -> tuple[Anchor, ...]:
    """Return what was published by a protocol, if the clips are what it was published on.

    Parameters
    ----------
    protocol : str
    labels : iterable of str
    examples : iterable of Example

    Returns
    -------
    tuple of Anchor
        Best first; empty unless the labels are RAVDESS's eight and every clip is speech of one of its
        actors.
    """
    comparable = set(labels) == set(EMOTIONS) and all(
        example.clip.speaker_id in _ACTORS and not example.clip.song for example in examples
    )
    return ANCHORS.get(protocol, ()) if comparable else ()
