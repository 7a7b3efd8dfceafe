"""The parts of a model file: members of a zip archive, strict JSON, and weights as plain arrays out of HDF5.

Whatever is wrong with them is an `UnfitError`, before anything is used.
"""

from __future__ import annotations

import io
import json
import math
import struct
import tempfile
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.files import access_error, display_name, scratch_folder

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

WEIGHTS = "model.weights.h5"
METADATA = "speechemo.json"
# What Keras writes. Of these only the weights are read: the others are there for Keras itself.
KERAS_MEMBERS = ("metadata.json", "config.json", WEIGHTS)
MEMBERS = (*KERAS_MEMBERS, METADATA)
MAX_BYTES = 200 * 2**20
# The metadata have 71 bytes for each training clip: there is room for 118,000.
_MAX_PART_BYTES = {"metadata.json": 2**20, "config.json": 2**20, WEIGHTS: MAX_BYTES, METADATA: 8 * 2**20}
# Two bytes of JSON make an empty object of 64. The metadata of v3 have a hundred.
_MAX_JSON_OBJECTS = 2**16
# Weights are noise, which hardly shrinks, and the JSON parts shrink to a tenth.
_MAX_RATIO = 100
_RATIO_MATTERS_BYTES = 2**20
# How an archive ends that has no comment; the directory of a model file takes 300 bytes.
_END = struct.Struct("<4s4H2LH")
_MAX_DIRECTORY_BYTES = 2**16
_ENCRYPTED = 0x1
_MAX_HDF5_OBJECTS = 10_000
# Weights and statistics, and how many clips the statistics are of.
_DTYPES = ("float32", "int32", "int64")
_DAMAGED = "Restore a copy or train again"
HOSTILE = "Take a model from somebody you trust, or train one"


class UnfitError(Exception):
    """Why a file is no model file: the words that follow its name, and what to do."""

    def __init__(self, reason: str, hint: str = _DAMAGED) -> None:
        super().__init__(reason)
        self.hint = hint


def short(value: object, limit: int = 100) -> str:
    """Show words of a file on one line."""
    return display_name(str(value))[:limit]


def members(content: bytes, names: Collection[str] = MEMBERS) -> dict[str, bytes]:
    """Unpack these parts of a model file, each of the size the directory says and with the right CRC."""
    end = content[-_END.size :]
    if len(end) < _END.size or not end.startswith(b"PK\5\6"):
        raise UnfitError("is damaged (it does not end as an archive does)")
    # The directory is read at once, and alone could take minutes and gigabytes.
    if b"PK\6\7" in content[-_END.size - 20 : -_END.size] or _END.unpack(end)[5] > _MAX_DIRECTORY_BYTES:
        raise UnfitError("holds more parts than a model file has", HOSTILE)
    parts = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check_directory(archive.infolist(), len(content))
            for name in names:
                # What is packed may be more than the directory says, without end.
                size = archive.getinfo(name).file_size
                with archive.open(name) as part:
                    parts[name] = part.read(size)
                if len(parts[name]) != size:
                    raise UnfitError(f"is damaged ({name} is cut)")
    except (
        *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError),
        *(RuntimeError, ValueError, OverflowError, LookupError),
    ) as error:
        raise UnfitError(f"is damaged ({short(error)})") from None
    return parts


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


def parse(content: bytes, name: str) -> dict[str, Any]:
    """Read a JSON object strictly: no name twice, no NaN, no depth or number of objects without end."""

    def no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError
        return found

    def no_constant(word: str) -> Any:
        raise ValueError(word)

    try:
        if content.count(b"{") + content.count(b"[") > _MAX_JSON_OBJECTS:
            raise ValueError
        document = json.loads(content.decode(), object_pairs_hook=no_name_twice, parse_constant=no_constant)
        if not isinstance(document, dict):
            raise TypeError
    except (ValueError, TypeError, RecursionError):
        raise UnfitError(f"is damaged: {name} cannot be read") from None
    return document


def read_weights(content: bytes) -> Arrays:
    """Read the arrays of an HDF5 file by their path in it; refuse all but plain, finite ones.

    Keras writes groups, and in them whole arrays of float32 and one counter. So whatever leads out of
    the file (links, external storage, virtual datasets) or needs a filter to be read is none of its work.
    """
    import h5py

    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            return _read_groups(file, len(content))
    except UnfitError:
        raise
    except Exception as error:  # h5py raises whatever HDF5's C code makes of a damaged file
        reason = short(error)
        raise UnfitError(f"is damaged: {WEIGHTS} cannot be read ({reason})") from None


def _read_groups(file: Any, size: int) -> Arrays:
    import h5py

    arrays: Arrays = {}
    seen, held = {h5py.h5o.get_info(file.id).addr}, 0
    waiting = [file]
    while waiting:
        group = waiting.pop()
        for name in group:
            shown = short(f"{group.name}/{name}")
            link = type(group.get(name, getlink=True))
            if link is not h5py.HardLink:
                raise UnfitError(f"has weights that lie elsewhere ({link.__name__}): {shown}", HOSTILE)
            info = h5py.h5o.get_info(group.id, name.encode())
            # A part that stands in two places would be read twice, or, if it holds itself, for ever.
            if info.addr in seen or len(seen) > _MAX_HDF5_OBJECTS:
                raise UnfitError(f"has weights that a network does not have: {shown}", HOSTILE)
            seen.add(info.addr)
            part = group[name]
            if isinstance(part, h5py.Group):
                waiting.append(part)
                continue
            held += _check_plain(part, shown)
            if held > size:
                raise UnfitError(f"declares more weights than it holds: {shown}", HOSTILE)
            arrays[part.name] = part[()]
            if not np.isfinite(arrays[part.name]).all():
                raise UnfitError(f"has weights that are not finite: {shown}", HOSTILE)
    return arrays


def _check_plain(dataset: Any, shown: str) -> int:
    """Return how many bytes it holds."""
    import h5py

    if not isinstance(dataset, h5py.Dataset):
        raise UnfitError(f"has weights that are a {type(dataset).__name__}: {shown}", HOSTILE)
    made = dataset.id.get_create_plist()
    if made.get_layout() == h5py.h5d.VIRTUAL or made.get_external_count():
        raise UnfitError(f"has weights that lie in other files: {shown}", HOSTILE)
    if made.get_nfilters() or made.get_layout() == h5py.h5d.CHUNKED:
        raise UnfitError(f"has weights that are packed: {shown}", HOSTILE)
    if dataset.dtype.name not in _DTYPES or dataset.shape is None or len(dataset.attrs):
        raise UnfitError(f"has weights that are no plain numbers: {shown}", HOSTILE)
    declared = math.prod(dataset.shape) * dataset.dtype.itemsize
    held = int(dataset.id.get_storage_size())
    if declared != held:
        raise UnfitError(f"declares {declared} bytes of weights and holds {held}: {shown}", HOSTILE)
    return held


def assign(model: Any, arrays: Arrays) -> None:
    """Put what `read_weights` gave into a network that was just built, in place.

    Keras never sees the file they came from: it writes its own, which gets their numbers and is read
    back. Raises AccessError where there is no room for that.
    """
    import h5py

    def shape(array: Any) -> str:
        return "nothing" if array is None else "x".join(map(str, array.shape)) or "a number"

    folder = scratch_folder()
    try:
        with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as private:
            path = Path(private) / WEIGHTS
            model.save_weights(path)
            own = read_weights(path.read_bytes())
            for name in sorted(own.keys() | arrays.keys()):
                received, expected = shape(arrays.get(name)), shape(own.get(name))
                if received != expected:
                    raise UnfitError(
                        f"has other weights than its network: {short(name)} is {received}, "
                        f"expected {expected}"
                    )
            with h5py.File(path, "r+") as file:
                for name, array in arrays.items():
                    file[name][()] = array
            model.load_weights(path)
    except OSError as error:
        raise access_error("write to", folder, error) from error
