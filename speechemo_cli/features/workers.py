"""Chunks of clips computed in worker processes, which neither outlive their parent nor take it with them."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any, NamedTuple

from speechemo_cli import features, processes
from speechemo_cli.audio import reader, samples
from speechemo_cli.audio.isolate import DecoderPool
from speechemo_cli.errors import AudioError
from speechemo_cli.features import conditions
from speechemo_cli.features.shards import StoredFeatures
from speechemo_cli.features.store import FeatureStore
from speechemo_cli.files import remove_stale

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from speechemo_cli.config import AudioConfig, Config

# Chunks handed out for each worker: one in its hands, the others so that it need not wait for files to
# be hashed.
_AHEAD = 4
# Read when a worker starts.
_ENVIRONMENT = {
    # By glibc: keep the memory of freed arrays for the next clip. By default it goes back to the system
    # each time, to be mapped anew page by page.
    **dict.fromkeys(["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"], str(2**26)),
    # By the libraries behind numpy's products: the cores are shared out among the workers already.
    **dict.fromkeys([f"{name}_NUM_THREADS" for name in ("OMP", "OPENBLAS", "MKL", "BLIS")], "1"),
    "VECLIB_MAXIMUM_THREADS": "1",
    # By loky: no stack traces on stderr from a worker that dies.
    "PYTHONFAULTHANDLER": "",
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


def run(chunks: Iterable[list[Task]], config: Config) -> Iterator[list[Outcome]]:
    """Compute chunks in `config.workers` processes, in any order.

    When a process dies (the system ran out of memory and chose it), what
    was under way is computed again by one process alone. A clip that kills that one too, with nothing
    else in its hands, is given up; then the others go on.

    Parameters
    ----------
    chunks : iterable of list of Task
        Taken a few at a time.
    config : Config

    Yields
    ------
    list of Outcome
        One list a chunk; more where a chunk was lost.

    Raises
    ------
    AccessError
        The store cannot be written.
    """
    waiting = iter(chunks)
    while lost := (yield from _until_one_dies(waiting, config)):
        yield from _one_by_one(lost, config)


def _until_one_dies(
    chunks: Iterator[list[Task]], config: Config
) -> Generator[list[Outcome], None, list[list[Task]]]:
    """Compute chunks side by side; return those that were lost because a process died."""
    lost: list[list[Task]] = []
    under_way: dict[Future[list[Outcome]], list[Task]] = {}
    with _processes(config.workers, config) as pool:
        try:
            while True:
                while not lost and len(under_way) < _AHEAD * config.workers:
                    chunk = next(chunks, None)
                    if chunk is None:
                        break
                    try:
                        under_way[pool.submit(compute_chunk, chunk, config)] = chunk
                    except BrokenProcessPool:
                        lost.append(chunk)
                if not under_way:
                    return lost
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    chunk = under_way.pop(future)
                    try:
                        outcomes = future.result()
                    except BrokenProcessPool:
                        lost.append(chunk)
                    else:
                        yield outcomes
        except Exception:
            for future in under_way:
                future.cancel()
            raise


def _one_by_one(chunks: list[list[Task]], config: Config) -> Iterator[list[Outcome]]:
    """Compute chunks in one process, and clip by clip those that it dies of."""
    waiting = deque(chunks)
    while waiting:
        with _processes(1, config) as pool:
            while waiting:
                chunk = waiting.popleft()
                try:
                    outcomes = pool.submit(compute_chunk, chunk, config).result()
                except BrokenProcessPool:
                    if len(chunk) > 1:
                        waiting.extendleft([task] for task in reversed(chunk))
                    else:
                        yield [Outcome(chunk[0].key, processes.CRASHED)]
                    break
                yield outcomes


@contextmanager
def _processes(n: int, config: Config) -> Iterator[Any]:
    """Give a pool of processes; on Ctrl-C they are killed, on an error they finish what is in their hands."""
    from joblib.externals.loky import ProcessPoolExecutor

    # loky's helper process counts what a killed run left, and would say so.
    os.environ.setdefault(
        "PYTHONWARNINGS", "ignore::UserWarning:joblib.externals.loky.backend.resource_tracker"
    )
    # Python begins with what lies in the working folder, which holds somebody else's recordings.
    os.environ["PYTHONSAFEPATH"] = "1"
    given = {name: os.environ.get(name, value) for name, value in _ENVIRONMENT.items()}
    pool = ProcessPoolExecutor(n, initializer=_begin, initargs=(os.getpid(),), env=given)
    killed: list[Any] = []
    try:
        with _undisturbed():
            pool.submit(os.getpid)  # the first task starts the processes
        yield pool
    except Exception:
        raise
    except BaseException:
        # Not loky's own way of killing, whose thread stumbles over the work it takes back.
        killed = list(pool._processes.values())
        for process in killed:
            process.terminate()
        raise
    finally:
        pool.shutdown()
        for kind in features.FEATURE_SETS.values() if killed else ():
            remove_stale(
                FeatureStore.at(config.store, kind, config).folder, [process.pid for process in killed]
            )


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Start processes that never hear Ctrl-C, and hear it oneself when they are started.

    A terminal sends it to all of them, and the parent decides. One that came while the parent hands a
    process its first message would have that complain of half of it.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    heard: list[int] = []
    ours: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # the only one that handlers run in
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            ours[number] = signal.signal(number, lambda number, _: heard.append(number))
    resource_tracker.ensure_running()  # where it has to start its process, it unblocks what is blocked
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for replaced, handler in ours.items():
            signal.signal(replaced, handler)
    for pressed in heard:
        if callable(ours[pressed]):
            ours[pressed](pressed, None)
        else:
            signal.raise_signal(pressed)


def _begin(parent: int) -> None:
    """Prepare a worker process: it ends when its parent does.

    A worker whose parent was killed would wait minutes for more, and keep the parent's pipes open.
    """
    processes.end_with(parent)
    # What it wrote is closed: taking its libraries apart at the end would only keep the parent waiting.
    atexit.register(os._exit, 0)


def compute_chunk(chunk: list[Task], config: Config) -> list[Outcome]:
    """Decode some clips, compute the sets they lack and write one shard a set. Runs in a worker process.

    Parameters
    ----------
    chunk : list of Task
    config : Config

    Returns
    -------
    list of Outcome
        In the order of the chunk.
    """
    entries: dict[str, dict[str, StoredFeatures]] = {}
    outcomes = []
    for task in chunk:
        try:
            computed, warnings = _compute_clip(task, config)
        except AudioError as error:
            outcomes.append(Outcome(task.key, str(error)))
            continue
        for name, entry in computed.items():
            entries.setdefault(name, {})[task.key] = entry
        outcomes.append(Outcome(task.key, warnings=warnings))
    for name, shard in entries.items():
        FeatureStore.at(config.store, features.feature_set(name), config).write(shard)
    return outcomes


@lru_cache(maxsize=1)
def _decoders(audio: AudioConfig) -> DecoderPool:
    """Give the processes that decode for this one; they end when it does."""
    return DecoderPool(audio)


@reader.clip_errors()
def _compute_clip(task: Task, config: Config) -> tuple[dict[str, StoredFeatures], tuple[str, ...]]:
    """Return the sets that a clip lacked, by their names, and its warnings."""
    (recording,) = _decoders(config.audio).read_channels(task.path)
    samples.check(recording.y, recording.sr, config.audio)
    if recording.sha256 != task.key:
        raise AudioError("changed while it was being read")
    about = recording.duration_s, recording.samples_sha256, recording.warnings
    sets = {name: StoredFeatures(compute(recording, name, config), *about) for name in task.feature_sets}
    return sets, recording.warnings


def compute(recording: reader.Recording, feature_set: str, config: Config) -> NDArray[np.float32]:
    """Compute one feature set of a decoded clip.

    Returns
    -------
    np.ndarray [shape=(frames, dim), dtype=float32]
    """
    kind = features.feature_set(feature_set)
    section = kind.section(config)
    y = recording.y
    if kind.condition:
        y = conditions.apply(kind.condition, y, recording.sr, recording.samples_sha256)
    return kind.compute(
        samples.resample(y, recording.sr, kind.sr(section)), section, recording.samples_sha256
    )
