"""Nothing that a command reads is written over."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from speechemo_cli.cli import app
from speechemo_cli.cli.outputs import protect
from speechemo_cli.errors import ConfigError


@pytest.mark.parametrize("name", ["list.csv", "./list.csv", "link.csv", "hard.csv", "sub/../list.csv"])
def test_protect_knows_a_file_by_any_name(name: str) -> None:
    Path("list.csv").touch()
    Path("sub").mkdir()
    Path("link.csv").symlink_to("list.csv")
    os.link("list.csv", "hard.csv")

    with pytest.raises(
        ConfigError, match=r"^--report .* would write over list\.csv, .*Give another --report"
    ):
        protect(
            {"--plot": [Path("new.png")], "--report": [None, Path(name)]}, ["not-there", None, "list.csv"]
        )


def test_protect_lets_pass_what_is_new_another_file_or_a_folder(tmp_path: Path) -> None:
    Path("old.png").touch()
    Path("list.csv").touch()

    protect({"--plot": [Path("old.png")], "--output": [tmp_path, Path("new.csv")]}, ["list.csv", tmp_path])


@pytest.mark.parametrize("name", ["speechemo.toml", "pyproject.toml", "own.toml"])
def test_protect_knows_the_config_files_that_every_command_reads(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPEECHEMO_CONFIG", "own.toml")
    Path(name).touch()

    with pytest.raises(ConfigError, match="would write over"):
        protect({"--output": [Path(name)]}, [])


def test_protect_refuses_two_outputs_in_one_file() -> None:
    with pytest.raises(ConfigError, match=r"--plot and --report would write over each other: sub/\.\./x"):
        protect({"--plot": [Path("x")], "--report": [Path("sub/../x")]}, [])


@pytest.fixture
def data(write_clip: Callable[..., Path]) -> Path:
    """Two clips with a manifest; `x.*` is one of its files under another name."""
    for name in ("a", "b"):
        write_clip(f"data/{name}.wav", seconds=0.4)
    Path("data/manifest.csv").write_text("path,label,speaker\na.wav,sad,ann\nb.wav,happy,bob\n")
    for link, target in {
        "x.csv": "manifest.csv",
        "x.png": "a.wav",
        "x.html": "b.wav",
        "x.keras": "a.wav",
    }.items():
        Path(link).symlink_to(f"data/{target}")
    return Path("data")


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "data", "--version", "v1", "--predictions", "data/manifest.csv"],
        ["evaluate", "data/manifest.csv", "--version", "v1", "--predictions", "x.csv"],
        ["evaluate", "data", "--version", "v1", "--plot", "x.png"],
        ["evaluate", "data", "--version", "v1", "--report", "x.html"],
        ["evaluate", "data", "--model", "packaged", "--plot", "x.png"],
        ["train", "data", "--version", "v1", "--output", "x.keras"],
        ["train", "data", "--version", "v1", "--output", "y.keras"],
        ["predict", "data", "-o", "data/a.wav", "-f", "jsonl"],
        ["timeline", "data/a.wav", "--plot", "x.png"],
        ["extract", "data", "--manifest-template", "data/manifest.csv"],
    ],
)
def test_no_command_writes_over_what_it_reads(
    arguments: list[str], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("y.png").symlink_to("data/b.wav")  # where the learning curve would go
    before = {path: path.read_bytes() for path in data.iterdir()}

    code = app.run(arguments)

    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.count("error: ") == 1
    assert "would write over" in err or "exists already" in err
    assert {path: path.read_bytes() for path in data.iterdir()} == before
    assert not Path("features").exists()
