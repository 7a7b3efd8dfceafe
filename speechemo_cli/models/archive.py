"""The parts of a model file: the members of its zip archive, each of a bounded size, and strict JSON."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections import Counter
from typing import TYPE_CHECKING, Any

from speechemo_cli.files import display_name

if TYPE_CHECKING:
    from collections.abc import Collection

WEIGHTS = "model.weights.h5"
METADATA = "speechemo.json"
# What Keras writes. Of these only the weights are read: the others are there for Keras itself.
KERAS_MEMBERS = ("metadata.json", "config.json", WEIGHTS)
MEMBERS = (*KERAS_MEMBERS, METADATA)
MAX_BYTES = 200 * 2**20
# The metadata have 71 bytes for each training clip: there is room for 118,000.
_MAX_PART_BYTES = {"metadata.json": 2**20, "config.json": 2**20, WEIGHTS: MAX_BYTES, METADATA: 8 * 2**20}
# Two bytes of JSON make an empty object of 64. The metadata of v3 have a hundred.
_MAX_OBJECTS = 2**16
# Weights are noise, which hardly shrinks, and the JSON parts shrink to a tenth.
_MAX_RATIO = 100
_RATIO_MATTERS_BYTES = 2**20
# How an archive ends that has no comment; the directory of a model file takes 300 bytes.
_END = struct.Struct("<4s4H2LH")
_MAX_DIRECTORY_BYTES = 2**16
_ENCRYPTED = 0x1
_DAMAGED = "Restore a copy or train again"
HOSTILE = "Take a model from somebody you trust, or train one"


class UnfitError(Exception):
    """Why a file is no model file: the words that follow its name, and what to do."""

    def __init__(self, reason: str, hint: str = _DAMAGED) -> None:
        super().__init__(reason)
        self.hint = hint


def members(content: bytes, names: Collection[str] = MEMBERS) -> dict[str, bytes]:
    """Read the parts of a model file.

    Parameters
    ----------
    content : bytes
        Of the whole file.
    names : collection of str
        The parts to unpack.

    Returns
    -------
    dict of str to bytes
        Those parts by name, each with the right CRC.

    Raises
    ------
    UnfitError
        It is no zip archive, is damaged, or holds other parts or larger ones than a model file does.
    """
    _check_end(content)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            infos = archive.infolist()
            _check_directory(infos, len(content))
            return {info.filename: _read(archive, info) for info in infos if info.filename in names}
    except (
        *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError),
        *(RuntimeError, ValueError, OverflowError, LookupError),
    ) as error:
        raise UnfitError(f"is damaged ({short(error)})") from None


def _check_end(content: bytes) -> None:
    """Refuse an archive whose directory alone would take minutes and gigabytes: all of it is read at once."""
    end = content[-_END.size :]
    if len(end) < _END.size or not end.startswith(b"PK\5\6"):
        raise UnfitError("is damaged (it does not end as an archive does)")
    if b"PK\6\7" in content[-_END.size - 20 : -_END.size] or _END.unpack(end)[5] > _MAX_DIRECTORY_BYTES:
        raise UnfitError("holds more parts than a model file has", HOSTILE)


def _check_directory(infos: list[zipfile.ZipInfo], n_bytes: int) -> None:
    names = [info.filename for info in infos]
    if METADATA not in names:
        raise UnfitError("was not written by speechemo: it has no speechemo.json")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UnfitError(f"holds {short(twice[0])} more than once", HOSTILE)
    if set(names) != {*MEMBERS}:
        raise UnfitError(f"holds unexpected parts: {short(', '.join(sorted(names)), 200)}", HOSTILE)
    # Else what they are said to take would not count against what they grow to.
    if sum(info.compress_size for info in infos) > n_bytes:
        raise UnfitError("declares parts that are larger than the file", HOSTILE)
    for info in infos:
        limit = _MAX_PART_BYTES[info.filename]
        if info.file_size > limit:
            raise UnfitError(
                f"is too large: {info.filename} would take {info.file_size} bytes, at most {limit}", HOSTILE
            )
        if info.file_size > max(_RATIO_MATTERS_BYTES, _MAX_RATIO * info.compress_size):
            raise UnfitError(
                f"is packed too tightly: {info.filename} would grow from {info.compress_size}"
                f" to {info.file_size} bytes, at most {_MAX_RATIO}-fold",
                HOSTILE,
            )
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UnfitError(f"is packed in a way that model files are not: {info.filename}")
        if info.flag_bits & _ENCRYPTED:
            raise UnfitError(f"is encrypted: {info.filename}")


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Unpack as many bytes as the directory says: what is packed may be more, without end."""
    with archive.open(info) as part:
        content = part.read(info.file_size)
    if len(content) != info.file_size:
        raise UnfitError(f"is damaged ({info.filename} is cut)")
    return content


def parse(content: bytes, name: str) -> dict[str, Any]:
    """Read a JSON object strictly: no name twice, no NaN, no depth or number of objects without end.

    Raises
    ------
    UnfitError
        It is none.
    """

    def no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError
        return found

    def no_constant(word: str) -> Any:
        raise ValueError(word)

    try:
        if content.count(b"{") + content.count(b"[") > _MAX_OBJECTS:
            raise ValueError
        document = json.loads(content.decode(), object_pairs_hook=no_name_twice, parse_constant=no_constant)
    except (ValueError, RecursionError):
        raise UnfitError(f"is damaged: {name} cannot be read") from None
    if not isinstance(document, dict):
        raise UnfitError(f"is damaged: {name} cannot be read")
    return document


def short(said: object, limit: int = 100) -> str:
    """Show words of a file on one line."""
    return display_name(str(said))[:limit]
