"""Show, check, compact and empty the feature store."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechemo_cli.features.store import (
    DamagedError,
    FeatureStore,
    OutdatedError,
    StoredFeatures,
    list_named,
    open_shard,
)
from speechemo_cli.files import access_error, display_name, remove_stale

# The names that the store gives. Nothing else in it is ever touched.
_FOLDER = re.compile(r"[a-z0-9]+-[0-9a-f]{12}")
_SHARD_OR_DAMAGED = re.compile(r"[0-9a-f]{32}\.npz(\.damaged)?")


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


def _folders(root: str) -> list[Path]:
    return [path for path in list_named(Path(root), _FOLDER) if path.is_dir()]


def inspect(root: str, *, verify: bool = False) -> list[SetInfo]:
    """Describe every set in the store; `verify` reads every value, so that each checksum is compared."""
    infos = []
    for folder in _folders(root):
        keys: set[str] = set()
        header: dict[str, Any] = {}
        damaged, outdated, size_bytes = [], 0, 0
        paths = list_named(folder)
        for path in paths:
            try:
                with open_shard(path) as shard:
                    size_bytes += shard.size_bytes
                    header = shard.header
                    keys.update(shard.entries(None) if verify else shard.index())
            except FileNotFoundError:
                continue
            except OutdatedError:
                outdated += 1
            except DamagedError:
                damaged.append(display_name(path))
        infos.append(
            SetInfo(
                folder=display_name(folder),
                feature_set=display_name(header.get("feature_set", folder.name.rpartition("-")[0])),
                config=header.get("config", {}),
                clips=len(keys),
                shards=len(paths),
                size_bytes=size_bytes,
                damaged=tuple(damaged),
                outdated=outdated,
            )
        )
    return infos


def compact(root: str, *, shard_bytes: int = 64 * 2**20) -> tuple[int, int, tuple[str, ...]]:
    """Merge small shards into larger ones; the old ones go only after the new ones are on the disk.

    Returned are how many shards there were and are, and the new names of damaged ones. An AccessError says
    that the folder cannot be read or written; no entry is lost.
    """
    before = after = 0
    damaged: list[str] = []
    for folder in _folders(root):
        paths = list_named(folder)
        before += len(paths)
        store = FeatureStore(folder, None, {})
        pending: dict[str, StoredFeatures] = {}
        done: list[Path] = []
        seen: set[str] = set()
        for path in paths:
            try:
                with open_shard(path) as shard:
                    store.header = store.header or shard.header
                    if shard.header != store.header:
                        continue  # not to be mixed; where its config is used, it counts as damaged
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
        after += len(list_named(folder))
        damaged += store.damaged
    return before, after, tuple(damaged)


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


def clear(root: str) -> int:
    """Remove every shard, whole or damaged, and nothing else; return how many went.

    A folder under the name of a shard is none, and stays with what is in it.
    """
    removed = 0
    for folder in _folders(root):
        remove_stale(folder)
        for path in list_named(folder, _SHARD_OR_DAMAGED):
            if path.is_symlink() or not path.is_dir():
                _remove(path)
                removed += 1
        try:
            folder.rmdir()
        except OSError:
            pass  # somebody keeps other files there
    return removed
