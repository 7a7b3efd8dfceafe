"""What a previous run answered, loaded for `--resume`; anybody may have edited it."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import re
from typing import TYPE_CHECKING, Any

from speechemo_cli.choices import Channel
from speechemo_cli.errors import AudioError
from speechemo_cli.files import access_error, atomic_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from speechemo_cli.cli.partial import PartialFile
    from speechemo_cli.config import AudioConfig
    from speechemo_cli.inference.predictor import Answer
    from speechemo_cli.inference.results import Style

    # By path and SHA-256; one answer a channel.
    Previous = dict[str, dict[str, list[Answer]]]

RESUMABLE = ("jsonl", "csv")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def load_previous(lines: Iterable[str], format_: str, style: Style) -> Previous:
    """Take the answers of this style out of what was written: the last one of each channel.

    Those with another key, of another model or with other options, are left alone; so is what cannot be
    an answer.
    """
    found: Previous = {}
    for record in _records(lines, format_):
        if record.get("status") != "ok" or record.get("key") != style.key:
            continue
        try:
            answer = _answer(record)
            possible = _is_possible(answer, style.labels)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            continue  # not a record of ours
        if not possible:
            continue
        group = found.setdefault(answer.path, {}).setdefault(answer.sha256, [])
        group[:] = [*(one for one in group if one.channel != answer.channel), answer]
    return found


def merge_previous(file: PartialFile, format_: str, style: Style) -> Previous:
    """Load what stands in FILE and what runs that were broken off left beside it.

    That is kept under another name while this run writes over `FILE.partial`.
    """
    places = [place for place in (file.path, file.kept, file.partial) if place.is_file()]
    lines = [line for place in places for line in lines_of(place)]
    if file.partial.stat().st_size:
        with atomic_path(file.kept) as temp:
            temp.write_bytes(os.fsencode("".join(lines)))
    return load_previous(lines, format_, style)


def unchanged(
    path: str, content: bytes | None, previous: Mapping[str, list[Answer]], channel: str, config: AudioConfig
) -> list[Answer]:
    """Return the previous answers for a clip, if its content is the same and no channel lacks one.

    Parameters
    ----------
    path : str
    content : bytes or None
        What the file holds, if it is no file.
    previous : mapping of str to list of Answer
        By SHA-256.
    channel : {"mix", "left", "right", "each"}
    config : AudioConfig

    Returns
    -------
    list of Answer
        Empty where the clip has to be answered, or cannot be read, which the predictor tells.
    """
    if not previous:
        return []
    from speechemo_cli.audio import reader

    try:
        with reader.clip_errors():
            content = reader.read_bytes(path) if content is None else content
            answers = previous.get(hashlib.sha256(content).hexdigest(), [])
            if channel != Channel.each or not answers:
                return answers
            by_channel = {answer.channel: answer for answer in answers}
            names = reader.channel_names(content, config)
    except AudioError:
        return []
    return [by_channel[name] for name in names] if by_channel.keys() == set(names) else []


def lines_of(path: Path) -> list[str]:
    """Read whole lines; one that was broken off is none."""
    try:
        text = path.read_bytes().decode("utf-8", errors="surrogateescape")
    except OSError as error:
        raise access_error("read", path, error) from error
    return [f"{line}\n" for line in text.split("\n")[:-1]]


def _records(lines: Iterable[str], format_: str) -> Iterator[Mapping[str, Any]]:
    if format_ == "csv":
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
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            yield record


def _answer(record: Mapping[str, Any]) -> Answer:
    from speechemo_cli.inference.predictor import Answer

    fixed = ("path", "status", "label", "confidence", "duration_s", "warnings", "error", "channel")
    probabilities = record.get("probabilities") or {
        name: value for name, value in record.items() if name not in (*fixed, "sha256", "key") and value != ""
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
    """Whether it is of the kind that is written here; anybody may have edited the file."""
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
