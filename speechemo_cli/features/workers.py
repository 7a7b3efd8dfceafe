"""Chunks of clips computed by the workers of joblib's backend: processes here, or a cluster's."""

from __future__ import annotations

import atexit
import os
import threading
import warnings
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from speechemo_cli import features, processes
from speechemo_cli.audio import quality, reader
from speechemo_cli.audio.isolate import DecoderPool
from speechemo_cli.errors import AccessError, AudioError
from speechemo_cli.features.augment import apply_condition
from speechemo_cli.features.store import FeatureStore, StoredFeatures

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from speechemo_cli.config import AudioConfig, Config

    Sets = dict[str, dict[str, StoredFeatures]]

# Chunks handed out for each worker: one in work, the others so that it need not wait for files to
# be hashed.
_AHEAD = 4
# Only a cluster takes so long that has lost its scheduler or all its workers.
_SILENCE_S = 600.0
# A process that has nothing to do ends after so long.
_IDLE_S = 20
# Read when a worker process starts.
_ENVIRONMENT = {
    # By glibc: keep the memory of freed arrays for the next clip. By default it goes back to the system
    # each time, to be mapped anew page by page.
    **dict.fromkeys(["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"], str(2**26)),
    # By loky: no stack traces on stderr from a worker that dies, no count of what a killed run left.
    "PYTHONFAULTHANDLER": "",
    "PYTHONWARNINGS": "ignore::UserWarning:joblib.externals.loky.backend.resource_tracker",
    # By Python, which else begins with what lies in the working folder: somebody else's recordings.
    "PYTHONSAFEPATH": "1",
}


class Task(NamedTuple):
    """A clip to compute: where it is, the hash its content had, and the sets that lack it."""

    path: str
    key: str
    feature_sets: tuple[str, ...]


class Outcome(NamedTuple):
    """What came of a task: `error` is None for a clip that is in the store now."""

    key: str
    error: str | None = None
    warnings: tuple[str, ...] = ()


def given() -> int:
    """Return how many workers an active `joblib.parallel_config` gives; 0 where there is none."""
    from joblib import effective_n_jobs

    n = int(effective_n_jobs(None))
    return n if n > 1 else 0


def run(chunks: Iterable[Any], compute: Callable[..., Any], n: int, *arguments: Any) -> Iterator[Any]:
    """Call `compute(chunk, *arguments)` for each chunk, on the workers of joblib's backend, in any order.

    Chunks are taken a few at a time, by other threads; `n` worker processes compute them, where no
    `joblib.parallel_config` says otherwise. It yields each chunk and its result, and raises what a worker
    raised, or an AccessError where none has finished anything for ten minutes.

    When a worker process dies (the system ran out of memory and chose it), what was under way is computed
    again alone; a cluster does so by itself. A clip that kills its worker once more is given up: None.
    """
    from joblib import delayed

    waiting = iter(chunks)
    under_way: dict[int, Any] = {}

    def handed_out() -> Iterator[Any]:
        for i, chunk in enumerate(waiting):
            under_way[i] = chunk
            yield delayed(_numbered)(i, compute, chunk, *arguments)

    while True:
        try:
            with closing(_parallel(handed_out(), n)) as results:
                for i, result in results:
                    yield under_way.pop(i), result
            return
        except BrokenProcessPool:
            lost = list(under_way.values())
            under_way.clear()
        # Each with nothing beside it, and clip by clip where a worker dies of it.
        while lost:
            chunk = lost.pop()
            try:
                yield chunk, *_parallel([delayed(compute)(chunk, *arguments)], n)
            except BrokenProcessPool:
                if len(chunk) > 1:
                    lost += [[one] for one in chunk]
                else:
                    yield chunk, None


def _numbered(i: int, compute: Callable[..., Any], *arguments: Any) -> tuple[int, Any]:
    return i, compute(*arguments)


def _parallel(tasks: Iterable[Any], n: int) -> Generator[Any, None, None]:
    from joblib import Parallel

    parallel = Parallel(
        # Of one, joblib makes this process.
        n_jobs=None if given() else max(2, n),
        return_as="generator_unordered",
        batch_size=1,
        pre_dispatch=f"{_AHEAD}*n_jobs",
        timeout=_SILENCE_S,
        initializer=_begin,
        initargs=(os.getpid(),),
        idle_worker_timeout=_IDLE_S,
    )
    with _environment(), warnings.catch_warnings(), ExitStack() as stack:
        # It counts what was under way when it is broken off, or says that a worker was idle and ended.
        warnings.filterwarnings("ignore", category=UserWarning, module="joblib")
        with processes.undisturbed():
            results = stack.enter_context(closing(parallel(tasks)))
        try:
            yield from results
        except TimeoutError:
            raise AccessError(
                f"no worker has finished anything for {_SILENCE_S / 60:.0f} minutes",
                "What is finished is kept: see to the cluster, and run it again",
            ) from None


@contextmanager
def _environment() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    hook = threading.excepthook

    def without_loky(args: Any) -> None:
        # Where its processes are killed, loky's thread stumbles over the work that is taken back.
        if not (args.exc_type is KeyError and args.thread and args.thread.name == "ExecutorManagerThread"):
            hook(args)

    os.environ.update({name: before[name] or value for name, value in _ENVIRONMENT.items()})
    threading.excepthook = without_loky
    try:
        yield
    finally:
        threading.excepthook = hook
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _begin(parent: int) -> None:
    # A worker whose parent was killed would wait for more, and keep the parent's pipes open.
    processes.end_with(parent)
    # What it wrote is closed: unloading its libraries at the end would only keep the parent waiting.
    atexit.register(os._exit, 0)


def compute_chunk(chunk: list[Task], config: Config, token: str) -> tuple[list[Outcome], Sets]:
    """Decode some clips, compute the sets they lack and write one shard a set. Runs on a worker.

    `token`, where not empty, is a file in the store: a worker that does not see it shares no disk, and
    returns the features by set and key, still to be written.
    """
    from threadpoolctl import threadpool_limits

    entries: Sets = {}
    outcomes = []
    # The workers share out the cores already; and sums come out the same on one core and on many.
    with threadpool_limits(1):
        for task in chunk:
            try:
                computed, warnings = _compute_clip(task, config)
            except AudioError as error:
                outcomes.append(Outcome(task.key, str(error)))
                continue
            for name, entry in computed.items():
                entries.setdefault(name, {})[task.key] = entry
            outcomes.append(Outcome(task.key, warnings=warnings))
    if token and not Path(token).exists():
        return outcomes, entries
    write(entries, config)
    return outcomes, {}


def write(entries: Sets, config: Config) -> None:
    """Write one shard a set."""
    for name, shard in entries.items():
        FeatureStore.for_writing(name, config).write(shard)


@lru_cache(maxsize=1)
def _decoders(audio: AudioConfig) -> DecoderPool:
    """Return the processes that decode for this one, and end when it does."""
    return DecoderPool(audio)


@reader.clip_errors()
def _compute_clip(task: Task, config: Config) -> tuple[dict[str, StoredFeatures], tuple[str, ...]]:
    """Return the sets that a clip lacked, by their names, and its warnings."""
    (recording,) = _decoders(config.audio).read_channels(task.path)
    quality.check(recording.y, recording.sr, config.audio)
    if recording.sha256 != task.key:
        raise AudioError("changed while it was being read")
    about = recording.duration_s, recording.samples_sha256, recording.warnings
    sets = {name: StoredFeatures(compute(recording, name, config), *about) for name in task.feature_sets}
    return sets, recording.warnings


def compute(recording: reader.Recording, feature_set: str, config: Config) -> NDArray[np.float32]:
    """Compute one feature set of a decoded clip [shape=(frames, dim)]."""
    kind = features.feature_set(feature_set)
    y, key = recording.y, recording.samples_sha256
    if kind.condition:
        y = apply_condition(kind.condition, y, recording.sr, key)
    return kind.compute(reader.resample(y, recording.sr, kind.sr(config)), config, key)
