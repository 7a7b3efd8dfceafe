"""Keras comes up silently and from a clean slate."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest


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
