"""Who is seen, unseen or unknown to a training, and the scores of each group."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import grid
from sklearn.metrics import accuracy_score, recall_score

from speechemo_cli.corpus.clips import Clip
from speechemo_cli.corpus.splits import Example
from speechemo_cli.evaluation.results import Answers, group_of_clips
from speechemo_cli.formatting import SEEN, TRAINED, UNKNOWN, UNSEEN


@pytest.mark.parametrize(
    ("corpus", "speaker", "trained", "nameless", "expected"),
    [
        ("ravdess", "03", {"ravdess/03"}, (), SEEN),
        ("ravdess", "04", {"ravdess/03"}, (), UNSEEN),
        # A public corpus says for certain who is meant, whatever the others are called.
        ("ravdess", "03", {"own/03"}, ("own",), UNSEEN),
        ("own", "03", {"ravdess/03"}, ("ravdess",), UNSEEN),
        ("ravdess", "04", {"ravdess/03"}, ("ravdess",), UNKNOWN),
        # In folders of people's own, the same name may be the same person, and a nameless clip anybody's.
        ("own", "anna", {"own/anna"}, (), SEEN),
        ("new", "Anna", {"own/anna"}, (), UNKNOWN),
        ("new", "ben", {"own/anna"}, (), UNSEEN),
        ("new", "ben", {"own/anna"}, ("own",), UNKNOWN),
        ("own", None, {"own/anna"}, (), UNKNOWN),
        ("", "anna", {"anna"}, (), SEEN),
        ("", "ben", {"anna"}, (), UNSEEN),
    ],
)
def test_group_of_clips_goes_by_corpus_and_name(
    corpus: str, speaker: str | None, trained: set[str], nameless: tuple[str, ...], expected: str
) -> None:
    clip = Clip("a.wav", "sad", speaker, corpus=corpus)
    assert group_of_clips([clip], trained, nameless).tolist() == [expected]


def test_by_group_scores_each_group_as_scikit_learn_does(rng: np.random.Generator) -> None:
    examples = grid({(f"s{i}", label): 10 for i in range(6) for label in ("happy", "sad")})
    truth, probabilities = rng.integers(0, 2, 120), rng.dirichlet((1, 1), 120).astype(np.float32)
    names = rng.choice([UNSEEN, TRAINED, SEEN], 120)

    groups = Answers(("happy", "sad"), examples, truth, probabilities).where(names)

    assert list(groups) == [UNSEEN, SEEN, TRAINED]
    for name, group in groups.items():
        at, answers = names == name, probabilities.argmax(axis=1)
        assert group.scores.n == at.sum()
        assert group.scores.accuracy == pytest.approx(accuracy_score(truth[at], answers[at]))
        assert group.scores.uar == pytest.approx(recall_score(truth[at], answers[at], average="macro"))
        assert np.sum(group.summary()["confusion"]) == at.sum()


def test_a_group_says_whose_its_figures_are_and_why_there_is_no_interval() -> None:
    counts = {("own", "anna"): 2, ("own", "ben"): 1, ("nemo", "ben"): 1}
    examples = tuple(
        Example(Clip(f"{i}.wav", "sad", who, corpus=corpus), f"{corpus} {who} {i}")
        for (corpus, who), n in counts.items()
        for i in range(n)
    )
    group = Answers(("sad", "calm"), (*examples, examples[0]), np.zeros(5, int), np.eye(2)[np.zeros(5, int)])

    # A clip that is tested twice is one clip, and ben of another corpus another speaker.
    assert group.whose == "nemo: 1 speaker, 1 clip; own: 2 speakers, 3 clips"
    assert group.summary()["ci95"] is None
    assert group.summary()["no_interval"] == "3 speakers: no interval"
