"""Where the entries of a store lie: forty bytes a clip, for there may be ten million."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.features.shards import IndexEntry

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray


class Index:
    """Entries by the SHA-256 of the clips' content; of two with the same key the later one counts."""

    def __init__(self) -> None:
        # Sorted by the first; each lies in one piece, or every search would copy it.
        self._columns: tuple[NDArray[Any], ...] = tuple(np.empty(0, kind) for kind in ("S32", "i4", "f4"))
        self._new: list[tuple[NDArray[Any], ...]] = []
        self._shards: list[Path] = []
        # Few clips have any.
        self._warnings: dict[str, tuple[str, ...]] = {}

    def add(self, shard: Path, entries: Mapping[str, tuple[float, tuple[str, ...]]]) -> None:
        """Take in what a shard holds: duration and warnings by key."""
        keys = np.frombuffer(bytes.fromhex("".join(entries)), "S32")
        durations = np.array([duration_s for duration_s, _ in entries.values()], np.float32)
        self._new.append((keys, np.full(len(keys), len(self._shards), np.int32), durations))
        self._shards.append(shard)
        self._warnings |= {key: warnings for key, (_, warnings) in entries.items() if warnings}

    def _sorted(self) -> tuple[NDArray[Any], ...]:
        if self._new:
            columns = [np.concatenate(parts) for parts in zip(self._columns, *self._new, strict=True)]
            self._new.clear()
            order = np.argsort(columns[0], kind="stable")
            keys = columns[0][order]
            last = order[np.append(keys[1:] != keys[:-1], True)]
            self._columns = tuple(column[last] for column in columns)
        return self._columns

    def get(self, key: str) -> IndexEntry | None:
        """Return where an entry lies, or None."""
        keys, shards, durations = self._sorted()
        wanted = bytes.fromhex(key).rstrip(b"\0")  # as numpy gives its strings
        at = np.searchsorted(keys, np.bytes_(wanted))
        if at == len(keys) or keys[at] != wanted:
            return None
        return IndexEntry(self._shards[shards[at]], float(durations[at]), self._warnings.get(key, ()))

    def __len__(self) -> int:
        return len(self._sorted()[0])
