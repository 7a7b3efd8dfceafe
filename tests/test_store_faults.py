"""The store under kills, other processes, full disks and damage: what was whole before stays."""

from __future__ import annotations

import errno
import hashlib
import itertools
import multiprocessing
import os
import re
import shutil
import socket
import tempfile
import time
import tracemalloc
import uuid
import zipfile
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from entries import (
    CONFIG,
    DIM,
    assert_same,
    entries_of,
    held,
    key_of,
    open_store,
    read_all,
    shards,
    temporary_files,
    write_each,
)
from faults import WRITING, Faults, each_crash, each_fault
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from test_store import DAMAGES, rewrite

from speechemo_cli import files
from speechemo_cli.config import Config, MfccConfig
from speechemo_cli.errors import ExitCode
from speechemo_cli.features import store as store_module
from speechemo_cli.features.store import FeatureStore, StoredFeatures, list_named, open_shard
from speechemo_cli.features.store_maintenance import clear, compact, inspect

OTHER = Config(mfcc=MfccConfig(n_mfcc=DIM, hop_length=256))
HOURS_AGO = time.time() - 7200
posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")


def damaged(root: Path) -> list[str]:
    """Name what `cache verify` finds."""
    return [name for info in inspect(root, verify=True) for name in info.damaged]


def some_of(found: dict[str, StoredFeatures], n: int) -> dict[str, StoredFeatures]:
    """What `found` should hold, if any of the first `n` entries are in it."""
    return {key: entry for key, entry in entries_of(range(n)).items() if key in found}


def make_old(left: list[Path]) -> None:
    for path in left:
        os.utime(path, (HOURS_AGO, HOURS_AGO))


# --- killed


@pytest.fixture
def three_shards(tmp_path: Path) -> Callable[[], Path]:
    """Give the root of a new store with four clips in three shards, as often as it is called."""
    write_each(tmp_path / "0", [0, 1], [1, 2], [2, 3])
    count = itertools.count(1)
    return lambda: Path(shutil.copytree(tmp_path / "0", tmp_path / str(next(count))))


def write_one(root: Path) -> None:
    FeatureStore.for_writing("mfcc", replace(CONFIG, store=str(root))).write(entries_of([4]))


@posix
@pytest.mark.parametrize(("action", "kept"), [(write_one, 4), (compact, 4), (clear, 0)])
def test_process_that_ends_at_any_operation_leaves_a_whole_store(
    three_shards: Callable[[], Path], action: Callable[[Path], object], kept: int
) -> None:
    crashes = 0
    for root, got_through in each_crash(three_shards, action, *WRITING, "unlink"):
        crashes += not got_through
        assert damaged(root) == []
        make_old(temporary_files(root))
        found = read_all(root, 5)
        assert temporary_files(root) == []
        assert_same(found, some_of(found, 5))
        assert found.keys() >= entries_of(range(kept)).keys()
    assert crashes >= 3


# --- many at once


def write_twenty_shards(root: Path, first: int, begin: Barrier) -> None:
    store = open_store(root)
    begin.wait()
    for i in range(first, first + 40, 2):
        store.write(entries_of([i, i + 1]))


def compact_twenty_times(root: Path, begin: Barrier) -> None:
    begin.wait()
    for _ in range(20):
        compact(root)


@posix
@pytest.mark.parametrize("writers", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_writers_at_once_give_the_union_while_others_compact_and_read(tmp_path: Path, writers: int) -> None:
    fork = multiprocessing.get_context("fork")
    begin = fork.Barrier(writers + 3, timeout=60)
    # Ten clips are written twice.
    work = [(write_twenty_shards, (tmp_path, 30 * i, begin)) for i in range(writers)]
    work += 2 * [(compact_twenty_times, (tmp_path, begin))]
    processes = [fork.Process(target=target, args=args, daemon=True) for target, args in work]
    for process in processes:
        process.start()
    begin.wait()
    reader, n = open_store(tmp_path), 30 * writers + 10
    seen: set[str] = set()
    while any(process.is_alive() for process in processes):
        reader.refresh()
        found = reader.read(map(key_of, range(n)))
        assert_same(found, some_of(found, n))
        assert found.keys() >= seen
        seen = set(read_all(tmp_path, n))
        assert seen >= found.keys()
    assert {process.exitcode for process in processes} == {0}
    assert reader.damaged == damaged(tmp_path) == []
    assert_same(read_all(tmp_path, n), entries_of(range(n)))
    assert temporary_files(tmp_path) == []


def test_open_finds_shards_that_are_merged_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_each(tmp_path, *([i] for i in range(4)))

    def listed_then_merged(folder: Path) -> list[Path]:
        paths = list_named(folder)
        with monkeypatch.context() as undone:
            undone.setattr(store_module, "list_named", list_named)
            compact(tmp_path)
        return paths

    monkeypatch.setattr(store_module, "list_named", listed_then_merged)
    assert held(open_store(tmp_path), range(5)) == [0, 1, 2, 3]


def test_write_makes_its_folder_again_that_a_clear_removed_under_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, looked_at = open_store(tmp_path), files.refuse_devices
    clears = iter([True, False])

    def cleared_first(target: Path) -> None:
        if next(clears):
            clear(tmp_path)
            assert not target.parent.exists()
        looked_at(target)

    monkeypatch.setattr(files, "refuse_devices", cleared_first)
    store.write(entries_of([1]))
    assert_same(read_all(tmp_path, 2), entries_of([1]))


# --- full disks and refusals


@pytest.mark.parametrize(
    ("action", "kinds", "lasting", "kept"),
    [
        (write_one, WRITING, False, 4),
        (write_one, WRITING, True, 4),
        (compact, WRITING, True, 4),
        (compact, (*WRITING, "unlink"), False, 4),
        (compact, ("unlink",), True, 4),
        (clear, ("unlink",), False, 0),
    ],
)
def test_action_that_fails_anywhere_leaves_a_whole_store_and_can_be_repeated(
    three_shards: Callable[[], Path],
    action: Callable[[Path], object],
    kinds: tuple[str, ...],
    lasting: bool,
    kept: int,
) -> None:
    failures = 0
    for faults in each_fault(*kinds, lasting=lasting):
        root = three_shards()
        with faults:
            action(root)
        assert damaged(root) == []
        assert temporary_files(root) == []
        found = read_all(root, 5)
        assert_same(found, some_of(found, 5))
        assert found.keys() >= entries_of(range(kept)).keys()
        if faults.error is not None:
            failures += 1
            assert faults.error.exit_code == ExitCode.CANNOT_ACCESS
            assert "no space left on device" in str(faults.error)
            assert len(str(faults.error).splitlines()) == 1
            assert len(found) < 5
        action(root)
        assert len(read_all(root, 5)) == {write_one: 5, compact: 4, clear: 0}[action]
        assert action is write_one or len(shards(root)) == (action is compact)
    assert failures >= 3


def read_only() -> Faults:
    return Faults(1, (*WRITING, "unlink"), lasting=True, code=errno.EROFS)


def test_read_only_store_is_read_and_a_write_is_refused_in_one_line(tmp_path: Path) -> None:
    write_each(tmp_path, [0], [1], [2])
    store = open_store(tmp_path)
    left = store.folder / ".speechemo-0123456789ab.1.1.tmp.npz"
    left.write_bytes(b"PK")
    make_old([left])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.npz")}
    for action, failure in (
        (lambda: store.write(entries_of([9])), "cannot write"),
        (lambda: compact(tmp_path), "cannot write"),
        (lambda: clear(tmp_path), "cannot remove"),
    ):
        with read_only() as faults:
            assert_same(read_all(tmp_path, 9), entries_of(range(3)))
            assert damaged(tmp_path) == []
            action()
        assert re.fullmatch(f"{failure} .*: read-only file system", str(faults.error))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.npz")} == before


def test_read_only_store_names_damaged_shards_and_passes_them_over(tmp_path: Path) -> None:
    for path in write_each(tmp_path, [1, 2], [1, 2], [1, 2]):
        DAMAGES[0](path)
    write_each(tmp_path, [3])
    with read_only():
        store = open_store(tmp_path)
        assert_same(store.read(map(key_of, [1, 2, 3])), entries_of([3]))
    assert len(set(store.damaged)) == 3
    assert len(shards(tmp_path)) == 4


# --- damage


@pytest.mark.parametrize(
    ("masks", "share"), [([0x06, 0], 0.05), pytest.param([0x01, 0x06, 0xFF, 0], 1, marks=pytest.mark.slow)]
)
def test_shard_with_a_byte_flipped_or_left_out_anywhere_is_damaged_or_the_same(
    tmp_path: Path, rng: np.random.Generator, masks: list[int], share: float
) -> None:
    expected = entries_of([1, 2])
    (path,) = write_each(tmp_path, [1, 2])
    header, whole = open_store(tmp_path).header, path.read_bytes()
    found = total = 0
    for at, mask in itertools.product(range(len(whole)), masks):
        if rng.random() > share:
            continue
        flipped = bytes([whole[at] ^ mask]) if mask else b""
        path.write_bytes(whole[:at] + flipped + whole[at + 1 :])
        total += 1
        if damaged(tmp_path):
            found += 1
            continue
        with open_shard(path) as shard:
            assert shard.header == header
            assert_same(shard.entries(DIM), expected)
    # Harmless: dates, versions, and sizes that stand in two places.
    assert 0.7 * total < found < total


# numpy reads no more of a member than it says it is, and a checksum is compared at a member's end only.
@pytest.mark.parametrize(
    ("honest", "lie"), [("'|S64'", "'|S24'"), ("(1500,)", "(1100,)"), ("'<f4'", "'<f2'")]
)
def test_array_that_says_less_of_itself_than_there_is_is_damaged(
    tmp_path: Path, honest: str, lie: str
) -> None:
    (path,) = write_each(tmp_path, range(1500))
    path.write_bytes(path.read_bytes().replace(honest.encode(), lie.encode()))
    assert damaged(tmp_path) == [str(path)]
    assert not held(open_store(tmp_path), range(1500))


def described(shape: str, dtype: str = "'<f4'", major: int = 1) -> bytes:
    """Begin an array that says of itself what it likes."""
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + bytes([major, 0]) + len(text).to_bytes(2 if major == 1 else 4, "little") + text


def replaced(path: Path, name: str, member: bytes, compression: int = zipfile.ZIP_STORED) -> None:
    """Put other bytes in the place of a member; checksums are right."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for each, content in {**members, f"{name}.npy": member}.items():
            archive.writestr(each, content)


def eight_terabytes_in_the_directory(path: Path) -> None:
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02")  # the last member of the directory: the values
    content[at + 20 : at + 28] = b"\xfe\xff\xff\x7f" * 2
    path.write_bytes(content)


def hundreds_of_members(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        for i in range(500):
            archive.writestr(f"{i}.npy", b"")


def the_same_member_twice(path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("values.npy", b"")


_MANY = 10**6
HOSTILE = {
    "eight terabytes": lambda path: replaced(
        path, "values", described(f"({2**41 // DIM}, {DIM})") + bytes(12)
    ),
    "eight terabytes of keys": lambda path: replaced(
        path, "keys", described("(1,)", f"'|S{2**43}'") + bytes(64)
    ),
    "eight terabytes in the directory": eight_terabytes_in_the_directory,
    "zip bomb": lambda path: replaced(
        path, "values", described(f"({_MANY}, {DIM})") + bytes(_MANY * DIM * 4), zipfile.ZIP_DEFLATED
    ),
    "hundreds of members": hundreds_of_members,
    "the same member twice": the_same_member_twice,
    "a long description": lambda path: replaced(path, "values", described("(" + "-" * 5000 + "1,)")),
    "a deep header": lambda path: rewrite(path, header=np.array("[" * 100_000)),
    "another version of arrays": lambda path: replaced(path, "values", described("(1,)", major=2)),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_shard_that_lies_about_itself_is_damaged_and_takes_no_memory(
    tmp_path: Path, hostile: Callable[[Path], None]
) -> None:
    (path,) = write_each(tmp_path, [1])
    hostile(path)
    size_bytes = path.stat().st_size
    tracemalloc.start()
    try:
        assert damaged(tmp_path) == [str(path)]
        assert open_store(tmp_path).read([key_of(1)]) == {}
        assert tracemalloc.get_traced_memory()[1] < 10 * size_bytes + 2**20
    finally:
        tracemalloc.stop()
    write_each(tmp_path, [1])
    assert_same(read_all(tmp_path, 2), entries_of([1]))


def folder_with_work(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_text("work")


def bound_socket(path: Path) -> None:
    os.chdir(path.parent)  # the names of sockets are short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path.name)


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


@posix
@pytest.mark.parametrize(
    "make", [lambda path: os.mkfifo(path), folder_with_work, bound_socket, link_to_itself]
)
def test_shard_that_is_no_file_is_damage_and_is_not_waited_for(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    write_each(tmp_path, [0], [1])
    folder = open_store(tmp_path).folder
    names = [str(folder / f"{i:032x}.npz") for i in range(3)]
    for name in names[:2]:
        make(Path(name))
    assert damaged(tmp_path) == names[:2]
    assert compact(tmp_path) == (4, 1, tuple(f"{name}.damaged" for name in names[:2]))
    make(Path(names[2]))
    store = open_store(tmp_path)
    assert store.damaged == [f"{names[2]}.damaged"]
    assert_same(store.read(map(key_of, range(2))), entries_of(range(2)))

    make(Path(names[0]))
    if make is folder_with_work:  # nobody's work is removed
        assert clear(tmp_path) == 1
        assert len(list(folder.glob("*/thesis.txt"))) == 4
    else:
        assert clear(tmp_path) == 5
        assert list(tmp_path.iterdir()) == []


def test_shard_made_under_another_config_is_never_used(tmp_path: Path) -> None:
    (foreign,) = write_each(tmp_path, [5], config=OTHER)
    write_each(tmp_path, [1])
    carried = open_store(tmp_path).folder / f"{0:032x}.npz"
    shutil.copy(foreign, carried)

    assert compact(tmp_path)[2] == ()  # it is not merged with the others
    again = open_store(tmp_path)
    assert again.damaged == [f"{carried}.damaged"]
    assert_same(again.read(map(key_of, [1, 5])), entries_of([1]))


# --- everything, in any order


class StoreAgainstDict(RuleBasedStateMachine):
    """Whatever happens to the store, it holds what a dict would, less the clips of damaged shards."""

    def __init__(self) -> None:
        super().__init__()
        self.temporary = tempfile.TemporaryDirectory()
        # Names in no order, but the same ones each time: hypothesis has to be able to repeat itself.
        self.names = (hashlib.sha256(b"%d" % i).hexdigest()[:32] for i in itertools.count())
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(uuid, "uuid4", lambda: SimpleNamespace(hex=next(self.names)))
        self.root = Path(self.temporary.name)
        self.store, self.second = open_store(self.root), open_store(self.root)
        self.model: dict[str, StoredFeatures] = {}
        self.hurt: set[str] = set()

    def teardown(self) -> None:
        self.patch.undo()
        self.temporary.cleanup()

    @rule(numbers=st.sets(st.integers(0, 30), max_size=5))
    def write(self, numbers: set[int]) -> None:
        self.store.write(entries_of(sorted(numbers)))
        self.store.refresh()
        self.model.update(entries_of(numbers))

    @rule()
    def reopen(self) -> None:
        self.store = open_store(self.root)

    @rule(numbers=st.sets(st.integers(0, 35), max_size=6))
    def read(self, numbers: set[int]) -> None:
        keys = {key_of(i) for i in numbers}
        expected = {key: entry for key, entry in self.model.items() if key in keys}
        assert_same(self.store.read(sorted(keys)), expected)
        self.second.refresh()
        assert_same(self.second.read(sorted(keys)), expected)

    @rule(damage=st.sampled_from(DAMAGES), which=st.integers(0, 10**6))
    def damage(self, damage: Callable[[Path], None], which: int) -> None:
        present = [path for path in list_named(self.store.folder) if f"{path.name}.damaged" not in self.hurt]
        if not present:
            return
        path = present[which % len(present)]
        with open_shard(path) as shard:
            inside = set(shard.index())
        damage(path)
        self.hurt.add(f"{path.name}.damaged")
        store = open_store(self.root)
        found = store.read(self.model)
        assert_same(found, {key: self.model[key] for key in found})
        # Where other shards hold all its clips too, nobody looks into it, perhaps until much later.
        assert self.model.keys() - found.keys() <= inside
        assert {Path(name).name for name in store.damaged} <= self.hurt
        assert store.damaged or found.keys() == self.model.keys()
        self.store = open_store(self.root)
        assert self.store.read(self.model).keys() == found.keys()
        self.model = {key: self.model[key] for key in found}

    @rule()
    def verify(self) -> None:
        for info in inspect(self.root, verify=True):
            assert {f"{Path(name).name}.damaged" for name in info.damaged} <= self.hurt
            assert info.clips == len(self.model)

    @rule(shard_bytes=st.sampled_from([1, 50, 200, 2**26]))
    def compact(self, shard_bytes: int) -> None:
        before, after, damaged = compact(self.root, shard_bytes=shard_bytes)
        assert before >= after == len(shards(self.root))
        assert {Path(name).name for name in damaged} <= self.hurt

    @rule()
    def clear(self) -> None:
        clear(self.root)
        self.model = {}
        assert shards(self.root) == []
        self.store = open_store(self.root)

    @invariant()
    def the_same_clips_are_in_it(self) -> None:
        known = {key for key in map(key_of, range(36)) if self.store.find(key)}
        assert known == self.model.keys()


class StoreAgainstDictForLong(StoreAgainstDict):
    """The same, many times."""


_SETTINGS = settings(deadline=None, database=None, derandomize=True)
StoreAgainstDict.TestCase.settings = settings(_SETTINGS, max_examples=12, stateful_step_count=15)
StoreAgainstDictForLong.TestCase.settings = settings(_SETTINGS, max_examples=60, stateful_step_count=30)
TestStoreAgainstDict = StoreAgainstDict.TestCase
TestStoreAgainstDictForLong = pytest.mark.slow(StoreAgainstDictForLong.TestCase)
