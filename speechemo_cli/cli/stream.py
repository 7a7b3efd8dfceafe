"""`speechemo predict --stream`: one line in, one line out, the model loaded once."""

from __future__ import annotations

import base64
import binascii
import json
import os
from typing import TYPE_CHECKING, Any

from speechemo_cli.cli import inputs, render

if TYPE_CHECKING:
    from speechemo_cli.cli.answers import Style
    from speechemo_cli.inference.predictor import Predictor


def run(predictor: Predictor, style: Style) -> None:
    """Answer each line of stdin by one line of JSON, at once, until stdin ends.

    A line is a path, or a JSON object with `path`, or with `audio` (a file's bytes in base64). Its `id`
    comes back in the answer. What cannot be answered gets a record with `status` "error", and the next
    line is read.
    """
    for line in iter(inputs.stdin().readline, b""):
        text = os.fsdecode(line.rstrip(b"\r\n"))
        if text.strip():
            render.emit(json.dumps(_answer(text, predictor, style)))


def _answer(text: str, predictor: Predictor, style: Style) -> dict[str, Any]:
    request: dict[str, Any] = {"path": text}
    if text.lstrip().startswith("{"):
        try:
            request = json.loads(text)
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


def _refusal(path: str, error: str) -> dict[str, Any]:
    return {"schema": render.SCHEMA, "path": path, "status": "error", "error": error}
