"""A dask cluster: its workers as joblib's backend, and answers for clips from them."""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechemo_cli import processes
from speechemo_cli.errors import AccessError, ClipError, ConfigError, ModelFileError
from speechemo_cli.files import display_name
from speechemo_cli.inference.predictor import BATCH, Predictor
from speechemo_cli.models import model_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from speechemo_cli.config import Config
    from speechemo_cli.inference.predictor import ClipSource, Items

_CONNECT_S = 5
_WORKERS_S = 30
# Batches for each worker that are read ahead of the answers.
_AHEAD = 8


@contextmanager
def connected(scheduler: str) -> Iterator[None]:
    """Let the workers of a scheduler (as `tcp://host:8786`) compute what is handed out inside the block.

    Raises AccessError if no scheduler answers there or it has no worker, and ConfigError if it is no address
    or a worker has another version of this package.
    """
    import joblib
    from distributed import Client

    # It logs every connection that is closed, also those that are closed on purpose.
    for name in ("distributed", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        client = Client(scheduler, timeout=_CONNECT_S, set_as_default=False)
    except ValueError as error:
        raise ConfigError(
            f"--scheduler is {scheduler!r}, expected an address", f"dask says: {error}"
        ) from error
    except OSError as error:
        raise AccessError(f"no scheduler answers at {scheduler}", "Start one with: dask scheduler") from error
    try:
        _require_workers(client, scheduler)
        with joblib.parallel_config("dask", client=client):
            yield
    finally:
        client.close(timeout=1)


def _require_workers(client: Any, scheduler: str) -> None:
    try:
        client.wait_for_workers(1, timeout=_WORKERS_S)
    except TimeoutError as error:
        start = f"Start some with: dask worker {scheduler}"
        raise AccessError(f"the scheduler at {scheduler} has no worker", start) from error

    # Nested, so that it goes out as it is: a worker may lack whatever it would look up by a name.
    def version() -> str:
        import speechemo_cli
        from speechemo_cli.features import FEATURE_SETS

        sets = (f"{kind.name} {kind.version}" for kind in FEATURE_SETS.values())
        return f"speechemo {speechemo_cli.__version__} ({', '.join(sets)})"

    ours = version()
    for worker, theirs in client.run(version, on_error="return").items():
        if theirs != ours:
            has = theirs if isinstance(theirs, str) else f"none that works ({theirs})"
            raise ConfigError(
                f"the worker {worker} has {has}, expected {ours}", "Install the same on all of them"
            )


def predict_groups(predictor: Predictor, runtime: str, clips: Iterable[ClipSource]) -> Iterator[Items]:
    """Answer as `Predictor.predict_groups` does, on the workers of joblib's backend.

    They see the clips, and any model but the packaged one, under the same paths as this machine. `runtime`
    is what the predictor was opened with.
    """
    packaged = Path(predictor.path) == model_file.PACKAGED  # which lies elsewhere on each machine
    model = (
        "" if packaged else _absolute(os.fspath(predictor.path)),
        predictor.metadata.sha256,
        replace(predictor.config, jobs=1),
        runtime,
        predictor.min_confidence,
        predictor.labels,
        predictor.channel,
    )
    clips, n = iter(clips), max(1, processes.given_workers())
    while some := list(islice(clips, BATCH * _AHEAD * n)):
        numbered = [(i, _absolute(clip)) for i, clip in enumerate(some)]
        batches = [numbered[i : i + BATCH] for i in range(0, len(some), BATCH)]
        ready: dict[int, Items] = {}
        at = 0
        for batch, groups in processes.run_chunks(batches, _answer_batch, n, model):
            ready |= zip([i for i, _ in batch], groups or [[ClipError("", processes.CRASHED)]], strict=True)
            while at in ready:
                clip = some[at]
                path = clip if isinstance(clip, str) else clip[0]
                yield [replace(item, path=path) for item in ready.pop(at)]
                at += 1


def _absolute(clip: ClipSource) -> ClipSource:
    return os.path.abspath(clip) if isinstance(clip, str) else clip  # noqa: PTH100


def _answer_batch(batch: list[tuple[int, ClipSource]], model: tuple[Any, ...]) -> list[Items]:
    """Answer for some clips. Runs on a worker."""
    return _opened(*model).predict_batch([clip for _, clip in batch])


@lru_cache(maxsize=1)
def _opened(path: str, sha256: str, config: Config, *options: Any) -> Predictor:
    names = ("runtime", "min_confidence", "labels", "channel")
    predictor = Predictor.open(path or None, config, isolate=True, **dict(zip(names, options, strict=True)))
    if predictor.metadata.sha256 != sha256:
        name = display_name(predictor.path)
        raise ModelFileError(f"{name} is another file on a worker than here", "Copy it there")
    return predictor
