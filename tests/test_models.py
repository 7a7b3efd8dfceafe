"""Keras comes up silently and from a clean slate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


# Where HOME cannot be written, Keras would take /tmp/.keras.
@pytest.mark.parametrize("home", ["home", pytest.param("/nonexistent", marks=pytest.mark.slow)])
def test_load_keras_shows_nothing_of_tensorflow_and_reads_no_settings_of_the_user(home: str) -> None:
    settings = json.dumps({"floatx": "float16", "backend": "tensorflow"})
    for folder in ("home/.keras", "planted"):
        Path(folder).mkdir(parents=True)
        (Path(folder) / "keras.json").write_text(settings)
    code = (
        "import sys\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, of: event == 'open' and opened.append(str(of[0])))\n"
        "from speechemo_cli.files import scratch_folder\n"
        "from speechemo_cli.models import load_keras; k = load_keras()\n"
        "private = str(scratch_folder() / 'keras.json')\n"
        "from speechemo_cli.models import model_file; model_file.load(model_file.PACKAGED)\n"
        "print(k.config.floatx(), {name == private for name in opened if name.endswith('keras.json')})\n"
    )
    places = {"HOME": str(Path(home).absolute()), "KERAS_HOME": str(Path("planted").absolute())}

    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **places},
        check=False,
    )

    assert (done.stdout, done.stderr) == ("float32 {True}\n", "")
