"""Keras comes up silently and from a clean slate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from speechemo_cli.files import scratch_folder
from speechemo_cli.models import load_keras


def test_load_keras_gives_keras_no_settings_of_the_user_and_shows_nothing_of_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    stub = "import os, types; os.write(2, b'talk'); settings = os.environ['KERAS_HOME']\n"
    stub += "ops = types.SimpleNamespace(zeros=float, convert_to_numpy=lambda _: os.write(2, b'more'))\n"
    Path("keras.py").write_text(stub)
    monkeypatch.syspath_prepend(".")
    monkeypatch.setitem(sys.modules, "keras", None)
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.setenv("KERAS_HOME", "planted")

    assert load_keras().settings == str(scratch_folder())
    assert capfd.readouterr() == ("", "")


# Where HOME cannot be written, Keras would take /tmp/.keras.
@pytest.mark.slow
@pytest.mark.parametrize("home", ["home", "/nonexistent"])
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
