"""What a worker process does: load a model once, then answer for files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from speechemo_cli.errors import AudioError, ClipError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from speechemo_cli.config import Config

# Columns of the waveform that the page draws.
_COLUMNS = 500


@dataclass(frozen=True)
class Answering:
    """Loads a model where it is called."""

    model: Path
    config: Config

    def __call__(self) -> Callable[[dict[str, Any]], dict[str, Any]]:
        """Return what answers a request: `path` to read, `name` to call it, `timeline` and `waveform`.

        The answer is the document that `predict --format json` prints, or `timeline` where that is asked
        for; with `waveform` the lowest and highest samples of equal parts come with it.
        """
        from speechemo_cli.inference.predictor import Predictor
        from speechemo_cli.inference.results import Style
        from speechemo_cli.inference.timeline import timeline

        predictor = Predictor.open(self.model, self.config)
        style = Style.of(predictor)

        def answer(request: dict[str, Any]) -> dict[str, Any]:
            path, name = request["path"], request["name"]
            if not request["timeline"]:
                (item,) = predictor.predict_one(path)
                if isinstance(item, ClipError):
                    raise AudioError(item.error)
                return style.document([style.record(replace(item, path=name))])
            found = timeline(predictor, path, config=self.config.audio)
            record = style.record(replace(found, path=name))
            if request["waveform"]:
                record["waveform"] = _coarse(found.envelope)
            return style._replace(command="timeline").document([record])

        return answer


def _coarse(envelope: Any) -> list[list[float]]:
    """Return at most `_COLUMNS` pairs of lowest and highest sample."""
    step = max(1, -(-len(envelope) // _COLUMNS))
    parts = [envelope[i : i + step] for i in range(0, len(envelope), step)]
    return [[round(float(part.min()), 4), round(float(part.max()), 4)] for part in parts]
