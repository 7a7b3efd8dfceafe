"""The numbers of RESULTS.md: `python benchmarks/real_run.py FOLDER` with RAVDESS speech clips in FOLDER.

Runs the commands as a user would: extract, then v1 and v2 with five seeds on both splits.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

SEEDS = range(5)


def speechemo(*arguments: str) -> dict:
    """Run a command and return its JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "speechemo_cli", *arguments, "--format", "json"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(done.stdout)


def spread(values: list[float]) -> str:
    """Mean and range in per cent."""
    return f"{100 * statistics.mean(values):.1f} ({100 * min(values):.1f}-{100 * max(values):.1f})"


def main() -> None:
    """Print the tables in Markdown."""
    data = str(Path(sys.argv[1]).resolve())
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        report = speechemo("extract", data)
        names = ("tensorflow", "keras", "librosa", "numpy", "scikit-learn")
        print(f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores", end=", ")
        print(f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in names), sep=", ")
        print(
            f"\nextract: {report['clips']} clips, {report['extracted']} distinct recordings, "
            f"{report['duplicates']} byte-identical copies, {report['seconds']:.1f} s\n"
        )
        print(
            "| version | epochs | random: accuracy | UAR | both: seen speakers | unseen speakers | its UAR |"
        )
        print("|---|---|---|---|---|---|---|")
        for name in ("v1", "v2"):
            plain = [
                speechemo("train", data, "--version", name, "--split", "random", "--seed", str(s))
                for s in SEEDS
            ]
            both = [
                speechemo("train", data, "--version", name, "--split", "both", "--seed", str(s))
                for s in SEEDS
            ]
            columns = [
                [run["test"]["seen_speakers"]["accuracy"] for run in plain],
                [run["test"]["seen_speakers"]["uar"] for run in plain],
                [run["test"]["seen_speakers"]["accuracy"] for run in both],
                [run["test"]["new_speakers"]["accuracy"] for run in both],
                [run["test"]["new_speakers"]["uar"] for run in both],
            ]
            print(f"| {name} | {plain[0]['epochs']} | {' | '.join(map(spread, columns))} |", flush=True)
        print("\n| version | protocol | speakers shared | accuracy: mean | sd | pooled | UAR pooled |")
        print("|---|---|---|---|---|---|---|")
        for name in ("v1", "v2"):
            for protocol in ("random-holdout", "random-5fold", "speaker-5fold"):
                result = speechemo("evaluate", data, "--version", name, "--protocol", protocol)
                accuracy, uar = result["accuracy"], result["uar"]
                cells = (accuracy["mean"], accuracy["sd"], accuracy["pooled"], uar["pooled"])
                shared = "no" if result["speaker_independent"] else "yes"
                numbers = " | ".join(f"{100 * cell:.1f}" for cell in cells)
                print(f"| {name} | {protocol} | {shared} | {numbers} |", flush=True)
    print(f"\n{(time.perf_counter() - started) / 60:.0f} minutes in all.")


if __name__ == "__main__":
    main()
