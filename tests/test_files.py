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
from hypothesis import given, settings
from hypothesis import strategies as st

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


def write_half(target: Path, then: BaseException) -> None:
    with atomic_path(target) as temp:
        temp.write_text("half")
        raise then


# --- atomic_path


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("before", [None, "old"])
def test_a_block_that_ends_well_makes_the_file(durable: bool, before: str | None, tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    if before:
        target.write_text(before)
    with atomic_path(target, durable=durable) as temp:
        temp.write_text("new")
        assert (target.read_text() if target.exists() else None) == before
    assert target.read_text() == "new"
    assert listing(tmp_path) == {"out.txt"}


def test_the_folder_is_made(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a" / "b" / "out.txt") as temp:
        temp.write_text("x")
    assert (tmp_path / "a" / "b" / "out.txt").read_text() == "x"


@pytest.mark.parametrize("name", ["model.keras", "curve.png", "part.npz", "noend", "a b[1].csv", "ünï.json"])
def test_the_temporary_name_keeps_the_suffix_and_is_hidden(name: str, tmp_path: Path) -> None:
    target = tmp_path / name
    with atomic_path(target) as temp:
        assert temp.parent == target.parent
        assert target.suffix in ("", temp.suffix)
        assert temp.name.startswith(".")
        temp.write_text("x")
    assert listing(tmp_path) == {name}


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_block_that_raises_leaves_the_old_file_and_nothing_else(
    kind: type[BaseException], tmp_path: Path
) -> None:
    target = tmp_path / "out.txt"
    target.write_text("old")
    with pytest.raises(kind):
        write_half(target, kind())
    assert target.read_text() == "old"
    assert listing(tmp_path) == {"out.txt"}


def test_an_os_error_in_the_block_is_an_access_error_that_names_the_target(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    target.write_text("old")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(
        AccessError, match=r"cannot write .*out\.txt: no space left on device.*intact"
    ) as caught:
        write_half(target, full)
    assert caught.value.exit_code == ExitCode.CANNOT_ACCESS
    assert target.read_text() == "old"
    assert listing(tmp_path) == {"out.txt"}


def test_a_block_that_writes_nothing_is_an_error_and_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    target.write_text("old")
    with pytest.raises(AccessError, match=r"cannot write .*out\.txt"), atomic_path(target):
        pass
    assert target.read_text() == "old"
    assert listing(tmp_path) == {"out.txt"}


def test_a_link_stays_and_the_file_it_points_to_is_replaced(tmp_path: Path) -> None:
    real = tmp_path / "real" / "out.txt"
    real.parent.mkdir()
    real.write_text("old")
    link = tmp_path / "link.txt"
    link.symlink_to(real)
    with atomic_path(link) as temp:
        temp.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert listing(real.parent) == {"out.txt"}
    assert listing(tmp_path) == {"real", "link.txt"}


def test_a_link_to_a_file_that_is_not_there_yet_makes_it(tmp_path: Path) -> None:
    link = tmp_path / "link.txt"
    link.symlink_to(tmp_path / "later" / "out.txt")
    with atomic_path(link) as temp:
        temp.write_text("new")
    assert link.is_symlink()
    assert (tmp_path / "later" / "out.txt").read_text() == "new"


def test_a_folder_in_the_place_of_the_target_is_an_error(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    with pytest.raises(AccessError, match=r"cannot write .*out: is a directory"), atomic_path(target) as temp:
        temp.write_text("x")
    assert listing(tmp_path) == {"out"}


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(AccessError, match="cannot write"), atomic_path(tmp_path / "file" / "out") as temp:
        temp.write_text("x")
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_may_not_be_written_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "shut"
    folder.mkdir(mode=0o500)
    with (
        pytest.raises(AccessError, match=r"permission denied.*Choose another"),
        atomic_path(folder / "o") as temp,
    ):
        temp.write_text("x")
    with pytest.raises(AccessError, match="permission denied"):
        require_writable(folder)


def test_two_writers_of_one_target_do_not_meet(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    with atomic_path(target) as slow:
        slow.write_text("slow")
        with atomic_path(target) as fast:
            assert fast != slow
            fast.write_text("fast")
        assert target.read_text() == "fast"
    assert target.read_text() == "slow"
    assert listing(tmp_path) == {"out.txt"}


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    package = str(Path(files.__file__).parent.parent)
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": package},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


KILLED = """
import os, sys
from pathlib import Path
from speechemo_cli.files import atomic_path
with atomic_path(Path(sys.argv[1])) as temp:
    temp.write_text("half")
    os._exit(9)
"""


WRITES = KILLED.replace("    os._exit(9)\n", "")


def test_what_a_killed_writer_leaves_is_swept_once_it_is_old(tmp_path: Path) -> None:
    target = tmp_path / "out.npz"
    target.write_text("old")
    assert run_python(KILLED, target).returncode == 9
    assert target.read_text() == "old"
    (left,) = listing(tmp_path) - {"out.npz"}

    with atomic_path(target) as temp:
        temp.write_text("new")
    # It could still be at work.
    assert listing(tmp_path) == {"out.npz", left}

    yesterday = time.time() - 86400
    os.utime(tmp_path / left, (yesterday, yesterday))
    # The next process that writes there, whatever it writes.
    done = run_python(WRITES, tmp_path / "other.npz")
    assert done.returncode == 0, done.stderr
    assert listing(tmp_path) == {"out.npz", "other.npz"}


def test_a_folder_is_looked_through_for_leftovers_once_and_not_for_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Path] = []
    monkeypatch.setattr(files, "remove_stale", looked.append)
    for i in range(5):
        with atomic_path(tmp_path / f"{i}.json") as temp:
            temp.write_text("x")
    assert looked == [tmp_path]


def test_old_files_of_others_are_not_swept(tmp_path: Path) -> None:
    others = {"out.npz.bak", ".out.npz", "out.tmp.npz", ".other.1.1.tmp.npz", ".out.1.1.tmp.csv"}
    for name in others:
        (tmp_path / name).write_text("mine")
        os.utime(tmp_path / name, (1, 1))
    with atomic_path(tmp_path / "out.npz") as temp:
        temp.write_text("x")
    assert listing(tmp_path) == {"out.npz", *others}


FULL = """
import resource, signal, sys
from pathlib import Path
from speechemo_cli.errors import AccessError
from speechemo_cli.files import atomic_path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    with atomic_path(Path(sys.argv[1])) as temp:
        temp.write_bytes(bytes(100_000))
except AccessError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits")
@pytest.mark.parametrize("before", [None, b"old"])
def test_a_disk_that_is_full_leaves_what_was_there(before: bytes | None, tmp_path: Path) -> None:
    target = tmp_path / "out.npz"
    if before:
        target.write_bytes(before)
    done = run_python(FULL, target)
    assert done.returncode == ExitCode.CANNOT_ACCESS, done.stderr
    assert "out.npz: file too large" in done.stdout
    assert listing(tmp_path) == ({"out.npz"} if before else set())
    assert not before or target.read_bytes() == before


@pytest.fixture
def old_model(tmp_path: Path) -> Callable[[], Path]:
    """Give a model-like file that is there, in a new folder each time."""
    count = itertools.count()

    def make() -> Path:
        target = tmp_path / str(next(count)) / "model.keras"
        target.parent.mkdir()
        target.write_bytes(OLD)
        return target

    return make


OLD, NEW = b"old" * 50_000, b"new" * 100_000


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
def test_a_write_that_fails_anywhere_leaves_the_old_file_and_one_line(
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
def test_a_process_that_ends_at_any_operation_leaves_the_old_file_or_the_new(
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
def test_a_pipe_or_device_is_never_replaced(tmp_path: Path, link: bool) -> None:
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


@pytest.fixture
def old_folder(tmp_path: Path) -> Callable[[], Path]:
    """Give a folder that is there, in a new place each time."""
    count = itertools.count()

    def make() -> Path:
        target = tmp_path / str(next(count)) / "model"
        target.mkdir(parents=True)
        (target / "saved_model.pb").write_text("old")
        return target

    return make


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


OLD_FOLDER = {"saved_model.pb": "old"}
NEW_FOLDER = {"saved_model.pb": "new", "variables/index": "new"}


def test_a_folder_is_replaced_whole_and_nothing_stays_beside_it(old_folder: Callable[[], Path]) -> None:
    target = old_folder()
    replace_folder(target)
    assert content(target) == NEW_FOLDER
    assert listing(target.parent) == {"model"}


def test_a_folder_that_fails_anywhere_leaves_the_old_one(old_folder: Callable[[], Path]) -> None:
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
def test_a_folder_whose_writer_was_killed_is_brought_back_by_the_next(old_folder: Callable[[], Path]) -> None:
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
    ],
)
def test_an_access_error_names_file_reason_and_remedy(code: int, reason: str, remedy: str) -> None:
    error = access_error("write", "a\nb", OSError(code, os.strerror(code)))
    assert error.message == rf"cannot write a\nb: {reason}"
    assert remedy in error.hint
    assert bool(error.hint) == bool(remedy)


def test_an_os_error_without_a_code_still_has_a_reason() -> None:
    assert access_error("read", "x", OSError("Odd thing")).message == "cannot read x: odd thing"


def test_require_writable_makes_the_folder_and_leaves_it_empty(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    require_writable(folder)
    require_writable(folder)
    assert listing(folder) == set()


def test_require_writable_refuses_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(AccessError, match="cannot write to"):
            require_writable(folder)


@pytest.mark.parametrize("end", ["", "files.drop_scratch(); os._exit(0)"])
def test_the_scratch_folder_is_private_and_goes_with_the_process(end: str) -> None:
    code = (
        "import os\n"
        "from speechemo_cli import files\n"
        "folder = files.scratch_folder()\n"
        "assert folder == files.scratch_folder() and folder.stat().st_mode & 0o077 == 0\n"
        "(folder / 'x').write_text('y')\n"
        "print(folder, flush=True)\n"
    )
    done = run_python(code + end)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert folder.is_absolute()
    assert not folder.exists()


# --- hashes and names


@pytest.mark.parametrize("content", [b"", b"abc", bytes(range(256)) * 5000])
def test_the_hash_of_a_file_is_that_of_its_content(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(content)
    assert sha256_file(file) == sha256_file(str(file)) == hashlib.sha256(content).hexdigest()


def check_display(name: str) -> None:
    shown = display_name(name)
    assert shown.isprintable()
    assert len(shown.splitlines()) == (1 if shown else 0)
    shown.encode("utf-8")
    assert bool(shown) == bool(name)
    if name.isprintable():
        assert shown == name


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=()), max_size=40))
def test_any_name_is_shown_printable_and_on_one_line(name: str) -> None:
    check_display(name)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_of_a_name_are_shown_printable_and_on_one_line(name: bytes) -> None:
    check_display(os.fsdecode(name))


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
def test_only_what_no_terminal_shows_is_escaped(name: str | Path, shown: str) -> None:
    assert display_name(name) == shown


def test_a_name_as_long_as_the_system_allows_can_be_written(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 251 + ".npz")

    with atomic_path(target) as temp:
        temp.write_text("whole")

    assert target.read_text() == "whole"


def test_a_replaced_file_keeps_its_permissions(tmp_path: Path) -> None:
    target = tmp_path / "private.txt"
    target.write_text("old")
    target.chmod(0o600)

    with atomic_path(target) as temp:
        temp.write_text("new")

    assert target.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(OSError, match="not a regular file"):
        sha256_file(tmp_path / "pipe")
    with pytest.raises(IsADirectoryError):
        sha256_file(tmp_path)
