"""The feature store: immutable `.npz` shards keyed by the content of the clips."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechemo_cli.errors import AccessError
from speechemo_cli.features import shards
from speechemo_cli.features.index import Index
from speechemo_cli.features.shards import (
    FORMAT,
    DamagedError,
    IndexEntry,
    OutdatedError,
    StoredFeatures,
    reading,
)
from speechemo_cli.files import atomic_path, display_name, remove_stale

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from speechemo_cli.config import Config
    from speechemo_cli.features import FeatureSet


@dataclass
class FeatureStore:
    """The shards of one feature set under one config.

    A shard is written whole under a temporary name and renamed, and never changed afterwards. Each
    writer makes shards of its own, so any number of processes may read and write without a lock. A
    shard whose content is damaged is set aside under another name and listed in `damaged`; its clips
    count as missing. So do those of a shard of an older format, which is passed over.
    """

    folder: Path
    dim: int | None
    header: dict[str, Any]
    damaged: list[str] = field(default_factory=list)
    _index: Index = field(default_factory=Index)
    _known: set[Path] = field(default_factory=set)
    _lost: set[Path] = field(default_factory=set)

    @classmethod
    def open(cls, root: str | os.PathLike[str], feature_set: FeatureSet, config: Config) -> FeatureStore:
        """Open (or begin) the part of the store that holds a feature set under this config.

        What killed writers left half written goes, once it is an hour old.

        Raises
        ------
        AccessError
            The folder exists and cannot be read.
        StoreError
            A shard was written by a newer version.
        """
        store = cls.at(root, feature_set, config)
        remove_stale(store.folder)
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
            "config": feature_set.settings(config),
        }
        folder = Path(root) / f"{feature_set.name}-{feature_set.fingerprint(config)}"
        return cls(folder, feature_set.dim(section), header)

    def refresh(self) -> None:
        """Take in the shards that have appeared since the last look."""
        # Again until nothing is new: where a shard is gone that was listed, another process has merged
        # it into one that was perhaps not there yet.
        while new := [path for path in shards.listed(self.folder) if path not in self._known]:
            for path in new:
                self._known.add(path)
                try:
                    with reading(path) as shard:
                        if not self.fits(shard.header):
                            raise DamagedError("made under another config")
                        self._index.add(path, shard.index())
                except (FileNotFoundError, OutdatedError):
                    pass
                except DamagedError:
                    self.quarantine(path)

    def fits(self, header: Mapping[str, Any]) -> bool:
        """Whether a shard with this header holds what this part of the store is for."""
        return {**header, "format": FORMAT} == self.header

    def __contains__(self, key: str) -> bool:
        return self.place(key) is not None

    def __len__(self) -> int:
        return len(self._index)

    def place(self, key: str) -> IndexEntry | None:
        """Duration and warnings of an entry, without its values; None where it is missing."""
        return self._index.get(key)

    def read(self, keys: Iterable[str]) -> dict[str, StoredFeatures]:
        """Read entries; a key that is missing, or whose shard turns out to be damaged, is left out.

        Parameters
        ----------
        keys : iterable of str
            SHA-256 of the clips' content.

        Returns
        -------
        dict of str to StoredFeatures
        """
        entries: dict[str, StoredFeatures] = {}
        missing = set(keys)
        # Once more after a shard was lost: another one may hold the same clips.
        while lost := self._read_into(entries, missing):
            self._look_again(lost)
            missing -= entries.keys()
        return entries

    def _read_into(self, entries: dict[str, StoredFeatures], keys: set[str]) -> set[Path]:
        """Read what can be read; return the shards that turned out to be damaged or gone."""
        wanted: dict[Path, set[str]] = {}
        for key in keys:
            if place := self.place(key):
                wanted.setdefault(place.shard, set()).add(key)
        lost = set()
        for path, inside in wanted.items():
            try:
                with reading(path) as shard:
                    read = shard.entries(self.dim)
                entries.update({key: entry for key, entry in read.items() if key in inside})
            except FileNotFoundError:
                lost.add(path)
            except DamagedError:
                self.quarantine(path)
                lost.add(path)
        return lost

    def _look_again(self, lost: set[Path]) -> None:
        """Build the index anew, without the shards that were lost."""
        self._index = Index()
        self._lost |= lost  # for good: where it cannot be set aside, it is still there
        self._known = set(self._lost)
        self.refresh()

    def write(self, entries: Mapping[str, StoredFeatures], *, durable: bool = False) -> None:
        """Write entries as one shard of their own.

        Parameters
        ----------
        entries : mapping of str to StoredFeatures
            By the SHA-256 of the clips' content.
        durable : bool
            Wait for the disk. A cache that is computed again if the power fails need not.

        Raises
        ------
        AccessError
            The folder cannot be written or the disk is full; the store is as it was.
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
        self._known.add(path)
        self._index.add(path, {key: (entry.duration_s, entry.warnings) for key, entry in entries.items()})

    def _write(self, path: Path, entries: Mapping[str, StoredFeatures], *, durable: bool) -> None:
        with atomic_path(path, durable=durable) as temp, temp.open("wb") as handle:
            shards.write(handle, self.header, entries)

    def quarantine(self, path: Path) -> None:
        """Give a damaged shard another name, so that nobody looks into it again."""
        aside = path.with_suffix(".npz.damaged")
        try:
            path.replace(aside)
            self.damaged.append(display_name(aside))
        except OSError:
            self.damaged.append(display_name(path))  # read-only: it is passed over all the same
