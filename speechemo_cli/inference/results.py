"""Answers and timelines as the records that JSON, CSV and the server hold, as in docs/formats.md."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from speechemo_cli.errors import ClipError

if TYPE_CHECKING:
    from speechemo_cli.config import Config
    from speechemo_cli.inference.predictor import Answer, Predictor
    from speechemo_cli.inference.timeline import Timeline

SCHEMA = 1


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

    def record(self, item: Answer | ClipError) -> dict[str, Any]:
        """Return a record as JSON has it."""
        head = _head(item)
        if isinstance(item, ClipError):
            return {**head, "status": "error", "error": item.error}
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

    def timeline_record(self, item: Timeline | ClipError) -> dict[str, Any]:
        """Return a recording as JSON has it."""
        if isinstance(item, ClipError):
            return self.record(item)
        record = {
            **_head(item),
            "status": "ok",
            "duration_s": round(item.duration_s, 3),
            "segments": [_rounded(asdict(segment)) for segment in item.segments],
            "summary": {label: _rounded(part) for label, part in item.summary.items()},
            "model": self.model,
            "warnings": list(item.warnings),
        }
        return {**record, **self._restriction()}

    def document(self, command: str, records: list[dict[str, Any]]) -> dict[str, Any]:
        """Return all records of `predict` or of `timeline` as one document."""
        name = "clips" if command == "predict" else "recordings"
        return {"schema": SCHEMA, "command": command, "model": self.model, name: records}

    def _restriction(self) -> dict[str, Any]:
        return {"restricted_to": list(self.labels)} if self.restricted else {}


def _head(item: Answer | Timeline | ClipError) -> dict[str, Any]:
    channel = {} if item.channel is None else {"channel": item.channel}
    return {"schema": SCHEMA, "path": item.path, **channel}


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
