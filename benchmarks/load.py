"""Very many clips through extract and predict: `make load`, four minutes and a gigabyte of disk.

Memory should stay as it is, time grow with the clips, and no file stay open. Linux alone: it reads /proc.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

SPEECHEMO = [sys.executable, "-m", "speechemo_cli"]
FEW, MANY = 10_000, 100_000
SR = 8000
DURATION_S = 0.25


@dataclass(frozen=True)
class Cost:
    """What a command took: seconds, the largest memory of all its processes in MB, and its open files.

    Attributes
    ----------
    seconds : float
    memory_mb : float
    open_early, open_late : int
        Most files of the command's own process that were open at a time, in the first and in the last
        quarter.
    """

    seconds: float
    memory_mb: float
    open_early: int
    open_late: int


def write_clips(folder: Path, n: int) -> None:
    """Write short clips of noise, all different, a thousand to a folder."""
    rng = np.random.default_rng(0)
    for i in range(n):
        below = folder / ("calm", "angry")[i % 2] / f"{i // 1000:03d}"
        if i % 1000 < 2:
            below.mkdir(parents=True, exist_ok=True)
        y = 0.1 * rng.standard_normal(round(SR * DURATION_S)).astype(np.float32)
        soundfile.write(below / f"{i:06d}.wav", y, SR, subtype="PCM_16")


def family(pid: int) -> list[int]:
    """Return a process and those it started."""
    found, at = [pid], 0
    while at < len(found):
        try:
            children = Path(f"/proc/{found[at]}/task/{found[at]}/children").read_text()
            found += map(int, children.split())
        except OSError:
            pass  # it has ended
        at += 1
    return found


def memory_mb(pid: int) -> float:
    """Memory of a process, what it shares with others divided among them."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def watch(command: list[str]) -> Cost:
    """Run a command to its end."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seen: list[tuple[float, int]] = []
    while process.poll() is None:
        try:
            n_open = sum(1 for _ in Path(f"/proc/{process.pid}/fd").iterdir())
        except OSError:
            break
        seen.append((sum(map(memory_mb, family(process.pid))), n_open))
        time.sleep(0.25)
    if process.wait():
        raise subprocess.CalledProcessError(process.returncode, command)
    seconds = time.perf_counter() - started
    quarter = max(1, len(seen) // 4)
    early, late = (max(n for _, n in part) for part in (seen[:quarter], seen[-quarter:]))
    return Cost(seconds, max(memory for memory, _ in seen), early, late)


def main() -> None:
    """Run both commands over few and over many clips."""
    few, many = (int(argument) for argument in sys.argv[1:]) if len(sys.argv) == 3 else (FEW, MANY)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        costs: dict[tuple[str, int], Cost] = {}
        for n in (few, many):
            data = work / f"clips-{n}"
            write_clips(data, n)
            store, answers = str(work / f"store-{n}"), str(work / f"answers-{n}.jsonl")
            quiet = ["--jobs", "2", "--quiet"]
            costs["extract", n] = watch([*SPEECHEMO, "extract", str(data), "--store", store, *quiet])
            costs["predict", n] = watch(
                [*SPEECHEMO, "predict", "--model", "packaged", "--output", answers, *quiet, str(data)]
            )
            assert len(Path(answers).read_text().splitlines()) == n
        for command in ("extract", "predict"):
            small, large = costs[command, few], costs[command, many]
            for n, cost in ((few, small), (many, large)):
                print(
                    f"{command} {n:7d} clips: {cost.seconds:7.1f} s, {1e3 * cost.seconds / n:.2f} ms a clip, "
                    f"{cost.memory_mb:.0f} MB, files open {cost.open_early} early, {cost.open_late} late"
                )
            time_ratio = large.seconds / many / (small.seconds / few)
            print(f"  time a clip {time_ratio:.2f} of it (at most 1.20), ", end="")
            print(f"memory {large.memory_mb / small.memory_mb:.2f} of it (at most 1.10)")


if __name__ == "__main__":
    main()
