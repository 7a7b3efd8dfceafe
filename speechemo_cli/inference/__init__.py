"""From a clip to an answer, from a recording to a timeline.

What both share is here: the records of docs/formats.md, tables in a notebook, and what answers requests for
both in a process of its own.
"""

from __future__ import annotations

import hashlib
import html
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from speechemo_cli.errors import SCHEMA, AudioError, ClipError
from speechemo_cli.files import display_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from speechemo_cli.inference.predictor import Answer, Predictor

# Rows of a table in a notebook. A recording of hours has thousands of segments.
_MOST_ROWS = 30
# Columns of the waveform that the page of `serve` draws.
_COLUMNS = 500


class Result:
    """What came of a clip or a recording: shows itself in a notebook and turns into a dict."""

    path: str
    channel: str | None
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the record of docs/formats.md, without `model` and `key`, which are those of a run."""
        record = Style("", ()).record(self)
        return {name: value for name, value in record.items() if name not in ("model", "key")}

    def _record(self, style: Style) -> dict[str, Any]:
        """Return what a record holds beside the fields of all records."""
        raise NotImplementedError

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
        raise NotImplementedError


def html_table(title: str, rows: Sequence[tuple[str, str, float | None]], notes: Sequence[str] = ()) -> str:
    """Lay out rows of two cells and, where there is a number from 0 to 1, a bar. Everything is escaped."""

    def cell(content: str) -> str:
        return f'<td style="text-align: left">{content}</td>'

    def safe(text: str) -> str:
        return html.escape(display_name(text))

    bar = '<div style="width: {:.0f}px; height: 0.8em; background: #0072b2"></div>'
    body = "".join(
        f"<tr>{cell(safe(name))}{cell(safe(value))}{cell('' if p is None else bar.format(100 * p))}</tr>"
        for name, value, p in rows
    )
    return f"<b>{safe(title)}</b><table>{body}</table>" + "<br>".join(map(safe, notes))


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
        Stands for the model and the options: --resume does not keep an answer with another key.
    command : str
        `predict` or `timeline`.
    """

    model: str
    labels: tuple[str, ...]
    restricted: bool = False
    top: int | None = None
    key: str = ""
    command: str = "predict"

    @classmethod
    def of(cls, predictor: Predictor, top: int | None = None) -> Style:
        """Return the style of a predictor's records."""
        from speechemo_cli.models import model_file

        metadata, labels = predictor.metadata, predictor.labels
        model = metadata.litert or metadata.sha256
        options = (predictor.min_confidence, predictor.channel, top, asdict(predictor.config.audio))
        settings = [model, labels, *options]
        key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
        return cls(model_file.shown(Path(predictor.path)), labels, labels != metadata.labels, top, key)

    def probabilities(self, answer: Answer) -> dict[str, float]:
        """Return the probabilities to write."""
        found = answer.probabilities
        if self.top is not None:
            best = sorted(found, key=found.__getitem__, reverse=True)[: self.top]
            found = {label: found[label] for label in best}
        return {label: round(p, 6) for label, p in found.items()}

    def record(self, item: Result | ClipError) -> dict[str, Any]:
        """Return a record as JSON has it."""
        if isinstance(item, ClipError):
            return item.to_dict()
        return {
            "schema": SCHEMA,
            "path": str(item.path),  # it may be one of numpy's strings
            **({} if item.channel is None else {"channel": item.channel}),
            "status": "ok",
            **item._record(self),
            **({"restricted_to": list(self.labels)} if self.restricted else {}),
        }

    def document(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        """Return all records as one document."""
        name = "clips" if self.command == "predict" else "recordings"
        return {"schema": SCHEMA, "command": self.command, "model": self.model, name: records}


def load_model(model: str, config: dict[str, Any]) -> Callable[[dict[str, Any], bytes], tuple[Any]]:
    """Return what answers a request: `path` to read, `name` to call it, `timeline` and `waveform`.

    The answer is the document that `predict --format json` prints, or `timeline` where that is asked
    for; with `waveform` the lowest and highest samples of up to 500 equal parts come with it.
    """
    from speechemo_cli.config import Config
    from speechemo_cli.inference.predictor import Predictor
    from speechemo_cli.inference.timeline import timelines

    predictor = Predictor.open(model, Config.from_dict(config))
    style = Style.of(predictor)

    def answer(request: dict[str, Any], _content: bytes) -> tuple[Any]:
        path, name = request["path"], request["name"]
        if not request["timeline"]:
            (item,) = predictor.predict_one(path)
            if isinstance(item, ClipError):
                raise AudioError(item.error)
            return (style.document([style.record(replace(item, path=name))]),)
        found = next(timelines(predictor, path))
        record = style.record(replace(found, path=name))
        if request["waveform"]:
            step = max(1, -(-len(found.envelope) // _COLUMNS))
            parts = [found.envelope[i : i + step] for i in range(0, len(found.envelope), step)]
            record["waveform"] = [[round(float(f), 4) for f in (part.min(), part.max())] for part in parts]
        return (style._replace(command="timeline").document([record]),)

    return answer
