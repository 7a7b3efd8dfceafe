"""Files of answers, and what two of them say of each other."""

from __future__ import annotations

import csv
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import Fitted, blurred, trained_with

from speechemo_cli.cli import app
from speechemo_cli.errors import AccessError, DataError
from speechemo_cli.evaluation import predictions, protocols
from speechemo_cli.evaluation.predictions import Prediction, Predictions, compare

HEADER = "key,path,fold,speaker,gender,intensity,statement,truth,answer,confidence"


def answers(name: str, right: np.ndarray, speakers: list[str] | None = None) -> Predictions:
    """Answers to clips that are all sad."""
    speakers = speakers or [f"s{i % 10}" for i in range(len(right))]
    rows = [
        Prediction(who, "sad", "sad" if hit else "calm") for who, hit in zip(speakers, right, strict=True)
    ]
    return Predictions(name, {(f"key {i}", "1"): row for i, row in enumerate(rows)})


def test_write_tells_every_answer_of_a_protocol_and_read_reads_it(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    result = protocols.run_protocol("v1", "speaker-5fold", blurred(rng, speakers=3), trained_with())

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
    assert next(iter(again.answers)) == (first.key, "1")
    assert compare(again, again).difference == 0.0


def test_compare_counts_what_each_alone_got_right(rng: np.random.Generator) -> None:
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
    right = rng.random(200) < 0.4
    for name, hits in (("a", right), ("b", right | (rng.random(200) < 0.5))):
        lines = (
            f"{i},{i}.wav,1,$x/{i % 8},f,1,1,sad,{'sad' if hit else 'calm'},1" for i, hit in enumerate(hits)
        )
        Path(f"{name}.csv").write_text("\n".join([HEADER, *lines]))

    code = app.run(["compare", "a.csv", "b.csv", "--plot", "c.png", "--format", "table"])

    last = capsys.readouterr().out.splitlines()[-1]
    assert code == 0
    assert last.startswith("b.csv is better than a.csv: the difference is +")
    assert last.endswith("over 8 speakers.")
    assert Path("c.png").read_bytes().startswith(b"\x89PNG")


def test_compare_takes_lines_in_any_order(rng: np.random.Generator) -> None:
    a, b = (answers(name, rng.random(40) < 0.5) for name in "ab")
    mixed = Predictions("b", {key: b.answers[key] for key in reversed(b.answers)})

    assert compare(a, mixed) == compare(a, b)


def test_compare_refuses_answers_about_other_clips_or_with_other_labels() -> None:
    a = answers("a", np.ones(20, bool))
    relabelled = {key: row._replace(truth="calm") for key, row in a.answers.items()}

    with pytest.raises(DataError, match="different clips or folds: 20 and 19 answers, 19 in common"):
        compare(a, answers("b", np.ones(19, bool)))
    with pytest.raises(DataError, match="disagree about the labels"):
        compare(a, Predictions("b", relabelled))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "no column"),
        ("path,label\na,b\n", "no column answer, confidence"),
        (f"{HEADER}\n", "holds no prediction"),
        (f"{HEADER}\n1,2\n", "a line is too short"),
        (f"{HEADER}\n" + 2 * "k,p,1,s,f,1,1,sad,sad,1\n", "a clip stands twice in the same fold"),
        ("x" * 200_000, r"no file of predictions: field larger than field limit.*evaluate --version"),
    ],
)
def test_read_refuses_other_files(content: str, reason: str) -> None:
    Path("x.csv").write_text(content)

    with pytest.raises(DataError, match=reason):
        predictions.read(Path("x.csv"))


def test_read_takes_a_pipe_as_a_file_and_lines_as_a_spreadsheet_ends_them() -> None:
    lines = [HEADER, "k,p,1,s,f,1,1,sad,calm,1", ""]
    os.mkfifo("pipe.csv")
    both = os.open("pipe.csv", os.O_RDWR)  # at both ends, so that nobody waits for anybody
    os.write(both, "\r\n".join(lines).encode())
    threading.Timer(0.2, os.close, [both]).start()

    assert predictions.read(Path("pipe.csv")).answers == {("k", "1"): ("s", "sad", "calm")}
    with pytest.raises(AccessError, match=r"cannot read nowhere\.csv: no such file"):
        predictions.read(Path("nowhere.csv"))
