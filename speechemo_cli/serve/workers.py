"""Processes that answer requests: a file that crashes or stalls one of them costs its own request alone."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from speechemo_cli import processes
from speechemo_cli.errors import AudioError, ClipError, SpeechemoError

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from pathlib import Path

    from speechemo_cli.config import Config

    # Turns a request into an answer, both plain JSON.
    Answer = Callable[[dict[str, Any]], dict[str, Any]]
    # Called once in each process, so it has to be picklable.
    Load = Callable[[], Answer]

# Keras takes its time, and so does a machine that is busy.
_START_S = 120.0
# Columns of the waveform that the page draws.
_COLUMNS = 500


def load_model(model: Path, config: Config) -> Answer:
    """Return what answers a request: `path` to read, `name` to call it, `timeline` and `waveform`.

    The answer is the document that `predict --format json` prints, or `timeline` where that is asked
    for; with `waveform` the lowest and highest samples of up to 500 equal parts come with it.
    """
    from speechemo_cli.inference.predictor import Predictor
    from speechemo_cli.inference.results import Style
    from speechemo_cli.inference.timeline import timeline

    predictor = Predictor.open(model, config)
    style = Style.of(predictor)

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        path, name = request["path"], request["name"]
        if not request["timeline"]:
            (item,) = predictor.predict_one(path)
            if isinstance(item, ClipError):
                raise AudioError(item.error)
            return style.document([style.record(replace(item, path=name))])
        found = timeline(predictor, path, config=config.audio)
        record = style.record(replace(found, path=name))
        if request["waveform"]:
            step = max(1, -(-len(found.envelope) // _COLUMNS))
            parts = [found.envelope[i : i + step] for i in range(0, len(found.envelope), step)]
            record["waveform"] = [[round(float(f), 4) for f in (part.min(), part.max())] for part in parts]
        return style._replace(command="timeline").document([record])

    return answer


class WorkerPool:
    """A few processes, which `load` as they start and are replaced when an answer takes `timeout_s`."""

    def __init__(self, load: Load, workers: int, timeout_s: float) -> None:
        self._all = [_Worker(load, timeout_s) for _ in range(workers)]
        self._idle: asyncio.LifoQueue[_Worker] = asyncio.LifoQueue()
        for worker in self._all:
            self._idle.put_nowait(worker)

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer of the next process that is free.

        Raises AudioError if the clip was refused, took too long, or the process died of it, and RuntimeError
        with the traceback of the process for a mistake of ours.
        """
        worker = await self._idle.get()
        try:
            return await asyncio.to_thread(worker.ask, request)
        finally:
            self._idle.put_nowait(worker)

    def close(self) -> None:
        """End the processes, which have nothing to lose."""
        for worker in self._all:
            worker.close()


class _Worker:
    def __init__(self, load: Load, timeout_s: float) -> None:
        self._load = load
        self._timeout_s = timeout_s
        self._closed = False
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_main, args=(self._load, theirs, os.getpid()), daemon=True)
        with processes.undisturbed():
            self._process.start()
        theirs.close()
        self._ready = False

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if not self._ready:
            try:
                self._receive(_START_S)
            except Exception as error:
                self._replace()
                raise RuntimeError(f"a worker process did not start: {error}") from error
            self._ready = True
        try:
            self._connection.send_bytes(json.dumps(request).encode())
            return self._receive(self._timeout_s)
        except TimeoutError:
            self._replace()
            raise AudioError(f"took longer than {self._timeout_s:g} s", "Cut it") from None
        except (EOFError, OSError):
            self._replace()
            raise AudioError(processes.CRASHED) from None

    def _receive(self, timeout_s: float) -> dict[str, Any]:
        if not self._connection.poll(timeout_s):
            raise TimeoutError
        # JSON and no pickle: who takes over a decoder shall not get any further.
        answer: dict[str, Any] = json.loads(self._connection.recv_bytes())
        if "refused" in answer:
            raise AudioError(answer["refused"])
        if "broken" in answer:
            raise RuntimeError(answer["broken"])
        return answer

    def _replace(self) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()
        if not self._closed:
            self._start()

    def close(self) -> None:
        self._closed = True
        self._process.kill()


def _main(load: Load, requests: Connection, parent: int) -> None:
    """Answer requests until there are no more."""
    processes.end_with(parent)
    nowhere = os.open(os.devnull, os.O_WRONLY)  # for what decoders print
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    answer: Answer | None = None
    try:
        while True:
            try:
                if answer is None:
                    answer, reply = load(), {}
                else:
                    reply = answer(json.loads(requests.recv_bytes()))
            except SpeechemoError as error:
                reply = {"refused": str(error)}
            except EOFError:
                return
            except Exception:
                reply = {"broken": traceback.format_exc()}
            requests.send_bytes(json.dumps(reply).encode())
            if answer is None:
                return
    except OSError:
        return  # nobody reads them any more
