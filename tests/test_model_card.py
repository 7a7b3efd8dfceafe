"""The model card says what the file says, and trusts no name that stands in it."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_report import result as protocol_result

from speechemo_cli.config import Config, MfccConfig
from speechemo_cli.evaluation import model_card
from speechemo_cli.evaluation.metrics import METRICS
from speechemo_cli.models import model_file, v1, v3
from speechemo_cli.models.metadata import ModelMetadata

LABELS = ("neutral", "happy", "angry")
KEYS = {"train": ["b" * 64, "a" * 64], "seen_speakers": ["c" * 64], "new_speakers": []}


@pytest.fixture(scope="module")
def network() -> Any:
    return v1.build((40,), 3, v1.PRESET)


@pytest.fixture
def measured() -> dict[str, Any]:
    """Results of a cross-validation with numbers of every kind."""
    return protocol_result(LABELS).to_dict()


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
    return lambda **changes: model_card.markdown(saved(network, metadata(**changes)))


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

    facts = model_card.describe(path)

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
    assert model_card.markdown(path) == model_card.markdown(copy)


def test_markdown_imports_no_keras(network) -> None:
    saved(network, metadata())
    code = (
        "import sys; from pathlib import Path; from speechemo_cli.evaluation import model_card\n"
        "text = model_card.markdown(Path('m.keras'))\n"
        "print(len(text) > 1000, sorted({'keras', 'tensorflow', 'librosa'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "True []\n"


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

    assert model_card.describe(path)["features"]["sr"] == 16000
    assert "mono sound at 16000 Hz" in model_card.markdown(path)


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
    old = replace(
        metadata(temperature=None, parameters=0), data={**KEYS, "speakers": ["01"]}, results={"test": {}}
    )

    text = model_card.markdown(saved(network, old))

    assert "2 recordings of 1 speakers (01)" in text
    assert "unknown number of parameters" in text
    assert "RAVDESS" not in text


def test_describe_tells_whether_the_litert_file_is_there_and_belongs(network) -> None:
    path = saved(network, metadata(litert=hashlib.sha256(b"own").hexdigest()), "m.keras")

    missing = model_card.describe(path)["litert"]
    Path("m.tflite").write_bytes(b"another")
    foreign = model_card.describe(path)["litert"]
    Path("m.tflite").write_bytes(b"own")
    own = model_card.describe(path)["litert"]

    assert (missing["usable"], foreign["usable"], own["usable"]) == (False, False, True)
    assert "cannot be read" in missing["problem"]
    assert "does not belong to" in foreign["problem"]
    assert model_card.describe(saved(network, metadata(), "n.keras"))["litert"] is None
