"""What is written to stderr in a block is held back, and shown where the block fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from conftest import harmonic

from speechemo_cli.stderr import quiet_stderr

PREAMBLE = """
import os, sys
from speechemo_cli.errors import SpeechemoError
from speechemo_cli.stderr import quiet_stderr, separate, take_back
def noise(text): os.write(2, text.encode() + b"\\n")
def say(text): print(text, file=sys.stderr)
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PREAMBLE + code], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("first", ["", "separate()\n"])
def test_what_was_held_back_is_shown_when_the_block_fails(first: str) -> None:
    done = run(first + "with quiet_stderr():\n    noise('the reason')\n    raise SystemExit(3)\n")

    assert done.returncode == 3
    assert done.stderr == "the reason\n"


@pytest.mark.parametrize("first", ["", "separate()\n"])
def test_an_error_that_says_what_there_is_to_say_shows_nothing_else(first: str) -> None:
    done = run(
        first + "try:\n    with quiet_stderr():\n        noise('x'); say('y'); raise SpeechemoError('z')\n"
        "except SpeechemoError: say('caught')\n"
    )

    assert done.stderr == "caught\n"


def test_stderr_works_again_afterwards(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet_stderr():
        os.write(2, b"noise")
    os.write(2, b"signal")

    assert capfd.readouterr().err == "signal"


def test_a_closed_stderr_is_no_obstacle() -> None:
    done = run("os.close(2)\nseparate()\nwith quiet_stderr(): print('went on')\n")

    assert done.stdout == "went on\n"


def test_blocks_of_several_threads_may_overlap() -> None:
    done = run(
        """
import random, threading
separate()
def work(seed):
    choice = random.Random(seed)
    for i in range(300):
        with quiet_stderr():
            noise("noise")
            if choice.random() < 0.3:
                with quiet_stderr(): noise("noise")
threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
n = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
noise("library"); say("program")
assert n < 12, n
"""
    )

    assert (done.returncode, done.stderr) == (0, "library\nprogram\n")


def test_who_ends_the_process_from_within_a_block_can_be_heard() -> None:
    done = run("separate()\nwith quiet_stderr():\n    noise('x'); take_back(); say('bye'); os._exit(3)\n")

    assert (done.returncode, done.stderr) == (3, "bye\n")


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_decoders_write_nothing_to_stderr(jobs: str, tmp_path: Path) -> None:
    (tmp_path / "sad").mkdir()
    for i in range(30):
        path = tmp_path / "sad" / f"{i}.mp3"
        soundfile.write(path, harmonic(3.0, 16000, 100 + i), 16000, format="MP3")
        content = bytearray(path.read_bytes())
        content[5000:7000] = bytes(2000)
        path.write_bytes(content)
    predict = ["predict", "--model", "packaged"]
    for command, data in (
        (predict, path),
        (predict, tmp_path),
        (["extract", "--features", "mfcc"], tmp_path),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "speechemo_cli", *command, "--quiet", "--jobs", jobs, str(data)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert all(line.startswith(("warning: ", "model: ")) for line in done.stderr.splitlines())
