"""One file of the feature store: a zip of seven plain arrays, checked before any of it is believed."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from speechemo_cli.errors import StoreError
from speechemo_cli.files import access_error, display_name, open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

FORMAT = 2
# The names that the store gives. Nothing else in its folders is ever touched.
WHOLE = re.compile(r"[0-9a-f]{32}\.npz")
QUARANTINED = re.compile(r"[0-9a-f]{32}\.npz\.damaged")
# Their types, as numpy spells them, and numbers of dimensions.
_MEMBERS = {
    "header": (r"U\d+", 0),
    "keys": ("S64", 1),
    "samples": ("S64", 1),
    "lengths": ("i8", 1),
    "durations": ("f4", 1),
    "warnings": (r"U\d+", 1),
    "values": ("f4", 2),
}
_HEADER = {"format": int, "feature_set": str, "version": int, "config": dict}
_HEX_DIGITS = b"0123456789abcdef"
# An OSError about the content comes from zipfile, without a number, or from the system that was sent to a
# place before the file's begin. The others are about a pipe, a socket, a folder or a link to itself.
_NO_SHARD = (None, errno.EINVAL, errno.ENXIO, errno.EISDIR, errno.ELOOP)
# Shape and type of a plain array take 128 bytes; much more is nothing that was written here.
_MOST_DESCRIPTION_BYTES = 1000


@dataclass(frozen=True)
class StoredFeatures:
    """What the store keeps of one clip.

    Attributes
    ----------
    values : np.ndarray [shape=(frames, dim), dtype=float32]
        Read-only where it comes out of the store.
    duration_s : float
        Length of the clip, before any trimming.
    samples_sha256 : str
        Hash of the decoded samples, as `reader.Recording` has it.
    warnings : tuple of str
        What the reader had to say about the clip, said again when the entry is reused. Lines of
        text, none of them empty.
    """

    values: NDArray[np.float32]
    duration_s: float
    samples_sha256: str
    warnings: tuple[str, ...] = ()


class IndexEntry(NamedTuple):
    """Where an entry lies, and what can be said of it without reading its values."""

    shard: Path
    duration_s: float
    warnings: tuple[str, ...]


class DamagedError(Exception):
    """A shard that cannot be what was written."""


class OutdatedError(Exception):
    """A shard of an older format: whole, but without something that is needed now."""


class Shard:
    """A shard open for reading.

    A member is read whole, so that its checksum is always compared, and never unpickled. It is stored
    as it is, so nothing in a shard can be larger than its file, whatever it says of itself.
    """

    def __init__(self, path: Path, handle: IO[bytes]) -> None:
        self._path = path
        self.size_bytes = os.fstat(handle.fileno()).st_size
        self._archive = zipfile.ZipFile(handle)
        members = self._archive.infolist()
        packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
        if packed or sum(max(member.file_size, member.compress_size) for member in members) > self.size_bytes:
            raise DamagedError("members larger than the file")
        # Of its format first: an older one has other members, and is not damaged for that.
        _ = self.header
        if [member.filename for member in members] != [f"{name}.npy" for name in _MEMBERS]:
            raise DamagedError("not the members of a shard")

    def _array(self, name: str) -> NDArray[Any]:
        content = self._archive.read(f"{name}.npy")
        stream = io.BytesIO(content)
        if np.lib.format.read_magic(stream) != (1, 0):
            raise DamagedError(f"{name} is no array")
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(
            stream, max_header_size=_MOST_DESCRIPTION_BYTES
        )
        kind, n_dimensions = _MEMBERS[name]
        if not (dtype.isnative and re.fullmatch(kind, dtype.str[1:]) and len(shape) == n_dimensions):
            raise DamagedError(f"{name} is another kind of array")
        # Refuses a shape that is not that of all the bytes.
        flat = np.frombuffer(content, dtype, offset=stream.tell())
        return flat.reshape(shape, order="F" if fortran_order else "C")

    @cached_property
    def header(self) -> dict[str, Any]:
        """What made it: format, feature set, version and config.

        Raises
        ------
        StoreError
            A newer version of this package did.
        OutdatedError
            An older one did, and the format has changed since.
        """
        header: dict[str, Any] = json.loads(str(self._array("header")))
        if header["format"] > FORMAT:
            raise StoreError(
                f"{display_name(self._path)} was written by a newer version",
                "Update speechemo, or give another folder with --store",
            )
        sound = all(type(header[name]) is kind for name, kind in _HEADER.items())
        if not sound or any(isinstance(value, dict | list) for value in header["config"].values()):
            raise DamagedError("the header makes no sense")
        if header["format"] < FORMAT:
            raise OutdatedError
        return header

    def index(self) -> dict[str, tuple[float, tuple[str, ...]]]:
        """Look up duration and warnings of what it holds, without the values."""
        keys, durations, warnings = (self._array(name) for name in ("keys", "durations", "warnings"))
        _require_hashes(keys)
        if not (np.isfinite(durations) & (durations >= 0)).all():
            raise DamagedError("durations below zero, or none")
        index = {
            key.decode("ascii"): (duration, tuple(told.split("\n")) if told else ())
            for key, duration, told in zip(keys.tolist(), durations.tolist(), warnings.tolist(), strict=True)
        }
        if len(index) != len(keys):
            raise DamagedError("a key stands there twice")
        return index

    def entries(self, dim: int | None) -> dict[str, StoredFeatures]:
        """Read everything in it; `dim` None takes any width."""
        index, lengths, values = self.index(), self._array("lengths"), self._array("values")
        samples = self._array("samples")
        _require_hashes(samples)
        n_frames, width = values.shape
        # Each by itself first: the sum of lengths that lie may wrap around to what it should be.
        fits = len(index) == len(lengths) == len(samples) and not ((lengths < 0) | (lengths > n_frames)).any()
        if not fits or lengths.sum() != n_frames or width != (dim or width):
            raise DamagedError("members do not fit together")
        starts = np.cumsum(lengths) - lengths
        return {
            key: StoredFeatures(values[start : start + length], duration_s, digest.decode("ascii"), warnings)
            for (key, (duration_s, warnings)), digest, start, length in zip(
                index.items(), samples.tolist(), starts, lengths, strict=True
            )
        }


def _require_hashes(hashes: NDArray[Any]) -> None:
    if hashes.tobytes().translate(None, _HEX_DIGITS):
        raise DamagedError("keys are no SHA-256")


@contextmanager
def reading(path: Path) -> Iterator[Shard]:
    """Open a shard; whatever is wrong with its content, also when it is read later, is a `DamagedError`.

    What numpy and zipfile raise for cut, flipped, foreign and lying files has no common root: some
    ten types from `BadZipFile` to `NotImplementedError` have been seen. An OSError is no damage, the
    shard may be whole: it becomes an `AccessError`, or stays a FileNotFoundError where another
    process has merged the shard away. Nor is a MemoryError: nothing larger than the file is asked for.
    Nor is an older format: it is an `OutdatedError`.
    """
    try:
        with open_regular(path) as handle:
            yield Shard(path, handle)
    except (StoreError, FileNotFoundError, MemoryError, DamagedError, OutdatedError):
        raise
    except OSError as error:
        if error.errno in _NO_SHARD:
            raise DamagedError(str(error)) from error
        raise access_error("read", path, error) from error
    except Exception as error:
        raise DamagedError(f"{type(error).__name__}: {error}") from error


def listed(folder: Path, *names: re.Pattern[str]) -> list[Path]:
    """List the shards in a folder, by default those that are not set aside; none where it is missing.

    Raises
    ------
    AccessError
        The folder cannot be read.
    """
    try:
        return sorted(
            path for path in folder.iterdir() if any(n.fullmatch(path.name) for n in names or (WHOLE,))
        )
    except FileNotFoundError:
        return []
    except OSError as error:
        raise access_error("read", folder, error) from error


def write(handle: IO[bytes], header: Mapping[str, Any], entries: Mapping[str, StoredFeatures]) -> None:
    """Write entries, one at least, as the content of a shard."""
    items = list(entries.values())
    np.savez(
        handle,
        header=np.array(json.dumps(header, sort_keys=True)),
        keys=np.array(list(entries), dtype="S64"),
        samples=np.array([entry.samples_sha256 for entry in items], dtype="S64"),
        lengths=np.array([len(entry.values) for entry in items], dtype=np.int64),
        durations=np.array([entry.duration_s for entry in items], dtype=np.float32),
        warnings=np.array(["\n".join(entry.warnings) for entry in items], dtype=np.str_),
        values=np.concatenate([entry.values for entry in items]).astype(np.float32, copy=False),
    )
