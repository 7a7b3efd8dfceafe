"""What libraries write to stderr in a block is dropped, and stderr works again after it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from conftest import COMMAND, harmonic

PREAMBLE = """
import os, sys
from speechemo_cli.processes import quiet_stderr, restore_stderr
def noise(text): os.write(2, text.encode() + b"\\n")
def say(text): print(text, file=sys.stderr)
"""
FAILING = """
try:
    with quiet_stderr(): noise("x"); say("y"); raise OSError
except OSError: pass
noise("library"); say("program")
"""
THREADS = """
import random, threading
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


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("with quiet_stderr(): noise('x'); say('y')\nnoise('library'); say('program')", "library\nprogram\n"),
        (FAILING, "library\nprogram\n"),
        (THREADS, "library\nprogram\n"),
        ("with quiet_stderr(): noise('x'); restore_stderr(); say('bye'); os._exit(0)", "bye\n"),
        ("os.close(2)\nwith quiet_stderr(): pass", ""),
        ("os.close(2); sys.stderr = None\nwith quiet_stderr(): pass", ""),
    ],
    ids=["block", "block that fails", "threads", "end within a block", "closed", "closed and none"],
)
def test_quiet_stderr_drops_what_is_written_in_the_block_alone(code: str, expected: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + code], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, expected)


@pytest.mark.slow  # test_audio_cases has many files in one process
def test_decoders_write_nothing_to_stderr(tmp_path: Path) -> None:
    (tmp_path / "sad").mkdir()
    for i in range(30):
        path = tmp_path / "sad" / f"{i}.mp3"
        soundfile.write(path, harmonic(2.0, 16000, 100 + i), 16000, format="MP3")
        content = bytearray(path.read_bytes())
        content[4000:6000] = bytes(2000)
        path.write_bytes(content)
    for command in (["predict", str(path)], ["predict", "."], ["extract", ".", "--features", "mfcc"]):
        done = subprocess.run(
            [*COMMAND, *command, "--quiet", "--jobs", "2"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert all(line.startswith(("warning: ", "model: ")) for line in done.stderr.splitlines())
