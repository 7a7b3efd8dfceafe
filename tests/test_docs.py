"""Every command of the README runs as it stands there, one block after the other, on synthetic clips."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from speechemo_cli.cli.app import COMMANDS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
# Blocks to run are marked sh; a console block shows what came out.
BLOCKS = re.findall(r"^```sh\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def place(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder as the README assumes it: clips in data/, clip.wav and other.flac, speechemo on the PATH."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(corpus_folder, folder / "data")
    shutil.copy(folder / "data" / "Actor_01" / "03-01-05-02-01-01-01.wav", folder / "clip.wav")
    y, sr = soundfile.read(folder / "data" / "Actor_02" / "03-01-04-02-01-01-02.wav")
    soundfile.write(folder / "other.flac", y, sr)
    command = folder / "bin" / "speechemo"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m speechemo_cli "$@"\n')
    command.chmod(0o755)
    path = f"{command.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    # Three epochs show that the commands run; what they reach is in RESULTS.md.
    return folder, {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": str(ROOT),
        "SPEECHEMO_TRAIN_EPOCHS": "3",
        "SPEECHEMO_AUGMENT_COPIES": "1",
    }


def test_there_are_blocks() -> None:
    assert len(BLOCKS) >= 5


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_block_runs_as_written(number: int, place: tuple[Path, dict[str, str]]) -> None:
    folder, env = place
    block = BLOCKS[number]
    if block.startswith("make "):
        pytest.skip("make run and make test are what runs this")
    for tool in ("jq",):
        if tool in block and shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")

    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_every_command_and_exit_code_is_explained() -> None:
    for command in COMMANDS:
        assert f"speechemo {command}" in README
    for code in (0, 1, 2, 3, 4, 5, 6, 129, 130, 141, 143):
        assert re.search(rf"^\| (\d+, )*{code}[ ,]", README, flags=re.MULTILINE), code


def test_what_the_makefile_promises_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text()

    for target in set(re.findall(r"make ([a-z-]+)", README)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
