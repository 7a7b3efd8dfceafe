"""What becomes of answers and timelines: the records of docs/formats.md, and tables in a notebook."""

from __future__ import annotations

import hashlib
import html
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from speechemo_cli.files import display_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import TypeIs

    from speechemo_cli.config import Config
    from speechemo_cli.inference.predictor import Answer, Predictor, Refusal
    from speechemo_cli.inference.timeline import Timeline

SCHEMA = 1
# Rows of a table in a notebook. A recording of hours has thousands of segments.
_MOST_ROWS = 30


class Result:
    """What came of a clip or a recording: shows itself in a notebook and turns into a dict."""

    path: str
    channel: str | None
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the record of docs/formats.md, without `model` and `key`, which are those of a run."""
        record: dict[str, Any] = Style("", ()).record(self)  # type: ignore[arg-type]
        return {name: value for name, value in record.items() if name not in ("model", "key")}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._title()}>"

    def _repr_html_(self) -> str:
        rows = self._rows()
        more = [f"and {len(rows) - _MOST_ROWS} more"] if len(rows) > _MOST_ROWS else []
        return html_table(self._title(), rows[:_MOST_ROWS], [*more, *self.warnings])

    def _title(self) -> str:
        side = f" [{self.channel}]" if self.channel else ""
        return f"{display_name(self.path)}{side}: {display_name(self._summary())}"

    def _summary(self) -> str:
        raise NotImplementedError

    def _rows(self) -> Sequence[tuple[str, str, float | None]]:
        """Return what stands in each row of its table, and the length of the bar: 0 to 1."""
        return ()


def html_table(title: str, rows: Sequence[tuple[str, str, float | None]], notes: Sequence[str] = ()) -> str:
    """Lay out rows of two cells and, where there is a number from 0 to 1, a bar. Everything is escaped."""

    def cell(content: str) -> str:
        return f'<td style="text-align: left">{content}</td>'

    def safe(text: str) -> str:
        return html.escape(display_name(text))

    bar = '<div style="width: {:.0f}px; height: 0.8em; background: #0072b2"></div>'
    lines = [
        cell(safe(name)) + cell(safe(value)) + cell("" if share is None else bar.format(100 * share))
        for name, value, share in rows
    ]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<b>{safe(title)}</b><table>{body}</table>" + "<br>".join(map(safe, notes))


def refused(item: Answer | Timeline | Refusal) -> TypeIs[Refusal]:
    """Whether a clip got no answer."""
    # By its field, not by its class, which would have to be imported to print a --help.
    return hasattr(item, "error")


class Style(NamedTuple):
    """What all records of a run share.

    Attributes
    ----------
    model : str
        As it is shown.
    labels : tuple of str
        What the model could choose from.
    restricted : bool
        Whether it could have answered more, but for --labels.
    top : int or None
        How many of the most probable labels to write; None for all, in the one order.
    key : str
        Stands for the model and the options: an answer with another key is not taken up by --resume.
    """

    model: str
    labels: tuple[str, ...]
    restricted: bool = False
    top: int | None = None
    key: str = ""

    @classmethod
    def of(
        cls,
        predictor: Predictor,
        config: Config,
        *,
        min_confidence: float = 0.0,
        channel: str = "mix",
        top: int | None = None,
    ) -> Style:
        """Return the style of a predictor's records; the options are those it was opened with."""
        from speechemo_cli.models import model_file

        metadata, labels = predictor.metadata, predictor.labels
        model = metadata.litert or metadata.sha256
        settings = [model, labels, min_confidence, channel, top, asdict(config.audio)]
        key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
        return cls(model_file.shown(Path(predictor.path)), labels, labels != metadata.labels, top, key)

    def probabilities(self, answer: Answer) -> dict[str, float]:
        """Return the probabilities to write."""
        found = answer.probabilities
        if self.top is not None:
            best = sorted(found, key=found.__getitem__, reverse=True)[: self.top]
            found = {label: found[label] for label in best}
        return {label: round(p, 6) for label, p in found.items()}

    def record(self, item: Answer | Timeline | Refusal) -> dict[str, Any]:
        """Return a record as JSON has it."""
        head = _head(item)
        if refused(item):
            return {**head, "status": "error", "error": item.error}
        if hasattr(item, "segments"):
            return {**head, **self._of_timeline(item), **self._restriction()}
        record = {
            **head,
            "status": "ok",
            "label": item.label,
            "confidence": round(item.confidence, 6),
            "probabilities": self.probabilities(item),
            "duration_s": round(item.duration_s, 3),
            "model": self.model,
            "warnings": list(item.warnings),
            "sha256": item.sha256,
            "key": self.key,
        }
        return {**record, **self._restriction()}

    def _of_timeline(self, item: Any) -> dict[str, Any]:
        return {
            "status": "ok",
            "duration_s": round(item.duration_s, 3),
            "segments": [_rounded(asdict(segment)) for segment in item.segments],
            "summary": {label: _rounded(part) for label, part in item.summary.items()},
            "model": self.model,
            "warnings": list(item.warnings),
        }

    def document(self, name: str, records: list[dict[str, Any]]) -> dict[str, Any]:
        """Return all records as one document; `name` is `clips` or `recordings`."""
        return {"schema": SCHEMA, "command": "predict", "model": self.model, name: records}

    def _restriction(self) -> dict[str, Any]:
        return {"restricted_to": list(self.labels)} if self.restricted else {}


def _head(item: Answer | Timeline | Refusal) -> dict[str, Any]:
    channel = {} if item.channel is None else {"channel": item.channel}
    return {"schema": SCHEMA, "path": str(item.path), **channel}  # not one of numpy's


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    """Seconds to the millisecond, shares and probabilities to six places."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            out[key] = _rounded(value)
        elif isinstance(value, float):
            out[key] = round(value, 3 if key.endswith("_s") else 6)
        else:
            out[key] = value
    return out
