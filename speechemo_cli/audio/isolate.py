"""Decode clips in processes of their own: a file that crashes a decoder costs one clip, not the run.

Plain samples are read in place: nothing decodes them. Requests and answers are lines of JSON, followed by
samples or the content of a file as they are.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from contextlib import suppress
from dataclasses import asdict
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from speechemo_cli import processes
from speechemo_cli.audio import decode, reader
from speechemo_cli.audio.reader import Recording
from speechemo_cli.config import AudioConfig
from speechemo_cli.errors import AudioError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_READY = b"ready\n"
# Holds the samples of most clips, so that the other side need not be waited for.
_PIPE_BYTES = 2**20
# Ten minutes of sound take a few seconds.
TIMEOUT_S = 60.0
# The most samples that are decoded at once, twice, and the libraries.
_MEMORY_BYTES = 6 * 2**30
# With the parent's search path: no module of the working folder is taken for one of ours.
_START = (
    "import json, sys; path, *how = json.loads(sys.argv[1]); sys.path[:] = path;"
    "from speechemo_cli.audio import isolate; isolate.worker_main(*how)"
)


class DecoderPool:
    """Processes that decode clips, as many as threads ask at a time; `close` ends them."""

    def __init__(self, config: AudioConfig, channel: str = "mix") -> None:
        self._config = config
        self._channel = channel
        self._idle: deque[subprocess.Popen[bytes]] = deque()
        self._all: list[subprocess.Popen[bytes]] = []

    def read_channels(self, path: str, content: bytes | None = None) -> list[Recording]:
        """Do what `reader.read_channels` does, elsewhere where something is to be decoded.

        AudioError is also raised if a process died of the clip twice, or took too long.
        """
        if content is None:
            content = reader.read_bytes(path, self._config)
        too_large = len(content) > reader.LARGEST_BYTES
        if too_large or self._config.raw_sr or decode.is_plain(io.BytesIO(content)):
            return reader.read_channels(path, self._config, self._channel, content)
        for _ in range(2):  # what a process died of may have been the memory that others took
            process = self._take()
            if process is None:
                return reader.read_channels(path, self._config, self._channel, content)
            timer = threading.Timer(TIMEOUT_S, process.kill)
            timer.daemon = True
            timer.start()
            began = time.monotonic()
            try:
                answer = _ask(process, path, content)
            except (OSError, EOFError):
                process.kill()
                process.wait()
                if time.monotonic() - began >= TIMEOUT_S:
                    raise AudioError(f"takes longer than {TIMEOUT_S:.0f} s to decode") from None
                continue
            finally:
                timer.cancel()
            self._idle.append(process)
            if isinstance(answer, Exception):
                raise answer
            return answer
        raise AudioError(processes.CRASHED)

    def _take(self) -> subprocess.Popen[bytes] | None:
        with suppress(IndexError):
            return self._idle.popleft()
        if not sys.executable or getattr(sys, "frozen", False):
            return None
        how = json.dumps([sys.path, os.getpid(), self._channel, asdict(self._config)])
        try:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-c", _START, how],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pipesize=_PIPE_BYTES,
            )
        except OSError:
            return None
        self._all.append(process)
        assert process.stdout is not None
        return process if process.stdout.readline() == _READY else None

    def close(self) -> None:
        """End the processes, which have nothing to lose; what is read next starts others."""
        ended, self._all = self._all, []
        self._idle.clear()
        for process in ended:
            process.kill()
        for process in ended:
            process.communicate()


def _ask(process: subprocess.Popen[bytes], path: str, content: bytes) -> list[Recording] | Exception:
    """Send a clip and take the answer; OSError or EOFError is raised if the process is gone.

    An exception that is no AudioError is a mistake of ours, and shall tell how: see `reader.clip_errors`.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps([path, len(content)]).encode() + b"\n")
    process.stdin.write(content)
    process.stdin.flush()
    line = process.stdout.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    answer = json.loads(line)
    if "error" in answer:
        return AudioError(answer["error"])
    if "mistake" in answer:
        return RuntimeError(answer["mistake"])
    return [
        Recording(_array(process.stdout, n), sr, sha256, tuple(warnings), channel, offset)
        for n, sr, sha256, warnings, channel, offset in answer["recordings"]
    ]


def _array(samples: IO[bytes], n: int) -> NDArray[np.float32]:
    content = bytearray(samples.read(4 * n))
    if len(content) < 4 * n:
        raise EOFError
    return np.frombuffer(content, np.float32)


def worker_main(parent: int, channel: str, config: dict[str, Any]) -> None:
    """Answer requests on stdin until there are no more. What a library prints is no answer."""
    processes.end_with(parent)
    for name in ("SIGINT", "SIGHUP"):  # a terminal sends them to everybody, and the parent decides
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    # A decoder that wants more memory than any clip needs fails, and nothing else with it.
    with suppress(ImportError, ValueError, OSError):  # Windows has no such module
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    answers.write(_READY)
    answers.flush()
    for line in requests:
        path, n = json.loads(line)
        recordings: list[Recording] = []
        try:
            with reader.clip_errors():
                recordings = reader.read_channels(path, AudioConfig(**config), channel, requests.read(n))
            told: dict[str, Any] = {
                "recordings": [
                    (len(one.decoded), one.sr, one.sha256, one.warnings, one.channel, one.offset)
                    for one in recordings
                ]
            }
        except AudioError as error:
            told = {"error": str(error)}
        except Exception:
            told = {"mistake": traceback.format_exc()}
        with suppress(BrokenPipeError):
            answers.write(json.dumps(told).encode() + b"\n")
            for one in recordings:
                answers.write(np.ascontiguousarray(one.decoded, np.float32).data)
            answers.flush()
