"""What predict writes, to the byte: the files in tests/golden say what each format looks like."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from speechemo_cli.cli import terminal
from speechemo_cli.cli.answers import WRITERS
from speechemo_cli.errors import ClipError
from speechemo_cli.files import display_name
from speechemo_cli.inference import Style
from speechemo_cli.inference.predictor import Answer

GOLDEN = Path(__file__).with_name("golden")
LABELS = ("neutral", "happy", "sad", "angry")
FORMATS = {"jsonl": "jsonl", "json": "json", "csv": "csv", "label": "label.txt", "table": "table.txt"}
ODD_NAME = 'a [b]\nc, "d" é\r.wav'


def answer(path: str, label: str, shares: Sequence[float], **more: object) -> Answer:
    probabilities = dict(zip(LABELS, shares, strict=True))
    given = {"duration_s": 1.5, "sha256": f"{len(path):064x}", **more}
    return Answer(path, label, max(shares), probabilities, **given)  # type: ignore[arg-type]


ITEMS: list[Answer | ClipError] = [
    answer("clips/a.wav", "angry", (0.1, 0.05, 0.15, 0.7)),
    ClipError("clips/broken.wav", "no such file"),
    # More digits than anybody needs, and a tie.
    answer("-", "neutral", (1 / 3, 1 / 3, 0.0000004, 1 / 3 - 0.0000004), duration_s=2.00049),
    answer("call.wav", "sad", (0.0, 0.0, 1.0, 0.0), channel="left"),
    ClipError("call.wav", "silent (peak below 0.0001 of full scale)", channel="right"),
    answer("hall.wav", "neutral", (0.4, 0.2, 0.2, 0.2), warnings=("too short, by much", '"noisy"')),
    answer(ODD_NAME, "uncertain", (0.28, 0.24, 0.24, 0.24)),
    answer(os.fsdecode(b"caf\xe9.wav"), "sad", (0.0, 0.004, 0.99, 0.006)),
]
STYLE = Style("models/v2.keras", LABELS, key="0123456789abcdef")
FEW = ("happy", "angry")
# name in tests/golden: what the records share, and the records
VARIANTS: dict[str, tuple[Style, list[Answer | ClipError]]] = {
    "predict": (STYLE, ITEMS),
    "predict.top": (STYLE._replace(top=2), ITEMS),
    "predict.labels": (
        STYLE._replace(labels=FEW, restricted=True),
        [
            Answer("a.wav", "angry", 0.75, {"happy": 0.25, "angry": 0.75}, 1.5, sha256="f" * 64),
            ClipError("broken.wav", "empty file"),
        ],
    ),
    "predict.none": (STYLE, []),
}


def pieces(format_: str, style: Style, items: Sequence[Answer | ClipError]) -> list[str]:
    """What is written at the start, for each record, and at the end."""
    writer = WRITERS[format_](style)
    return [writer.begin(), *map(writer.write, items), writer.end()]


def written(format_: str, variant: str = "predict") -> str:
    return "".join(pieces(format_, *VARIANTS[variant]))


@pytest.fixture(autouse=True)
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the table drawn as on a terminal that knows the block characters."""
    monkeypatch.setattr(terminal, "draws_blocks", lambda: True)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("format_", FORMATS)
def test_writers_write_what_the_golden_files_hold(format_: str, variant: str) -> None:
    golden = GOLDEN / f"{variant}.{FORMATS[format_]}"

    assert written(format_, variant).encode("utf-8", "surrogateescape") == golden.read_bytes()


def test_table_has_numbers_for_bars_on_an_ascii_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "draws_blocks", lambda: False)

    text = written("table")

    assert text.encode() == (GOLDEN / "predict.ascii.table.txt").read_bytes()
    assert text.replace("é", "").isascii()


@pytest.mark.parametrize("format_", FORMATS)
def test_writers_write_each_clip_in_whole_lines(format_: str) -> None:
    _, *parts, end = pieces(format_, STYLE, ITEMS)

    assert len(parts) == len(ITEMS)
    assert all(part.endswith("\n") for part in parts)
    assert bool(end) == (format_ == "json")


NAMES = st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name).map(os.fsdecode)


def names_written(format_: str, names: list[str]) -> str:
    items = [
        ClipError(name, "empty file")
        if i % 2
        else Answer(name, "happy", 0.75, {"neutral": 0.25, "happy": 0.75}, 1.5)
        for i, name in enumerate(names)
    ]
    return "".join(pieces(format_, Style("m.keras", LABELS[:2]), items))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(names=st.lists(NAMES, min_size=1, max_size=4))
@example(names=['a,\n"b\r', "\r\n", "\udce9", "\u2028\x85\x0b", "=1+1", " ", "\\"])
def test_csv_and_json_keep_any_name(names: list[str]) -> None:
    lines = names_written("jsonl", names).splitlines()
    assert [json.loads(line)["path"] for line in lines] == names
    assert [clip["path"] for clip in json.loads(names_written("json", names))["clips"]] == names
    # As bytes on the disk, and back.
    file = names_written("csv", names).encode("utf-8", "surrogateescape")
    rows = csv.DictReader(io.StringIO(file.decode("utf-8", "surrogateescape"), newline=""))
    assert [row["path"] for row in rows] == names


@settings(max_examples=100, deadline=None, derandomize=True)
@given(name=NAMES)
def test_table_shows_any_name_on_one_line(name: str) -> None:
    assert display_name(name).isprintable()
    assert "\n" not in names_written("table", [name]).splitlines()[-1]
    assert len(names_written("table", [name]).splitlines()) == 2
