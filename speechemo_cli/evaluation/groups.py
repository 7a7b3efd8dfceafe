"""Test clips by what is known of their speakers: unseen, unknown, or seen in training."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.corpus.known import BY_NAME
from speechemo_cli.evaluation.metrics import Scores, intervals, no_interval, score
from speechemo_cli.formatting import GROUPS, SEEN, UNKNOWN, UNSEEN, counted

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from speechemo_cli.corpus.clips import Clip
    from speechemo_cli.corpus.splits import Example

# Corpora whose names say for certain who is meant. A folder of people's own may have been renamed.
PUBLIC_CORPORA = frozenset(BY_NAME)


def group_of_clips(
    clips: Sequence[Clip], trained: Collection[str], nameless: Collection[str]
) -> NDArray[np.str_]:
    """Tell for each clip whether its speaker was trained on.

    A speaker is corpus and name. In people's own folders that is not certain: the same name may stand for
    the same person in two of them, and a nameless training clip may be anybody's. Such clips are unknown.

    Parameters
    ----------
    clips : sequence of Clip
    trained : collection of str
        Ids of the speakers that were trained on.
    nameless : collection of str
        Corpora of training clips whose speaker is not known.

    Returns
    -------
    np.ndarray [shape=(n,), dtype=str]
        One of the first three of `GROUPS` for each clip.
    """
    split = [speaker.rpartition("/") for speaker in trained]
    own_names = {name.casefold() for corpus, _, name in split if corpus not in PUBLIC_CORPORA}
    own_nameless = bool(set(nameless) - PUBLIC_CORPORA)

    def group(clip: Clip) -> str:
        if clip.speaker_id in trained:
            return SEEN
        if clip.speaker is None:
            return UNKNOWN
        if clip.corpus in PUBLIC_CORPORA:
            return UNKNOWN if clip.corpus in nameless else UNSEEN
        return UNKNOWN if own_nameless or clip.speaker.casefold() in own_names else UNSEEN

    return np.array([group(clip) for clip in clips], dtype=np.str_)


@dataclass(frozen=True)
class Group:
    """Answers for the clips of one kind of speakers.

    Attributes
    ----------
    labels : tuple of str
    examples : tuple of Example
    truth : np.ndarray [shape=(n,), dtype=int64]
    probabilities : np.ndarray [shape=(n, n_labels), dtype=float32]
    """

    labels: tuple[str, ...]
    examples: tuple[Example, ...]
    truth: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    @cached_property
    def scores(self) -> Scores:
        """Scores of the answers."""
        return score(self.truth, self.probabilities, self.labels)

    @property
    def speakers(self) -> list[str | None]:
        """Id of the speaker of each clip."""
        return [example.clip.speaker_id for example in self.examples]

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % interval of each metric, by bootstrap over speakers; empty where `no_interval` says why."""
        return intervals(self.truth, self.probabilities, self.speakers)

    @property
    def no_interval(self) -> str:
        """Why there is no interval; empty where there is one."""
        return no_interval(self.speakers)

    @property
    def corpora(self) -> dict[str, dict[str, int]]:
        """Of whom the figures are: how many speakers and recordings, by corpus."""
        clips = {example.key: example.clip for example in self.examples}.values()
        return {
            name: {
                "speakers": len({clip.speaker for clip in clips if clip.corpus == name} - {None}),
                "clips": sum(clip.corpus == name for clip in clips),
            }
            for name in sorted({clip.corpus for clip in clips})
        }

    @property
    def whose(self) -> str:
        """Say of whom the figures are: `ravdess: 4 speakers, 240 clips`."""
        return "; ".join(
            f"{name or 'data'}: {counted(one['speakers'], 'speaker')}, {counted(one['clips'], 'clip')}"
            for name, one in self.corpora.items()
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON has."""
        return {
            **self.scores.to_dict(),
            "corpora": self.corpora,
            "ci95": {name: list(edges) for name, edges in self.intervals.items()} or None,
            "no_interval": self.no_interval,
        }


def by_group(
    names: NDArray[np.str_],
    labels: tuple[str, ...],
    examples: Sequence[Example],
    truth: NDArray[np.int64],
    probabilities: NDArray[np.float32],
) -> dict[str, Group]:
    """Divide answers by the name of the group of each clip; groups without a clip are left out."""
    found = {}
    for name in GROUPS:
        at = np.flatnonzero(names == name)
        if len(at):
            own = tuple(examples[i] for i in at.tolist())
            found[name] = Group(labels, own, truth[at], probabilities[at])
    return found
