"""The formats of answers, as in docs/formats.md: a writer for each, and a reader for `--resume`."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from textwrap import indent
from typing import TYPE_CHECKING, Any

from speechemo_cli.cli import terminal
from speechemo_cli.errors import ClipError
from speechemo_cli.files import display_name
from speechemo_cli.inference import Result, Style

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from speechemo_cli.inference.predictor import Answer

    # By channel, of one content; by path and SHA-256, of a run.
    ByChannel = dict[str | None, Answer]
    Previous = dict[str, dict[str, ByChannel]]

RESUMABLE = ("jsonl", "csv")
# The columns of CSV before and after the labels.
_FIRST = ("path", "status", "label", "confidence")
_LAST = ("duration_s", "warnings", "error", "channel", "sha256", "key")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_BARS = " ▁▂▃▄▅▆▇█"


def name(item: Result | ClipError) -> str:
    """Name a clip for display, and its channel where only that was used."""
    return display_name(item.path) + (f" [{item.channel}]" if item.channel else "")


class Writer:
    """Writes the records of a run, or of a file of its own, as text of whole lines."""

    def __init__(self, style: Style) -> None:
        self.style = style

    def begin(self) -> str:
        """Write what belongs before the first record."""
        return ""

    def write(self, item: Answer | ClipError) -> str:
        """Write one record."""
        raise NotImplementedError

    def end(self) -> str:
        """Write what belongs after the last record."""
        return ""


class _Jsonl(Writer):
    def write(self, item: Answer | ClipError) -> str:
        return json.dumps(self.style.record(item)) + "\n"


class _Json(Writer):
    """One document, written piece by piece, so that memory does not grow with the clips."""

    def begin(self) -> str:
        empty = json.dumps(self.style.document([]), indent=2)
        # The line before the next record, held back as a comma may belong to it; and what stands in its place
        # where no record follows.
        self._held, self._end = empty.removesuffix("]\n}"), f"{empty}\n"
        return ""

    def write(self, item: Answer | ClipError) -> str:
        record = indent(json.dumps(self.style.record(item), indent=2), "    ")
        text = f"{self._held}\n{record.removesuffix('    }')}"
        self._held, self._end = "    },", "    }\n  ]\n}\n"
        return text

    def end(self) -> str:
        return self._end


def csv_line(cells: Sequence[Any]) -> str:
    """Write one line of CSV, with its end."""
    out = io.StringIO()
    # Quotes what holds a mark of its line's end: a carriage return too, which no reader takes bare.
    csv.writer(out, lineterminator="\r\n").writerow(cells)
    return out.getvalue().removesuffix("\r\n") + "\n"


class _Csv(Writer):
    def begin(self) -> str:
        return csv_line([*_FIRST, *self.style.labels, *_LAST])

    def write(self, item: Answer | ClipError) -> str:
        record = self.style.record(item)
        probabilities = record.get("probabilities", {})
        record["warnings"] = "; ".join(record.get("warnings", ()))
        return csv_line(
            [
                *(record.get(column, "") for column in _FIRST),
                *(probabilities.get(label, "") for label in self.style.labels),
                *(record.get(column, "") for column in _LAST),
            ]
        )


class _Label(Writer):
    """The bare word, one line a clip; `error` keeps the place of a clip without an answer."""

    def write(self, item: Answer | ClipError) -> str:
        if isinstance(item, ClipError):
            return "error\n"
        if self.style.top is None or item.label not in item.probabilities:  # `uncertain` is no label
            return f"{item.label}\n"
        return " ".join(self.style.probabilities(item)) + "\n"


class _Table(Writer):
    """Fixed columns with the path last, so that rows can be printed as they come and no name is cut."""

    def begin(self) -> str:
        names = "most probable" if self.style.top is not None else self._cells(lambda label: label[:4])
        return self._row("label", "conf.", names, "clip")

    def write(self, item: Answer | ClipError) -> str:
        if isinstance(item, ClipError):
            return self._row("–" if terminal.draws_blocks() else "-", "", f"{item.error}: {name(item)}")
        probabilities = self.style.probabilities(item)
        if self.style.top is None:
            cells = self._cells(lambda label: _bar(probabilities[label]))
        else:
            cells = ", ".join(f"{label} {p:.0%}" for label, p in probabilities.items())
        warnings = [f"({'; '.join(item.warnings)})"] if item.warnings else []
        return self._row(item.label, f"{item.confidence:.0%}", cells, name(item), *warnings)

    def _row(self, label: str, confidence: str, *more: str) -> str:
        width = max(map(len, ("uncertain", *self.style.labels)))
        return "  ".join([f"{label:<{width}} {confidence:>6}", *more]) + "\n"

    def _cells(self, cell: Callable[[str], str]) -> str:
        return " ".join(f"{cell(label):<4}" for label in self.style.labels)


def _bar(p: float) -> str:
    return _BARS[round(p * (len(_BARS) - 1))] * 3 if terminal.draws_blocks() else f"{100 * p:3.0f}"


WRITERS: dict[str, type[Writer]] = {
    "table": _Table,
    "json": _Json,
    "jsonl": _Jsonl,
    "csv": _Csv,
    "label": _Label,
}


def load_previous(lines: Iterable[str], format_: str, style: Style) -> Previous:
    """Take the answers of this style out of what was written: the last one of each channel.

    Those with another key, of another model or with other options, are left alone; so is what cannot be
    an answer: anybody may have edited the file.
    """
    found: Previous = {}
    for record in _csv_records(lines) if format_ == "csv" else _json_records(lines):
        try:
            answer = _answer(record, style)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            continue  # not a record of this run
        found.setdefault(answer.path, {}).setdefault(answer.sha256, {})[answer.channel] = answer
    return found


def _csv_records(lines: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    header: list[str] = []
    rows = csv.reader(lines)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error:
            continue  # not a row of ours
        if row[:2] == ["path", "status"]:
            header = row
        elif len(row) == len(header):
            yield dict(zip(header, row, strict=True))


def _json_records(lines: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):
            continue


def _answer(record: Mapping[str, Any], style: Style) -> Answer:
    from speechemo_cli.inference.predictor import UNCERTAIN, Answer

    probabilities = record.get("probabilities") or {
        column: cell for column, cell in record.items() if column not in (*_FIRST, *_LAST) and cell != ""
    }
    warnings = record["warnings"]
    answer = Answer(
        record["path"],
        record["label"],
        float(record["confidence"]),
        {label: float(p) for label, p in probabilities.items()},
        float(record["duration_s"]),
        tuple(filter(None, warnings.split("; ")) if isinstance(warnings, str) else warnings),
        record.get("channel") or None,
        record["sha256"],
    )
    possible = (
        (record["status"], record["key"]) == ("ok", style.key)
        and isinstance(answer.path, str)
        and answer.label in (*style.labels, UNCERTAIN)
        and set(answer.probabilities) <= set(style.labels)
        and all(0 <= share <= 1 for share in (answer.confidence, *answer.probabilities.values()))
        and 0 <= answer.duration_s < math.inf
        and all(isinstance(warning, str) for warning in answer.warnings)
        and isinstance(answer.channel, str | None)
        and _SHA256.fullmatch(answer.sha256)
    )
    if not possible:
        raise ValueError("not an answer, or one to another question")
    return answer
