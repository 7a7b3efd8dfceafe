"""The feature store: immutable `.npz` shards keyed by the content of the clips."""

from __future__ import annotations

import json
import re
import uuid
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from speechemo_cli.errors import StoreError
from speechemo_cli.files import access_error, atomic_path, display_name

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from speechemo_cli.config import Config
    from speechemo_cli.features import FeatureSet

FORMAT = 1
# The names this module gives. Nothing else in the folder is ever touched.
_FOLDER = re.compile(r"[a-z0-9]+-[0-9a-f]{12}")
_SHARD = re.compile(r"[0-9a-f]{32}\.npz")
_SET_ASIDE = re.compile(r"[0-9a-f]{32}\.npz\.damaged")


@dataclass(frozen=True)
class Entry:
    """What the store keeps of one clip.

    Attributes
    ----------
    values : np.ndarray [shape=(frames, dim), dtype=float32]
    duration_s : float
        Length of the clip, before any trimming.
    warnings : tuple of str
        What the reader had to say about the clip, said again when the entry is reused. Lines of
        text, none of them empty.
    """

    values: NDArray[np.float32]
    duration_s: float
    warnings: tuple[str, ...] = ()


class _Place(NamedTuple):
    """Where an entry lies, and what can be said of it without reading its values."""

    shard: Path
    duration_s: float
    warnings: tuple[str, ...]


class _DamagedError(Exception):
    """A shard that cannot be what was written."""


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """Open a shard; whatever is wrong with its content is a `_DamagedError`.

    What numpy and zipfile raise for cut, flipped, foreign and lying files has no common root: some
    ten types from `BadZipFile` to `NotImplementedError` have been seen. An OSError is no damage, the
    shard may be whole: it becomes an `AccessError`, or stays a FileNotFoundError where another
    process has merged the shard away.
    """
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as shard:
            if json.loads(str(shard["header"]))["format"] > FORMAT:
                raise StoreError(
                    f"{display_name(path)} was written by a newer version",
                    "Update speechemo, or give another folder with --store",
                )
            yield shard
    except (StoreError, FileNotFoundError):
        raise
    except OSError as error:
        if error.errno is None:  # raised by zipfile about the content, not by the system
            raise _DamagedError(str(error)) from error
        raise access_error("read", path, error) from error
    except Exception as error:
        raise _DamagedError(f"{type(error).__name__}: {error}") from error


def _index(shard: Any, path: Path) -> dict[str, _Place]:
    """Look up what a shard holds, without its values."""
    keys, durations, warnings = (
        shard["keys"].tolist(),
        shard["durations"].tolist(),
        shard["warnings"].tolist(),
    )
    return {
        key.decode("ascii"): _Place(path, float(duration), tuple(str(told).split("\n")) if told else ())
        for key, duration, told in zip(keys, durations, warnings, strict=True)
    }


def _entries(shard: Any, path: Path, dim: int | None) -> Iterator[tuple[str, Entry]]:
    """Read everything in a shard; `dim` None takes any width."""
    index, lengths, values = _index(shard, path), shard["lengths"], shard["values"]
    fits = len(index) == len(lengths) and values.shape == (lengths.sum(), dim or values.shape[-1])
    if not fits or values.dtype != np.float32:
        raise ValueError("members do not fit together")
    ends = np.cumsum(lengths)
    for i, (key, place) in enumerate(index.items()):
        yield key, Entry(values[ends[i] - lengths[i] : ends[i]], place.duration_s, place.warnings)


def _shards(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if _SHARD.fullmatch(path.name))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise access_error("read", folder, error) from error


@dataclass
class FeatureStore:
    """The shards of one feature set under one config.

    A shard is written whole under a temporary name and renamed, and never changed afterwards. Each
    writer makes shards of its own, so any number of processes may read and write without a lock. A
    shard whose content is damaged is set aside under another name and listed in `damaged`; its clips
    count as missing.
    """

    folder: Path
    dim: int | None
    header: dict[str, Any]
    damaged: list[str] = field(default_factory=list)
    _places: dict[str, _Place] = field(default_factory=dict)
    _known: set[Path] = field(default_factory=set)

    @classmethod
    def open(cls, root: str | os.PathLike[str], feature_set: FeatureSet, config: Config) -> FeatureStore:
        """Open (or begin) the part of the store that holds a feature set under this config.

        Raises
        ------
        AccessError
            The folder exists and cannot be read.
        StoreError
            A shard was written by a newer version.
        """
        store = cls.at(root, feature_set, config)
        store.refresh()
        return store

    @classmethod
    def at(cls, root: str | os.PathLike[str], feature_set: FeatureSet, config: Config) -> FeatureStore:
        """Return the same part without looking what is in it: enough for a worker that only writes."""
        section = feature_set.section(config)
        header = {
            "format": FORMAT,
            "feature_set": feature_set.name,
            "version": feature_set.version,
            "config": asdict(section),
        }
        folder = Path(root) / f"{feature_set.name}-{feature_set.fingerprint(config)}"
        return cls(folder, feature_set.dim(section), header)

    def refresh(self) -> None:
        """Take in the shards that have appeared since the last look."""
        for path in _shards(self.folder):
            if path in self._known:
                continue
            self._known.add(path)
            try:
                with _reading(path) as shard:
                    self._places.update(_index(shard, path))
            except FileNotFoundError:
                pass  # merged away by another process, whose shard is in the list too
            except _DamagedError:
                self._set_aside(path)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def place(self, key: str) -> _Place | None:
        """Duration and warnings of an entry, without its values; None where it is missing."""
        return self._places.get(key)

    def read(self, keys: Iterable[str]) -> dict[str, Entry]:
        """Read entries; a key that is missing, or whose shard turns out to be damaged, is left out.

        Parameters
        ----------
        keys : iterable of str
            SHA-256 of the clips' content.

        Returns
        -------
        dict of str to Entry
        """
        entries: dict[str, Entry] = {}
        missing = set(keys)
        # Once more after a shard was lost: another one may hold the same clips.
        while lost := self._read_into(entries, missing):
            self._look_again(lost)
            missing -= entries.keys()
        return entries

    def _read_into(self, entries: dict[str, Entry], keys: set[str]) -> set[Path]:
        """Read what can be read; return the shards that turned out to be damaged or gone."""
        wanted: dict[Path, set[str]] = {}
        for key in keys:
            if key in self._places:
                wanted.setdefault(self._places[key].shard, set()).add(key)
        lost = set()
        for path, inside in wanted.items():
            try:
                with _reading(path) as shard:
                    entries.update(
                        {key: entry for key, entry in _entries(shard, path, self.dim) if key in inside}
                    )
            except FileNotFoundError:
                lost.add(path)
            except _DamagedError:
                self._set_aside(path)
                lost.add(path)
        return lost

    def _look_again(self, lost: set[Path]) -> None:
        """Build the index anew, without the shards that were lost."""
        self._places.clear()
        self._known = set(lost)
        self.refresh()

    def write(self, entries: Mapping[str, Entry]) -> None:
        """Write entries as one shard of their own.

        Raises
        ------
        AccessError
            The folder cannot be written or the disk is full; the store is as it was.
        """
        if not entries:
            return
        path = self.folder / f"{uuid.uuid4().hex}.npz"
        items = list(entries.values())
        # A cache is computed again if the power fails, so it need not wait for the disk.
        with atomic_path(path, durable=False) as temp, temp.open("wb") as handle:
            np.savez(
                handle,
                header=np.array(json.dumps(self.header, sort_keys=True)),
                keys=np.array(list(entries), dtype="S64"),
                lengths=np.array([len(entry.values) for entry in items], dtype=np.int64),
                durations=np.array([entry.duration_s for entry in items], dtype=np.float32),
                warnings=np.array(["\n".join(entry.warnings) for entry in items], dtype=np.str_),
                values=np.concatenate([entry.values for entry in items]).astype(np.float32, copy=False),
            )
        self._known.add(path)
        for key, entry in entries.items():
            self._places[key] = _Place(path, entry.duration_s, entry.warnings)

    def _set_aside(self, path: Path) -> None:
        aside = path.with_suffix(".npz.damaged")
        try:
            path.replace(aside)
            self.damaged.append(display_name(aside))
        except OSError:
            self.damaged.append(display_name(path))  # read-only: it is passed over all the same


@dataclass(frozen=True)
class SetInfo:
    """What one folder of the store holds."""

    folder: str
    feature_set: str
    config: dict[str, Any]
    clips: int
    shards: int
    size_bytes: int
    damaged: tuple[str, ...]


def _folders(root: str | os.PathLike[str]) -> list[Path]:
    try:
        return sorted(path for path in Path(root).iterdir() if path.is_dir() and _FOLDER.fullmatch(path.name))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise access_error("read", Path(root), error) from error


def inspect(root: str | os.PathLike[str], *, verify: bool = False) -> list[SetInfo]:
    """Describe every set in the store.

    Parameters
    ----------
    root : path-like
        Folder of the store.
    verify : bool
        Read every value, so that the checksum of each shard is checked.

    Returns
    -------
    list of SetInfo

    Raises
    ------
    AccessError
        The folder cannot be read.
    """
    infos = []
    for folder in _folders(root):
        keys: set[str] = set()
        header: dict[str, Any] = {}
        damaged, size_bytes = [], 0
        shards = _shards(folder)
        for path in shards:
            try:
                size_bytes += path.stat().st_size
                with _reading(path) as shard:
                    header = json.loads(str(shard["header"]))
                    keys.update(dict(_entries(shard, path, None)) if verify else _index(shard, path))
            except FileNotFoundError:
                continue
            except _DamagedError:
                damaged.append(display_name(path))
        name = header.get("feature_set", folder.name.rpartition("-")[0])
        infos.append(
            SetInfo(
                display_name(folder),
                name,
                header.get("config", {}),
                len(keys),
                len(shards),
                size_bytes,
                tuple(damaged),
            )
        )
    return infos


def compact(root: str | os.PathLike[str], *, shard_bytes: int = 64 * 2**20) -> tuple[int, int]:
    """Merge small shards into larger ones; the old ones go only after the new ones are whole.

    A damaged shard is set aside, as everywhere.

    Parameters
    ----------
    root : path-like
        Folder of the store.
    shard_bytes : int
        Size to fill a shard up to.

    Returns
    -------
    before, after : int
        Number of shards.

    Raises
    ------
    AccessError
        The folder cannot be read or written; no entry is lost.
    """
    before = after = 0
    for folder in _folders(root):
        shards = _shards(folder)
        before += len(shards)
        store = FeatureStore(folder, None, {})
        pending: dict[str, Entry] = {}
        done: list[Path] = []
        seen: set[str] = set()
        for path in shards:
            try:
                with _reading(path) as shard:
                    store.header = json.loads(str(shard["header"]))
                    read = dict(_entries(shard, path, store.dim))
            except FileNotFoundError:
                continue
            except _DamagedError:
                store._set_aside(path)
                continue
            store.dim = store.dim or next((entry.values.shape[1] for entry in read.values()), None)
            fresh = {key: entry for key, entry in read.items() if key not in seen}
            seen.update(fresh)
            pending.update(fresh)
            done.append(path)
            if sum(entry.values.nbytes for entry in pending.values()) >= shard_bytes:
                _swap(store, pending, done)
                pending, done = {}, []
        _swap(store, pending, done)
        after += len(_shards(folder))
    return before, after


def _swap(store: FeatureStore, entries: dict[str, Entry], old: list[Path]) -> None:
    if len(old) < 2:
        return
    store.write(entries)
    for path in old:
        path.unlink(missing_ok=True)


def clear(root: str | os.PathLike[str]) -> int:
    """Remove every shard, whole or damaged, and nothing else; return how many went.

    Raises
    ------
    AccessError
        A shard cannot be removed.
    """
    removed = 0
    for folder in _folders(root):
        for path in folder.iterdir():
            if _SHARD.fullmatch(path.name) or _SET_ASIDE.fullmatch(path.name):
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    raise access_error("remove", path, error) from error
                removed += 1
        try:
            folder.rmdir()
        except OSError:
            pass  # somebody keeps other files there
    return removed
