"""Clips in, stored features out: hash, compute what is missing in worker processes, read back."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from speechemo_cli import processes
from speechemo_cli.audio import quality, reader
from speechemo_cli.audio.isolate import DecoderPool
from speechemo_cli.config import AudioConfig
from speechemo_cli.errors import AudioError, ClipError
from speechemo_cli.features import FEATURE_SETS, feature_set
from speechemo_cli.features.augment import apply_condition
from speechemo_cli.features.store import FeatureStore, IndexEntry, StoredFeatures
from speechemo_cli.files import require_writable, sha256_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from speechemo_cli.config import Config
    from speechemo_cli.corpus.clips import Clip, Collection, Corpus

    Clips = Collection | Corpus | Sequence[Clip]
    Sets = dict[str, dict[str, StoredFeatures]]

# Clips a worker computes before it writes them as one shard: what a kill can lose, at most, a worker.
_SHARD_CLIPS = 128
_SMALLEST_CHUNK = 8
# Fewer clips than this are done before worker processes have started.
_WORTH_WORKERS = 24

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class QualityWarning:
    """A clip that was used although something is odd about it."""

    path: str
    warning: str


@dataclass
class Extraction:
    """What an extraction did.

    `extracted` and `cached` count distinct recordings, computed now and found in the store; `duplicates`
    count clips whose content is that of another clip, byte for byte, after `dataset.load` also those whose
    decoded samples are. `damaged` names shards of the store, and `keys` has the hash of the file's content
    by path for every clip that did not fail.
    """

    clips: int = 0
    extracted: int = 0
    cached: int = 0
    duplicates: int = 0
    failed: list[ClipError] = field(default_factory=list)
    quality_warnings: list[QualityWarning] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def extract(
    clips: Clips,
    config: Config,
    feature_sets: Sequence[str] = tuple(FEATURE_SETS),
    on_progress: OnProgress | None = None,
    *,
    keep_keys: bool = True,
) -> Extraction:
    """Bring the features of every clip into the store. What is there already is not computed again.

    Clips are gone through once, and each is decoded once for all sets. `on_progress` is called with (clips
    done, clips to do). Without `keep_keys`, memory hardly grows with the clips. It raises an AccessError
    where the store cannot be read or written.
    """
    job = _Job(clips, config, feature_sets, on_progress or (lambda *_: None), keep_keys=keep_keys)
    # Closed at once when the progress raises: no worker goes on while the error is shown.
    with closing(job.run()) as outcomes:
        for some in outcomes:
            job.take(some)
    return job.finish()


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


class _Job:
    """One extraction under way: hands out chunks of what is missing and collects what came of them."""

    def __init__(
        self, clips: Clips, config: Config, sets: Sequence[str], on_progress: OnProgress, *, keep_keys: bool
    ) -> None:
        self._started = time.perf_counter()
        self._clips, self._config, self._keep_keys = clips, config, keep_keys
        self._on_progress = on_progress
        self._n_clips = len(clips)  # asked for at every clip; a corpus counts by label and speaker
        self._stores = {name: FeatureStore.open(name, config) for name in sets}
        # The clips that wait for an outcome, by their content: their place and path.
        self._under_way: dict[str, list[tuple[int, str]]] = {}
        # Half of the hash of each clip in the store: 128 bits, which no two recordings share.
        self._good: set[bytes] = set()
        self._keys: dict[str, str] = {}
        # What came of those that were refused or warned of, by their content, and for each clip.
        self._notable: dict[str, Outcome] = {}
        self._told: list[tuple[int, str, Outcome]] = []
        self._cached = self._done = 0
        # Chunks may be asked for by another thread than that which takes what came of them.
        self._lock = threading.Lock()
        self._thread = threading.get_ident()
        self._elsewhere = processes.given_workers()
        self._n_workers = self._elsewhere or config.workers
        self._advance(0)

    def run(self) -> Generator[list[Outcome], None, None]:
        """Compute on workers where there are several and enough to do, else here."""
        chunks = self._chunks()
        first = list(islice(chunks, _WORTH_WORKERS // _SMALLEST_CHUNK))
        if not first:
            return
        require_writable(Path(self._config.store))
        # Absolute: worker processes live on, and keep the working folder they were started in.
        config = replace(self._config, store=str(Path(self._config.store).absolute()))
        chunks = chain(first, chunks)
        with ExitStack() as stack:
            token = ""
            if self._elsewhere:
                file = tempfile.NamedTemporaryFile(prefix=".token-", dir=config.store)  # noqa: SIM115
                token = stack.enter_context(file).name
            results: Iterator[Any] = ((chunk, compute_chunk(chunk, config, token)) for chunk in chunks)
            if sum(map(len, first)) >= _WORTH_WORKERS and self._n_workers > 1 and processes.has_workers():
                results = processes.run_chunks(chunks, compute_chunk, self._n_workers, config, token)
            for chunk, result in results:
                outcomes, entries = result or ([Outcome(chunk[0].key, processes.CRASHED)], {})
                _write(entries, config)
                yield outcomes

    def _chunks(self) -> Iterator[list[Task]]:
        """Hash file after file and hand out those whose features are missing.

        Chunks get smaller towards the end, so that the workers finish together.
        """
        chunk: list[Task] = []
        paths = (clip.path for clip in self._clips)
        for i, (path, key) in enumerate(_hash_all(paths, self._config.workers)):
            with self._lock:
                task = self._task(i, path, key)
            chunk += [task] if task else []
            left = self._n_clips - (i + 1)
            if len(chunk) >= max(_SMALLEST_CHUNK, min(_SHARD_CLIPS, left // (4 * self._n_workers))):
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    def _task(self, i: int, path: str, key: str) -> Task | None:
        """Return what is to be computed of a clip, if anything is."""
        if not key:
            self._settle(Outcome(key, _why_unreadable(path)), [(i, path)])
        elif key in self._under_way:
            self._under_way[key].append((i, path))
        elif key in self._notable or _half(key) in self._good:
            self._settle(self._notable.get(key, Outcome(key)), [(i, path)])
        else:
            found = {name: self._find(name, key) for name in self._stores}
            lacking = tuple(name for name, entry in found.items() if entry is None)
            if lacking:
                self._under_way[key] = [(i, path)]
                return Task(str(Path(path).absolute()), key, lacking)
            self._cached += 1
            warnings = next((entry.warnings for entry in found.values() if entry and entry.warnings), ())
            self._settle(Outcome(key, warnings=warnings), [(i, path)])
        return None

    def _find(self, feature_set: str, key: str) -> IndexEntry | None:
        """Return what is stored of a clip and may be used.

        The limits are no part of the store's key, so a clip they refuse now is read again, and refused.
        """
        found, limits = self._stores[feature_set].find(key), self._config.audio
        if found is None or not limits.min_duration_s <= found.duration_s <= limits.max_duration_s:
            return None
        return None if found.warnings and limits.strict else found

    def take(self, outcomes: list[Outcome]) -> None:
        """Note what a worker made of its chunk."""
        with self._lock:
            for outcome in outcomes:
                self._settle(outcome, self._under_way.pop(outcome.key))

    def _settle(self, outcome: Outcome, clips: list[tuple[int, str]]) -> None:
        """Note what became of some clips of the same content; each copy of a refused one fails with it."""
        if outcome.error is None:
            self._good.add(_half(outcome.key))
            if self._keep_keys:
                self._keys.update((path, outcome.key) for _, path in clips)
        if outcome.error is not None or outcome.warnings:
            self._notable[outcome.key] = outcome
            self._told += [(i, path, outcome) for i, path in clips]
        self._advance(len(clips))

    def _advance(self, n: int) -> None:
        self._done += n
        if threading.get_ident() == self._thread:
            self._on_progress(self._done, self._n_clips)

    def finish(self) -> Extraction:
        """Count, and list what went wrong in the order of the clips."""
        self._advance(0)
        told = sorted(self._told)
        failed = [ClipError(path, outcome.error) for _, path, outcome in told if outcome.error is not None]
        return Extraction(
            clips=self._done,
            extracted=len(self._good) - self._cached,
            cached=self._cached,
            duplicates=self._done - len(failed) - len(self._good),
            failed=failed,
            quality_warnings=[
                QualityWarning(path, warning) for _, path, outcome in told for warning in outcome.warnings
            ],
            damaged=[name for store in self._stores.values() for name in store.damaged],
            keys=self._keys,
            seconds=time.perf_counter() - self._started,
        )


def _half(key: str) -> bytes:
    return bytes.fromhex(key[:32])


def _hash_all(paths: Iterable[str], threads: int) -> Iterator[tuple[str, str]]:
    """Hash every file in threads, which hashing lets run; in order, "" for one that cannot be read."""

    def attempt(path: str) -> tuple[str, str]:
        try:
            return path, sha256_file(path)
        except (OSError, ValueError):
            return path, ""

    # In slices, so that the first chunk is out while the rest is still being read.
    waiting = iter(paths)
    with ThreadPoolExecutor(threads) as pool:
        while some := list(islice(waiting, 2 * _SHARD_CLIPS)):
            yield from pool.map(attempt, some)


def _why_unreadable(path: str) -> str:
    """Ask the reader, which knows the words for every kind of unreadable file."""
    try:
        with reader.clip_errors():
            reader.read(path, AudioConfig())
    except AudioError as error:
        return str(error)
    return "changed while it was being read"


# --- what a worker does


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
    _write(entries, config)
    return outcomes, {}


def _write(entries: Sets, config: Config) -> None:
    """Write one shard a set."""
    for name, shard in entries.items():
        FeatureStore.for_writing(name, config).write(shard)


# The processes that decode for this one, and end when it does.
_decoders = lru_cache(maxsize=1)(DecoderPool)


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


def compute(recording: reader.Recording, name: str, config: Config) -> NDArray[np.float32]:
    """Compute one feature set of a decoded clip [shape=(frames, dim)]."""
    kind = feature_set(name)
    y, key = recording.y, recording.samples_sha256
    if kind.condition:
        y = apply_condition(kind.condition, y, recording.sr, key)
    return kind.compute(reader.resample(y, recording.sr, kind.sr(config)), config, key)
