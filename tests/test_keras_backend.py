"""Keras comes up silently and from a clean slate."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from speechemo_cli.errors import ModelFileError
from speechemo_cli.models import model_file, keras_backend


def run(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **env}, check=False
    )


@pytest.mark.parametrize("home", ["written", "nowhere"])
def test_nothing_of_tensorflow_is_seen_and_the_users_keras_settings_do_not_count(tmp_path, home: str) -> None:
    settings = json.dumps({"floatx": "float16", "backend": "tensorflow"})
    for folder in ("home/.keras", "planted"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "keras.json").write_text(settings)
    # Where HOME cannot be written, Keras would take /tmp/.keras.
    places = {"written": {"HOME": f"{tmp_path}/home"}, "nowhere": {"HOME": "/nonexistent"}}

    done = run(
        "import sys\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, of: event == 'open' and opened.append(str(of[0])))\n"
        "from speechemo_cli.files import scratch_folder\n"
        "from speechemo_cli.models.keras_backend import load_keras; k = load_keras()\n"
        "private = str(scratch_folder() / 'keras.json')\n"
        "print(k.config.floatx(), {name == private for name in opened if name.endswith('keras.json')})\n",
        KERAS_HOME=str(tmp_path / "planted"),
        **places[home],
    )

    assert done.stdout == "float32 {True}\n"
    assert done.stderr == ""


def test_the_keras_that_is_asked_for_is_where_the_known_advisories_end() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    (keras,) = [found for found in project["dependencies"] if re.match(r"keras\b", found)]

    assert keras_backend.KERAS_FLOOR >= (3, 15, 1)
    assert keras == f"keras>={'.'.join(map(str, keras_backend.KERAS_FLOOR))}"
    keras_backend.require_safe_keras()  # and this is what is installed here


@pytest.mark.parametrize(
    ("installed", "safe"),
    [
        *((version, False) for version in ("2.15.0", "3.9.2", "3.12.4", "3.15.0", "3.15")),
        *((version, True) for version in ("3.15.1", "3.15.10", "3.16.0.dev2026", "4.0")),
    ],
)
def test_no_model_is_loaded_by_a_keras_that_a_model_can_deceive(
    installed: str, safe: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _name: installed)

    def trusted() -> None:
        raise ModelFileError("trusted")

    monkeypatch.setattr(model_file, "load_keras", trusted)
    card = model_file.ModelMetadata("v1", ("happy", "sad"), "mfcc", 1, {}, seed=0, epochs=1)
    checked = model_file.Checked("m.keras", card, parts={}, expected=((40,), 2))

    expected = "trusted" if safe else rf"Keras {re.escape(installed)} .* expected 3\.15\.1 or newer"
    with pytest.raises(ModelFileError, match=expected):
        checked.load()


def test_a_missing_keras_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)

    with pytest.raises(ModelFileError, match=r"Keras is not installed\. pip install 'keras>=3\.15\.1'"):
        keras_backend.require_safe_keras()
