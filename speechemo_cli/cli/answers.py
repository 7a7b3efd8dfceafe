"""How answers are written: one writer a format, as in docs/formats.md."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from speechemo_cli.cli import terminal
from speechemo_cli.errors import ClipError
from speechemo_cli.files import display_name
from speechemo_cli.inference.results import Style

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from speechemo_cli.inference.predictor import Answer

_BARS = " ▁▂▃▄▅▆▇█"


def name(item: Answer | ClipError) -> str:
    """Name a clip for display, and its channel where only that was used."""
    return display_name(item.path) + (f" [{item.channel}]" if item.channel else "")


class Writer:
    """Writes records as they come.

    Parameters
    ----------
    style : Style
    emit : callable
        Takes a text of whole lines.
    """

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
    import csv
    import io

    out = io.StringIO()
    # Quotes what holds a mark of its line's end: a carriage return too, which no reader takes bare.
    csv.writer(out, lineterminator="\r\n").writerow(cells)
    return out.getvalue().removesuffix("\r\n") + "\n"


class _Csv(Writer):
    def begin(self) -> None:
        labels = self.style.labels
        ends = ["duration_s", "warnings", "error", "channel", "sha256", "key"]
        self._line(["path", "status", "label", "confidence", *labels, *ends])

    def write(self, item: Answer | ClipError) -> None:
        record = self.style.record(item)
        probabilities = record.get("probabilities", {})
        self._line(
            [
                record["path"],
                record["status"],
                record.get("label", ""),
                record.get("confidence", ""),
                *(probabilities.get(label, "") for label in self.style.labels),
                record.get("duration_s", ""),
                "; ".join(record.get("warnings", ())),
                record.get("error", ""),
                record.get("channel", ""),
                record.get("sha256", ""),
                record.get("key", ""),
            ]
        )

    def _line(self, cells: list[Any]) -> None:
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
        names = "most probable" if self.style.top is not None else self._cells(self._short)
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

    @staticmethod
    def _short(label: str) -> str:
        return label[:4]

    def _bar(self, p: float) -> str:
        return _BARS[round(p * (len(_BARS) - 1))] * 3 if self._blocks else f"{100 * p:3.0f}"


WRITERS: dict[str, type[Writer]] = {
    "table": _Table,
    "json": _Json,
    "jsonl": _Jsonl,
    "csv": _Csv,
    "label": _Label,
}
