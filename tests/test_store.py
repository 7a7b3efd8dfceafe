"""The feature store: what goes in comes out, or is missing and named; nothing in it is executed."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from entries import (
    CONFIG,
    DIM,
    assert_same,
    entries_of,
    flip_a_value,
    held,
    key_of,
    open_store,
    read_all,
    shards,
    write_each,
)

from speechemo_cli.config import Config, MfccConfig
from speechemo_cli.errors import AccessError, StoreError
from speechemo_cli.features import FEATURE_SETS
from speechemo_cli.features.store import FORMAT, Index, IndexEntry, StoredFeatures
from speechemo_cli.features.store_maintenance import clear, compact, inspect

MFCC = FEATURE_SETS["mfcc"]


def rewrite(path: Path, **members: np.ndarray) -> None:
    """Replace members of a shard; the result is a valid `.npz`."""
    with np.load(path) as shard:
        content = dict(shard)
    np.savez(path, **{**content, **members})


# Ways to damage a shard, besides a flipped byte of a value. These make the names unreadable too.
def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def overwrite_with_text(path: Path) -> None:
    path.write_text("Dear diary, the store is full of numbers.")


DAMAGES = [flip_a_value, truncate, empty, overwrite_with_text]


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.marker),)


def test_store_shows_what_another_writer_added_once_it_looks_again(tmp_path: Path) -> None:
    mine, theirs = open_store(tmp_path / "store"), open_store(tmp_path / "store")
    mine.write({})
    assert not (tmp_path / "store").exists()
    theirs.write(entries_of(range(6)))
    assert not held(mine, range(6))
    mine.refresh()
    assert held(mine, range(9)) == list(range(6))
    assert_same(mine.read([key_of(1), key_of(4), key_of(99)]), entries_of([1, 4]))
    assert mine.read([]) == {}


def test_store_gives_back_any_values_and_warnings(tmp_path: Path) -> None:
    def stored(values: object, duration_s: float, *warnings: str) -> StoredFeatures:
        return StoredFeatures(np.array(values, np.float32).reshape(-1, DIM), duration_s, key_of(0), warnings)

    large, small = np.finfo(np.float32).max, np.finfo(np.float32).smallest_subnormal
    first = {
        key_of(1): stored([], 0.0),
        # A surrogate is how Python spells a byte of a file name that is no UTF-8; a warning may quote one.
        key_of(2): stored([[large, small, -0.0]] * 2, 600.0, "a\udcff", " \r\t\u2028 ", "\U0001f600" * 20),
        key_of(3): stored([[np.inf, -np.inf, -large]], large),
    }
    second = {key_of(4): stored([], 1.0, "only of an entry without a frame")}
    for entries in (first, second):
        open_store(tmp_path).write(entries)
    store = open_store(tmp_path)
    assert_same(store.read([*first, *second]), {**first, **second})
    assert store.damaged == []


@pytest.mark.parametrize(
    ("feature_set", "version", "mfcc"),
    [
        ("mfcc", MFCC.version, MfccConfig(n_mfcc=DIM, hop_length=256)),
        ("mfcc", MFCC.version, MfccConfig(n_mfcc=DIM + 1)),
        ("mfcc", MFCC.version + 1, CONFIG.mfcc),
        ("whisper", MFCC.version, CONFIG.mfcc),
        ("mfcc@telephone", MFCC.version, CONFIG.mfcc),
    ],
    ids=["hop_length", "n_mfcc", "version", "feature set", "condition"],
)
def test_store_of_another_config_or_version_has_none_of_it(
    tmp_path: Path, feature_set: str, version: int, mfcc: MfccConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    store.write(entries_of([1]))
    monkeypatch.setitem(FEATURE_SETS, "mfcc", dataclasses.replace(MFCC, version=version))
    other = open_store(tmp_path, Config(mfcc=mfcc), feature_set)
    assert other.folder != store.folder
    assert other.read([key_of(1)]) == {}


def test_shard_holds_plain_arrays_and_says_what_made_it(tmp_path: Path) -> None:
    (path,) = write_each(tmp_path, range(3))
    with np.load(path, allow_pickle=False) as shard:
        assert not any(shard[name].dtype.hasobject for name in shard.files)
        header = json.loads(str(shard["header"]))
    made_by = {"feature_set": "mfcc", "version": MFCC.version, "config": dataclasses.asdict(CONFIG.mfcc)}
    assert header == {"format": FORMAT, **made_by}


@pytest.mark.parametrize("member", ["keys", "values", "header", "warnings", ""])
def test_pickle_in_a_shard_or_under_its_name_is_quarantined_and_never_executed(
    tmp_path: Path, member: str
) -> None:
    marker, root = tmp_path / "executed", tmp_path / "store"
    (path,) = write_each(root, [1])
    write_each(root, [2])
    if member:
        bomb = np.empty(1, dtype=object)
        bomb[0] = Bomb(marker)
        rewrite(path, **{member: bomb})
    else:
        path.write_bytes(pickle.dumps(Bomb(marker)))
    loaded = np.load(path, allow_pickle=True)
    if member:
        with loaded:
            loaded[member]
    assert marker.exists()  # it would have gone off
    marker.rmdir()

    inspect(root, verify=True)
    store = open_store(root)
    assert_same(store.read([key_of(1), key_of(2)]), entries_of([2]))
    assert not marker.exists()
    assert store.damaged == [f"{path}.damaged"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_shard_that_is_damaged_is_named_and_quarantined_and_its_clips_are_missing(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    (path,) = write_each(tmp_path, [1, 2])
    write_each(tmp_path, [3])
    assert inspect(tmp_path, verify=True)[0].damaged == ()
    damage(path)
    content = path.read_bytes()

    (info,) = inspect(tmp_path, verify=True)
    assert (info.damaged, info.shards) == ((str(path),), 2)
    assert path.read_bytes() == content

    store, aside = open_store(tmp_path), Path(f"{path}.damaged")
    assert_same(store.read(map(key_of, [1, 2, 3])), entries_of([3]))
    assert store.damaged == [str(aside)]
    assert aside.exists()
    assert not path.exists()
    assert not held(store, [1])

    store.write(entries_of([1, 2]))
    again = open_store(tmp_path)
    assert again.damaged == []
    assert_same(again.read(map(key_of, [1, 2, 3])), entries_of([1, 2, 3]))


Change = Callable[[np.ndarray], np.ndarray]


@pytest.mark.parametrize(
    ("member", "change"),
    [
        *itertools.product(
            ("keys", "samples", "lengths", "durations", "warnings", "values"),
            (lambda array: array[1:], lambda array: array[None]),
        ),
        ("keys", lambda keys: keys.astype("U64")),
        ("keys", lambda keys: np.char.add(keys, keys)),
        ("keys", lambda keys: keys[[0, 0, 1]]),
        ("keys", np.char.upper),
        ("keys", lambda keys: keys.astype("S63").astype("S64")),
        ("samples", np.char.upper),
        ("lengths", lambda lengths: lengths.astype(float)),
        ("lengths", lambda lengths: lengths.astype(np.uint64)),
        ("lengths", lambda lengths: lengths + 1),
        ("lengths", lambda _: np.array([-1, 2, 5])),
        ("lengths", lambda _: np.array([2**63 - 1, 2**63 - 1, 6 + 2])),  # whose sum is 6 as well
        ("durations", lambda durations: durations.astype(float)),
        *(("durations", lambda _, bad=bad: np.array([1, bad, 1], "f4")) for bad in (np.nan, np.inf, -1)),
        ("warnings", lambda _: np.array([b"", b"", b""])),
        ("values", lambda values: values.astype(float)),
        ("values", lambda values: values.astype(">f4")),
        ("values", lambda values: np.hstack([values, values])),
    ],
)
def test_shard_with_members_that_disagree_is_not_used(tmp_path: Path, member: str, change: Change) -> None:
    (path,) = write_each(tmp_path, range(3))
    with np.load(path) as shard:
        rewrite(path, **{member: change(shard[member])})
    store = open_store(tmp_path)
    assert store.read(map(key_of, range(3))) == {}
    assert len(store.damaged) == 1


def test_shard_of_a_newer_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    (path,) = write_each(tmp_path, [1])
    rewrite(path, header=np.array(json.dumps({"format": FORMAT + 1})))
    content = path.read_bytes()
    for action in (open_store, inspect):
        with pytest.raises(StoreError, match=r"written by a newer version.*--store"):
            action(tmp_path)
    assert path.read_bytes() == content


def test_shard_of_an_older_format_is_passed_over_and_not_called_damaged(tmp_path: Path) -> None:
    (path,) = write_each(tmp_path, [1])
    with np.load(path) as stored:
        members = {name: stored[name] for name in stored.files if name != "samples"}
    header = {**json.loads(str(members["header"])), "format": FORMAT - 1}
    np.savez(path, **{**members, "header": np.array(json.dumps(header))})
    store = open_store(tmp_path)
    assert store.read([key_of(1)]) == {}
    store.write(entries_of([1]))
    assert_same(read_all(tmp_path, 2), entries_of([1]))
    assert store.damaged == []
    (info,) = inspect(tmp_path, verify=True)
    assert (info.clips, info.shards, info.outdated, info.damaged) == (1, 2, 1, ())
    assert clear(tmp_path) == 2


def header_with(**fields: object) -> str:
    return json.dumps({"format": FORMAT, "feature_set": "mfcc", "version": 1, "config": {}, **fields})


@pytest.mark.parametrize(
    "header",
    [
        *["[]", '{"format": "x"}', '{"format": 1}', "{}", "no json"],
        header_with(format=True),
        header_with(feature_set=[1]),
        header_with(version="1"),
        header_with(config=[]),
        header_with(config={"sr": [1]}),
        header_with(config={"sr": {"sr": 1}}),
    ],
)
def test_header_that_makes_no_sense_is_damage(tmp_path: Path, header: str) -> None:
    (path,) = write_each(tmp_path, [1])
    rewrite(path, header=np.array(header))

    assert inspect(tmp_path)[0].damaged == (str(path),)
    assert open_store(tmp_path).damaged == [f"{path}.damaged"]


@pytest.mark.parametrize(
    ("name", "error", "raised"),
    [
        ("os.open", PermissionError(13, "Permission denied"), AccessError),
        ("numpy.frombuffer", MemoryError(), MemoryError),
    ],
)
def test_shard_that_cannot_be_read_now_is_not_taken_for_damaged(
    tmp_path: Path, name: str, error: Exception, raised: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = write_each(tmp_path, [1])
    with monkeypatch.context() as patched:
        patched.setattr(name, Mock(side_effect=error))
        with pytest.raises(raised):
            open_store(tmp_path)
    assert shards(tmp_path) == [path]


@pytest.mark.parametrize("victim", [0, 1])
def test_read_finds_a_clip_of_two_shards_when_either_is_lost(tmp_path: Path, victim: int) -> None:
    flip_a_value(write_each(tmp_path, [1], [1])[victim])

    assert_same(read_all(tmp_path, 2), entries_of([1]))


def test_read_finds_clips_whose_shards_are_merged_meanwhile(tmp_path: Path) -> None:
    write_each(tmp_path, [0], [1])
    store = open_store(tmp_path)
    compact(tmp_path)

    assert_same(store.read(map(key_of, range(2))), entries_of(range(2)))


@pytest.mark.parametrize(("what", "nothing"), [(inspect, []), (compact, (0, 0, ())), (clear, 0)])
def test_store_that_is_not_there_is_an_empty_one(
    tmp_path: Path, what: Callable[[Path], object], nothing: object
) -> None:
    assert what(tmp_path / "none") == nothing
    assert not (tmp_path / "none").exists()


def whisper_entry(root: Path) -> Path:
    """Write an entry of another set; return the folder that it is in."""
    other = open_store(root, feature_set="whisper")
    other.write({key_of(1): StoredFeatures(np.zeros((1, 3072), np.float32), 1.0, key_of(0))})
    return other.folder


def test_inspect_tells_sets_clips_shards_and_sizes(tmp_path: Path) -> None:
    (first, _) = write_each(tmp_path, [1, 2], [2, 3])
    whisper_entry(tmp_path)
    first.with_name(f".{first.stem}.1.2.tmp.npz").write_bytes(first.read_bytes()[:100])  # half written
    mfcc, whisper = inspect(tmp_path, verify=True)
    assert (whisper.feature_set, whisper.clips, whisper.shards) == ("whisper", 1, 1)
    assert (mfcc.feature_set, mfcc.clips, mfcc.shards) == ("mfcc", 3, 2)
    assert mfcc.config == dataclasses.asdict(CONFIG.mfcc)
    assert mfcc.size_bytes + whisper.size_bytes == sum(path.stat().st_size for path in shards(tmp_path))
    assert mfcc.damaged == whisper.damaged == ()


def test_inspect_shows_the_name_in_a_header_on_one_line_of_any_terminal(tmp_path: Path) -> None:
    (path,) = write_each(tmp_path, [1])
    rewrite(path, header=np.array(header_with(feature_set="\x1b[31mred\nx")))

    assert inspect(tmp_path)[0].feature_set == r"\x1b[31mred\nx"


def test_compact_keeps_every_entry_of_every_set_in_fewer_shards(tmp_path: Path) -> None:
    wide = Config(mfcc=MfccConfig(n_mfcc=DIM + 2))
    for i in range(6):
        write_each(tmp_path, [i, i + 1])  # neighbours hold one clip in common
        open_store(tmp_path, wide).write(
            {key_of(i): StoredFeatures(np.full((1, DIM + 2), i, np.float32), 1.0, key_of(0))}
        )
    for expected in ((12, 2, ()), (2, 2, ())):
        assert compact(tmp_path) == expected
        assert len(shards(tmp_path)) == 2
        assert_same(read_all(tmp_path, 7), entries_of(range(7)))
    found = open_store(tmp_path, wide).read(map(key_of, range(6)))
    assert [found[key_of(i)].values.tolist() for i in range(6)] == [[[i] * (DIM + 2)] for i in range(6)]


def test_compact_fills_shards_up_to_the_size_given(tmp_path: Path) -> None:
    for i in range(6):
        entry = StoredFeatures(np.full((100, DIM), i, np.float32), 1.0, key_of(0))
        open_store(tmp_path).write({key_of(i): entry})
    assert compact(tmp_path, shard_bytes=2 * 100 * DIM * 4) == (6, 3, ())
    assert all((read_all(tmp_path, 6)[key_of(i)].values == i).all() for i in range(6))


def test_clear_removes_shards_whole_and_damaged_and_nothing_else(tmp_path: Path) -> None:
    truncate(write_each(tmp_path, [0], [1], [2])[0])
    other, store = whisper_entry(tmp_path), open_store(tmp_path)
    assert store.damaged
    killed = store.folder / ".speechemo-0123456789ab.1.1.tmp.npz"
    killed.touch()
    os.utime(killed, (0, 0))
    kept = [
        *(store.folder / name for name in ("notes.txt", ".speechemo-abc.1.2.tmp.npz")),
        *(tmp_path / name for name in ("README", "mine/weights.npz", "my-holidayphoto/x.npz")),
    ]
    for path in kept:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    assert clear(tmp_path) == 4
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)
    assert not other.exists()
    assert not held(open_store(tmp_path), range(3))


def keys_for_index(n: int) -> list[str]:
    """Hashes, one in eight of which ends in a zero byte, which numpy's strings leave out."""
    return [key_of(i) if i % 8 else f"{key_of(i)[:-2]}00" for i in range(n)]


def test_index_says_what_a_dict_says(rng: np.random.Generator) -> None:
    index, expected, known = Index(), {}, keys_for_index(300)
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
    known = keys_for_index(20_000)
    tracemalloc.start()
    index = Index()
    for i in range(0, len(known), 100):
        index.add(Path("shard.npz"), dict.fromkeys(known[i : i + 100], (1.0, ())))
    assert index.get(known[0])
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken / len(known) < 60
