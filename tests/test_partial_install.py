"""Predicting without TensorFlow, librosa and scikit-learn, as requirements-predict.lock installs it."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
import soundfile
from conftest import ABSENT, harmonic, run_each
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
LOCKED = {
    match[1]
    for match in re.finditer(r"^([\w.-]+)==", (ROOT / "requirements-predict.lock").read_text(), re.MULTILINE)
}
BLOCKED = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""
# A command that needs more, and the package that it may name.
NEEDS = {
    "train clips --version v1": "(scikit-learn|joblib|keras)",
    "show clip.wav --plot clip.png": "(matplotlib|librosa)",
    "download ravdess": "pooch",
    "predict clip.wav --runtime keras": "(keras|h5py)",
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, str, list[str]]]:
    """What commands said in a process that has no more than the lock: code, stdout, stderr."""
    folder = tmp_path_factory.mktemp("partial")
    (folder / "clips").mkdir()
    soundfile.write(folder / "clip.wav", harmonic(2.0, 16000), 16000)
    for actor, emotion in ("13", "14", "23", "24"):
        y = harmonic(1.0, 16000, 100.0 + int(actor + emotion))
        soundfile.write(folder / "clips" / f"03-01-0{emotion}-01-01-01-0{actor}.wav", y, 16000)
    commands = ["--help", "predict clip.wav", "timeline clip.wav", *NEEDS]
    return dict(zip(commands, run_each(commands, folder, BLOCKED), strict=True))


def test_predict_and_timeline_need_only_what_the_lock_holds(outcomes: dict[str, tuple]) -> None:
    (predicted, answer, _, _), (followed, timeline, _, _) = (
        outcomes["predict clip.wav"],
        outcomes["timeline clip.wav"],
    )

    assert (outcomes["--help"][0], predicted, followed) == (0, 0, 0)
    assert json.loads(timeline)["segments"][0]["label"] == json.loads(answer)["label"]


@pytest.mark.parametrize("command", NEEDS)
def test_command_that_needs_more_says_which_package(command: str, outcomes: dict[str, tuple]) -> None:
    code, out, err, _ = outcomes[command]

    assert (code, out) == (2, "")
    package = NEEDS[command]
    assert re.fullmatch(
        rf"error: the package {package} is not installed, which this command needs\. "
        rf"pip install speechemo brings all that it needs, pip install {package} this one",
        err.splitlines()[-1],
    )


def test_lock_of_predict_holds_what_it_needs_and_no_more() -> None:
    needed = {Requirement(line).name for line in PROJECT["dependency-groups"]["predict"]}

    assert needed <= LOCKED
    assert not LOCKED & {"scikit-learn", *ABSENT} - needed


def test_dependencies_are_imported() -> None:
    source = "\n".join(path.read_text("utf-8") for path in (ROOT / "speechemo_cli").rglob("*.py"))
    modules = {"scikit-learn": "sklearn", "ai-edge-litert": "ai_edge_litert"}
    for line in PROJECT["project"]["dependencies"]:
        name = Requirement(line).name
        assert re.search(rf"^\s*(import|from) {modules.get(name, name)}\b", source, re.MULTILINE), name
