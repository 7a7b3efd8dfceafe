"""Speed, as ratios against a reference measured in the same run: `make bench DATA=folder`.

The folder should hold WAV files, as RAVDESS comes: decoding FLAC takes longer, which flatters ratios.
Without RAVDESS clips in the folder it uses synthetic ones, and says so.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from speechemo_cli.corpus.clips import iter_audio_files
from speechemo_cli.corpus.synthetic import write_corpus

SPEECHEMO = [sys.executable, "-m", "speechemo_cli"]

# The loop that everybody writes. Imports and the first clip, on which librosa compiles, do not count.
SERIAL_LOOP = """
import sys, time, librosa
paths = sys.stdin.read().splitlines()
def mean_mfcc(path):
    y, sr = librosa.load(path, sr=22050)
    return librosa.feature.mfcc(y=y, sr=sr, n_mfcc=40).mean(axis=1)
mean_mfcc(paths[0])
started = time.perf_counter()
for path in paths:
    mean_mfcc(path)
print(time.perf_counter() - started)
"""


# What no answer can be had without: the samples, at the rate of v3's features.
DECODE_LOOP = """
import sys, time
from speechemo_cli.audio import reader
from speechemo_cli.config import AudioConfig
paths, config = sys.stdin.read().splitlines(), AudioConfig()
def samples(path):
    recording = reader.read(path, config)
    return reader.resample(recording.y, recording.sr, 16000)
samples(paths[0])
started = time.perf_counter()
for path in paths:
    samples(path)
print(time.perf_counter() - started)
"""


def watched(command: list[str]) -> tuple[float, float]:
    """Wall time of a command in seconds, and its largest memory in MB."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    scale = 2**20 if sys.platform == "darwin" else 2**10  # bytes on macOS, kilobytes on Linux
    return seconds, usage.ru_maxrss / scale


def timed(command: list[str], repeats: int = 1) -> tuple[float, str]:
    """Shortest wall time of a command in seconds, and what it printed."""
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        best = min(best, time.perf_counter() - started)
    return best, done.stdout


def looped(code: str, paths: list[str]) -> float:
    """Seconds that a loop over the clips took, as it says itself."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input="\n".join(paths), capture_output=True, text=True, check=True)
    return float(done.stdout)


def extract(data: Path, store: Path, *more: str) -> tuple[float, dict[str, int]]:
    """Wall time of the whole `speechemo extract`, all sets with copies unless told otherwise, two workers."""
    seconds, out = timed(
        [*SPEECHEMO, "extract", str(data), "--store", str(store), "--jobs", "2", "--format", "json", *more]
    )
    return seconds, json.loads(out)


def bench_extract(data: Path, work: Path) -> None:
    """Hold the whole command against the serial loop over the same clips."""
    paths = list(iter_audio_files(str(data)))
    references, firsts = [], []
    for i in range(3):  # in turn, so that both meet the same moods of the machine
        references.append(looped(SERIAL_LOOP, paths))
        seconds, report = extract(data, work / f"store-{i}")
        firsts.append(seconds)
    reference, first = statistics.median(references), statistics.median(firsts)
    again, cached = extract(data, work / "store-0")
    assert cached["extracted"] == 0
    print(f"{len(paths)} clips, medians of 3 runs")
    print(f"  serial librosa.load and mfcc (reference) {reference:6.2f} s")
    ratio = first / reference
    per_1440 = first * 1440 / len(paths)
    print(f"  speechemo extract, all sets, 2 workers   {first:6.2f} s  ratio {ratio:.2f}")
    print(f"  the same for 1,440 clips                 {per_1440:6.2f} s  (at most 40)")
    print(f"  the same again, nothing to compute       {again:6.2f} s  ratio {again / reference:.2f}")
    print(f"  computed {report['extracted']}, then {cached['extracted']}")


def bench_scale(work: Path) -> None:
    """Cost a clip at 1,000 and at 10,000 short clips."""
    rng = np.random.default_rng(0)
    costs = {}
    for n in (1_000, 10_000):
        folder = work / f"short-{n}" / "calm"
        folder.mkdir(parents=True)
        for i in range(n):
            soundfile.write(folder / f"{i:05d}.wav", 0.1 * rng.standard_normal(4000), 8000, subtype="PCM_16")
        seconds, _ = extract(folder.parent, work / f"store-{n}", "--features", "mfcc")
        costs[n] = seconds / n
        print(f"{n:6d} clips of 0.5 s: {seconds:6.2f} s, {1e3 * costs[n]:.2f} ms a clip")
    print(
        f"  cost a clip, 10,000 to 1,000             ratio {costs[10_000] / costs[1_000]:.2f}  (at most 1.20)"
    )


def bench_help() -> None:
    """Start of --help against a bare Python."""
    reference, _ = timed([sys.executable, "-c", "pass"], repeats=5)
    for command in ([], ["extract"], ["train"], ["evaluate"], ["predict"]):
        seconds, _ = timed([*SPEECHEMO, *command, "--help"], repeats=5)
        name = " ".join(["speechemo", *command, "--help"])
        print(f"  {name:30s} {seconds:6.3f} s  ratio to `python -c pass` {seconds / reference:.1f}")


def bench_predict(data: Path) -> None:
    """Hold an answer in a fresh process against bare imports, and a folder against decoding it."""
    paths = list(iter_audio_files(str(data)))
    predict = [*SPEECHEMO, "predict", "--model", "packaged", "--quiet", "--format", "label"]
    cold: dict[str, list[float]] = {"imports": [], "litert": [], "keras": []}
    for i in range(7):  # in turn; Keras takes long, three times do
        cold["imports"].append(watched([sys.executable, "-c", "import numpy, soundfile"])[0])
        cold["litert"].append(watched([*predict, paths[0]])[0])
        if i < 3:
            cold["keras"].append(watched([*predict, "--runtime", "keras", paths[0]])[0])
    imports, litert, keras = (statistics.median(cold[name]) for name in ("imports", "litert", "keras"))
    memory = watched([*predict, paths[0]])[1]
    print("one clip in a fresh process, medians")
    show = "  {:40s} {:6.3f} s  {}".format
    print(show("python -c 'import numpy, soundfile'", imports, "(reference)"))
    print(show("speechemo predict --format label", litert, f"ratio {litert / imports:.2f}  (at most 2.5)"))
    print(show("the same, --runtime keras", keras, f"litert to it {litert / keras:.3f}"))
    print(f"  memory with litert                       {memory:6.1f} MB (at most 110)")

    folder: dict[str, list[tuple[float, float]]] = {"decode": [], "1": [], "2": []}
    for _ in range(3):
        folder["decode"].append((looped(DECODE_LOOP, paths), 0.0))
        for jobs in ("1", "2"):
            folder[jobs].append(watched([*predict, "--jobs", jobs, str(data)]))
    decode = statistics.median(seconds for seconds, _ in folder["decode"])
    print(f"{len(paths)} clips in a folder, medians of 3 runs")
    print(show("decode and resample, one process", decode, "(reference)"))
    for jobs in ("1", "2"):
        seconds, memory = (statistics.median(values) for values in zip(*folder[jobs], strict=True))
        print(
            show(
                f"speechemo predict --jobs {jobs}", seconds, f"ratio {seconds / decode:.2f}  {memory:.0f} MB"
            )
        )


def bench_timeline(data: Path, work: Path) -> None:
    """Time and memory of a timeline of a minute, an hour and three hours."""
    paths = list(iter_audio_files(str(data)))
    sr = soundfile.info(paths[0]).samplerate
    for minutes in (1, 60, 180):
        path = work / f"{minutes}.wav"
        # Clip by clip: what this process holds counts as memory of those that it starts.
        with soundfile.SoundFile(path, "w", sr, 1, "PCM_16") as file:
            for clip in itertools.cycle(paths):
                y, rate = soundfile.read(clip, dtype="float32", always_2d=True)
                file.write(y[: minutes * 60 * sr - file.tell(), 0] if rate == sr else y[:0, 0])
                if file.tell() >= minutes * 60 * sr:
                    break
        command = [*SPEECHEMO, "timeline", "--model", "packaged", str(path), "--quiet"]
        seconds, memory = watched([*command, "--jobs", "2", "--format", "json"])
        path.unlink()
        print(f"  timeline of {minutes:3d} min                      {seconds:6.2f} s  {memory:.0f} MB")


def main() -> None:
    """Run every benchmark."""
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("data")
    print(f"{platform.system()} {platform.machine()}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if not any(iter_audio_files(str(data))):
            print(f"{data} holds no clip: synthetic voices (16 kHz WAV) instead")
            data = work / "synthetic"
            write_corpus(data, actors=20)
        bench_extract(data, work)
        bench_scale(work)
        bench_help()
        bench_predict(data)
        bench_timeline(data, work)


if __name__ == "__main__":
    main()
