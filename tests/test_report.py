"""The page is one file, says what the scores say, and trusts no name that stands in it."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.special import softmax

from speechemo_cli.corpus.clips import Clip
from speechemo_cli.corpus.folds import PROTOCOLS
from speechemo_cli.corpus.labels import EMOTIONS
from speechemo_cli.corpus.splits import Example
from speechemo_cli.corpus.synthetic import is_synthetic
from speechemo_cli.evaluation.published import published_figures, published_for
from speechemo_cli.evaluation.report import risk_coverage, worst_clips, write_report
from speechemo_cli.evaluation.results import FoldResult, ProtocolResult


def result(labels: tuple[str, ...] = EMOTIONS, **clip: object) -> ProtocolResult:
    """Six speakers, 16 clips each, in two folds; a little more than half of the answers are right."""
    rng = np.random.default_rng(3)
    examples = []
    for i in range(96):
        actor = i // 16 + 1
        about = {
            "path": f"clips/{i:02d}.wav",
            "speaker": f"{actor:02d}",
            "corpus": "ravdess",
            "gender": "fm"[actor % 2],
            "intensity": i % 2 + 1,
        }
        examples.append(Example(Clip(label=labels[i % len(labels)], **{**about, **clip}), f"{i:064x}"))
    truth = np.arange(96) % len(labels)
    logits = rng.normal(size=(96, len(labels)))
    logits[np.arange(96), truth] += 1.7
    probabilities = softmax(logits, axis=1).astype(np.float32)
    history = {"train_accuracy": [0.2, 0.5, 0.7], "train_loss": [2.0, 1.4, 1.1]}
    folds = tuple(
        FoldResult(
            *(labels, tuple(examples[at]), truth[at], probabilities[at], name, speakers, history, 1.5),
            *(np.array(["unseen_speakers"] * 48), None, np.zeros(48, np.float32), {}, (), ()),
        )
        for name, at, speakers in (
            ("1", slice(48), ("ravdess/01", "ravdess/02", "ravdess/03")),
            ("2", slice(48, 96), ("ravdess/04", "ravdess/05", "ravdess/06")),
        )
    )
    rules = PROTOCOLS["speaker-5fold"]
    return ProtocolResult(labels, tuple(examples), truth, probabilities, "v1", rules, 3, 0, folds)


def rename(found: ProtocolResult, path: str) -> ProtocolResult:
    """Give the most confident wrong answer another path."""
    answers, confidence = found.probabilities.argmax(axis=1), found.probabilities.max(axis=1)
    at = int(np.where(answers != found.truth, confidence, 0).argmax())
    examples = list(found.examples)
    examples[at] = replace(examples[at], clip=replace(examples[at].clip, path=path))
    return replace(found, examples=tuple(examples))


class Page(HTMLParser):
    """What a browser would fetch, the tags in order, and the text outside of them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        names = ("src", "href", "xlink:href", "srcset", "data", "poster", "action")
        self.links += [value or "" for name, value in attrs if name in names]

    def handle_data(self, data: str) -> None:
        self.text += data


def page(found: ProtocolResult, origin: dict[str, str] | None = None) -> str:
    write_report(found, Path("report.html"), origin)
    return Path("report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of `result()`."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(result(), path)
    return path.read_text(encoding="utf-8")


def test_page_asks_for_nothing_outside_itself(text: str) -> None:
    parsed = Page(text)

    assert parsed.links
    assert all(link.startswith(("#", "data:")) for link in parsed.links)
    assert not re.search(r"https?://|[\"'(]//|@import", text)
    assert all(target.startswith("#") for target in re.findall(r"url\(\"?([^)]*)", text))
    assert not {"script", "iframe", "object", "embed", "base"} & {tag for tag, _ in parsed.tags}


def test_page_can_be_read_by_a_machine(text: str) -> None:
    parsed = Page(text)
    identifiers = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
    headings = [int(tag[1]) for tag, _ in parsed.tags if re.fullmatch(r"h[1-6]", tag)]

    assert len(identifiers) == len(set(identifiers))
    assert {link[1:] for link in parsed.links if link.startswith("#")} <= set(identifiers)
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(headings))
    assert all("scope" in attrs for tag, attrs in parsed.tags if tag == "th")
    assert all(attrs.get("aria-label") for tag, attrs in parsed.tags if tag == "svg")
    assert ("html", {"lang": "en"}) in parsed.tags


def test_page_tells_the_pooled_accuracy_with_its_interval_and_what_was_published(text: str) -> None:
    found = result()
    words = " ".join(Page(text).text.split())
    low, high = found.intervals["accuracy"]

    assert f"{100 * found.scores.accuracy:.1f} %" in words
    assert f"{100 * low:.1f} % to {100 * high:.1f} %" in words
    assert found.protocol.meaning in words
    assert "Published figures" in words
    assert "CC BY-NC-SA 4.0" in words
    assert 'aria-label="accuracy by speaker"' in text


def test_page_of_the_same_result_has_the_same_bytes(text: str) -> None:
    assert page(result()) == text


def test_page_shows_hostile_names_as_text_only() -> None:
    found = rename(
        result(labels=("<b onclick=x>", "$\\frac{$", "&amp"), speaker="<script>"),
        "clips/<script>alert(1)<\\script>\x1b.wav",
    )
    origin = {"data": "data/<mine>", "command": "speechemo evaluate", "date": "2026-11-28 18:40"}

    text = page(found, origin)

    assert "<script" not in text
    assert "<b onclick" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "\x1b" not in text
    assert all(value in Page(text).text for value in origin.values())


def test_page_of_other_clips_of_unknown_speakers_plays_them() -> None:
    y = np.sin(np.arange(20 * 48000) * 0.05)
    soundfile.write("long.flac", np.stack([y, y], axis=1), 48000, subtype="PCM_24")
    found = rename(result(("happy", "sad", "angry"), speaker=None, gender=None, intensity=None), "long.flac")

    text = page(found)

    # The first seconds of a clip are embedded, whatever its size.
    (source,) = re.findall(r'src="data:audio/ogg;base64,([^"]*)"', text)
    assert soundfile.info(io.BytesIO(base64.b64decode(source))).duration == pytest.approx(15, abs=0.1)
    assert worst_clips(found, audio=False)[0]["audio"] == ""
    assert "speakers not known: no interval" in text
    assert 'aria-label="accuracy by speaker"' not in text
    assert "Published figures" not in text


def test_worst_clips_are_the_most_confident_wrong_answers_in_order(text: str) -> None:
    found = result()
    answers, confidence = found.probabilities.argmax(axis=1), found.probabilities.max(axis=1)
    wrong = sorted(np.flatnonzero(answers != found.truth).tolist(), key=lambda i: -confidence[i])

    worst = worst_clips(found)

    assert [clip["name"] for clip in worst] == [f"{i:02d}.wav" for i in wrong[:12]]
    assert [clip["answer"] for clip in worst] == [EMOTIONS[answers[i]] for i in wrong[:12]]
    assert worst[0]["confidence"] == pytest.approx(float(confidence[wrong[0]]))
    places = [text.index(clip["name"]) for clip in worst]
    assert places == sorted(places)
    # No such clip is there to be played.
    assert {clip["why_silent"] for clip in worst} == {"no such file"}
    assert "Cannot be played: no such file" in text
    assert "<audio" not in text


def test_worst_clips_say_why_one_cannot_be_played() -> None:
    Path("notes.wav").write_text("no sound")

    assert "not audio that can be read" in worst_clips(rename(result(), "notes.wav"))[0]["why_silent"]


@pytest.mark.parametrize(
    "clip", [{"speaker": "anna"}, {"speaker": None}, {"corpus": "emodb"}, {"song": True}]
)
def test_published_for_has_nothing_on_foreign_speakers_and_songs(clip: dict[str, object]) -> None:
    assert published_for("loso", EMOTIONS, result().examples)
    assert not published_for("twin-safe-5fold", EMOTIONS, result().examples)
    assert not published_for("loso", EMOTIONS, result(**clip).examples)


def test_published_figures_are_shares_best_first_with_a_caveat() -> None:
    assert set(published_figures()) <= set(PROTOCOLS)
    for figures in published_figures().values():
        values = [figure.value for figure in figures]
        assert values == sorted(values, reverse=True)
        assert all(0.125 < value < 1 for value in values)
        assert all(figure.caveat for figure in figures)
        assert {figure.metric for figure in figures} <= {"accuracy", "UAR"}


def test_published_for_has_nothing_on_synthetic_voices(corpus_folder: Path) -> None:
    path = str(next(corpus_folder.rglob("*.wav")))

    assert is_synthetic(path)
    assert not published_for("loso", EMOTIONS, result(path=path).examples)


def test_risk_coverage_ends_at_the_error_rate() -> None:
    hits = np.array([1.0, 0.0, 1.0, 1.0, 0.0])
    coverage, risk = risk_coverage(np.array([0.9, 0.3, 0.8, 0.5, 0.6]), hits)

    assert coverage.tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert risk.tolist() == pytest.approx([0, 0, 1 / 3, 1 / 4, 2 / 5])
    assert risk[-1] == pytest.approx(1 - hits.mean())
