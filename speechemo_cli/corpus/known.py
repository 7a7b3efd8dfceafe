"""Public corpora (corpora.toml), and what their file names tell."""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from speechemo_cli.corpus import canonical, emotion_in
from speechemo_cli.corpus.clips import Clip

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RAVDESS = "ravdess"
SILENT = "video without sound (RAVDESS's 02-...)"

# What people add to a name when they resample, augment or copy a clip: `_16k`, `_noise`, ` (1)`.
_COPY = r"(?:[ _.-][a-z][^/\n]*|[ _.-]?\([^/\n]*|[ _.-]\d+(?:\.\d+)?k[^/\n]*|[ _.-]\d{4,5}(?:hz)?)?"
_GENDERS = {"m": "m", "f": "f", "w": "f", "male": "m", "female": "f", "01": "f", "02": "m"}


class Named(NamedTuple):
    """What a file's name tells.

    `clip` is without its path; its label is empty where the corpus keeps its labels elsewhere. `left_out`
    says why the file is no clip; `video` that it holds the sound of a video, which the corpus may hold as a
    recording, too.
    """

    clip: Clip
    video: bool = False
    left_out: str = ""


@dataclass(frozen=True)
class KnownCorpus:
    """One public corpus; the fields are those of corpora.toml."""

    name: str
    licence: str
    citation: str
    page: str
    names: Sequence[str]
    labels: Mapping[str, str] = field(default_factory=dict)
    men: Sequence[str] | None = None
    believes_folder: bool = False
    hint: str = ""

    def describe(self) -> str:
        """Say what it may be used for, whom to cite and where it is to be had."""
        return f"{self.name}\nlicence: {self.licence}\ncite: {self.citation}\nfrom: {self.page}"


_TABLE = tomllib.loads(Path(__file__).with_name("corpora.toml").read_text(encoding="utf-8"))
# By the names that clips have as their corpus; a folder of that name may hold other clips.
BY_NAME = {name: KnownCorpus(name, **row) for name, row in _TABLE.items()}
LICENCES = {name: row.licence for name, row in BY_NAME.items()}
_PATTERNS = [(row, pattern) for row in BY_NAME.values() for pattern in row.names]


# Compiled when they are needed: it takes a tenth of a second for all.
@cache
def _any_name() -> re.Pattern[str]:
    """All patterns of a file's name at once; the group that matched tells which."""
    last = (pattern.rpartition("/")[2] for _, pattern in _PATTERNS)
    return re.compile("|".join(re.sub(r"\?P<\w+>", "?:", f"({one})") + _COPY for one in last), re.IGNORECASE)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?:^|/)(?:{pattern}){_COPY}\Z", re.IGNORECASE)


def recognise(path: str) -> Named | None:
    """Tell what a file is by its name and, where the corpus needs them, its folders. Nothing is opened.

    None where the name is that of no corpus in the table.
    """
    folder, _, name = path.replace(os.sep, "/").rpartition("/")
    stem = os.path.splitext(name)[0]
    first = _any_name().fullmatch(stem)
    if first is None or first.lastindex is None:
        return None
    for row, pattern in _PATTERNS[first.lastindex - 1 :]:
        whole = os.path.abspath(folder).replace(os.sep, "/") + f"/{stem}" if "/" in pattern else stem
        match = _compiled(pattern).search(whole)
        if match is None:
            continue
        named = _read(row, {key: value for key, value in match.groupdict().items() if value is not None})
        if not row.believes_folder or emotion_in(folder.rpartition("/")[2]) in (None, named.clip.label):
            return named
    return None


def _read(row: KnownCorpus, fields: dict[str, str]) -> Named:
    # The sentences of ESD are numbered through, 350 an emotion.
    code = str((int(fields["number"]) - 1) // 350) if row.name == "esd" else fields.get("label", "")
    statement = fields.get("statement", "")
    if row.men is None:
        gender = _GENDERS.get(fields.get("gender", "").lower())
    else:
        gender = "m" if fields["speaker"].upper() in row.men else "f"
    clip = Clip(
        path="",
        label=row.labels.get(code.lower()) or canonical(code),
        speaker=_speaker(row.name, fields),
        gender=gender,
        intensity=int(fields["intensity"]) if "intensity" in fields else None,
        statement=int(statement) if statement.isdigit() else statement or None,
        repetition=int(fields["repetition"]) if "repetition" in fields else None,
        song=fields.get("channel") == "02",
        corpus=row.name,
    )
    if fields.get("modality") == "02":
        return Named(clip, left_out=SILENT)
    if fields.get("view", "front") != "front":
        return Named(clip, left_out="the same speech from another camera (MEAD)")
    return Named(clip, video=fields.get("modality") == "01" or "view" in fields)


def _speaker(corpus: str, fields: dict[str, str]) -> str | None:
    speaker = fields.get("speaker")
    if corpus == "tess" and speaker:
        return speaker.upper()[0] + "AF"
    if corpus == "iemocap" and speaker:  # two in a session
        return f"{speaker}{fields['gender'].upper()}"
    # As in the lists that the packaged model was trained with, so that it knows them again.
    return f"{corpus}-{speaker}" if corpus in ("aesdd", "nemo") else speaker
