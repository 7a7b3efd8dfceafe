"""The feature store: what goes in comes out, or is missing and named; nothing in it is executed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from entries import CONFIG, DIM, assert_same, entries_of, held, key_of, open_store, shards
from hypothesis import given, settings
from hypothesis import strategies as st

from speechemo_cli.config import AugmentConfig, Config, MfccConfig
from speechemo_cli.errors import AccessError, StoreError
from speechemo_cli.features import FEATURE_SETS
from speechemo_cli.features.store import FORMAT, FeatureStore, StoredFeatures
from speechemo_cli.features.store_maintenance import clear, compact, inspect

if TYPE_CHECKING:
    from collections.abc import Callable


MFCC = FEATURE_SETS["mfcc"]


def rewrite(path: Path, **members: np.ndarray) -> None:
    """Replace members of a shard; the result is a valid `.npz`."""
    with np.load(path) as shard:
        content = dict(shard)
    np.savez(path, **{**content, **members})


# Ways to damage a shard. A flipped byte of a value leaves the names readable, the others do not.
def flip_a_value(path: Path) -> None:
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        at = archive.start_dir - 1  # the last byte before the directory is the last byte of `values`
    content[at] ^= 0x40
    path.write_bytes(content)


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


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.write(entries_of(range(10)))
    assert held(store, range(12)) == list(range(10))
    assert_same(store.read(map(key_of, range(10))), entries_of(range(10)))


def test_a_reopened_store_holds_what_was_written(tmp_path: Path) -> None:
    open_store(tmp_path).write(entries_of(range(5)))
    open_store(tmp_path).write(entries_of(range(5, 8)))
    store = open_store(tmp_path)
    assert_same(store.read(map(key_of, range(8))), entries_of(range(8)))


def test_only_the_keys_asked_for_come_back(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.write(entries_of(range(6)))
    assert_same(store.read([key_of(1), key_of(4), key_of(99)]), entries_of([1, 4]))
    assert not held(store, [99])
    assert store.read([]) == {}


def test_writing_nothing_makes_nothing(tmp_path: Path) -> None:
    open_store(tmp_path / "store").write({})
    assert not (tmp_path / "store").exists()


def test_refresh_shows_what_another_writer_added(tmp_path: Path) -> None:
    mine, theirs = open_store(tmp_path), open_store(tmp_path)
    theirs.write(entries_of([1]))
    assert not held(mine, [1])
    mine.refresh()
    assert_same(mine.read([key_of(1)]), entries_of([1]))


texts = st.text(
    # Surrogates are how Python spells file names that are no UTF-8; a warning may quote one. Line ends
    # separate warnings, which are lines.
    st.characters(exclude_categories=(), exclude_characters="\n\0"),
    min_size=1,
    max_size=20,
)
any_entries = st.dictionaries(
    st.binary(max_size=4).map(lambda content: hashlib.sha256(content).hexdigest()),
    st.builds(
        lambda frames, duration_s, warnings: StoredFeatures(
            np.array(frames, np.float32).reshape(-1, DIM), duration_s, key_of(0), tuple(warnings)
        ),
        st.lists(st.tuples(*[st.floats(width=32, allow_nan=False)] * DIM), max_size=4),
        st.floats(0, 600, width=32),
        st.lists(texts, max_size=3),
    ),
    max_size=5,
)


@settings(max_examples=40, deadline=None, database=None)
@given(first=any_entries, second=any_entries)
def test_any_entries_survive_the_store(
    first: dict[str, StoredFeatures], second: dict[str, StoredFeatures]
) -> None:
    second = {key: entry for key, entry in second.items() if key not in first}
    with tempfile.TemporaryDirectory() as folder:
        for entries in (first, second):
            open_store(Path(folder)).write(entries)
        store = open_store(Path(folder))
        assert_same(store.read([*first, *second]), {**first, **second})
        assert store.damaged == []


@pytest.mark.parametrize(
    "other",
    [
        ("mfcc", MFCC.version, MfccConfig(n_mfcc=DIM, hop_length=256)),
        ("mfcc", MFCC.version, MfccConfig(n_mfcc=DIM + 1)),
        ("mfcc", MFCC.version + 1, CONFIG.mfcc),
        ("whisper", MFCC.version, CONFIG.mfcc),
        ("mfcc@telephone", MFCC.version, CONFIG.mfcc),
    ],
    ids=["hop_length", "n_mfcc", "version", "feature set", "condition"],
)
def test_another_config_or_version_sees_none_of_it(
    tmp_path: Path, other: tuple[str, int, MfccConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    store.write(entries_of([1]))
    name, version, mfcc = other
    monkeypatch.setitem(FEATURE_SETS, "mfcc", dataclasses.replace(MFCC, version=version))
    lapsed = FeatureStore.open(name, Config(mfcc=mfcc, store=str(tmp_path)))
    assert lapsed.folder != store.folder
    assert not held(lapsed, [1])
    assert lapsed.read([key_of(1)]) == {}


def test_settings_that_do_not_touch_the_numbers_keep_the_store(tmp_path: Path) -> None:
    open_store(tmp_path).write(entries_of([1]))
    other = dataclasses.replace(CONFIG, seed=9, jobs=3, models="elsewhere", augment=AugmentConfig(copies=7))
    assert held(open_store(tmp_path, other), [1])


def test_a_shard_holds_plain_arrays_and_says_what_made_it(tmp_path: Path) -> None:
    open_store(tmp_path).write(entries_of(range(3)))
    (path,) = shards(tmp_path)
    with np.load(path, allow_pickle=False) as shard:
        assert not any(shard[name].dtype.hasobject for name in shard.files)
        header = json.loads(str(shard["header"]))
    assert header["feature_set"] == "mfcc"
    assert header["version"] == MFCC.version
    assert header["config"] == dataclasses.asdict(CONFIG.mfcc)


@pytest.mark.parametrize("member", ["keys", "values", "header", "warnings"])
def test_a_planted_pickle_is_set_aside_and_never_executed(tmp_path: Path, member: str) -> None:
    marker = tmp_path / "executed"
    bomb = np.empty(1, dtype=object)
    bomb[0] = Bomb(marker)
    store = open_store(tmp_path / "store")
    store.write(entries_of([1]))
    (path,) = shards(tmp_path / "store")
    rewrite(path, **{member: bomb})
    with np.load(path, allow_pickle=True) as shard:
        shard[member]
    assert marker.exists()  # it would have gone off
    marker.rmdir()

    inspect(tmp_path / "store", verify=True)
    store = open_store(tmp_path / "store")
    assert store.read([key_of(1)]) == {}
    assert not marker.exists()
    assert len(store.damaged) == 1
    assert shards(tmp_path / "store") == []


def test_a_bare_pickle_under_a_shards_name_is_set_aside_and_never_executed(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    store = open_store(tmp_path / "store")
    store.write(entries_of([1]))
    (store.folder / f"{0:032x}.npz").write_bytes(pickle.dumps(Bomb(marker)))
    store = open_store(tmp_path / "store")
    assert_same(store.read([key_of(1)]), entries_of([1]))
    assert [Path(name).name for name in store.damaged] == [f"{0:032x}.npz.damaged"]
    assert not marker.exists()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_set_aside_and_named_and_its_clips_are_missing(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    open_store(tmp_path).write(entries_of([1, 2]))
    (path,) = shards(tmp_path)
    open_store(tmp_path).write(entries_of([3]))
    damage(path)

    store = open_store(tmp_path)
    assert_same(store.read(map(key_of, [1, 2, 3])), entries_of([3]))
    aside = Path(f"{path}.damaged")
    assert store.damaged == [str(aside)]
    assert aside.exists()
    assert not path.exists()
    assert not held(store, [1])

    store.write(entries_of([1, 2]))
    again = open_store(tmp_path)
    assert again.damaged == []
    assert_same(again.read(map(key_of, [1, 2, 3])), entries_of([1, 2, 3]))


@pytest.mark.parametrize(
    "members",
    [
        {"lengths": np.array([1, 1, 1])},
        {"lengths": np.array([5, 6])},
        {"durations": np.array([1.0], np.float32)},
        {"warnings": np.array([""])},
        {"values": np.zeros((5, DIM + 1), np.float32)},
        {"values": np.zeros((5, DIM), np.float64)},
        {"values": np.zeros(5, np.float32)},
        {"values": np.zeros((5, DIM), ">f4")},
        {"lengths": np.array([2.0, 3.0])},
        {"lengths": np.array([[2, 3]])},
        {"lengths": np.array([-1, 6])},
        {"lengths": np.array([2**63 - 1, 2**63 - 1])},
        {"lengths": np.array([2, 3], np.uint64)},
        {"durations": np.array([1.0, np.nan], np.float32)},
        {"durations": np.array([1.0, np.inf], np.float32)},
        {"durations": np.array([1.0, -1.0], np.float32)},
        {"durations": np.array([[1.0, 1.0]], np.float32)},
        {"durations": np.array([1.0, 1.0])},
        {"warnings": np.array([b"", b""])},
        {"warnings": np.array([["", ""]])},
        {"keys": np.array([key_of(1), key_of(1)], "S64")},
        {"keys": np.array([key_of(1), key_of(2).upper()], "S64")},
        {"keys": np.array([key_of(1), key_of(2)[:63]], "S64")},
        {"keys": np.array([2 * key_of(1), 2 * key_of(2)], "S128")},
        {"keys": np.array([[key_of(1), key_of(2)]], "S64")},
        {"keys": np.array([key_of(1), key_of(2)])},
        {"samples": np.array([key_of(1)], "S64")},
        {"samples": np.array([key_of(1), key_of(2).upper()], "S64")},
    ],
    ids=str,
)
def test_a_shard_whose_members_disagree_is_not_used(tmp_path: Path, members: dict) -> None:
    open_store(tmp_path).write(entries_of([1, 2]))
    (path,) = shards(tmp_path)
    rewrite(path, **members)
    store = open_store(tmp_path)
    assert store.read([key_of(1), key_of(2)]) == {}
    assert len(store.damaged) == 1


def test_lengths_whose_sum_wraps_around_are_damage(tmp_path: Path) -> None:
    open_store(tmp_path).write(entries_of([0, 3, 6]))
    (path,) = shards(tmp_path)
    lengths = np.array([2**63 - 1, 2**63 - 1, 3 + 2])
    assert lengths.sum() == 3
    rewrite(path, lengths=lengths)
    assert inspect(tmp_path, verify=True)[0].damaged == (str(path),)
    assert compact(tmp_path).damaged == (f"{path}.damaged",)


def test_a_shard_of_a_newer_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    open_store(tmp_path).write(entries_of([1]))
    (path,) = shards(tmp_path)
    rewrite(path, header=np.array(json.dumps({"format": FORMAT + 1})))
    content = path.read_bytes()
    with pytest.raises(StoreError, match=r"written by a newer version.*--store"):
        open_store(tmp_path)
    with pytest.raises(StoreError, match="written by a newer version"):
        inspect(tmp_path)
    assert path.read_bytes() == content


def test_a_shard_of_an_older_format_is_passed_over_and_not_called_damaged(tmp_path: Path) -> None:
    open_store(tmp_path).write(entries_of([1]))
    (path,) = shards(tmp_path)
    with np.load(path) as stored:
        members = {name: stored[name] for name in stored.files if name != "samples"}
    header = {**json.loads(str(members["header"])), "format": FORMAT - 1}
    np.savez(path, **{**members, "header": np.array(json.dumps(header))})
    store = open_store(tmp_path)
    assert store.read([key_of(1)]) == {}
    store.write(entries_of([1]))
    assert_same(open_store(tmp_path).read([key_of(1)]), entries_of([1]))
    assert store.damaged == []
    (info,) = inspect(tmp_path, verify=True)
    assert (info.clips, info.shards, info.outdated, info.damaged) == (1, 2, 1, ())
    assert clear(tmp_path) == 2


def test_a_half_written_shard_of_a_killed_process_is_passed_over(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.write(entries_of([1]))
    (path,) = shards(tmp_path)
    half = path.with_name(f".{path.stem}.1.2.tmp.npz")
    half.write_bytes(path.read_bytes()[:100])
    again = open_store(tmp_path)
    assert again.damaged == []
    assert held(again, range(3)) == [1]
    (info,) = inspect(tmp_path, verify=True)
    assert (info.shards, info.damaged) == (1, ())
    assert compact(tmp_path)[:2] == (1, 1)


def test_a_failed_write_leaves_the_store_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tmp_path)
    store.write(entries_of([1]))
    before = sorted(tmp_path.rglob("*"))

    def full(handle, **members: np.ndarray) -> None:
        handle.write(b"PK")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(np, "savez", full)
        with pytest.raises(AccessError, match="no space left on device"):
            store.write(entries_of([2]))
    assert sorted(tmp_path.rglob("*")) == before
    assert not held(store, [2])
    assert held(open_store(tmp_path), range(3)) == [1]


def test_a_file_in_the_stores_place_is_an_access_error(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("not a folder")
    with pytest.raises(AccessError, match=r"cannot (read|write)"):
        open_store(tmp_path / "store").write(entries_of([1]))
    assert (tmp_path / "store").read_text() == "not a folder"


def test_inspect_tells_sets_clips_shards_and_sizes(tmp_path: Path) -> None:
    for numbers in ([1, 2], [2, 3]):
        open_store(tmp_path).write(entries_of(numbers))
    other = FeatureStore.open("whisper", dataclasses.replace(CONFIG, store=str(tmp_path)))
    other.write({key_of(1): StoredFeatures(np.zeros((1, 3072), np.float32), 1.0, key_of(0))})
    mfcc, whisper = inspect(tmp_path)
    assert (whisper.feature_set, whisper.clips, whisper.shards) == ("whisper", 1, 1)
    assert (mfcc.feature_set, mfcc.clips, mfcc.shards) == ("mfcc", 3, 2)
    assert mfcc.config == dataclasses.asdict(CONFIG.mfcc)
    assert mfcc.size_bytes + whisper.size_bytes == sum(path.stat().st_size for path in shards(tmp_path))
    assert mfcc.damaged == whisper.damaged == ()


@pytest.mark.parametrize(("what", "nothing"), [(inspect, []), (compact, (0, 0, ())), (clear, 0)])
def test_a_store_that_is_not_there_is_an_empty_one(
    tmp_path: Path, what: Callable[[Path], object], nothing: object
) -> None:
    assert what(tmp_path / "none") == nothing
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("damage", DAMAGES)
def test_verify_names_a_damaged_shard_and_changes_nothing(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    for i in range(3):
        open_store(tmp_path).write(entries_of([i]))
    assert inspect(tmp_path, verify=True)[0].damaged == ()
    path = shards(tmp_path)[1]
    damage(path)
    content = path.read_bytes()
    (info,) = inspect(tmp_path, verify=True)
    assert info.damaged == (str(path),)
    assert info.shards == 3
    assert path.read_bytes() == content


def test_compact_keeps_every_entry_in_fewer_shards(tmp_path: Path) -> None:
    for i in range(12):
        open_store(tmp_path).write(entries_of([i, i + 1]))  # neighbours hold one clip in common
    assert compact(tmp_path)[:2] == (12, 1)
    assert len(shards(tmp_path)) == 1
    store = open_store(tmp_path)
    assert_same(store.read(map(key_of, range(13))), entries_of(range(13)))
    assert inspect(tmp_path, verify=True)[0].clips == 13
    assert compact(tmp_path)[:2] == (1, 1)


def test_compact_fills_shards_up_to_the_size_given(tmp_path: Path) -> None:
    for i in range(6):
        entry = StoredFeatures(np.full((100, DIM), i, np.float32), 1.0, key_of(0))
        open_store(tmp_path).write({key_of(i): entry})
    assert compact(tmp_path, shard_bytes=2 * 100 * DIM * 4)[:2] == (6, 3)
    store = open_store(tmp_path)
    found = store.read(map(key_of, range(6)))
    for i in range(6):
        assert (found[key_of(i)].values == i).all()


def test_compact_keeps_the_sets_apart(tmp_path: Path) -> None:
    wide = Config(mfcc=MfccConfig(n_mfcc=DIM + 2))
    for i in range(3):
        open_store(tmp_path).write(entries_of([i]))
        open_store(tmp_path, wide).write(
            {key_of(i): StoredFeatures(np.full((1, DIM + 2), i, np.float32), 1.0, key_of(0))}
        )
    assert compact(tmp_path)[:2] == (6, 2)
    assert_same(open_store(tmp_path).read(map(key_of, range(3))), entries_of(range(3)))
    assert open_store(tmp_path, wide).read([key_of(2)])[key_of(2)].values.tolist() == [[2.0] * (DIM + 2)]


def test_clear_removes_shards_whole_and_damaged_and_nothing_else(tmp_path: Path) -> None:
    for i in range(3):
        open_store(tmp_path).write(entries_of([i]))
    other = FeatureStore.open("whisper", dataclasses.replace(CONFIG, store=str(tmp_path)))
    other.write({key_of(1): StoredFeatures(np.zeros((1, 3072), np.float32), 1.0, key_of(0))})
    truncate(shards(tmp_path)[0])
    store = open_store(tmp_path)
    assert store.damaged
    kept = [store.folder / "notes.txt", tmp_path / "README", tmp_path / "mine" / "weights.npz"]
    for path in kept:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    assert clear(tmp_path) == 4
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)
    assert not other.folder.exists()
    assert not held(open_store(tmp_path), range(5))


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
def test_a_header_that_makes_no_sense_is_damage(tmp_path: Path, header: str) -> None:
    open_store(tmp_path).write(entries_of([1]))
    (path,) = shards(tmp_path)
    rewrite(path, header=np.array(header))

    assert inspect(tmp_path)[0].damaged == (str(path),)
    assert open_store(tmp_path).damaged == [f"{path}.damaged"]


def test_the_name_in_a_header_is_shown_on_one_line_of_any_terminal(tmp_path: Path) -> None:
    open_store(tmp_path).write(entries_of([1]))
    (path,) = shards(tmp_path)
    rewrite(path, header=np.array(header_with(feature_set="\x1b[31mred\nx")))

    assert inspect(tmp_path)[0].feature_set == r"\x1b[31mred\nx"


def test_a_shard_that_may_not_be_read_is_not_taken_for_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(tmp_path).write(entries_of([1]))
    (path,) = shards(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        with pytest.raises(AccessError, match="permission denied"):
            open_store(tmp_path)

    assert path.exists()


def test_compacting_sets_a_damaged_shard_aside_and_merges_the_others(tmp_path: Path) -> None:
    for n in (1, 2, 3):
        open_store(tmp_path).write(entries_of([n]))
    first = shards(tmp_path)[0]
    first.write_text("nonsense")

    before, after, _ = compact(tmp_path)

    assert (before, after) == (3, 1)
    assert Path(f"{first}.damaged").exists()
    assert len(held(open_store(tmp_path), range(5))) == 2


def test_folders_that_only_look_like_a_set_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "my-holidayphoto").mkdir()
    (tmp_path / "my-holidayphoto" / "x.npz").touch()
    store = open_store(tmp_path)
    store.write(entries_of([1]))
    temporary = store.folder / ".speechemo-abc.1.2.tmp.npz"
    temporary.touch()

    assert clear(tmp_path) == 1
    assert (tmp_path / "my-holidayphoto" / "x.npz").exists()
    assert temporary.exists()


def test_a_clip_in_two_shards_survives_the_loss_of_either(tmp_path: Path) -> None:
    for victim in (0, 1):
        root = tmp_path / str(victim)
        for _ in range(2):
            open_store(root).write(entries_of([1]))
        flip_a_value(shards(root)[victim])

        assert_same(open_store(root).read([key_of(1)]), entries_of([1]))
