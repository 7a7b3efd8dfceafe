"""Clips are decoded elsewhere as they are here, and one that kills its decoder costs one clip."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import COMMAND, harmonic, until

from speechemo_cli.audio import isolate, reader
from speechemo_cli.audio.isolate import DecoderPool
from speechemo_cli.config import AudioConfig
from speechemo_cli.errors import AudioError
from speechemo_cli.processes import CRASHED

CONFIG = AudioConfig()
ABORT = "os.abort()"
FATAL = [
    ABORT,
    pytest.param("os.kill(os.getpid(), signal.SIGKILL)", marks=pytest.mark.slow),
    pytest.param("import ctypes; ctypes.string_at(0)", marks=pytest.mark.slow),
]
WriteClip = Callable[..., Path]


@pytest.fixture
def children() -> Callable[[], set[str]]:
    """Call it for processes that this one has started since the test began and that have not ended."""

    def all_of_them() -> set[str]:
        return {
            pid for task in Path("/proc/self/task").glob("*/children") for pid in task.read_text().split()
        }

    before = all_of_them()  # tests before it may have left resource trackers
    return lambda: all_of_them() - before


@pytest.fixture
def pool() -> Iterator[DecoderPool]:
    with closing(DecoderPool(CONFIG)) as pool:
        yield pool


def check_same(path: str, there: list[reader.Recording], channel: str = "mix") -> None:
    here = reader.read_channels(path, CONFIG, channel)
    assert len(there) == len(here)
    for one, other in zip(there, here, strict=True):
        np.testing.assert_array_equal(one.y, other.y)
        assert (one.sr, one.sha256, one.samples_sha256) == (other.sr, other.sha256, other.samples_sha256)
        assert (one.warnings, one.channel) == (other.warnings, other.channel)


def reason(read: Callable, *given: object) -> str:
    with pytest.raises(AudioError) as caught:
        read(*given)
    return str(caught.value)


# --- what comes back


@pytest.mark.parametrize("channel", ["left", "each"])
def test_pool_reads_what_the_reader_reads(
    channel: str, write_clip: WriteClip, children: Callable[[], set[str]]
) -> None:
    y = np.stack([harmonic(1.0, 44100), harmonic(1.0, 44100, 200.0)], axis=1)
    paths = [
        str(write_clip("stereo.flac", y=y, sr=44100)),
        str(write_clip("offset.flac", y=0.5 * y + 0.2, sr=44100)),
        str(write_clip("half.flac", y=y * [1, 0], sr=44100)),
        os.fsdecode(os.fsencode(write_clip("n.flac", y=y).rename(os.fsdecode(b"caf\xe9\n.flac")))),
    ]
    soundfile.write("clip.mp3", y, 44100)

    with closing(DecoderPool(CONFIG, channel)) as pool:
        for path in [*paths, "clip.mp3"]:
            check_same(path, pool.read_channels(path), channel)
        whole = Path(paths[0]).read_bytes()
        check_same(paths[0], pool.read_channels("x", whole), channel)
        for content in (b"", b"a text", whole[:99]):
            expected = reason(reader.read_channels, "x", CONFIG, channel, content)
            assert reason(pool.read_channels, "x", content) == expected
        assert reason(pool.read_channels, "missing.flac") == "no such file"
        assert len(children()) == 1
    assert children() == set()


def test_pool_reads_plain_samples_in_place(
    pool: DecoderPool, write_clip: WriteClip, children: Callable[[], set[str]]
) -> None:
    for name in ("clip.wav", "clip.aiff"):
        path = str(write_clip(name))
        check_same(path, pool.read_channels(path))
    assert children() == set()


def test_pool_reads_for_threads_side_by_side(
    pool: DecoderPool, write_clip: WriteClip, children: Callable[[], set[str]]
) -> None:
    paths = [str(write_clip(f"{i}.flac", f0=100 + i)) for i in range(9)]
    with ThreadPoolExecutor(3) as threads:
        there = list(threads.map(pool.read_channels, paths))
    assert 1 <= len(children()) <= 3
    for path, recordings in zip(paths, there, strict=True):
        check_same(path, recordings)


# --- what goes wrong


@pytest.mark.parametrize("how", FATAL)
def test_pool_refuses_a_clip_that_kills_two_processes_and_reads_one_that_kills_one(
    how: str, plant: Callable, write_clip: WriteClip, pool: DecoderPool
) -> None:
    plant(
        f"if 'bad' in path: open('deaths', 'a').write('x'); {how}\n"
        f"if 'once' in path and not os.path.exists('mark'): open('mark', 'w'); {how}"
    )
    good, bad, once = (str(write_clip(f"{name}.flac")) for name in ("good", "bad", "once"))

    assert reason(pool.read_channels, bad) == CRASHED
    assert Path("deaths").read_text() == "xx"
    check_same(good, pool.read_channels(good))
    check_same(once, pool.read_channels(once))
    assert Path("mark").exists()


def test_pool_refuses_a_clip_that_takes_too_long(
    plant: Callable, write_clip: WriteClip, pool: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant("'bad' in path and time.sleep(60)")
    good, bad = str(write_clip("good.flac")), str(write_clip("bad.flac"))
    pool.read_channels(good)  # the process has started
    monkeypatch.setattr(isolate, "TIMEOUT_S", 0.6)

    began = time.monotonic()
    assert reason(pool.read_channels, bad) == "takes longer than 1 s to decode"
    assert time.monotonic() - began < 5
    monkeypatch.undo()
    check_same(good, pool.read_channels(good))


def test_pool_keeps_a_process_that_makes_a_mistake_wants_too_much_memory_or_prints(
    plant: Callable,
    write_clip: WriteClip,
    pool: DecoderPool,
    children: Callable[[], set[str]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    plant(
        "print('{}'); os.write(1, b'x'); os.write(2, b'y')\n"
        "if 'huge' in path: bytearray(7 * 2**30)\n"
        "if 'mistake' in path: raise KeyError('of ours')"
    )
    good, huge, mistake = (str(write_clip(f"{name}.flac")) for name in ("good", "huge", "mistake"))

    assert reason(pool.read_channels, huge).startswith("out of memory")
    assert reason(pool.read_channels, mistake) == "internal error: KeyError: 'of ours'"
    check_same(good, pool.read_channels(good))
    assert len(children()) == 1
    assert capfd.readouterr() == ("", "")


def test_pool_gives_the_traceback_of_a_mistake_to_who_looks_for_it(
    plant: Callable, write_clip: WriteClip, monkeypatch: pytest.MonkeyPatch, pool: DecoderPool
) -> None:
    plant("raise KeyError('of ours')")
    monkeypatch.setenv("SPEECHEMO_DEBUG", "1")

    with pytest.raises(RuntimeError, match=r"(?s)Traceback.*KeyError: 'of ours'"):
        pool.read_channels(str(write_clip("bad.flac")))


@pytest.mark.parametrize("executable", ["", "/nonexistent/python", "/bin/true"])
def test_pool_reads_in_place_where_no_process_can_be_started(
    executable: str, write_clip: WriteClip, pool: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", executable)

    assert len(pool.read_channels(str(write_clip("clip.flac")))) == 1


def test_pool_imports_nothing_of_the_working_folder(
    write_clip: WriteClip, pool: DecoderPool, children: Callable[[], set[str]]
) -> None:
    path = str(write_clip("clip.flac"))
    for name in ("json", "soundfile", "numpy", "speechemo_cli"):
        Path(f"{name}.py").write_text("open('imported', 'w')")

    assert len(pool.read_channels(path)) == 1
    assert len(children()) == 1
    assert not Path("imported").exists()


# --- in the commands


def write_clips(write_clip: WriteClip, n: int) -> None:
    for i in range(n):
        write_clip(f"data/happy/{'bad' if i == 7 else 'clip'}{i:03d}.flac", seconds=0.5, f0=100 + i)


@pytest.mark.parametrize(
    ("command", "n"),
    [
        (("predict", "data", "--format", "json"), 12),
        (("extract", "data", "--features", "mfcc", "--format", "json"), 12),
        pytest.param(
            ("extract", "data", "--features", "mfcc", "--format", "json", "--jobs", "2"),
            60,
            marks=pytest.mark.slow,
        ),
    ],
    ids=["predict", "extract few", "extract many"],
)
def test_commands_name_a_clip_that_kills_its_decoder_and_do_the_others(
    command: tuple[str, ...], n: int, plant: Callable, write_clip: WriteClip
) -> None:
    plant(f"if 'bad' in path: {ABORT}")
    write_clips(write_clip, n)

    done = subprocess.run([*COMMAND, *command], capture_output=True, text=True, check=False)

    assert done.returncode == 3, done.stderr
    assert f"bad007.flac: {CRASHED}" in done.stderr
    report = json.loads(done.stdout)
    failed = report.get("failed") or [clip for clip in report["clips"] if clip["status"] != "ok"]
    assert (report["extracted"] if command[0] == "extract" else len(report["clips"]) - 1) == n - 1
    assert [(Path(clip["path"]).name, clip["error"]) for clip in failed] == [("bad007.flac", CRASHED)]


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL])
def test_decoders_end_with_the_command(
    number: signal.Signals, plant: Callable, write_clip: WriteClip
) -> None:
    plant("Path(f'alive{os.getpid()}').touch(); time.sleep(0.3)")
    write_clips(write_clip, 40)
    process = subprocess.Popen(
        [*COMMAND, "predict", "data", "--quiet", "--jobs", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    until(lambda: len(list(Path().glob("alive*"))) >= 2, 60)
    alive = [int(path.name[5:]) for path in Path().glob("alive*")]

    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    _, err = process.communicate()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in alive), 3)

    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert b"Traceback" not in err
