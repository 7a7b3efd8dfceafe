"""Hear clips in processes of their own: a file that crashes the decoder costs one clip, not the run.

Requests and answers are lines of JSON, followed by samples or the content of a file as they are.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from collections import deque
from dataclasses import asdict
from typing import IO, Any

import numpy as np

from speechemo_cli import processes
from speechemo_cli.audio import hearing
from speechemo_cli.audio.hearing import Refused, Sound
from speechemo_cli.config import AudioConfig
from speechemo_cli.errors import AudioError

_READY = b"ready\n"
# Holds the samples of most clips, so that the other side need not be waited for.
_PIPE_BYTES = 2**20
# With the parent's search path: no module of the working folder is taken for one of ours.
_START = (
    "import json, sys; parent, path = json.loads(sys.argv[1]); sys.path[:] = path;"
    "from speechemo_cli.audio import apart; apart.serve(parent)"
)


class Apart:
    """Processes that hear clips, as many as threads ask at a time; `close` ends them.

    Parameters
    ----------
    config : AudioConfig
    channel : str
    sr : int
        As `hearing.hear` takes them.
    """

    def __init__(self, config: AudioConfig, channel: str, sr: int) -> None:
        self._config = config
        self._channel = channel
        self._sr = sr
        self._idle: deque[subprocess.Popen[bytes]] = deque()
        self._all: list[subprocess.Popen[bytes]] = []

    def hear(self, path: str, content: bytes | None = None) -> list[Sound | Refused]:
        """Do what `hearing.hear` does, elsewhere; here only where no process can be started.

        Raises
        ------
        AudioError
            As there; or two processes, one after the other, died of the clip.
        """
        size = None if content is None else len(content)
        settings = {**asdict(self._config), "channel": self._channel, "sr": self._sr}
        request = json.dumps({"path": path, "bytes": size, **settings}).encode() + b"\n" + (content or b"")
        for _ in range(2):  # what a process died of may have been the memory that others took
            process = self._take()
            if process is None:
                return hearing.hear(path, self._config, self._channel, self._sr, content)
            try:
                answer = _ask(process, request)
            except (OSError, EOFError):
                process.kill()
                process.wait()
                continue
            self._idle.append(process)
            if isinstance(answer, AudioError):
                raise answer
            return answer
        raise AudioError(processes.CRASHED)

    def _take(self) -> subprocess.Popen[bytes] | None:
        try:
            return self._idle.popleft()
        except IndexError:
            pass
        if not sys.executable or getattr(sys, "frozen", False):
            return None
        arguments = json.dumps([os.getpid(), sys.path])
        try:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-c", _START, arguments],
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
        """End the processes, which have nothing to lose."""
        for process in self._all:
            process.kill()
        for process in self._all:
            process.communicate()


def _ask(process: subprocess.Popen[bytes], request: bytes) -> list[Sound | Refused] | AudioError:
    """Send a request and take the answer.

    Raises
    ------
    OSError, EOFError
        The process is gone.
    RuntimeError
        It failed in a way that is a mistake of ours, and shall tell how: see `hearing.mishaps`.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(request)
    process.stdin.flush()
    line = process.stdout.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    answer = json.loads(line)
    if "broken" in answer:
        raise RuntimeError(answer["broken"])
    if "error" in answer:
        return AudioError(answer["error"])
    return [_sound(one, process.stdout) for one in answer["heard"]]


def _sound(one: dict[str, Any], samples: IO[bytes]) -> Sound | Refused:
    if "error" in one:
        return Refused(**one)
    n = one.pop("n")
    content = bytearray(samples.read(4 * n))
    if len(content) < 4 * n:
        raise EOFError
    y = np.frombuffer(content, np.float32)
    return Sound(y, **{**one, "warnings": tuple(one["warnings"])})


def serve(parent: int) -> None:
    """Answer requests on stdin until there are no more. What a library prints is no answer."""
    processes.end_with(parent)
    for name in ("SIGINT", "SIGHUP"):  # a terminal sends them to everybody, and the parent decides
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    answers.write(_READY)
    answers.flush()
    for line in requests:
        request = json.loads(line)
        size = request.pop("bytes")
        content = None if size is None else requests.read(size)
        try:
            _send(answers, _answered(request, content))
        except BrokenPipeError:
            return


def _answered(request: dict[str, Any], content: bytes | None) -> tuple[dict[str, Any], list[Any]]:
    """Return a line and the samples that follow it."""
    path, channel, sr = (request.pop(name) for name in ("path", "channel", "sr"))
    try:
        heard = hearing.hear(path, AudioConfig(**request), channel, sr, content)
    except AudioError as error:
        return {"error": str(error)}, []
    except Exception:
        return {"broken": traceback.format_exc()}, []
    told: list[dict[str, Any]] = []
    for one in heard:
        told.append(one._asdict())
        if isinstance(one, Sound):
            told[-1]["n"] = len(told[-1].pop("y"))
    return {"heard": told}, [one.y for one in heard if isinstance(one, Sound)]


def _send(answers: IO[bytes], answer: tuple[dict[str, Any], list[Any]]) -> None:
    answers.write(json.dumps(answer[0]).encode() + b"\n")
    for y in answer[1]:
        answers.write(np.ascontiguousarray(y, np.float32).data)
    answers.flush()
