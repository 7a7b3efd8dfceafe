"""A dask cluster: what its workers compute is what is computed here."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import soundfile
from conftest import harmonic

from speechemo_cli.config import Config
from speechemo_cli.corpus.clips import Clip
from speechemo_cli.errors import AccessError, ConfigError
from speechemo_cli.features.extraction import extract
from speechemo_cli.features.store import FeatureStore, StoredFeatures
from speechemo_cli.inference import cluster

pytest.importorskip("distributed", reason="needs the extra dask")

# Planted in workers, which import it when they start.
OTHER_VERSION = "import speechemo_cli\nspeechemo_cli.__version__ = '0.0.1'"
NO_SHARED_DISK = """
from pathlib import Path
from speechemo_cli.features import workers
seen = Path.exists
Path.exists = lambda path: not path.name.startswith('.token-') and seen(path)
def write(*_): raise OSError('no such store')
workers.write = write
"""
SLOW = """
import time
from speechemo_cli.audio import reader
original = reader.read_channels
reader.read_channels = lambda *given: time.sleep(0.05) or original(*given)
"""


class Cluster:
    """A scheduler on a free port of the loopback address, and workers of one thread each."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{port}"
        self._folder, self._stack = folder, stack
        self._start("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
        self.workers = []

    def add_worker(self, planted: str = "") -> None:
        folder = self._folder / f"worker{len(self.workers)}"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(planted)
        given = ("--no-nanny", "--nthreads", "1", "--no-dashboard", "--local-directory", str(folder))
        path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
        self.workers.append(self._start("worker", self.address, *given, PYTHONPATH=path))

    def _start(self, what: str, *arguments: str, **env: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", f"distributed.cli.dask_{what}", *arguments],
            stderr=subprocess.DEVNULL,
            env={**os.environ, **env},
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process


@contextmanager
def cluster_of(folder: Path, *planted: str) -> Iterator[Cluster]:
    from distributed import Client

    with ExitStack() as stack:
        made = Cluster(folder, stack)
        for code in planted:
            made.add_worker(code)
        with Client(made.address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(len(planted), timeout=60)
        yield made


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_of(tmp_path_factory.mktemp("cluster"), "", "") as made:
        yield made


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    folder = tmp_path_factory.mktemp("clips")
    for i in range(60):
        soundfile.write(folder / f"{i:02d}.wav", harmonic(0.25 + i / 500, 16000, 100 + i), 16000)
    (folder / "bad.wav").write_text("no sound")
    return [Clip(str(path), "angry") for path in sorted(folder.iterdir())]


def stored(clips: list[Clip], store: str) -> dict[str, StoredFeatures]:
    from speechemo_cli.files import sha256_file

    found = FeatureStore.open("mfcc", Config(store=store))
    return found.read(sha256_file(clip.path) for clip in clips)


def assert_same(one: dict[str, StoredFeatures], other: dict[str, StoredFeatures]) -> None:
    assert one.keys() == other.keys()
    for key, entry in one.items():
        np.testing.assert_array_equal(entry.values, other[key].values)


@pytest.fixture(scope="module")
def here(clips: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> dict[str, StoredFeatures]:
    """What processes of this machine make of the clips."""
    store = str(tmp_path_factory.mktemp("here"))
    assert extract(clips, Config(store=store, jobs=2), ("mfcc",)).extracted == 60
    return stored(clips, store)


def speechemo(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "speechemo_cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_extract_on_a_cluster_stores_what_processes_here_do(
    two_workers: Cluster, clips: list[Clip], here: dict[str, StoredFeatures]
) -> None:
    data = Path(clips[0].path).parent
    Path("data").mkdir()
    Path("data/angry").symlink_to(data)

    done = speechemo(
        "extract", "data", "--features", "mfcc", "--format", "json",
        *("--backend", "dask", "--scheduler", two_workers.address),
    )  # fmt: skip

    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert "distributed" not in done.stderr
    report = json.loads(done.stdout)
    assert (report["extracted"], [Path(one["path"]).name for one in report["failed"]]) == (60, ["bad.wav"])
    assert_same(stored(clips, "features"), here)
    assert len(list(Path("features").glob("mfcc-*/*.npz"))) > 1
    assert not list(Path("features").glob(".token*"))


def test_extract_honours_a_parallel_config(
    two_workers: Cluster, clips: list[Clip], here: dict[str, StoredFeatures], monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import Client

    def steps(dask_scheduler: Any) -> int:
        return dask_scheduler.transition_counter

    with Client(two_workers.address, set_as_default=False) as client:
        before = client.run_on_scheduler(steps)
        with joblib.parallel_config("dask", client=client):
            extract(clips, Config(store="features", jobs=2), ("mfcc",))
        assert client.run_on_scheduler(steps) > before
    assert_same(stored(clips, "features"), here)

    with joblib.parallel_config("threading", n_jobs=2):
        extract(clips, Config(store="threads", jobs=2), ("mfcc",))
    assert_same(stored(clips, "threads"), here)


def test_predict_on_a_cluster_gives_the_answers_of_here_in_order(
    two_workers: Cluster, clips: list[Clip]
) -> None:
    order = [clips[i % len(clips)].path for i in range(0, 7 * 150, 7)]
    Path("list.txt").write_text("\n".join(order))

    here = speechemo("predict", "--files-from", "list.txt", "--output", "here.jsonl")
    there = speechemo(
        "predict", "--files-from", "list.txt", "--output", "there.jsonl",
        *("--backend", "dask", "--scheduler", two_workers.address),
    )  # fmt: skip

    assert (here.returncode, there.returncode) == (3, 3), there.stderr
    assert Path("there.jsonl").read_text() == Path("here.jsonl").read_text()
    assert len(Path("there.jsonl").read_text().splitlines()) == 150


@pytest.mark.slow
def test_extract_goes_on_when_a_worker_is_killed(
    tmp_path: Path, clips: list[Clip], here: dict[str, StoredFeatures]
) -> None:
    with cluster_of(tmp_path, SLOW, SLOW) as made, cluster.connected(made.address):

        def kill(done: int, _: int) -> None:
            if done:
                made.workers[0].kill()

        report = extract(clips, Config(store="features"), ("mfcc",), kill)

    assert (report.extracted, len(report.failed)) == (60, 1)
    assert_same(stored(clips, "features"), here)


@pytest.mark.slow
def test_extract_on_a_cluster_ends_at_once_on_ctrl_c(tmp_path: Path, clips: list[Clip]) -> None:
    Path("data").mkdir()
    Path("data/angry").symlink_to(Path(clips[0].path).parent)
    with cluster_of(tmp_path, SLOW, SLOW) as made:
        command = ["extract", "data", "-q", "--features", "mfcc", "--backend", "dask"]
        process = subprocess.Popen(
            [sys.executable, "-m", "speechemo_cli", *command, "--scheduler", made.address],
            stderr=subprocess.PIPE,
            text=True,
        )
        while not list(Path().glob("features/mfcc-*/*.npz")):
            assert process.poll() is None
            time.sleep(0.02)

        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert time.monotonic() - began < 3

    assert process.returncode == 130
    # The cluster's own client may have something to say of connections that end.
    assert err.splitlines()[-1].startswith("error: interrupted; "), err


@pytest.mark.slow
def test_extract_writes_here_what_a_worker_without_the_disk_has_computed(
    tmp_path: Path, clips: list[Clip], here: dict[str, StoredFeatures]
) -> None:
    with cluster_of(tmp_path, NO_SHARED_DISK, NO_SHARED_DISK) as made, cluster.connected(made.address):
        report = extract(clips, Config(store="features"), ("mfcc",))

    assert report.extracted == 60
    assert_same(stored(clips, "features"), here)


@pytest.mark.slow
def test_connected_refuses_a_worker_of_another_version(tmp_path: Path) -> None:
    with (
        cluster_of(tmp_path, "", OTHER_VERSION) as made,
        pytest.raises(ConfigError, match=r"the worker tcp://127\.0\.0\.1:\d+ has speechemo 0\.0\.1 \(mfcc"),
        cluster.connected(made.address),
    ):
        pass


def test_extract_says_in_one_line_that_no_scheduler_answers(write_clip: Callable[..., Path]) -> None:
    write_clip("data/sad/clip.wav")
    began = time.monotonic()

    done = speechemo("extract", "data", "--quiet", "--backend", "dask", "--scheduler", "tcp://127.0.0.1:9")

    assert time.monotonic() - began < 30
    assert done.returncode == AccessError.exit_code
    (line,) = done.stderr.splitlines()
    assert line == "error: no scheduler answers at tcp://127.0.0.1:9. Start one with: dask scheduler"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--backend", "dask"), "--backend dask and --scheduler go together"),
        (("--scheduler", "tcp://127.0.0.1:9"), "--backend dask and --scheduler go together"),
        (("--backend", "dask", "--scheduler", "x:y:z"), "expected an address"),
    ],
)
def test_extract_refuses_a_cluster_that_is_named_by_half(
    options: tuple[str, ...], told: str, write_clip: Callable[..., Path]
) -> None:
    write_clip("data/sad/clip.wav")
    done = speechemo("extract", "data", "--quiet", *options)
    assert (done.returncode, told in done.stderr) == (2, True), done.stderr
