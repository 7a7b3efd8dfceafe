"""A dask cluster: what its workers compute is what is computed here."""

from __future__ import annotations

import json
import os
import signal
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
from conftest import COMMAND, harmonic

from speechemo_cli.cli import app
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
from speechemo_cli.features import extraction
seen = Path.exists
Path.exists = lambda path: not path.name.startswith('.token-') and seen(path)
def write(*_): raise OSError('no such store')
extraction._write = write
"""
SLOW = """
import time
from speechemo_cli.audio import reader
original = reader.read_channels
reader.read_channels = lambda *given: time.sleep(0.05) or original(*given)
"""


@contextmanager
def scheduler(n_threads: int = 0) -> Iterator[str]:
    """Run a scheduler in this process, with so many workers of one thread there: its address."""
    from distributed import LocalCluster

    given = {"n_workers": n_threads, "threads_per_worker": 1, "processes": False, "dashboard_address": ":0"}
    with LocalCluster(host="127.0.0.1", protocol="tcp://", **given) as made:
        yield made.scheduler_address


@contextmanager
def worker_processes(folder: Path, *planted: str) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """Run a scheduler, and a worker for each code, which it runs as it starts: address and workers."""
    from distributed import Client

    with ExitStack() as stack:
        address = stack.enter_context(scheduler())
        workers = []
        for i, code in enumerate(planted):
            own = folder / f"worker{i}"
            own.mkdir()
            (own / "sitecustomize.py").write_text(code)
            given = ("--no-nanny", "--nthreads", "1", "--no-dashboard", "--local-directory", str(own))
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "distributed.cli.dask_worker", address, *given],
                stderr=subprocess.DEVNULL,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join([str(own), os.environ.get("PYTHONPATH", "")]),
                },
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            workers.append(process)
        with Client(address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(len(planted), timeout=60)
        yield address, workers


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with scheduler(n_threads=2) as address:
        yield address


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
    """What threads of this process make of the clips."""
    store = str(tmp_path_factory.mktemp("here"))
    with joblib.parallel_config("threading", n_jobs=2):
        assert extract(clips, Config(store=store), ("mfcc",)).extracted == 60
    return stored(clips, store)


@pytest.fixture
def data(clips: list[Clip]) -> str:
    """The folder of the clips, as one of a corpus."""
    Path("data").mkdir()
    Path("data/angry").symlink_to(Path(clips[0].path).parent)
    return "data"


def test_extract_on_a_cluster_stores_what_is_computed_here(
    address: str,
    data: str,
    clips: list[Clip],
    here: dict[str, StoredFeatures],
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = f"extract {data} --features mfcc --format json --backend dask --scheduler {address}"
    assert app.run(command.split()) == 3

    out, err = capsys.readouterr()
    assert "Traceback" not in err
    assert "distributed" not in err
    report = json.loads(out)
    assert (report["extracted"], [Path(one["path"]).name for one in report["failed"]]) == (60, ["bad.wav"])
    assert_same(stored(clips, "features"), here)
    assert len(list(Path("features").glob("mfcc-*/*.npz"))) > 1
    assert not list(Path("features").glob(".token*"))


def test_extract_honours_a_parallel_config(
    address: str, clips: list[Clip], here: dict[str, StoredFeatures]
) -> None:
    from distributed import Client

    def steps(dask_scheduler: Any) -> int:
        return dask_scheduler.transition_counter

    with Client(address, set_as_default=False) as client:
        before = client.run_on_scheduler(steps)
        with joblib.parallel_config("dask", client=client):
            extract(clips, Config(store="features", jobs=2), ("mfcc",))
        assert client.run_on_scheduler(steps) > before
    assert_same(stored(clips, "features"), here)


@pytest.mark.parametrize("in_processes", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_predict_on_a_cluster_gives_the_answers_of_here_in_order(
    in_processes: bool, address: str, clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "BATCH", 8)
    monkeypatch.setattr(cluster, "_AHEAD", 1)
    Path("list.txt").write_text("\n".join(clip.path for clip in clips[:-21:-1]))
    command = ["predict", "--files-from", "list.txt", "--quiet", "--output"]
    assert app.run([*command, "here.jsonl"]) == 3

    with ExitStack() as stack:
        if in_processes:
            address, _ = stack.enter_context(worker_processes(tmp_path, "", ""))
        assert app.run([*command, "there.jsonl", "--backend", "dask", "--scheduler", address]) == 3

    assert Path("there.jsonl").read_text() == Path("here.jsonl").read_text()
    assert len(Path("there.jsonl").read_text().splitlines()) == 20


@pytest.mark.slow
def test_extract_goes_on_when_a_worker_is_killed(
    tmp_path: Path, clips: list[Clip], here: dict[str, StoredFeatures]
) -> None:
    with worker_processes(tmp_path, SLOW, SLOW) as (address, processes), cluster.connected(address):

        def kill(done: int, _: int) -> None:
            if done:
                processes[0].kill()

        report = extract(clips, Config(store="features"), ("mfcc",), kill)

    assert (report.extracted, len(report.failed)) == (60, 1)
    assert_same(stored(clips, "features"), here)


@pytest.mark.slow
def test_extract_on_a_cluster_ends_at_once_on_ctrl_c(tmp_path: Path, data: str) -> None:
    with worker_processes(tmp_path, SLOW, SLOW) as (address, _):
        command = ["extract", data, "-q", "--features", "mfcc", "--backend", "dask"]
        process = subprocess.Popen(
            [*COMMAND, *command, "--scheduler", address], stderr=subprocess.PIPE, text=True
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
    planted = (NO_SHARED_DISK, NO_SHARED_DISK)
    with worker_processes(tmp_path, *planted) as (address, _), cluster.connected(address):
        report = extract(clips, Config(store="features"), ("mfcc",))

    assert report.extracted == 60
    assert_same(stored(clips, "features"), here)


@pytest.mark.slow
def test_connected_refuses_a_worker_of_another_version(tmp_path: Path) -> None:
    with (
        worker_processes(tmp_path, "", OTHER_VERSION) as (address, _),
        pytest.raises(ConfigError, match=r"the worker tcp://127\.0\.0\.1:\d+ has speechemo 0\.0\.1 \(mfcc"),
        cluster.connected(address),
    ):
        pass


NOBODY = "tcp://127.0.0.1:9"


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--backend", "dask"], 2, "error: --backend dask and --scheduler go together"),
        (["--scheduler", NOBODY], 2, "error: --backend dask and --scheduler go together"),
        (["--backend", "dask", "--scheduler", "x:y:z"], 2, "error: --scheduler is 'x:y:z', expected an addr"),
        (
            ["--backend", "dask", "--scheduler", NOBODY],
            AccessError.exit_code,
            f"error: no scheduler answers at {NOBODY}. Start one with: dask scheduler",
        ),
    ],
)
def test_extract_refuses_in_one_line_where_there_is_no_cluster(
    options: list[str],
    code: int,
    message: str,
    write_clip: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_clip("data/sad/clip.wav")
    monkeypatch.setattr(cluster, "_CONNECT_S", 1)

    assert app.run(["extract", "data", "--quiet", *options]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(message)
