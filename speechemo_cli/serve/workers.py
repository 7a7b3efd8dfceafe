"""Processes that answer requests: a file that crashes or stalls one of them costs its own request alone."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from speechemo_cli.config import Config
from speechemo_cli.errors import AudioError, ClipError
from speechemo_cli.processes import CRASHED, Child

if TYPE_CHECKING:
    from collections.abc import Callable

# Columns of the waveform that the page draws.
_COLUMNS = 500


def load_model(model: str, config: dict[str, Any]) -> Callable[[dict[str, Any], bytes], tuple[Any]]:
    """Return what answers a request: `path` to read, `name` to call it, `timeline` and `waveform`.

    The answer is the document that `predict --format json` prints, or `timeline` where that is asked
    for; with `waveform` the lowest and highest samples of up to 500 equal parts come with it.
    """
    from speechemo_cli.inference.predictor import Predictor
    from speechemo_cli.inference.results import Style
    from speechemo_cli.inference.timeline import timelines

    predictor = Predictor.open(model, Config.from_dict(config))
    style = Style.of(predictor)

    def answer(request: dict[str, Any], _content: bytes) -> tuple[Any]:
        path, name = request["path"], request["name"]
        if not request["timeline"]:
            (item,) = predictor.predict_one(path)
            if isinstance(item, ClipError):
                raise AudioError(item.error)
            return (style.document([style.record(replace(item, path=name))]),)
        found = next(timelines(predictor, path))
        record = style.record(replace(found, path=name))
        if request["waveform"]:
            step = max(1, -(-len(found.envelope) // _COLUMNS))
            parts = [found.envelope[i : i + step] for i in range(0, len(found.envelope), step)]
            record["waveform"] = [[round(float(f), 4) for f in (part.min(), part.max())] for part in parts]
        return (style._replace(command="timeline").document([record]),)

    return answer


class WorkerPool:
    """A few processes, each a `Child(*load)`, which are replaced when an answer takes `timeout_s`."""

    def __init__(self, *load: Any, workers: int, timeout_s: float) -> None:
        self._start = partial(Child, *load)
        self._timeout_s = timeout_s
        self._free = asyncio.Semaphore(workers)
        self._all = [self._start() for _ in range(workers)]
        self._idle = [*self._all]

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer of the next process that is free.

        Raises AudioError if the clip was refused, took too long, or the process died of it, and RuntimeError
        with the traceback of the process for a mistake of ours.
        """
        async with self._free:
            return await asyncio.to_thread(self._ask, self._idle.pop(), request)

    def _ask(self, child: Child, request: dict[str, Any]) -> Any:
        try:
            try:
                child.wait_ready()
            except Exception as error:
                child.close()
                raise RuntimeError(f"a worker process did not start: {error}") from error
            return child.ask(request, timeout_s=self._timeout_s)[0]
        except TimeoutError:
            raise AudioError(f"took longer than {self._timeout_s:g} s", "Cut it") from None
        except EOFError:
            raise AudioError(CRASHED) from None
        finally:
            if child.ended and child in self._all:
                self._all.remove(child)
                child = self._start()
                self._all.append(child)
            self._idle.append(child)

    def close(self) -> None:
        """End the processes, which have nothing to lose."""
        ended, self._all = self._all, []
        for child in ended:
            child.close()
