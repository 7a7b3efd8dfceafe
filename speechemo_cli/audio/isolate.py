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
import traceback
from collections import deque
from contextlib import suppress
from dataclasses import asdict
from typing import IO, Any

import numpy as np

from speechemo_cli import processes
from speechemo_cli.audio import decode, reader
from speechemo_cli.audio.reader import Recording
from speechemo_cli.config import AudioConfig
from speechemo_cli.errors import AudioError

_READY = b"ready\n"
# Holds the samples of most clips, so that the other side need not be waited for.
_PIPE_BYTES = 2**20
# Ten minutes of sound take a few seconds.
TIMEOUT_S = 60.0
# The most samples that are decoded at once, twice, and the libraries.
_MEMORY_BYTES = 6 * 2**30
# With the parent's search path: no module of the working folder is taken for one of ours.
_START = (
    "import json, sys; parent, path = json.loads(sys.argv[1]); sys.path[:] = path;"
    "from speechemo_cli.audio import isolate; isolate.worker_main(parent)"
)


class DecoderPool:
    """Processes that decode clips, as many as threads ask at a time; `close` ends them.

    Parameters
    ----------
    config : AudioConfig
    channel : {"mix", "left", "right", "each"}
    """

    def __init__(self, config: AudioConfig, channel: str = "mix") -> None:
        self._config = config
        self._channel = channel
        self._idle: deque[subprocess.Popen[bytes]] = deque()
        self._all: list[subprocess.Popen[bytes]] = []

    def read_channels(self, path: str, content: bytes | None = None) -> list[Recording]:
        """Do what `reader.read_channels` does, elsewhere where something is to be decoded.

        Raises
        ------
        AudioError
            As there; or a process died of the clip twice, or took too long.
        """
        if content is None:
            content = reader.read_bytes(path, self._config)
        too_large = len(content) > reader.LARGEST_BYTES
        if too_large or self._config.raw_sr or decode.is_plain(io.BytesIO(content)):
            return reader.read_channels(path, self._config, self._channel, content)
        about = {"path": path, "channel": self._channel, "bytes": len(content)}
        request = json.dumps({**about, "config": asdict(self._config)}).encode() + b"\n"
        for _ in range(2):  # what a process died of may have been the memory that others took
            process = self._take()
            if process is None:
                return reader.read_channels(path, self._config, self._channel, content)
            late = threading.Event()
            timer = threading.Timer(TIMEOUT_S, lambda p=process, late=late: (late.set(), p.kill()))
            timer.daemon = True
            timer.start()
            try:
                answer = _ask(process, request, content)
            except (OSError, EOFError):
                process.kill()
                process.wait()
                if late.is_set():
                    raise AudioError(f"takes longer than {TIMEOUT_S:.0f} s to decode") from None
                continue
            finally:
                timer.cancel()
            self._idle.append(process)
            if isinstance(answer, AudioError):
                raise answer
            return answer
        raise AudioError(processes.CRASHED)

    def _take(self) -> subprocess.Popen[bytes] | None:
        with suppress(IndexError):
            return self._idle.popleft()
        if not sys.executable or getattr(sys, "frozen", False):
            return None
        try:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-c", _START, json.dumps([os.getpid(), sys.path])],
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


def _ask(process: subprocess.Popen[bytes], request: bytes, content: bytes) -> list[Recording] | AudioError:
    """Send a request and take the answer.

    Raises
    ------
    OSError, EOFError
        The process is gone.
    RuntimeError
        It failed in a way that is a mistake of ours, and shall tell how: see `reader.clip_errors`.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(request)
    process.stdin.write(content)
    process.stdin.flush()
    line = process.stdout.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    answer = json.loads(line)
    if "broken" in answer:
        raise RuntimeError(answer["broken"])
    if "error" in answer:
        return AudioError(answer["error"])
    return [
        Recording(_array(process.stdout, n), sr, sha256, tuple(warnings), channel, offset)
        for n, sr, sha256, warnings, channel, offset in answer["recordings"]
    ]


def _array(samples: IO[bytes], n: int) -> Any:
    content = bytearray(samples.read(4 * n))
    if len(content) < 4 * n:
        raise EOFError
    return np.frombuffer(content, np.float32)


def worker_main(parent: int) -> None:
    """Answer requests on stdin until there are no more. What a library prints is no answer."""
    processes.end_with(parent)
    for name in ("SIGINT", "SIGHUP"):  # a terminal sends them to everybody, and the parent decides
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    _bound_memory()
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    answers.write(_READY)
    answers.flush()
    for line in requests:
        request = json.loads(line)
        told, arrays = _answered(request, requests.read(request["bytes"]))
        with suppress(BrokenPipeError):
            answers.write(json.dumps(told).encode() + b"\n")
            for y in arrays:
                answers.write(np.ascontiguousarray(y, np.float32).data)
            answers.flush()


def _bound_memory() -> None:
    """Let a decoder that wants more memory than any clip needs fail, and nothing else with it."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))


def _answered(request: dict[str, Any], content: bytes) -> tuple[dict[str, Any], list[Any]]:
    config = AudioConfig(**request["config"])
    try:
        with reader.clip_errors():
            recordings = reader.read_channels(request["path"], config, request["channel"], content)
    except AudioError as error:
        return {"error": str(error)}, []
    except Exception:
        return {"broken": traceback.format_exc()}, []
    told = [
        (len(one.decoded), one.sr, one.sha256, one.warnings, one.channel, one.offset) for one in recordings
    ]
    return {"recordings": told}, [one.decoded for one in recordings]
