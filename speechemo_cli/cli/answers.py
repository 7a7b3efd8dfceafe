"""The formats of answers, as in docs/formats.md: a writer for each, and a reader for `--resume`."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from typing import TYPE_CHECKING, Any

from speechemo_cli.cli import terminal
from speechemo_cli.errors import ClipError
from speechemo_cli.files import display_name
from speechemo_cli.inference.results import Style

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from speechemo_cli.inference.predictor import Answer

    # By path and SHA-256; one answer a channel.
    Previous = dict[str, dict[str, list[Answer]]]

RESUMABLE = ("jsonl", "csv")
# The columns of CSV before and after the labels.
_FIRST = ("path", "status", "label", "confidence")
_LAST = ("duration_s", "warnings", "error", "channel", "sha256", "key")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_BARS = " ▁▂▃▄▅▆▇█"


def name(item: Answer | ClipError) -> str:
    """Name a clip for display, and its channel where only that was used."""
    return display_name(item.path) + (f" [{item.channel}]" if item.channel else "")


class Writer:
    """Writes records as they come; `emit` takes a text of whole lines."""

    def __init__(self, style: Style, emit: Callable[[str], None]) -> None:
        self.style = style
        self.emit = emit
        self.begin()

    def begin(self) -> None:
        """Write what belongs before the first record."""

    def write(self, item: Answer | ClipError) -> None:
        """Write one record."""
        raise NotImplementedError

    def close(self) -> None:
        """Write what belongs after the last record."""


class _Jsonl(Writer):
    def write(self, item: Answer | ClipError) -> None:
        self.emit(json.dumps(self.style.record(item)) + "\n")


class _Json(Writer):
    """One document, written piece by piece, so that memory does not grow with the clips."""

    def begin(self) -> None:
        # What comes before the next record. No line is begun here: on a terminal a bar comes next.
        self._before = self._head = json.dumps(self.style.document([]), indent=2)[: -len("]\n}")]

    def write(self, item: Answer | ClipError) -> None:
        lines = json.dumps(self.style.record(item), indent=2).splitlines()
        self.emit("\n".join([self._before, *(f"    {line}" for line in lines)]))
        self._before = ","

    def close(self) -> None:
        self.emit(f"{self._head}]\n}}\n" if self._before == self._head else "\n  ]\n}\n")


def csv_line(cells: Sequence[Any]) -> str:
    """Write one line of CSV, with its end."""
    out = io.StringIO()
    # Quotes what holds a mark of its line's end: a carriage return too, which no reader takes bare.
    csv.writer(out, lineterminator="\r\n").writerow(cells)
    return out.getvalue().removesuffix("\r\n") + "\n"


class _Csv(Writer):
    def begin(self) -> None:
        self.emit(csv_line([*_FIRST, *self.style.labels, *_LAST]))

    def write(self, item: Answer | ClipError) -> None:
        record = self.style.record(item)
        probabilities = record.get("probabilities", {})
        record["warnings"] = "; ".join(record.get("warnings", ()))
        cells = [
            *(record.get(column, "") for column in _FIRST),
            *(probabilities.get(label, "") for label in self.style.labels),
            *(record.get(column, "") for column in _LAST),
        ]
        self.emit(csv_line(cells))


class _Label(Writer):
    """The bare word, one line a clip; `error` keeps the place of a clip without an answer."""

    def write(self, item: Answer | ClipError) -> None:
        if isinstance(item, ClipError):
            self.emit("error\n")
        elif self.style.top is None or item.label not in item.probabilities:  # `uncertain` is no label
            self.emit(f"{item.label}\n")
        else:
            self.emit(" ".join(self.style.probabilities(item)) + "\n")


class _Table(Writer):
    """Fixed columns with the path last, so that rows can be printed as they come and no name is cut."""

    def begin(self) -> None:
        self._width = max(len("uncertain"), *(len(label) for label in self.style.labels))
        self._blocks = terminal.draws_blocks()
        names = "most probable" if self.style.top is not None else self._cells(lambda label: label[:4])
        self.emit(f"{'label':<{self._width}} {'conf.':>6}  {names}  clip\n")

    def write(self, item: Answer | ClipError) -> None:
        if isinstance(item, ClipError):
            self.emit(f"{'–' if self._blocks else '-':<{self._width}} {'':>6}  {item.error}: {name(item)}\n")
            return
        probabilities = self.style.probabilities(item)
        if self.style.top is None:
            cells = self._cells(lambda label: self._bar(probabilities[label]))
        else:
            cells = ", ".join(f"{label} {p:.0%}" for label, p in probabilities.items())
        warnings = f"  ({'; '.join(item.warnings)})" if item.warnings else ""
        self.emit(f"{item.label:<{self._width}} {item.confidence:>6.0%}  {cells}  {name(item)}{warnings}\n")

    def _cells(self, cell: Callable[[str], str]) -> str:
        return " ".join(f"{cell(label):<4}" for label in self.style.labels)

    def _bar(self, p: float) -> str:
        return _BARS[round(p * (len(_BARS) - 1))] * 3 if self._blocks else f"{100 * p:3.0f}"


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
        if record.get("status") != "ok" or record.get("key") != style.key:
            continue
        try:
            answer = _answer(record)
            possible = _is_possible(answer, style.labels)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            continue  # not a record of ours
        if possible:
            group = found.setdefault(answer.path, {}).setdefault(answer.sha256, [])
            group[:] = [*(one for one in group if one.channel != answer.channel), answer]
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
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            yield record


def _answer(record: Mapping[str, Any]) -> Answer:
    from speechemo_cli.inference.predictor import Answer

    probabilities = record.get("probabilities") or {
        column: cell for column, cell in record.items() if column not in (*_FIRST, *_LAST) and cell != ""
    }
    warnings = record["warnings"]
    return Answer(
        record["path"],
        record["label"],
        float(record["confidence"]),
        {label: float(p) for label, p in probabilities.items()},
        float(record["duration_s"]),
        tuple(filter(None, warnings.split("; ")) if isinstance(warnings, str) else warnings),
        record.get("channel") or None,
        record["sha256"],
    )


def _is_possible(answer: Answer, labels: tuple[str, ...]) -> bool:
    from speechemo_cli.inference.predictor import UNCERTAIN

    shares = (answer.confidence, *answer.probabilities.values())
    return (
        isinstance(answer.path, str)
        and answer.label in (*labels, UNCERTAIN)
        and set(answer.probabilities) <= set(labels)
        and all(0 <= share <= 1 for share in shares)
        and 0 <= answer.duration_s < math.inf
        and all(isinstance(warning, str) for warning in answer.warnings)
        and isinstance(answer.channel, str | None)
        and _SHA256.fullmatch(answer.sha256) is not None
    )
