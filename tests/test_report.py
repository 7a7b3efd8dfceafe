"""The page and the model card say what the scores say, and trust no name that stands in them."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from scipy.special import softmax

from speechemo_cli.config import Config, MfccConfig
from speechemo_cli.corpus import EMOTIONS
from speechemo_cli.corpus.clips import Clip
from speechemo_cli.corpus.splits import PROTOCOLS, Example
from speechemo_cli.corpus.synthetic import write_corpus
from speechemo_cli.evaluation import report
from speechemo_cli.evaluation.metrics import METRICS
from speechemo_cli.evaluation.report import (
    published_figures,
    published_for,
    risk_coverage,
    worst_clips,
    write_report,
)
from speechemo_cli.evaluation.results import FoldResult, ProtocolResult
from speechemo_cli.models import model_file, v1, v3
from speechemo_cli.models.metadata import ModelMetadata


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


def page(found: ProtocolResult, path: Path = Path("report.html"), **origin: str) -> str:
    write_report(found, path, origin, audio=True)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of `result()`."""
    return page(result(), path=tmp_path_factory.mktemp("report") / "report.html")


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

    text = page(found, **origin)

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

    worst = worst_clips(found, audio=True)

    assert [clip["name"] for clip in worst] == [f"{i:02d}.wav" for i in wrong[:12]]
    assert [clip["answer"] for clip in worst] == [EMOTIONS[answers[i]] for i in wrong[:12]]
    assert worst[0]["confidence"] == pytest.approx(float(confidence[wrong[0]]))
    places = [text.index(clip["name"]) for clip in worst]
    assert places == sorted(places)
    # No such clip is there to be played.
    assert {clip["why_silent"] for clip in worst} == {"no such file"}
    assert "Cannot be played: no such file" in text
    assert "<audio" not in text


def test_published_for_has_nothing_on_foreign_speakers_songs_and_synthetic_voices() -> None:
    write_corpus(Path("voices"), actors=1)
    voice = str(next(Path("voices").rglob("*.wav")))
    foreign = [{"speaker": "anna"}, {"speaker": None}, {"corpus": "emodb"}, {"song": True}, {"path": voice}]

    assert published_for("loso", EMOTIONS, result().examples)
    assert not published_for("twin-safe-5fold", EMOTIONS, result().examples)
    for clip in foreign:
        assert not published_for("loso", EMOTIONS, result(**clip).examples), clip


def test_published_figures_are_shares_best_first_with_a_caveat() -> None:
    assert set(published_figures()) <= set(PROTOCOLS)
    for figures in published_figures().values():
        values = [figure["value"] for figure in figures]
        assert values == sorted(values, reverse=True)
        assert all(0.125 < value < 1 for value in values)
        assert all(figure["caveat"] for figure in figures)
        assert {figure["metric"] for figure in figures} <= {"accuracy", "UAR"}


def test_risk_coverage_ends_at_the_error_rate() -> None:
    hits = np.array([1.0, 0.0, 1.0, 1.0, 0.0])
    coverage, risk = risk_coverage(np.array([0.9, 0.3, 0.8, 0.5, 0.6]), hits)

    assert coverage.tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert risk.tolist() == pytest.approx([0, 0, 1 / 3, 1 / 4, 2 / 5])
    assert risk[-1] == pytest.approx(1 - hits.mean())


# --- the model card

LABELS = ("neutral", "happy", "angry")
KEYS = {"train": ["b" * 64, "a" * 64], "seen_speakers": ["c" * 64], "new_speakers": []}


@pytest.fixture(scope="module")
def network() -> Any:
    return v1.build((40,), 3, v1.PRESET)


@cache
def measurements() -> str:
    return json.dumps(result(LABELS).to_dict())


@pytest.fixture
def measured() -> dict[str, Any]:
    """Results of a cross-validation with numbers of every kind."""
    return json.loads(measurements())


def metadata(data: dict[str, Any] | None = None, **changes: Any) -> ModelMetadata:
    """What a model file tells; `data` lies over what it was trained on."""
    values = {
        "version": "v1",
        "labels": LABELS,
        "feature_set": "mfcc",
        "feature_version": 1,
        "config": Config(mfcc=MfccConfig(hop_length=256)).to_dict(),
        "seed": 3,
        "epochs": 50,
        "versions": model_file.library_versions(),
        "data": {
            **KEYS,
            "speakers": ["01", "02"],
            "clips": {label: {"spoken": 7, "sung": 2} for label in LABELS},
            "ravdess": False,
            **(data or {}),
        },
        "results": {"test": {"seen_speakers": None, "new_speakers": None}, "cross_validated": None},
        "temperature": 1.625,
        "parameters": 24_963,
    }
    return ModelMetadata(**{**values, **changes})


def saved(network: Any, made: ModelMetadata, path: str = "m.keras") -> Path:
    model_file.save(network, made, Path(path))
    return Path(path)


@pytest.fixture
def card(network: Any) -> Callable[..., str]:
    """The card of a model file that differs in this from `metadata()`."""
    return lambda **changes: report.model_card(saved(network, metadata(**changes)))


def tables(text: str) -> list[list[list[str]]]:
    """Cells of every table, as a Markdown reader cuts them."""
    found: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif found[-1]:
            found.append([])
    return [table for table in found if table]


def test_describe_tells_what_a_file_holds_with_hashes_of_its_clips(network) -> None:
    path = saved(network, metadata())

    facts = report.describe_model(path)

    assert facts["model"] == "m.keras"
    assert facts["labels"] == list(LABELS)
    assert (facts["version"], facts["epochs"], facts["seed"]) == ("v1", 50, 3)
    assert (facts["temperature"], facts["parameters"]) == (1.625, 24_963)
    features = facts["features"]
    assert (features["set"], features["sr"], features["hop_length"]) == ("mfcc", 22050, 256)
    assert facts["size_bytes"] == path.stat().st_size
    assert facts["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    # The order of the clips does not matter.
    in_order = "\n".join(sorted(KEYS["train"])).encode()
    assert facts["data"]["train"] == {"n": 2, "sha256": hashlib.sha256(in_order).hexdigest()}
    assert facts["data"]["new_speakers"]["n"] == 0
    assert facts["data"]["speakers"] == ["01", "02"]


def test_markdown_of_the_same_file_is_the_same_wherever_it_lies(network, measured: dict[str, Any]) -> None:
    path = saved(network, metadata(results={"test": {}, "cross_validated": measured}))
    Path("elsewhere").mkdir()
    copy = Path(shutil.copy(path, "elsewhere"))
    assert report.model_card(path) == report.model_card(copy)


def test_markdown_tells_corpora_licences_and_citations(card: Callable[..., str]) -> None:
    counts = {"ravdess": 5, "nemo": 4, "aesdd": 3, "my|own": 2}
    corpora = {name: {"clips": n, "of_unknown_speakers": 0} for name, n in counts.items()}

    own, of_ravdess, mixed = card(), card(data={"ravdess": True}), card(data={"corpora": corpora})

    for words in ("Livingstone", "10.1371/journal.pone.0196391", "CC BY-NC-SA 4.0", "North American English"):
        assert words in of_ravdess
        assert words not in own
    assert "What holds for the recordings it was trained on holds for the model." in own
    assert "Livingstone" in mixed
    assert tables(mixed)[1][2:] == [
        ["ravdess", "5", "CC BY-NC-SA 4.0"],
        ["nemo", "4", "CC BY-NC-SA 4.0"],
        ["aesdd", "3", "CC BY 4.0"],
        ["my\\|own", "2", "see its authors"],
    ]
    licence = mixed.partition("## Licence")[2]
    assert "aesdd: CC BY 4.0; my\\|own: see its authors." in licence


def test_markdown_tells_scores_on_corpora_left_out_and_what_is_unlike_the_training(card) -> None:
    results = {
        "other_corpora": {
            "nemo": {"n": 40, "accuracy": 0.5, "uar": 0.375, "labels": ["happy", "angry"], "unlike": 0.25},
            "aesdd": {"n": 8, "accuracy": 1.0, "uar": 1.0, "labels": ["happy"], "unlike": None},
        }
    }
    text = card(results=results, unlike=41.26)

    assert tables(text)[-1][2:] == [
        ["nemo", "40", "50.0 %", "37.5 %", "2", "25.0 %"],
        ["aesdd", "8", "100.0 %", "100.0 %", "1", "–"],
    ]
    assert "it is not known how good it is" not in text
    assert "further than 41.3 from those of the training" in text


def test_markdown_and_describe_know_v3_too() -> None:
    made = metadata(version="v3", feature_set="whisper", config=Config().to_dict())
    path = saved(v3.build((3072,), 3, v3.PRESET), made)

    assert report.describe_model(path)["features"]["sr"] == 16000
    assert "mono sound at 16000 Hz" in report.model_card(path)


def test_markdown_has_the_numbers_of_the_results(card, measured: dict[str, Any]) -> None:
    results = {"test": {}, "cross_validated": measured}
    measured["per_class"]["neutral"]["precision"] = None  # it was never answered
    text = card(results=results)

    metrics, labels, parts, bins = tables(text)[-4:]
    for (_, value, interval), metric in zip(metrics[2:], METRICS, strict=True):
        scale, unit = (1, "") if metric in ("nll", "brier") else (100, " %")
        places = 1 if unit else 3
        pooled, low, high = (
            f"{scale * v:.{places}f}{unit}" for v in (measured[metric]["pooled"], *measured[metric]["ci95"])
        )
        assert (value, interval) == (pooled, f"{low} to {high}")
    assert [row[:2] for row in labels[2:]] == [
        [label, str(row["n"])] for label, row in measured["per_class"].items()
    ]
    recalls = [f"{100 * row['recall']:.1f} %" for row in measured["per_class"].values()]
    assert [row[3] for row in labels[2:]] == recalls
    assert labels[2][2] == "–"
    assert len(parts) - 2 == sum(len(values) for values in measured["slices"].values())
    assert [row[1] for row in bins[2:]] == [f"{100 * b['accuracy']:.1f} %" for b in measured["reliability"]]
    assert f"{measured['n_answers']} answers" in text
    assert "temperature of 1.625" in text
    assert "it is not known how good it is" not in text


def test_markdown_tells_scores_on_held_out_clips_or_that_nothing_was_measured(card) -> None:
    scores = {"n": 60, "accuracy": 0.625, "uar": 0.5}
    test = {"seen_speakers": scores, "new_speakers": {**scores, "speakers": ["07", "08"]}}
    text = card(results={"test": test})
    unmeasured = card(temperature=None)

    assert "60 recordings of speakers who were held out (07 08): accuracy 62.5 %, UAR 50.0 %" in text
    assert "60 held-out recordings of speakers it was trained on: accuracy 62.5 %" in text
    assert "it is not known how good it is" not in text
    assert "it is not known how good it is" in unmeasured
    assert "never corrected on unseen speakers" in unmeasured
    assert "unlike" not in unmeasured


def test_markdown_shows_hostile_labels_and_speakers_as_text_only(card, measured: dict[str, Any]) -> None:
    labels = ("a|b", "<script>alert(1)</script>", "new line `c`")
    measured["per_class"] = dict(zip(labels, measured["per_class"].values(), strict=True))
    measured["slices"]["speaker"]["<img src=x>|new\nline"] = measured["slices"]["speaker"]["ravdess/01"]
    clips = {label: {"spoken": 7, "sung": 2} for label in labels}

    text = card(
        labels=labels,
        results={"test": {}, "cross_validated": measured},
        data={"speakers": ["<b>", "c|d"], "clips": clips},
    )

    for markup in ("<script", "<img", "<b>"):
        assert markup not in text
    assert "&lt;script>alert(1)" in text
    assert "new\nline" not in text
    for table in tables(text):
        assert {len(row) for row in table} == {len(table[0])}
    assert [row[0] for row in tables(text)[-3][2:]] == [
        "a\\|b",
        "&lt;script>alert(1)&lt;/script>",
        "new line 'c'",
    ]


def test_markdown_of_an_older_file_tells_what_it_knows(network) -> None:
    data = {**KEYS, "speakers": ["01"]}
    old = replace(metadata(temperature=None, parameters=0, results={"test": {}}), data=data)

    text = report.model_card(saved(network, old))

    assert "2 recordings of 1 speakers (01)" in text
    assert "unknown number of parameters" in text
    assert "RAVDESS" not in text


def test_describe_tells_whether_the_litert_file_is_there_and_belongs(network) -> None:
    path = saved(network, metadata(litert=hashlib.sha256(b"own").hexdigest()), "m.keras")

    missing = report.describe_model(path)["litert"]
    Path("m.tflite").write_bytes(b"another")
    foreign = report.describe_model(path)["litert"]
    Path("m.tflite").write_bytes(b"own")
    own = report.describe_model(path)["litert"]

    assert (missing["usable"], foreign["usable"], own["usable"]) == (False, False, True)
    assert "cannot be read" in missing["problem"]
    assert "does not belong to" in foreign["problem"]
    assert report.describe_model(saved(network, metadata(), "n.keras"))["litert"] is None
