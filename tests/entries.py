"""What tests put into a store: light enough for a process that is to be killed soon."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from speechemo_cli.config import Config, MfccConfig
from speechemo_cli.features.store import FeatureStore, StoredFeatures

DIM = 3
CONFIG = Config(mfcc=MfccConfig(n_mfcc=DIM))


def key_of(i: int) -> str:
    return hashlib.sha256(str(i).encode()).hexdigest()


def entry_of(i: int) -> StoredFeatures:
    """Always the same entry for a number: one content has one set of features."""
    rng = np.random.default_rng(i)
    values = rng.standard_normal((1 + i % 3, DIM)).astype(np.float32)
    return StoredFeatures(values, 0.25 * (1 + i % 7), key_of(-1 - i), ("truncated: a bit",) * (i % 3))


def entries_of(numbers: Iterable[int]) -> dict[str, StoredFeatures]:
    return {key_of(i): entry_of(i) for i in numbers}


def open_store(root: Path, config: Config = CONFIG, feature_set: str = "mfcc") -> FeatureStore:
    return FeatureStore.open(feature_set, replace(config, store=str(root)))


def write_each(root: Path, *groups: Iterable[int], config: Config = CONFIG) -> list[Path]:
    """Write each group of entries as a shard of its own; return the shards of the store."""
    for numbers in groups:
        open_store(root, config).write(entries_of(numbers))
    return shards(root)


def shards(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("*/*.npz") if not path.name.startswith("."))


def flip_a_value(path: Path) -> None:
    """Damage a shard so that it shows only when values are read, not when the shard is listed."""
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") - 1] ^= 0x40  # the last byte before the directory
    path.write_bytes(content)


def held(store: FeatureStore, numbers: Iterable[int]) -> list[int]:
    return [i for i in numbers if store.find(key_of(i))]


def read_all(root: Path, n: int) -> dict[str, StoredFeatures]:
    return open_store(root).read(map(key_of, range(n)))


def assert_same(found: dict[str, StoredFeatures], expected: dict[str, StoredFeatures]) -> None:
    assert found.keys() == expected.keys()
    for key, entry in expected.items():
        np.testing.assert_array_equal(found[key].values, entry.values)
        assert found[key].values.dtype == np.float32
        assert found[key].duration_s == np.float32(entry.duration_s)
        assert found[key].samples_sha256 == entry.samples_sha256
        assert found[key].warnings == entry.warnings


def temporary_files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.name.startswith(".")]
