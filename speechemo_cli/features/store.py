"""The feature store: immutable `.npz` shards keyed by the content of the clips."""

from __future__ import annotations

import json
import uuid
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
_MEMBERS = ("header", "keys", "lengths", "durations", "warnings", "values")
# What numpy and zipfile raise for cut, flipped, foreign and lying files.
_DAMAGE = (OSError, ValueError, EOFError, KeyError, MemoryError, UnicodeDecodeError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Entry:
    """What the store keeps of one clip.

    Attributes
    ----------
    values : np.ndarray [shape=(frames, dim), dtype=float32]
    duration_s : float
        Length of the clip, before any trimming.
    warnings : tuple of str
        What the reader had to say about the clip, said again when the entry is reused.
    """

    values: NDArray[np.float32]
    duration_s: float
    warnings: tuple[str, ...] = ()


@dataclass
class FeatureStore:
    """The shards of one feature set under one config.

    A shard is written whole under a temporary name and renamed, and never changed afterwards. Each
    writer makes shards of its own, so any number of processes may read and write without a lock. A
    shard that cannot be read is set aside under another name and listed in `damaged`; its clips
    count as missing.
    """

    folder: Path
    dim: int
    header: dict[str, Any]
    damaged: list[str] = field(default_factory=list)
    _shard_of: dict[str, Path] = field(default_factory=dict)
    _known: set[Path] = field(default_factory=set)

    @classmethod
    def open(cls, root: str | os.PathLike[str], feature_set: FeatureSet, config: Config) -> FeatureStore:
        """Open (or begin) the part of the store that holds a feature set under this config.

        Raises
        ------
        AccessError
            The folder exists and cannot be read.
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
        try:
            present = {path for path in self.folder.glob("*.npz") if not path.name.startswith(".")}
        except OSError as error:
            raise access_error("read", self.folder, error) from error
        for path in sorted(present - self._known):
            self._known.add(path)
            try:
                with _load(path) as shard:
                    keys = _keys(shard, path)
            except FileNotFoundError:
                continue  # another process compacted it away
            except _DAMAGE:
                self._set_aside(path)
            else:
                self._shard_of.update(dict.fromkeys(keys, path))

    def __contains__(self, key: str) -> bool:
        return key in self._shard_of

    def __len__(self) -> int:
        return len(self._shard_of)

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
        wanted: dict[Path, set[str]] = {}
        for key in keys:
            if key in self._shard_of:
                wanted.setdefault(self._shard_of[key], set()).add(key)
        entries = {}
        for path, inside in wanted.items():
            try:
                entries.update({key: entry for key, entry in self._entries(path) if key in inside})
            except _DAMAGE:
                self._set_aside(path)
        return entries

    def _entries(self, path: Path) -> Iterator[tuple[str, Entry]]:
        with _load(path) as shard:
            keys = _keys(shard, path)
            lengths, durations, warnings = shard["lengths"], shard["durations"], shard["warnings"]
            values = shard["values"]
        if not (len(keys) == len(lengths) == len(durations) == len(warnings)):
            raise ValueError("members of different lengths")
        if values.shape != (int(lengths.sum()), self.dim) or values.dtype != np.float32:
            raise ValueError("values do not fit the lengths")
        ends = np.cumsum(lengths)
        for i, key in enumerate(keys):
            told = tuple(str(warnings[i]).split("\n")) if warnings[i] else ()
            yield key, Entry(values[ends[i] - lengths[i] : ends[i]], float(durations[i]), told)

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
        self._shard_of.update(dict.fromkeys(entries, path))

    def _set_aside(self, path: Path) -> None:
        aside = path.with_suffix(".npz.damaged")
        try:
            path.replace(aside)
            self.damaged.append(display_name(aside))
        except OSError:
            self.damaged.append(display_name(path))  # read-only: it is passed over all the same
        self._shard_of = {key: shard for key, shard in self._shard_of.items() if shard != path}


def _load(path: Path) -> Any:
    return np.load(path, allow_pickle=False)


def _keys(shard: Any, path: Path) -> list[str]:
    if json.loads(str(shard["header"]))["format"] > FORMAT:
        raise StoreError(
            f"{display_name(path)} was written by a newer version",
            "Update speechemo, or give another folder with --store",
        )
    return [key.decode("ascii") for key in shard["keys"].tolist()]


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
    return sorted(path.parent for path in Path(root).glob("*-????????????/*.npz") if path.name[0] != ".")


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
    """
    infos = []
    for folder in dict.fromkeys(_folders(root)):
        shards = sorted(path for path in folder.glob("*.npz") if path.name[0] != ".")
        keys: set[str] = set()
        damaged, header = [], {}
        for path in shards:
            try:
                with _load(path) as shard:
                    keys.update(_keys(shard, path))
                    header = json.loads(str(shard["header"]))
                    if verify:
                        for member in _MEMBERS:
                            shard[member]
            except _DAMAGE:
                damaged.append(display_name(path))
        infos.append(
            SetInfo(
                folder=display_name(folder),
                feature_set=header.get("feature_set", folder.name.rpartition("-")[0]),
                config=header.get("config", {}),
                clips=len(keys),
                shards=len(shards),
                size_bytes=sum(path.stat().st_size for path in shards),
                damaged=tuple(damaged),
            )
        )
    return infos


def compact(root: str | os.PathLike[str], *, shard_bytes: int = 64 * 2**20) -> tuple[int, int]:
    """Merge small shards into larger ones; the old ones go only after the new ones are whole.

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
    """
    before = after = 0
    for folder in dict.fromkeys(_folders(root)):
        shards = sorted(path for path in folder.glob("*.npz") if path.name[0] != ".")
        with _load(shards[0]) as shard:
            header, dim = json.loads(str(shard["header"])), int(shard["values"].shape[1])
        store = FeatureStore(folder, dim, header)
        store.refresh()
        before += len(shards)
        pending: dict[str, Entry] = {}
        done: list[Path] = []
        seen: set[str] = set()
        for path in [path for path in shards if path in store._known and path.exists()]:
            fresh = {key: entry for key, entry in store._entries(path) if key not in seen}
            seen.update(fresh)
            pending.update(fresh)
            done.append(path)
            if sum(entry.values.nbytes for entry in pending.values()) >= shard_bytes:
                _swap(store, pending, done)
                pending, done = {}, []
        _swap(store, pending, done)
        after += sum(1 for path in folder.glob("*.npz") if path.name[0] != ".")
    return before, after


def _swap(store: FeatureStore, entries: dict[str, Entry], old: list[Path]) -> None:
    if len(old) < 2:
        return
    store.write(entries)
    for path in old:
        path.unlink(missing_ok=True)


def clear(root: str | os.PathLike[str]) -> int:
    """Remove every shard, whole or damaged, and nothing else; return how many went."""
    removed = 0
    for path in [*Path(root).glob("*-????????????/*.npz"), *Path(root).glob("*-????????????/*.npz.damaged")]:
        path.unlink(missing_ok=True)
        removed += 1
    for folder in Path(root).glob("*-????????????"):
        try:
            folder.rmdir()
        except OSError:
            pass  # somebody keeps other files there
    return removed
