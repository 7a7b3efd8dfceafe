"""Look after the feature store: show it, check it, merge small shards, empty it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from speechemo_cli.features import shards
from speechemo_cli.features.shards import DamagedError, OutdatedError, StoredFeatures, reading
from speechemo_cli.features.store import FeatureStore
from speechemo_cli.files import access_error, display_name, remove_stale

if TYPE_CHECKING:
    import os

# The names that the store gives. Nothing else in it is ever touched.
_FOLDER = re.compile(r"[a-z0-9]+-[0-9a-f]{12}")


@dataclass(frozen=True)
class SetInfo:
    """What one folder of the store holds; `outdated` are shards of an older format, which nobody reads."""

    folder: str
    feature_set: str
    config: dict[str, Any]
    clips: int
    shards: int
    size_bytes: int
    damaged: tuple[str, ...]
    outdated: int


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
        damaged, outdated, size_bytes = [], 0, 0
        paths = shards.listed(folder)
        for path in paths:
            try:
                with reading(path) as shard:
                    size_bytes += shard.size_bytes
                    header = shard.header
                    keys.update(shard.entries(None) if verify else shard.index())
            except FileNotFoundError:
                continue
            except OutdatedError:
                outdated += 1
            except DamagedError:
                damaged.append(display_name(path))
        name = header.get("feature_set", folder.name.rpartition("-")[0])
        infos.append(
            SetInfo(
                display_name(folder),
                display_name(name),
                header.get("config", {}),
                len(keys),
                len(paths),
                size_bytes,
                tuple(damaged),
                outdated,
            )
        )
    return infos


class Compacted(NamedTuple):
    """How many shards there were and are, and which were set aside because they are damaged."""

    before: int
    after: int
    damaged: tuple[str, ...]


def compact(root: str | os.PathLike[str], *, shard_bytes: int = 64 * 2**20) -> Compacted:
    """Merge small shards into larger ones; the old ones go only after the new ones are on the disk.

    Every value is read for it; a damaged shard is set aside, as everywhere.

    Parameters
    ----------
    root : path-like
        Folder of the store.
    shard_bytes : int
        Size to fill a shard up to.

    Raises
    ------
    AccessError
        The folder cannot be read or written; no entry is lost.
    """
    before = after = 0
    damaged: list[str] = []
    for folder in _folders(root):
        paths = shards.listed(folder)
        before += len(paths)
        store = FeatureStore(folder, None, {})
        pending: dict[str, StoredFeatures] = {}
        done: list[Path] = []
        seen: set[str] = set()
        for path in paths:
            try:
                with reading(path) as shard:
                    store.header = store.header or shard.header
                    if not store.fits(shard.header):
                        continue  # not to be mixed; where its config is used, it is set aside
                    read = shard.entries(store.dim)
            except (FileNotFoundError, OutdatedError):
                continue
            except DamagedError:
                store.quarantine(path)
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
        after += len(shards.listed(folder))
        damaged += store.damaged
    return Compacted(before, after, tuple(damaged))


def _swap(store: FeatureStore, entries: dict[str, StoredFeatures], old: list[Path]) -> None:
    if len(old) < 2:
        return
    store.write(entries, durable=True)
    for path in old:
        _remove(path)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise access_error("remove", path, error) from error


def clear(root: str | os.PathLike[str]) -> int:
    """Remove every shard, whole or damaged, and nothing else; return how many went.

    A folder under the name of a shard is none, and stays with what is in it.

    Raises
    ------
    AccessError
        A shard cannot be removed.
    """
    removed = 0
    for folder in _folders(root):
        remove_stale(folder)
        for path in shards.listed(folder, shards.WHOLE, shards.QUARANTINED):
            if path.is_symlink() or not path.is_dir():
                _remove(path)
                removed += 1
        try:
            folder.rmdir()
        except OSError:
            pass  # somebody keeps other files there
    return removed
