"""Predicting without TensorFlow, librosa and scikit-learn, as requirements-predict.lock installs it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
LOCKED = {
    match[1]
    for match in re.finditer(r"^([\w.-]+)==", (ROOT / "requirements-predict.lock").read_text(), re.MULTILINE)
}
# What only the whole install has, as it is imported.
ABSENT = {
    *(
        "tensorflow",
        "keras",
        "librosa",
        "scipy",
        "sklearn",
        "joblib",
        "matplotlib",
        "h5py",
        "jinja2",
        "numba",
    ),
    *("pooch", "requests", "pandas"),
}
BLOCKED = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
from speechemo_cli.__main__ import main
main()
"""


def partial(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BLOCKED, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_predict_and_timeline_need_only_what_the_lock_holds(write_clip: Callable[..., Path]) -> None:
    clip = write_clip(seconds=2.0)

    predicted, followed = partial("predict", clip), partial("timeline", clip)

    assert (predicted.returncode, followed.returncode) == (0, 0)
    label = json.loads(predicted.stdout)["label"]
    assert json.loads(followed.stdout)["segments"][0]["label"] == label
    assert partial("--help").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "package"),
    [
        (["train", "clips", "--version", "v1"], "(scikit-learn|joblib|keras)"),
        (["show", "clip.wav", "--plot", "clip.png"], "(matplotlib|librosa)"),
        (["download", "ravdess"], "pooch"),
        (["predict", "clip.wav", "--runtime", "keras"], "(keras|h5py)"),
    ],
)
def test_what_needs_more_says_which_package(
    arguments: list[str], package: str, write_clip: Callable[..., Path]
) -> None:
    write_clip()
    for actor, emotion in ("13", "14", "23", "24"):
        name = f"03-01-0{emotion}-01-01-01-0{actor}.wav"
        write_clip(f"clips/{name}", f0=100.0 + int(actor + emotion))

    done = partial(*arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(
        rf"error: the package {package} is not installed, which this command needs\. "
        rf"pip install speechemo brings all that it needs, pip install {package} this one",
        done.stderr.splitlines()[-1],
    )


def test_the_lock_of_predict_holds_what_it_needs_and_no_more() -> None:
    needed = {Requirement(line).name for line in PROJECT["dependency-groups"]["predict"]}

    assert needed <= LOCKED
    assert not LOCKED & {
        "tensorflow",
        "keras",
        "librosa",
        "scipy",
        "scikit-learn",
        "joblib",
        "matplotlib",
        "numba",
    }


def test_dependencies_are_imported() -> None:
    source = "\n".join(path.read_text("utf-8") for path in (ROOT / "speechemo_cli").rglob("*.py"))
    modules = {"scikit-learn": "sklearn", "ai-edge-litert": "ai_edge_litert"}
    for line in PROJECT["project"]["dependencies"]:
        name = Requirement(line).name
        assert re.search(rf"^\s*(import|from) {modules.get(name, name)}\b", source, re.MULTILINE), name
