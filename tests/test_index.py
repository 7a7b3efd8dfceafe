"""The index of a store: what a dict would say, in a fraction of its memory."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path

import numpy as np

from speechemo_cli.features.store import Index, IndexEntry


def keys(n: int) -> list[str]:
    """Hashes, one in eight of which ends in a zero byte, which numpy's strings leave out."""
    hashes = (hashlib.sha256(b"%d" % i).hexdigest() for i in range(n))
    return [key if i % 8 else f"{key[:-2]}00" for i, key in enumerate(hashes)]


def test_index_says_what_a_dict_says(rng: np.random.Generator) -> None:
    index, expected, known = Index(), {}, keys(300)
    for n in range(20):
        shard = Path(f"{n}.npz")
        some = [known[i] for i in rng.choice(200, size=16, replace=False)]
        entries = {key: (float(n), ("cut",) if key < "8" else ()) for key in some}
        index.add(shard, entries)
        expected |= {key: IndexEntry(shard, *entry) for key, entry in entries.items()}
        if n % 3 == 0:  # asked for in between, it goes on
            assert index.get(some[0]) == expected[some[0]]

    assert {key: index.get(key) for key in known} == {key: expected.get(key) for key in known}


def test_index_takes_some_forty_bytes_a_clip() -> None:
    known = keys(50_000)
    tracemalloc.start()
    index = Index()
    for i in range(0, len(known), 100):
        index.add(Path("shard.npz"), dict.fromkeys(known[i : i + 100], (1.0, ())))
    assert index.get(known[0])
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken / len(known) < 60
