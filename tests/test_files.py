"""Writing complete or not at all; hashes; names for display."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from faults import WRITING, each_crash, each_fault

from speechemo_cli import files
from speechemo_cli.errors import AccessError, ExitCode
from speechemo_cli.files import (
    access_error,
    atomic_folder,
    atomic_path,
    display_name,
    require_writable,
    sha256_file,
)


def listing(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def write_half(target: Path, then: BaseException | None) -> None:
    with atomic_path(target) as temp:
        if then:
            temp.write_text("half")
            raise then


# --- atomic_path


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("before", [None, "old"])
def test_atomic_path_makes_the_file_when_the_block_ends_well(
    durable: bool, before: str | None, tmp_path: Path
) -> None:
    target = tmp_path / "out.txt"
    if before:
        target.write_text(before)
        target.chmod(0o600)
    with atomic_path(target, durable=durable) as temp:
        temp.write_text("new")
        assert (target.read_text() if target.exists() else None) == before
    assert target.read_text() == "new"
    assert not before or target.stat().st_mode & 0o777 == 0o600
    assert listing(tmp_path) == {"out.txt"}


@pytest.mark.parametrize(
    "name", ["model.keras", "a/b/curve.png", "noend", "a b[1].csv", "ünï.json", "n" * 251 + ".npz"]
)
def test_atomic_path_makes_the_folder_and_gives_a_hidden_name_of_the_same_suffix(
    name: str, tmp_path: Path
) -> None:
    target = tmp_path / name
    with atomic_path(target) as temp:
        assert temp.parent == target.parent
        assert target.suffix in ("", temp.suffix)
        assert temp.name.startswith(".")
        temp.write_text("x")
    assert target.read_text() == "x"
    assert listing(target.parent) == {target.name}


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (RuntimeError("odd"), RuntimeError, "odd"),
        (KeyboardInterrupt("odd"), KeyboardInterrupt, "odd"),
        (SystemExit("odd"), SystemExit, "odd"),
        (OSError(errno.ENOSPC, "no space left on device"), AccessError, "no space left on device.*intact"),
        (None, AccessError, "no such file or directory"),  # nothing is written
    ],
)
def test_atomic_path_keeps_the_old_file_alone_where_the_block_fails(
    error: BaseException | None, raised: type[BaseException], message: str, tmp_path: Path
) -> None:
    target = tmp_path / "out.txt"
    target.write_text("old")
    with pytest.raises(raised, match=message) as caught:
        write_half(target, error)
    if isinstance(caught.value, AccessError):
        assert caught.value.message.startswith(f"cannot write {target}: ")
        assert caught.value.exit_code == ExitCode.CANNOT_ACCESS
    assert target.read_text() == "old"
    assert listing(tmp_path) == {"out.txt"}


@pytest.mark.parametrize("before", [None, "old"])
def test_atomic_path_replaces_or_makes_the_file_that_a_link_points_to(
    before: str | None, tmp_path: Path
) -> None:
    real, link = tmp_path / "real" / "out.txt", tmp_path / "link.txt"
    if before:
        real.parent.mkdir()
        real.write_text(before)
    link.symlink_to(real)
    with atomic_path(link) as temp:
        temp.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert listing(real.parent) == {"out.txt"}
    assert listing(tmp_path) == {"real", "link.txt"}


def test_atomic_path_refuses_a_folder_as_target_and_a_file_as_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    for target, reason in (("folder", "is a directory"), ("file/out", "")):
        with (
            pytest.raises(AccessError, match=f"cannot write .*{target}: {reason}"),
            atomic_path(tmp_path / target) as temp,
        ):
            temp.write_text("y")
    assert listing(tmp_path) == {"folder", "file"}
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_atomic_path_refuses_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "shut"
    folder.mkdir(mode=0o500)
    with (
        pytest.raises(AccessError, match=r"permission denied.*Choose another"),
        atomic_path(folder / "o") as temp,
    ):
        temp.write_text("x")
    with pytest.raises(AccessError, match="permission denied"):
        require_writable(folder)


def test_atomic_path_keeps_two_writers_of_one_target_from_meeting(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    with atomic_path(target) as slow:
        slow.write_text("slow")
        with atomic_path(target) as fast:
            assert fast != slow
            fast.write_text("fast")
        assert target.read_text() == "fast"
    assert target.read_text() == "slow"
    assert listing(tmp_path) == {"out.txt"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_remove_stale_takes_what_a_killed_writer_left_once_it_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.npz"
    target.write_text("old")
    child = os.fork()
    if not child:
        with atomic_path(target) as temp:
            temp.write_text("half")
            os._exit(9)
    os.waitpid(child, 0)
    assert target.read_text() == "old"
    (left,) = listing(tmp_path) - {"out.npz"}

    files.remove_stale(tmp_path)
    assert listing(tmp_path) == {"out.npz", left}  # it could still be at work

    yesterday = time.time() - 86400
    os.utime(tmp_path / left, (yesterday, yesterday))
    with atomic_path(tmp_path / "other.npz") as temp:  # the first file that this process writes there
        temp.write_text("new")
    assert listing(tmp_path) == {"out.npz", "other.npz"}

    with monkeypatch.context() as patch:  # for further files the folder is not looked through again
        patch.setattr(files, "remove_stale", lambda _: pytest.fail("looked through twice"))
        with atomic_path(target) as temp:
            temp.write_text("new")


def test_atomic_path_leaves_old_files_of_others(tmp_path: Path) -> None:
    others = {"out.npz.bak", ".out.npz", "out.tmp.npz", ".other.1.1.tmp.npz", ".out.1.1.tmp.csv"}
    for name in others:
        (tmp_path / name).write_text("mine")
        os.utime(tmp_path / name, (1, 1))
    with atomic_path(tmp_path / "out.npz") as temp:
        temp.write_text("x")
    assert listing(tmp_path) == {"out.npz", *others}


OLD, NEW = b"old" * 50_000, b"new" * 100_000


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[..., Path]:
    """Make a file with some content in a new folder each time, as often as it is called."""
    count = itertools.count()

    def make(name: str, content: bytes) -> Path:
        path = tmp_path / str(next(count)) / name
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        return path

    return make


@pytest.fixture
def old_model(fresh: Callable[..., Path]) -> Callable[[], Path]:
    return lambda: fresh("model.keras", OLD)


@pytest.fixture
def old_folder(fresh: Callable[..., Path]) -> Callable[[], Path]:
    return lambda: fresh("model/saved_model.pb", b"old").parent


def replace_model(target: Path) -> None:
    """Write as an archive is written: in parts, and back again to its beginning."""
    with atomic_path(target) as temp:
        with temp.open("wb") as handle:
            for start in range(0, len(NEW), 50_000):
                handle.write(NEW[start : start + 50_000])
            handle.seek(0)
            handle.write(NEW[:100])
        with temp.open("rb+") as handle:
            handle.write(NEW[:100])


@pytest.mark.parametrize("lasting", [False, True])
def test_atomic_path_leaves_the_old_file_and_one_line_where_a_write_fails(
    old_model: Callable[[], Path], lasting: bool
) -> None:
    failures = 0
    for faults in each_fault(*WRITING, lasting=lasting):
        target = old_model()
        with faults:
            replace_model(target)
        failures += faults.error is not None
        assert target.read_bytes() == (OLD if faults.error else NEW)
        assert listing(target.parent) == {"model.keras"}
        if faults.error:
            assert faults.error.exit_code == ExitCode.CANNOT_ACCESS
            assert len(str(faults.error).splitlines()) == 1
            assert f"cannot write {target}: no space left on device" in str(faults.error)
    assert failures > 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_atomic_path_leaves_the_old_file_or_the_new_where_the_process_ends(
    old_model: Callable[[], Path],
) -> None:
    contents = []
    for target, _ in each_crash(old_model, replace_model, *WRITING, "unlink"):
        contents.append(target.read_bytes())
    assert set(contents) == {OLD, NEW}
    assert contents == sorted(contents, key=[OLD, NEW].index)
    assert len(contents) > 10


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("link", [False, True])
def test_atomic_path_never_replaces_a_pipe_or_device(tmp_path: Path, link: bool) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    target = tmp_path / "link" if link else pipe
    if link:
        target.symlink_to(pipe)
    with pytest.raises(AccessError, match=f"cannot write {target}: not a regular file"):
        write_half(target, RuntimeError())
    assert pipe.is_fifo()


# --- atomic_folder


def replace_folder(target: Path) -> None:
    with atomic_folder(target) as temp:
        (temp / "variables").mkdir(parents=True)
        (temp / "saved_model.pb").write_text("new")
        (temp / "variables" / "index").write_text("new")


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


OLD_FOLDER = {"saved_model.pb": "old"}
NEW_FOLDER = {"saved_model.pb": "new", "variables/index": "new"}


def test_atomic_folder_leaves_the_old_one_where_a_write_fails(old_folder: Callable[[], Path]) -> None:
    failures = 0
    for faults in each_fault(*WRITING):
        target = old_folder()
        with faults:
            replace_folder(target)
        failures += faults.error is not None
        assert content(target) == (OLD_FOLDER if faults.error else NEW_FOLDER)
        assert listing(target.parent) == {"model"}
    assert failures > 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_atomic_folder_brings_back_what_a_killed_writer_moved(old_folder: Callable[[], Path]) -> None:
    class StopError(Exception):
        pass

    stepped_aside = 0
    for target, got_through in each_crash(old_folder, replace_folder, *WRITING):
        stepped_aside += not target.exists()
        with pytest.raises(StopError), atomic_folder(target):
            raise StopError
        assert content(target) == (NEW_FOLDER if got_through else OLD_FOLDER)
        yesterday = time.time() - 86400
        for left in target.parent.glob(".*"):
            os.utime(left, (yesterday, yesterday))
        files.remove_stale(target.parent)
        assert listing(target.parent) == {"model"}
    assert stepped_aside == 1


# --- errors and probes


@pytest.mark.parametrize(
    ("code", "reason", "remedy"),
    [
        (errno.EACCES, "permission denied", "permissions"),
        (errno.ENOSPC, "no space left on device", "Free some space"),
        (errno.EFBIG, "file too large", "ulimit"),
        (errno.EIO, "input/output error", ""),
        (None, "odd thing", ""),
    ],
)
def test_access_error_names_file_reason_and_remedy(code: int | None, reason: str, remedy: str) -> None:
    error = access_error("write", "a\nb", OSError(code, os.strerror(code)) if code else OSError("Odd thing"))
    assert error.message == rf"cannot write a\nb: {reason}"
    assert remedy in error.hint
    assert bool(error.hint) == bool(remedy)


def test_require_writable_makes_a_folder_and_refuses_a_file_in_its_place(tmp_path: Path) -> None:
    for _ in range(2):
        require_writable(tmp_path / "a" / "b")
    assert listing(tmp_path / "a" / "b") == set()
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(AccessError, match="cannot write to"):
            require_writable(folder)


@pytest.mark.parametrize("end", ["", "files.drop_scratch(); os._exit(0)"])
def test_scratch_folder_is_private_and_goes_with_the_process(end: str) -> None:
    code = (
        "import os\n"
        "from speechemo_cli import files\n"
        "folder = files.scratch_folder()\n"
        "assert folder == files.scratch_folder() and folder.stat().st_mode & 0o077 == 0\n"
        "(folder / 'x').write_text('y')\n"
        "print(folder, flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code + end], stdout=subprocess.PIPE, text=True, check=True)
    folder = Path(done.stdout.strip())
    assert folder.is_absolute()
    assert not folder.exists()


# --- hashes and names


@pytest.mark.parametrize("content", [b"", b"abc", bytes(range(256)) * 5000])
def test_sha256_file_is_that_of_its_content(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(content)
    assert sha256_file(file) == sha256_file(str(file)) == hashlib.sha256(content).hexdigest()


def test_display_name_shows_any_character_printable_and_on_one_line() -> None:
    every = "".join(map(chr, [*range(2**16), 0x1F600, 0xE0001]))
    shown = display_name(every)
    assert shown.isprintable()
    assert len(shown.splitlines()) == 1
    shown.encode("utf-8")
    printable = "".join(filter(str.isprintable, every))
    assert display_name(printable) == printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("clip.wav", "clip.wav"),
        ("ünï côdé [1].wav", "ünï côdé [1].wav"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\u2028b\u202ec", r"a\u2028b\u202ec"),
        (os.fsdecode(b"caf\xe9"), r"caf\udce9"),
        (Path("a/b.wav"), "a/b.wav"),
    ],
)
def test_display_name_escapes_only_what_no_terminal_shows(name: str | Path, shown: str) -> None:
    assert display_name(name) == shown


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_sha256_file_opens_only_regular_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(OSError, match="not a regular file"):
        sha256_file(tmp_path / "pipe")
    with pytest.raises(IsADirectoryError):
        sha256_file(tmp_path)
