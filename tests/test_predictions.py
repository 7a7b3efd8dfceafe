"""Files of answers, and what two of them say of each other."""

from __future__ import annotations

import csv
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import told, trained_with
from hypothesis import given, settings
from hypothesis import strategies as st

from speechemo_cli.cli import app
from speechemo_cli.errors import AccessError, DataError
from speechemo_cli.evaluation import predictions, protocols
from speechemo_cli.evaluation.predictions import Predictions, compare


def answers(name: str, right: np.ndarray, speakers: list[str] | None = None) -> Predictions:
    """Answers to clips that are all sad."""
    n = len(right)
    return Predictions(
        name,
        tuple((f"key {i}", "1") for i in range(n)),
        tuple(speakers or [f"s{i % 10}" for i in range(n)]),
        ("sad",) * n,
        tuple("sad" if hit else "calm" for hit in right),
    )


def test_every_answer_of_a_protocol_is_written_and_read_back(rng: np.random.Generator) -> None:
    result = protocols.run_protocol("v1", "speaker-5fold", told(rng, speakers=3), trained_with(epochs=2))

    predictions.write(result, Path("v1.csv"))

    with Path("v1.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 90
    assert {row["fold"] for row in rows} == {"1", "2", "3"}
    sums = [sum(float(row[f"p_{label}"]) for label in result.labels) for row in rows]
    assert sums == pytest.approx([1.0] * 90, abs=1e-4)
    assert np.mean([row["truth"] == row["answer"] for row in rows]) == pytest.approx(result.scores.accuracy)
    first = result.examples[0]
    told_of_it = (rows[0]["path"], rows[0]["speaker"], rows[0]["gender"], rows[0]["intensity"])
    assert told_of_it == (first.clip.path, first.clip.speaker, first.clip.gender, str(first.clip.intensity))

    again = predictions.read(Path("v1.csv"))
    assert again.keys[0] == (first.key, "1")
    assert compare(again, again).difference == 0.0


def test_a_comparison_counts_what_each_alone_got_right(rng: np.random.Generator) -> None:
    a, b = rng.random(500) < 0.5, rng.random(500) < 0.6

    result = compare(answers("a", a), answers("b", b))

    assert (result.only_a, result.only_b) == (int((a & ~b).sum()), int((b & ~a).sum()))
    assert result.difference == pytest.approx(b.mean() - a.mean())
    assert result.ci95[0] < result.difference < result.ci95[1]


def test_compare_finds_a_large_difference_and_leaves_a_small_one_open(rng: np.random.Generator) -> None:
    a = rng.random(500) < 0.5
    much, little = a | (rng.random(500) < 0.4), a ^ (rng.random(500) < 0.05)

    assert compare(answers("a", a), answers("b", much)).better == "b"
    assert compare(answers("a", much), answers("b", a)).better == "a"
    assert compare(answers("a", a), answers("b", little)).better is None


def test_compare_takes_a_gain_on_one_speaker_for_none_on_others() -> None:
    # Over clips this gain of a tenth would be sure.
    a, b = np.zeros(1000, bool), np.arange(1000) < 100
    speakers = [f"s{i // 100}" for i in range(1000)]

    result = compare(answers("a", a, speakers), answers("b", b, speakers))

    assert result.by_speaker == {**dict.fromkeys((f"s{i}" for i in range(1, 10)), 0.0), "s0": 1.0}
    assert result.difference == pytest.approx(0.1)
    assert (result.ci95[0], result.better) == (0.0, None)


@pytest.mark.parametrize("speaker", ["s{}", ""])
def test_compare_gives_no_verdict_below_five_known_speakers(speaker: str) -> None:
    speakers = [speaker.format(i % 4) for i in range(400)]

    result = compare(answers("a", np.zeros(400, bool), speakers), answers("b", np.ones(400, bool), speakers))

    assert (result.difference, result.ci95, result.better) == (1.0, None, None)


def test_compare_draws_the_speakers_and_says_one_verdict(
    rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    header = "key,path,fold,speaker,gender,intensity,statement,truth,answer,confidence"
    right = rng.random(200) < 0.4
    for name, hits in (("a", right), ("b", right | (rng.random(200) < 0.5))):
        lines = (
            f"{i},{i}.wav,1,$x/{i % 8},f,1,1,sad,{'sad' if hit else 'calm'},1" for i, hit in enumerate(hits)
        )
        Path(f"{name}.csv").write_text("\n".join([header, *lines]))

    code = app.run(["compare", "a.csv", "b.csv", "--plot", "c.png", "--format", "table"])

    last = capsys.readouterr().out.splitlines()[-1]
    assert code == 0
    assert last.startswith("b.csv is better than a.csv: the difference is +")
    assert last.endswith("over 8 speakers.")
    assert Path("c.png").read_bytes().startswith(b"\x89PNG")


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(2, 40))
def test_the_order_of_the_lines_does_not_matter(random, n: int) -> None:
    hits = np.array([random.random() < 0.5 for _ in range(n)])
    a, b = answers("a", hits), answers("b", ~hits)
    order = list(range(n))
    random.shuffle(order)
    mixed = Predictions(
        "b", *(tuple(column[i] for i in order) for column in (b.keys, b.speakers, b.truth, b.answers))
    )

    assert compare(a, mixed, draws=50) == compare(a, b, draws=50)


def test_answers_about_other_clips_or_folds_cannot_be_compared(rng: np.random.Generator) -> None:
    whole = answers("a", rng.random(20) < 0.5)

    with pytest.raises(DataError, match="different clips or folds: 20 and 19 answers, 19 in common"):
        compare(whole, answers("b", rng.random(19) < 0.5))


def test_files_that_disagree_about_the_labels_cannot_be_compared() -> None:
    a = answers("a", np.ones(3, bool))
    b = Predictions("b", a.keys, a.speakers, ("calm",) * 3, a.answers)

    with pytest.raises(DataError, match="disagree about the labels"):
        compare(a, b)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "no column"),
        ("path,label\na,b\n", "no column answer, confidence"),
        ("key,path,fold,speaker,gender,intensity,statement,truth,answer,confidence\n", "holds no prediction"),
        (
            "key,path,fold,speaker,gender,intensity,statement,truth,answer,confidence\n1,2\n",
            "a line is too short",
        ),
        ("x" * 200_000, r"no file of predictions: field larger than field limit.*evaluate --version"),
    ],
)
def test_other_files_are_refused(content: str, reason: str) -> None:
    Path("x.csv").write_text(content)

    with pytest.raises(DataError, match=reason):
        predictions.read(Path("x.csv"))


def test_a_missing_file_is_an_access_error() -> None:
    with pytest.raises(AccessError, match=r"cannot read nowhere\.csv: no such file"):
        predictions.read(Path("nowhere.csv"))


def test_a_pipe_is_read_as_a_file_is() -> None:
    header = "key,path,fold,speaker,gender,intensity,statement,truth,answer,confidence"
    os.mkfifo("pipe.csv")
    both = os.open("pipe.csv", os.O_RDWR)  # at both ends, so that nobody waits for anybody
    os.write(both, f"{header}\nk,p,1,s,f,1,1,sad,calm,1\n".encode())
    threading.Timer(0.2, os.close, [both]).start()

    assert predictions.read(Path("pipe.csv")).answers == ("calm",)


def test_lines_may_end_as_a_spreadsheet_ends_them() -> None:
    lines = [
        "key,path,fold,speaker,gender,intensity,statement,truth,answer,confidence",
        "k,p,1,s,f,1,1,sad,sad,1",
    ]
    Path("x.csv").write_bytes("\r\n".join([*lines, ""]).encode())

    assert predictions.read(Path("x.csv")) == Predictions("x.csv", (("k", "1"),), ("s",), ("sad",), ("sad",))
