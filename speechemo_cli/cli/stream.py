"""`speechemo predict --stream`: one line in, one line out, the model loaded once."""

from __future__ import annotations

import base64
import binascii
import json
import math
import os
from typing import TYPE_CHECKING, Any

from speechemo_cli.cli import inputs, render
from speechemo_cli.inference.results import SCHEMA

if TYPE_CHECKING:
    from speechemo_cli.inference.predictor import Predictor
    from speechemo_cli.inference.results import Style

# Ten minutes of stereo at 48 kHz and 24 bits, in base64, fit into a line. One without end must not take
# all memory; a longer recording has a path.
_LONGEST_LINE = 2**28


def run(predictor: Predictor, style: Style) -> None:
    """Answer each line of stdin by one line of JSON, at once, until stdin ends.

    A line is a path, or a JSON object with `path`, or with `audio` (a file's bytes in base64). Its `id`
    comes back in the answer. What cannot be answered gets a record with `status` "error", and the next
    line is read.
    """
    lines = inputs.stdin()
    while line := lines.readline(_LONGEST_LINE + 1):
        if len(line) > _LONGEST_LINE:
            render.emit(json.dumps(_refusal("", f"a line of more than {_LONGEST_LINE} bytes")))
            while line and not line.endswith(b"\n"):
                line = lines.readline(2**16)
            continue
        text = os.fsdecode(line.rstrip(b"\r\n"))
        if text.strip():
            render.emit(json.dumps(_answer(text, predictor, style)))


def _answer(text: str, predictor: Predictor, style: Style) -> dict[str, Any]:
    request: dict[str, Any] = {"path": text}
    if text.lstrip().startswith("{"):
        try:
            request = json.loads(text, parse_float=_finite, parse_constant=_finite)
        except (ValueError, RecursionError) as error:
            return _refusal("", f"not JSON: {error}")
    path, audio = request.get("path"), request.get("audio")
    named = {"id": request["id"]} if "id" in request else {}
    if isinstance(audio, str):
        name = path if isinstance(path, str) else ""
        try:
            content = base64.b64decode(audio, validate=True)
        except (binascii.Error, ValueError):
            return {**named, **_refusal(name, "audio is not base64")}
        (item,) = predictor.predict_content(content, name)
    elif isinstance(path, str) and path:
        (item,) = predictor.predict_one(path)
    else:
        return {**named, **_refusal("", 'expected a path, or an object with "path" or "audio"')}
    return {**named, **style.record(item)}


def _finite(number: str) -> float:
    """Refuse what Python takes for a number and no other JSON does, as the answer has to repeat it."""
    if not math.isfinite(float(number)):
        raise ValueError(f"{number[:20]} is not a finite number")
    return float(number)


def _refusal(path: str, error: str) -> dict[str, Any]:
    return {"schema": SCHEMA, "path": path, "status": "error", "error": error}
