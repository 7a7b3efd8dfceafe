"""Keras comes up silently and from a clean slate."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from speechemo_cli.models.backend import quiet_stderr


def run(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **env}, check=False
    )


def test_nothing_of_tensorflow_is_seen_and_the_users_keras_settings_do_not_count(tmp_path) -> None:
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text('{"floatx": "float16", "backend": "tensorflow"}')

    done = run(
        "from speechemo_cli.models.backend import load_keras; k = load_keras(); print(k.config.floatx())",
        HOME=str(tmp_path),
    )

    assert done.stdout == "float32\n"
    assert done.stderr == ""


def test_what_was_held_back_is_shown_when_the_block_fails() -> None:
    done = run(
        "import os\n"
        "from speechemo_cli.models.backend import quiet_stderr\n"
        "with quiet_stderr():\n"
        "    os.write(2, b'the reason')\n"
        "    raise SystemExit(3)\n"
    )

    assert done.returncode == 3
    assert "the reason" in done.stderr


def test_stderr_works_again_afterwards(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet_stderr():
        os.write(2, b"noise")
    os.write(2, b"signal")

    assert capfd.readouterr().err == "signal"


def test_a_closed_stderr_is_no_obstacle() -> None:
    done = run(
        "import os; os.close(2)\n"
        "from speechemo_cli.models.backend import quiet_stderr\n"
        "with quiet_stderr(): print('went on')\n"
    )

    assert done.stdout == "went on\n"
