"""The feature store: immutable `.npz` shards, each of plain arrays, keyed by the content of the clips."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import uuid
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from speechemo_cli import features
from speechemo_cli.errors import AccessError, StoreError
from speechemo_cli.files import access_error, atomic_path, display_name, open_regular, remove_stale

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from speechemo_cli.config import Config

FORMAT = 2
# The names that the store gives its shards. Nothing else in its folders is ever touched.
SHARD = re.compile(r"[0-9a-f]{32}\.npz")
# The members of a shard: their types, as numpy spells them, and numbers of dimensions.
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

    `values` [shape=(frames, dim)] are read-only where they come out of the store; `samples_sha256` is as
    `reader.Recording` has it; the reader's `warnings` are lines of text, none of them empty.
    """

    values: NDArray[np.float32]
    duration_s: float
    samples_sha256: str
    warnings: tuple[str, ...] = ()


class IndexEntry(NamedTuple):
    """Where an entry lies, and what is known of it without reading its values."""

    shard: Path
    duration_s: float
    warnings: tuple[str, ...]


class DamagedError(Exception):
    """A shard that cannot be what was written."""


class OutdatedError(Exception):
    """A shard of an older format: whole, but without something that is needed now."""


class Shard:
    """A shard open for reading; `header` has its format, feature set, version and config.

    A member is read whole, so that its checksum is always compared, and never unpickled. It is stored
    as it is, so nothing in a shard can be larger than its file, whatever it says of itself.
    """

    def __init__(self, path: Path, handle: IO[bytes]) -> None:
        self.size_bytes = os.fstat(handle.fileno()).st_size
        self._archive = zipfile.ZipFile(handle)
        members = self._archive.infolist()
        packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
        if packed or sum(max(member.file_size, member.compress_size) for member in members) > self.size_bytes:
            raise DamagedError("members larger than the file")
        # Of its format first: an older one has other members, and is not damaged for that.
        self.header: dict[str, Any] = json.loads(str(self._array("header")))
        if self.header["format"] > FORMAT:
            raise StoreError(
                f"{display_name(path)} was written by a newer version",
                "Update speechemo, or give another folder with --store",
            )
        sound = all(type(self.header[name]) is kind for name, kind in _HEADER.items())
        if not sound or any(isinstance(value, dict | list) for value in self.header["config"].values()):
            raise DamagedError("the header makes no sense")
        if self.header["format"] < FORMAT:
            raise OutdatedError
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

    def _hashes(self, name: str) -> list[str]:
        hashes = self._array(name)
        if hashes.tobytes().translate(None, _HEX_DIGITS):
            raise DamagedError(f"{name} are no SHA-256")
        texts: list[str] = hashes.astype("U64").tolist()
        return texts

    def index(self) -> dict[str, tuple[float, tuple[str, ...]]]:
        """Read durations and warnings by key, without the values."""
        keys, durations, warnings = self._hashes("keys"), self._array("durations"), self._array("warnings")
        if not (np.isfinite(durations) & (durations >= 0)).all():
            raise DamagedError("durations below zero, or none")
        index = {
            key: (duration, tuple(lines.split("\n")) if lines else ())
            for key, duration, lines in zip(keys, durations.tolist(), warnings.tolist(), strict=True)
        }
        if len(index) != len(keys):
            raise DamagedError("a key stands there twice")
        return index

    def entries(self, dim: int | None) -> dict[str, StoredFeatures]:
        """Read everything in it; `dim` None takes any width."""
        index, samples = self.index(), self._hashes("samples")
        lengths, values = self._array("lengths"), self._array("values")
        n_frames, width = values.shape
        # Each by itself first: the sum of lengths that lie may wrap around to what it should be.
        lies = ((lengths < 0) | (lengths > n_frames)).any() or lengths.sum() != n_frames
        if lies or width != (dim or width):
            raise DamagedError("members do not fit together")
        starts = np.cumsum(lengths) - lengths
        return {
            key: StoredFeatures(values[start : start + length], duration_s, digest, warnings)
            for (key, (duration_s, warnings)), digest, start, length in zip(
                index.items(), samples, starts, lengths, strict=True
            )
        }


@contextmanager
def open_shard(path: Path) -> Iterator[Shard]:
    """Open a shard; whatever is wrong with its content, also when it is read later, is a `DamagedError`.

    What numpy and zipfile raise for cut, flipped, foreign and lying files has no common root: some ten
    types from `BadZipFile` to `NotImplementedError` have been seen. No damage are an older format
    (`OutdatedError`), a newer one (`StoreError`), a MemoryError, a FileNotFoundError (another process has
    merged the shard away) and any other OSError, which becomes an `AccessError`.
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


def list_named(folder: Path, names: re.Pattern[str] = SHARD) -> list[Path]:
    """List what a folder holds under such names, by default shards; nothing where it is missing."""
    try:
        return sorted(path for path in folder.iterdir() if names.fullmatch(path.name))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise access_error("read", folder, error) from error


class Index:
    """Entries by the hash of the clips' content, forty bytes each: there may be ten million.

    Of two with the same key the later one counts.
    """

    def __init__(self) -> None:
        # Keys, numbers of shards, durations. What is new comes after the rest, which is sorted by the keys.
        self._parts: list[tuple[NDArray[Any], ...]] = [
            tuple(np.empty(0, kind) for kind in ("S32", "i4", "f4"))
        ]
        self._shards: list[Path] = []
        # Few clips have any.
        self._warnings: dict[str, tuple[str, ...]] = {}

    def add(self, shard: Path, entries: Mapping[str, tuple[float, tuple[str, ...]]]) -> None:
        """Take in what a shard holds, as `Shard.index` has it."""
        keys = np.frombuffer(bytes.fromhex("".join(entries)), "S32")
        durations = np.array([duration_s for duration_s, _ in entries.values()], np.float32)
        self._parts.append((keys, np.full(len(keys), len(self._shards), np.int32), durations))
        self._shards.append(shard)
        self._warnings |= {key: warnings for key, (_, warnings) in entries.items() if warnings}

    def _columns(self) -> tuple[NDArray[Any], ...]:
        """Sort what is new among the rest. Each column lies in one piece, or every search would copy it."""
        if len(self._parts) > 1:
            columns = [np.concatenate(column) for column in zip(*self._parts, strict=True)]
            order = np.argsort(columns[0], kind="stable")
            keys = columns[0][order]
            last = order[np.append(keys[1:] != keys[:-1], True)]
            self._parts = [tuple(column[last] for column in columns)]
        return self._parts[0]

    def get(self, key: str) -> IndexEntry | None:
        """Return where an entry lies, or None."""
        keys, shards, durations = self._columns()
        wanted = bytes.fromhex(key).rstrip(b"\0")  # as numpy gives its strings
        at = np.searchsorted(keys, np.bytes_(wanted))
        if at == len(keys) or keys[at] != wanted:
            return None
        return IndexEntry(self._shards[shards[at]], float(durations[at]), self._warnings.get(key, ()))


@dataclass
class FeatureStore:
    """The shards of one feature set under one config.

    A shard is written whole under a temporary name and renamed, and never changed afterwards. Each writer
    makes shards of its own, so any number of processes may read and write without a lock. Clips of damaged
    shards, which are renamed and listed in `damaged`, count as missing, and so do those of an older format.
    """

    folder: Path
    dim: int | None
    header: dict[str, Any]
    damaged: list[str] = field(default_factory=list)
    _index: Index = field(default_factory=Index)
    _known: set[Path] = field(default_factory=set)
    _lost: set[Path] = field(default_factory=set)

    @classmethod
    def open(cls, feature_set: str, config: Config) -> FeatureStore:
        """Open (or begin) the part of `config.store` that holds a feature set under this config.

        What killed writers left half written is removed, once it is an hour old. A folder that cannot be
        read is an AccessError, a shard by a newer version a StoreError.
        """
        store = cls.for_writing(feature_set, config)
        remove_stale(store.folder)
        store.refresh()
        return store

    @classmethod
    def for_writing(cls, feature_set: str, config: Config) -> FeatureStore:
        """Return the same part without looking what is in it."""
        kind = features.feature_set(feature_set)
        header = {
            "format": FORMAT,
            "feature_set": kind.name,
            "version": kind.version,
            "config": kind.settings(config),
        }
        folder = Path(config.store) / f"{kind.name}-{kind.fingerprint(config)}"
        return cls(folder, kind.dim(config), header)

    def refresh(self) -> None:
        """Take in the shards that have appeared since the last look."""
        # Again until nothing is new: where a shard is gone that was listed, another process has merged
        # it into one that was perhaps not there yet.
        while new := [path for path in list_named(self.folder) if path not in self._known]:
            for path in new:
                self._known.add(path)
                try:
                    with open_shard(path) as shard:
                        if shard.header != self.header:
                            raise DamagedError("made under another config")
                        self._index.add(path, shard.index())
                except (FileNotFoundError, OutdatedError):
                    pass
                except DamagedError:
                    self.quarantine(path)

    def find(self, key: str) -> IndexEntry | None:
        """Duration and warnings of an entry, without its values; None where it is missing."""
        return self._index.get(key)

    def read(self, keys: Iterable[str]) -> dict[str, StoredFeatures]:
        """Read the entries of some clips; what is missing, or in a damaged shard, is left out."""
        entries: dict[str, StoredFeatures] = {}
        missing = set(keys)
        while True:
            lost = set()
            for path in {found.shard for key in missing if (found := self.find(key))}:
                try:
                    with open_shard(path) as shard:
                        read = shard.entries(self.dim)
                    entries.update({key: read[key] for key in missing & read.keys()})
                except FileNotFoundError:
                    lost.add(path)
                except DamagedError:
                    self.quarantine(path)
                    lost.add(path)
            if not lost:
                return entries
            # Once more: another shard may hold the same clips.
            self._index = Index()
            self._lost |= lost  # for good: where it cannot be renamed, it is still there
            self._known = set(self._lost)
            self.refresh()
            missing -= entries.keys()

    def write(self, entries: Mapping[str, StoredFeatures], *, durable: bool = False) -> None:
        """Write entries, by the SHA-256 of the clips' content, as one shard, which a `refresh` will find.

        With `durable` it waits for the disk; a cache that is computed again if the power fails need not.
        An AccessError says that the folder cannot be written; the store is then as it was.
        """
        if not entries:
            return
        path = self.folder / f"{uuid.uuid4().hex}.npz"
        try:
            self._write(path, entries, durable=durable)
        except AccessError as error:
            if not isinstance(error.__cause__, FileNotFoundError | FileExistsError):
                raise
            # A `cache clear` has removed the empty folder just after it was found or made.
            self._write(path, entries, durable=durable)

    def _write(self, path: Path, entries: Mapping[str, StoredFeatures], *, durable: bool) -> None:
        items = list(entries.values())
        with atomic_path(path, durable=durable) as temp, temp.open("wb") as handle:
            np.savez(
                handle,
                header=np.array(json.dumps(self.header, sort_keys=True)),
                keys=np.array(list(entries), dtype="S64"),
                samples=np.array([entry.samples_sha256 for entry in items], dtype="S64"),
                lengths=np.array([len(entry.values) for entry in items], dtype=np.int64),
                durations=np.array([entry.duration_s for entry in items], dtype=np.float32),
                warnings=np.array(["\n".join(entry.warnings) for entry in items], dtype=np.str_),
                values=np.concatenate([entry.values for entry in items]).astype(np.float32, copy=False),
            )

    def quarantine(self, path: Path) -> None:
        """Give a damaged shard another name, so that nobody looks into it again."""
        aside = path.with_suffix(".npz.damaged")
        try:
            path.replace(aside)
        except OSError:
            aside = path  # read-only: it is passed over all the same
        self.damaged.append(display_name(aside))
