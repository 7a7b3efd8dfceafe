"""Clips are heard elsewhere as they are here, and one that kills its listener costs one clip."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from conftest import harmonic
from speechemo_cli.audio.apart import Apart

from speechemo_cli.audio import hearing
from speechemo_cli.config import AudioConfig
from speechemo_cli.errors import AudioError
from speechemo_cli.processes import CRASHED

CONFIG = AudioConfig()
FATAL = {
    "abort": "os.abort()",
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "segfault": "import ctypes; ctypes.string_at(0)",
}


def processes() -> set[int]:
    """The processes that this one has started and that are alive."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == os.getpid() and state != "Z":
            found.add(int(stat.parent.name))
    return found


@pytest.fixture
def children() -> Callable[[], set[int]]:
    """Call it for those started since the test began: tests before it may have left resource trackers."""
    before = processes()
    return lambda: processes() - before


def same(one: hearing.Sound | hearing.Refused, other: hearing.Sound | hearing.Refused) -> bool:
    if isinstance(one, hearing.Sound) and isinstance(other, hearing.Sound):
        return bool(np.array_equal(one.y, other.y)) and one[1:] == other[1:]
    return one == other


def attempt(hear: Callable, *given: object) -> object:
    try:
        return hear(*given)
    except AudioError as error:
        return str(error)


@pytest.mark.parametrize("channel", ["mix", "left", "each"])
def test_clips_are_heard_as_they_are_here(
    channel: str, write_clip: Callable[..., Path], children: Callable[[], set[int]], rng: np.random.Generator
) -> None:
    y = np.stack([harmonic(1.0, 44100), harmonic(1.0, 44100, 200.0)], axis=1)
    paths = [
        str(write_clip("stereo.wav", y=y, sr=44100)),
        str(write_clip("loud.wav", y=np.clip(9 * y, -1, 1), sr=44100)),
        str(write_clip("half.wav", y=y * [1, 0], sr=44100)),
        str(write_clip("mono.wav")),
        str(write_clip("short.wav", seconds=0.1)),
        os.fsdecode(os.fsencode(write_clip("n.wav").rename(os.fsdecode(b"caf\xe9\n.wav")))),
        "missing.wav",
        "nul\0.wav",
    ]
    Path("text.wav").write_text("a text")
    whole = Path(paths[0]).read_bytes()
    given = [*((path, None) for path in [*paths, "text.wav"]), ("x", whole), ("x", b""), ("x", whole[:99])]

    with closing(Apart(CONFIG, channel, 16000)) as helper:
        for path, content in given:
            here = attempt(hearing.hear, path, CONFIG, channel, 16000, content)
            there = attempt(helper.hear, path, content)
            if isinstance(here, str):
                assert there == here
            else:
                assert len(there) == len(here)
                assert all(map(same, there, here))
                assert all(one.y.flags.writeable for one in there if isinstance(one, hearing.Sound))
        assert len(children()) == 1
    assert children() == set()


def test_the_limits_are_those_of_the_config(write_clip: Callable[..., Path]) -> None:
    with closing(Apart(AudioConfig(min_duration_s=2.0), "mix", 16000)) as helper:
        (refused,) = helper.hear(str(write_clip()))
    assert isinstance(refused, hearing.Refused)
    assert "shorter than 2 s" in refused.error


def test_threads_hear_side_by_side(write_clip: Callable[..., Path], children: Callable[[], set[int]]) -> None:
    paths = [str(write_clip(f"{i}.wav", f0=100 + i)) for i in range(40)]
    with closing(Apart(CONFIG, "mix", 16000)) as helper, ThreadPoolExecutor(4) as pool:
        there = list(pool.map(helper.hear, paths))
        assert 1 <= len(children()) <= 4

    for path, heard in zip(paths, there, strict=True):
        assert all(map(same, heard, hearing.hear(path, CONFIG, "mix", 16000)))


@pytest.mark.parametrize("how", sorted(FATAL))
def test_a_clip_that_kills_its_listener_is_refused_and_the_next_is_heard(
    how: str, plant: Callable, write_clip: Callable[..., Path]
) -> None:
    plant(f"if 'bad' in path: {FATAL[how]}")
    good, bad = str(write_clip("good.wav")), str(write_clip("bad.wav"))

    with closing(Apart(CONFIG, "mix", 16000)) as helper:
        for _ in range(2):
            with pytest.raises(AudioError, match=f"^{CRASHED}$"):
                helper.hear(bad)
            assert all(map(same, helper.hear(good), hearing.hear(good, CONFIG, "mix", 16000)))


def test_a_listener_that_dies_once_costs_nothing(plant: Callable, write_clip: Callable[..., Path]) -> None:
    plant("mark = Path('mark'); mark.exists() or (mark.touch(), os.abort())")
    path = str(write_clip())

    with closing(Apart(CONFIG, "mix", 16000)) as helper:
        assert len(helper.hear(path)) == 1
    assert Path("mark").exists()


def test_a_mistake_of_ours_costs_the_clip(plant: Callable, write_clip: Callable[..., Path]) -> None:
    plant("if 'bad' in path: raise KeyError('of ours')")
    good, bad = str(write_clip("good.wav")), str(write_clip("bad.wav"))
    with closing(Apart(CONFIG, "mix", 16000)) as helper:
        with pytest.raises(AudioError, match=r"^internal error: KeyError: 'of ours'$"):
            helper.hear(bad)
        assert len(helper.hear(good)) == 1


def test_a_mistake_of_ours_is_told_in_full_to_who_looks_for_it(
    plant: Callable, write_clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPEECHEMO_DEBUG", "1")
    plant("raise KeyError('of ours')")
    with (
        closing(Apart(CONFIG, "mix", 16000)) as helper,
        pytest.raises(RuntimeError, match=r"(?s)Traceback.*KeyError: 'of ours'"),
    ):
        helper.hear(str(write_clip()))


def test_what_a_library_prints_is_no_answer(
    plant: Callable, write_clip: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    plant("print('{}'); os.write(1, b'x'); os.write(2, b'y')")
    with closing(Apart(CONFIG, "mix", 16000)) as helper:
        assert len(helper.hear(str(write_clip()))) == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("executable", ["", "/nonexistent/python", "/bin/true"])
def test_where_no_process_can_be_started_clips_are_heard_here(
    executable: str, write_clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    with closing(Apart(CONFIG, "mix", 16000)) as helper:
        assert len(helper.hear(str(write_clip()))) == 1


def test_nothing_of_the_working_folder_is_imported(
    write_clip: Callable[..., Path], children: Callable[[], set[int]]
) -> None:
    path = str(write_clip())
    for name in ("json", "soundfile", "numpy", "speechemo_cli"):
        Path(f"{name}.py").write_text("open('imported', 'w')")
    with closing(Apart(CONFIG, "mix", 16000)) as helper:
        assert len(helper.hear(path)) == 1
        assert len(children()) == 1
    assert not Path("imported").exists()


# --- in the command -----------------------------------------------------------------------------------


def command(*more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "speechemo_cli", "predict", "clips", "--model", "packaged"),
        *("--output", "out.jsonl", "--quiet", *more),
    ]


def test_a_run_that_a_clip_ended_is_gone_on_with_and_names_it(
    plant: Callable, write_clip: Callable[..., Path]
) -> None:
    plant(f"if 'bad' in path: {FATAL['abort']}")
    Path("clips").mkdir()
    for i in range(150):
        write_clip(f"clips/{'bad' if i == 100 else 'clip'}{i:03d}.wav", seconds=0.5, f0=100 + i)

    broken_off = subprocess.run(command(), capture_output=True, check=False)
    done = subprocess.run(command("--resume"), capture_output=True, text=True, check=False)

    assert broken_off.returncode == -signal.SIGABRT
    assert done.returncode == 3
    assert [line for line in done.stderr.splitlines() if line.startswith("warning: clips/")] == [
        f"warning: clips/bad100.wav: {CRASHED}"
    ]
    records = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [record["status"] for record in records].count("ok") == 149
    assert [record["path"] for record in records if record["status"] != "ok"] == ["clips/bad100.wav"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_listener_outlives_the_command(
    number: signal.Signals, plant: Callable, write_clip: Callable[..., Path]
) -> None:
    plant("Path(f'alive{os.getpid()}').touch(); time.sleep(0.3)")
    Path("clips").mkdir()
    for i in range(100):
        write_clip(f"clips/{i:03d}.wav", seconds=0.5, f0=100 + i)
    process = subprocess.Popen(
        command("--resume", "--jobs", "2"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while len(alive := [int(path.name[5:]) for path in Path().glob("alive*")]) < 2:
        time.sleep(0.02)
    began = time.monotonic()

    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    _, err = process.communicate()
    while any(Path(f"/proc/{pid}").exists() for pid in alive):
        assert time.monotonic() - began < 3
        time.sleep(0.02)

    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert b"Traceback" not in err
