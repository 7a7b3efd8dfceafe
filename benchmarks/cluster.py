"""Extract short clips here, in worker processes and on a dask cluster of this machine.

    python benchmarks/cluster.py [CLIPS]

The cost of handing out is that of chunks nothing is done with.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import joblib
from load import write_clips

from speechemo_cli import processes
from speechemo_cli.config import Config
from speechemo_cli.corpus.clips import Clip
from speechemo_cli.features.extraction import Task, extract

CHUNK = 128


def nothing(_chunk: list[Task]) -> int:
    """Do nothing with a chunk."""
    return 0


def measure(name: str, clips: list[Clip], store: Path, n: int, how: AbstractContextManager[object]) -> None:
    """Print what a clip costs, once the workers have started."""
    tasks = [[Task(clip.path, 64 * "0", ("mfcc",)) for clip in clips[:CHUNK]]] * (len(clips) // CHUNK)
    with how:
        extract(clips[:CHUNK], Config(store=str(store), jobs=n), ("mfcc",))
        started = time.perf_counter()
        report = extract(clips, Config(store=str(store / "all"), jobs=n), ("mfcc",))
        seconds = time.perf_counter() - started
        assert report.extracted == len(clips)
        handing = 0.0
        if n > 1:
            started = time.perf_counter()
            assert len(list(processes.run_chunks(tasks, nothing, n))) == len(tasks)
            handing = (time.perf_counter() - started) / len(tasks)
    print(
        f"{name:24s} {seconds:6.1f} s, {1e3 * seconds / len(clips):5.2f} ms a clip; handing out "
        f"{1e3 * handing:6.2f} ms a chunk, {1e3 * handing / CHUNK:6.3f} ms a clip",
        flush=True,
    )
    shutil.rmtree(store)


def main() -> None:
    """Run extract over the same clips in each way."""
    from distributed import LocalCluster

    n_clips = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as temporary:
        write_clips(Path(temporary, "clips"), n_clips)
        clips = [Clip(str(path), "calm") for path in sorted(Path(temporary, "clips").rglob("*.wav"))]
        store = Path(temporary, "store")
        for n in (1, 2, 4):
            measure(f"{n} here" if n == 1 else f"{n} processes (loky)", clips, store, n, nullcontext())
        # Of a cluster of one thread joblib makes this process.
        for n in (2, 4):
            with (
                LocalCluster(n, threads_per_worker=1, dashboard_address=None) as made,
                made.get_client() as client,
            ):
                how = joblib.parallel_config("dask", client=client)
                measure(f"{n} workers (dask)", clips, store, n, how)


if __name__ == "__main__":
    main()
