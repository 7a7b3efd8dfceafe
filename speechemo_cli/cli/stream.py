"""`speechemo stream`: one line in, one line out, the model loaded once."""

from __future__ import annotations

import base64
import json
import math
import os
from typing import TYPE_CHECKING, Any

from speechemo_cli.choices import Channel
from speechemo_cli.cli import inputs, options, terminal
from speechemo_cli.cli.predict import open_predictor
from speechemo_cli.errors import ClipError, ConfigError
from speechemo_cli.inference import Style

if TYPE_CHECKING:
    from speechemo_cli.inference.predictor import Answer, Predictor

# Ten minutes of stereo at 48 kHz and 24 bits, in base64, fit into a line. One without end must not take
# all memory; a longer recording has a path.
_LONGEST_LINE = 2**28


def run(*, asked: options.Answering, top: options.Top = None, settings: options.Settings) -> None:
    """Answer each line on stdin at once by a line of JSON, until stdin ends: predict for other programs.

    A line is a path, or a JSON object with `path`, or with `audio` (a file's bytes in base64). Its `id`
    comes back in the answer. What cannot be answered gets a record with `status` "error", and the next
    line is read.
    """
    if asked.channel is Channel.each:
        raise ConfigError("stream gives one answer a line, --channel each several", "Give left or right")
    predictor = open_predictor(asked, settings.config(asked), isolate=True)
    answer_lines(predictor, Style.of(predictor, top))


def answer_lines(predictor: Predictor, style: Style) -> None:
    """Answer each line of stdin."""
    lines = inputs.stdin()
    while line := lines.readline(_LONGEST_LINE + 1):
        if len(line) > _LONGEST_LINE:
            too_long = ClipError("", f"a line of more than {_LONGEST_LINE} bytes")
            terminal.emit(json.dumps(style.record(too_long)))
            while line and not line.endswith(b"\n"):
                line = lines.readline(2**16)
            continue
        text = os.fsdecode(line.rstrip(b"\r\n"))
        if text.strip():
            terminal.emit(json.dumps(_answer(text, predictor, style)))


def _answer(text: str, predictor: Predictor, style: Style) -> dict[str, Any]:
    request: dict[str, Any] = {"path": text}
    if text.lstrip().startswith("{"):
        try:
            request = json.loads(text, parse_float=_finite, parse_constant=_finite)
        except (ValueError, RecursionError) as error:
            return style.record(ClipError("", f"not JSON: {error}"))
    path, audio = request.get("path"), request.get("audio")
    name = path if isinstance(path, str) else ""
    item: Answer | ClipError
    if isinstance(audio, str):
        try:
            content = base64.b64decode(audio, validate=True)
        except ValueError:
            item = ClipError(name, "audio is not base64")
        else:
            (item,) = predictor.predict_content(content, name)
    elif name:
        (item,) = predictor.predict_one(name)
    else:
        item = ClipError("", 'expected a path, or an object with "path" or "audio"')
    return {**({"id": request["id"]} if "id" in request else {}), **style.record(item)}


def _finite(number: str) -> float:
    """Refuse what Python takes for a number and no other JSON does, as the answer has to repeat it."""
    if not math.isfinite(float(number)):
        raise ValueError(f"{number[:20]} is not a finite number")
    return float(number)
