"""The commands as a shell script sees them: stdout, stderr and the exit code."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import Fitted

from speechemo_cli.cli import app, options
from speechemo_cli.corpus.labels import EMOTIONS
from speechemo_cli.errors import AccessError
from speechemo_cli.features.augment import CONDITIONS
from speechemo_cli.formatting import percent

COMMANDS = (
    "extract",
    "train",
    "evaluate",
    "compare",
    "predict",
    "timeline",
    "stream",
    "show",
    "download",
    "completion",
    "serve",
    "model",
    "model info",
    "model card",
    "export",
    "config",
    "synth",
    "cache",
    "cache info",
    "cache clear",
)
HEAVY = (
    "tensorflow",
    "keras",
    "librosa",
    "scipy",
    "sklearn",
    "joblib",
    "matplotlib",
    "distributed",
    "numpy",
    "soundfile",
)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process: (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = app.run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def shell(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "speechemo_cli", *map(str, arguments)],
        **{"capture_output": True, "text": True, "check": False, **options},
    )


@pytest.fixture(scope="module")
def trained(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and a v1 in models/, made by `speechemo train`."""
    folder = tmp_path_factory.mktemp("trained")
    done = shell("train", corpus_folder, "--version", "v1", "--epochs", 25, "--format", "json", cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "train.json").write_text(done.stdout)
    (folder / "train.err").write_text(done.stderr)
    return folder


@pytest.fixture
def workdir(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(trained)
    return trained


# --- help, config, errors: nothing heavy is imported ---------------------------------------------------


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_imports_nothing_heavy(command: str) -> None:
    code = (
        "import sys; from speechemo_cli.cli.app import run\n"
        f"code = run({[*command.split(), '--help']!r})\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[] 0"
    assert "Usage: speechemo" in done.stdout


def test_every_command_explains_itself(run: Run) -> None:
    code, out, _ = run("--help")

    assert code == 0
    for command, panel in app.COMMANDS.items():
        assert re.search(rf"^│ {command} +[A-Z]", out[out.index(panel) :], flags=re.MULTILINE), command


@pytest.mark.parametrize("group", [[], ["model"], ["cache"]])
def test_a_group_alone_shows_its_help(group: list[str], run: Run) -> None:
    code, out, err = run(*group)

    assert (code, err) == (2, "")
    assert out.strip() == run(*group, "--help")[1].strip()


def test_options_stand_in_panels(run: Run) -> None:
    _, out, _ = run("predict", "--help")

    panels = {part.split(" ─")[0]: part for part in out.split("╭─ ")[1:]}
    for panel, option in (
        ("Options", "--model"),
        ("Audio", "--channel"),
        ("Output", "--format"),
        ("Settings", "--jobs"),
    ):
        assert f"│ {option} " in panels[panel]


def test_help_keeps_brackets(run: Run) -> None:
    assert "[tool.speechemo] in pyproject.toml" in run("config", "--help")[1]


def test_parameters_of_panels_exist() -> None:
    named = set()

    def walk(command: Any) -> None:
        named.update(option.name for option in command.params)
        for one in getattr(command, "commands", {}).values():
            walk(one)

    walk(app.application())
    assert set(app._PANEL_OF) <= named


@pytest.mark.parametrize("shell_", ["bash", "zsh", "fish"])
def test_completion_prints_what_typer_does(shell_: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    done = shell(env={**os.environ, "_SPEECHEMO_COMPLETE": f"source_{shell_}"})

    assert run("completion", shell_) == (0, done.stdout.strip() + "\n", "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_completion_completes_in_bash(tmp_path: Path) -> None:
    command = tmp_path / "speechemo"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m speechemo_cli "$@"\n')
    command.chmod(0o755)
    script = (
        'eval "$(speechemo completion bash)"; COMP_WORDS=(speechemo downl); COMP_CWORD=1; '
        '_speechemo_completion speechemo; echo "${COMPREPLY[@]}"'
    )
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=True)

    assert done.stdout == "download\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "--version", "v9"], 2, "error: Invalid value for '--version'"),
        (["extract", "--nonsense"], 2, "error: No such option: --nonsense"),
        (["nonsense"], 2, "error: No such command 'nonsense'"),
        (["predict"], 2, "error: no CLIP was given"),
        (
            ["extract", "--set", "mfcc.n_mfc=3"],
            2,
            "error: option: unknown key mfcc.n_mfc. Did you mean mfcc.n_mfcc?",
        ),
        (["extract", "--set", "seed"], 2, "error: --set is 'seed', expected KEY=VALUE"),
        (["train", "--seed", "-1"], 2, "error: option: seed is -1, expected 0 to 2147483647"),
        (["train", "--set", "train.dropout=1.5"], 2, "error: option: train.dropout is 1.5, expected from 0"),
        (["train", "-o", "model.h5"], 2, "error: --output is model.h5, expected a name that ends in .keras"),
        (
            ["extract", "--features", "mfc"],
            2,
            "error: --features is 'mfc', expected mfcc or whisper or augment",
        ),
        (["evaluate", "--model", "v1", "--version", "v1"], 2, "error: --model and --version were both given"),
        (
            ["evaluate", "--protocol", "speaker-5fold"],
            2,
            "error: --protocol, --epochs, --predictions, --report and --seeds go with",
        ),
        (["evaluate", "--plot", "x.pdf"], 2, "error: --plot is x.pdf, expected a name that ends in .png"),
        (["extract", "--config", "no.toml"], 2, "error: config file no.toml does not exist"),
        (["extract", "nowhere"], 6, "error: nowhere does not exist"),
        (
            ["train"],
            6,
            "error: data does not exist. Give the folder of your clips, or fetch RAVDESS: speechemo dow",
        ),
        (["evaluate", "--model", "no.keras"], 4, "error: no.keras: no such model file"),
        (
            ["predict", "a.wav", "--model", "v1"],
            4,
            "error: models/v1.keras: no such model file. Train one with `speechemo train`",
        ),
        (["predict", "a.wav", "--min-confidence", "1.5"], 2, "error: Invalid value for '--min-confidence'"),
        (["model", "info", "v2"], 4, "error: models/v2.keras: no such model file"),
        (
            ["model", "card", "v1", "-o", "x.txt"],
            2,
            "error: --output is x.txt, expected a name that ends in .md",
        ),
        (
            ["model", "card", "v1", "--plot", "x.pdf"],
            2,
            "error: --plot is x.pdf, expected a name that ends in .png",
        ),
    ],
)
def test_a_mistake_gets_one_line_a_code_and_costs_no_tensorflow(
    arguments: list[str], code: int, message: str
) -> None:
    script = (
        "import sys; from speechemo_cli.cli.app import run\n"
        f"code = run({arguments!r}); print('tensorflow' in sys.modules, code)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout == f"False {code}\n"
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1


def test_an_unwritable_place_is_found_before_the_work(run: Run, corpus_folder: Path) -> None:
    Path("taken").write_text("a file")

    code, out, err = run("train", corpus_folder, "-o", "taken/v1.keras")

    assert (code, out) == (5, "")
    assert err.startswith("error: cannot write to taken:")


def test_config_shows_each_value_and_where_it_comes_from(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("speechemo.toml").write_text("seed = 3\n[mfcc]\nn_mfcc = 20\n")
    monkeypatch.setenv("SPEECHEMO_SEED", "4")

    code, out, _ = run("config", "--set", "jobs=2", "--format", "json")

    document = json.loads(out)
    assert code == 0
    assert (document["schema"], document["command"]) == (1, "config")
    assert document["values"]["seed"] == 4
    assert document["values"]["mfcc"]["n_mfcc"] == 20
    assert document["origins"]["seed"] == "environment SPEECHEMO_SEED"
    assert document["origins"]["mfcc.n_mfcc"] == "speechemo.toml"
    assert document["origins"]["jobs"] == "option"
    assert document["origins"]["store"] == "default"


def test_config_reads_well(run: Run) -> None:
    _, out, _ = run("config", "--format", "table")

    assert "mfcc.n_mfcc" in out
    assert "default" in out


# --- extract -------------------------------------------------------------------------------------------


def test_extract_reports_what_it_did_and_does_it_once(run: Run, corpus_folder: Path) -> None:
    code, out, err = run("extract", corpus_folder, "--features", "mfcc", "--format", "json")
    first = json.loads(out)
    _, out, _ = run("extract", corpus_folder, "--features", "mfcc", "--format", "json")
    second = json.loads(out)

    assert code == 0
    assert (first["schema"], first["command"], first["skipped"]) == (1, "extract", {})
    assert first["found"]["ravdess"]["labels"]["neutral"] == 16
    assert first["found"]["ravdess"]["speakers"] == dict.fromkeys(["01", "02", "03", "04"], 60)
    assert (first["clips"], first["extracted"], first["cached"], first["failed"]) == (240, 240, 0, [])
    assert (second["extracted"], second["cached"]) == (0, 240)
    assert "ravdess: 240 clips\n  8 labels: neutral 16, calm 32, " in err
    assert "  4 speakers: 01 60, 02 60, 03 60, 04 60\n" in err


def test_extract_export_writes_the_features(run: Run, write_clip: Callable[..., Path]) -> None:
    clips = [str(write_clip(f"data/{label}/1.wav", f0=f0)) for label, f0 in (("happy", 150), ("sad", 120))]

    code, out, err = run("extract", clips[0][: clips[0].index("happy")], "--export", "x.csv", "-f", "json")

    assert code == 0, err
    assert json.loads(out)["feature_sets"] == ["whisper"]
    with Path("x.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert [row[:4] for row in rows[1:]] == [[clips[0], "happy", "", "data"], [clips[1], "sad", "", "data"]]
    assert {len(row) for row in rows} == {4 + 3072}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--export", "x.txt"], 2, "features is x.txt, expected .csv or .npz or .parquet"),
        (["--export", "x.npz", "--features", "mfcc", "--features", "whisper"], 2, "writes one feature set"),
        (["--export", "x.csv", "--features", "augment"], 2, "is 'augment', expected mfcc or whisper"),
        (["--export", "list.csv"], 2, "--export list.csv would write over list.csv"),
    ],
)
def test_extract_export_refuses_before_the_work(
    arguments: list[str], code: int, said: str, run: Run, write_clip: Callable[..., Path]
) -> None:
    write_clip("a.wav")
    Path("list.csv").write_text("path,label\na.wav,happy\n")

    received = run("extract", "list.csv", *arguments)

    assert received[0] == code
    assert said in received[2]
    assert not Path("features").exists()
    assert Path("list.csv").read_text() == "path,label\na.wav,happy\n"


def test_extract_shows_clips_without_a_label_and_exits_with_3(
    run: Run, write_clip: Callable[..., Path]
) -> None:
    for name, f0 in (("happy/ann/1", 100), ("sad/ben/2", 120), ("sad/ben/3", 140), ("loose", 160)):
        write_clip(f"data/{name}.wav", f0=f0)

    code, out, err = run("extract", "--features", "mfcc", "--format", "json")

    assert code == 3
    assert json.loads(out)["skipped"] == {"with no label that is known": 1}
    assert "  2 labels: happy 1, sad 2\n  2 speakers: ann 1, ben 2\n" in err
    assert "warning: left out: 1 with no label that is known, such as data/loose.wav" in err

    code, out, err = run("extract", "--features", "mfcc", "-f", "json", "--label-from", "([a-z]+)/", "-q")
    assert (code, json.loads(out)["found"]["data"]["labels"]) == (3, {"happy": 1, "sad": 2})
    assert "1 not matched by --label-from" in err


def test_extract_guesses_no_label(run: Run, write_clip: Callable[..., Path]) -> None:
    write_clip("data/DC/1.wav")
    write_clip("data/JE/2.wav")

    code, out, err = run("extract")

    assert (code, out) == (6, "")
    assert "level 1: DC, JE" in err
    assert "--manifest-template" in err


def test_extract_names_broken_clips_and_exits_with_3(run: Run, write_clip: Callable[..., Path]) -> None:
    write_clip("data/happy/good.wav")
    Path("data/happy/broken.wav").write_text("nonsense")
    Path("data/happy/notes.txt").write_text("not audio")

    code, out, err = run("extract", "--format", "json")

    document = json.loads(out)
    assert code == 3
    assert document["extracted"] == 1
    assert document["failed"][0]["path"] == "data/happy/broken.wav"
    assert "warning: data/happy/broken.wav: not audio that can be read" in err
    assert "left out: 1 not audio, by the suffix" in err


def test_extract_where_every_clip_is_broken_exits_with_6(run: Run) -> None:
    Path("data/sad").mkdir(parents=True)
    Path("data/sad/a.wav").touch()

    code, out, err = run("extract")

    assert code == 6
    assert json.loads(out)["extracted"] == 0
    assert "data/sad/a.wav: empty file" in err


def test_quiet_says_nothing_but_warnings(run: Run, write_clip: Callable[..., Path]) -> None:
    write_clip("data/happy/good.wav")
    Path("data/happy/broken.wav").write_text("nonsense")

    _, _, err = run("extract", "--quiet")

    assert err.splitlines() == [line for line in err.splitlines() if line.startswith("warning: ")]
    assert len(err.splitlines()) == 1


def test_one_feature_set_alone(run: Run, write_clip: Callable[..., Path]) -> None:
    write_clip("data/happy/good.wav")

    run("extract", "--features", "mfcc")
    _, out, _ = run("cache", "info", "--format", "json")

    assert [part["feature_set"] for part in json.loads(out)["sets"]] == ["mfcc"]


# --- train ---------------------------------------------------------------------------------------------


def test_train_reports_known_and_new_voices(trained: Path) -> None:
    document = json.loads((trained / "train.json").read_text())

    assert (document["schema"], document["command"], document["version"]) == (1, "train", "v1")
    assert (document["epochs"], document["seed"], document["split"]) == (25, 0, "both")
    seen, new = document["test"]["seen_speakers"], document["test"]["new_speakers"]
    assert document["train"]["n"] + seen["n"] + new["n"] == 240
    assert len(new["speakers"]) == 1
    assert seen["accuracy"] > 0.4
    assert set(new["per_class"]) == set(EMOTIONS)
    assert 0 <= new["uar"] <= 1


def test_train_names_every_file_it_leaves(trained: Path) -> None:
    document = json.loads((trained / "train.json").read_text())

    assert document["files"] == ["models/v1.keras", "models/v1.tflite", "models/v1.png"]
    assert sorted(document["files"]) == sorted(f"models/{path.name}" for path in trained.glob("models/*"))
    assert (trained / "models" / "v1.png").read_bytes().startswith(b"\x89PNG")


def test_train_keeps_its_history_in_the_document_and_the_model_file(workdir: Path, run: Run) -> None:
    history = json.loads((workdir / "train.json").read_text())["history"]
    _, out, _ = run("model", "info", "v1", "--format", "json")

    assert set(history) == {f"{p}_{m}" for p in ("train", "seen", "new") for m in ("accuracy", "loss")}
    assert all(len(values) == 25 for values in history.values())
    assert history["train_loss"][-1] < history["train_loss"][0]
    assert json.loads(out)["history"] == history


def test_train_tells_its_results_and_keeps_the_training_where_the_model_cannot_be_written(
    workdir: Path, corpus_folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from speechemo_cli.models import model_file, training

    def full(*_: object) -> None:
        raise AccessError("cannot write v1.keras: no space left on device")

    command = (
        "train",
        corpus_folder,
        "--version",
        "v1",
        "--epochs",
        2,
        "--format",
        "json",
        "--history",
        "h.csv",
    )
    with monkeypatch.context() as broken:
        broken.setattr(model_file, "save", full)
        code, out, err = run(*command, "-o", tmp_path / "v1.keras")
    lost = json.loads(out)
    assert (code, lost["model"]) == (5, None)
    assert lost["test"]["new_speakers"]["n"] > 0
    assert "with --resume it is saved without being done again" in err
    assert err.splitlines()[-1] == "error: cannot write v1.keras: no space left on device"

    epochs: list[int] = []
    fit = training.fit
    monkeypatch.setattr(
        training, "fit", lambda *a, **k: fit(*a, **{**k, "on_epoch": lambda done, *_: epochs.append(done)})
    )
    code, out, _ = run(*command, "-o", tmp_path / "elsewhere" / "v1.keras", "--resume")
    saved = json.loads(out)
    assert (code, epochs) == (0, [])
    assert saved["test"] == lost["test"]
    with Path("h.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [float(row["seen_loss"]) for row in rows] == saved["history"]["seen_loss"]
    assert not list(Path("runs").glob("*.train.npz"))


@pytest.mark.parametrize("taken", ["m.keras", "m.png"])
def test_train_tries_its_targets_before_the_work(taken: str, run: Run, corpus_folder: Path) -> None:
    Path(taken).mkdir()

    code, out, err = run("train", corpus_folder, "-o", "m.keras")

    assert (code, out) == (2, "")
    assert err == f"error: --output is {taken}, which is a folder, expected a file\n"


def test_nothing_of_tensorflow_reaches_the_user(trained: Path) -> None:
    err = (trained / "train.err").read_text()

    assert err.count("\n") == 3
    assert err.startswith("ravdess: 240 clips\n  8 labels: ")


def test_the_same_seed_gives_the_same_accuracy(workdir: Path, corpus_folder: Path, run: Run) -> None:
    # In this process, the fixture's in one of its own: state left by other trainings must not matter.
    _, out, _ = run(
        "train",
        corpus_folder,
        "--version",
        "v1",
        "--epochs",
        25,
        "-o",
        workdir / "again" / "v1.keras",
        "-f",
        "json",
    )

    first = json.loads((workdir / "train.json").read_text())
    assert json.loads(out)["test"] == first["test"]


def test_split_random_warns_of_shared_voices(corpus_folder: Path, run: Run) -> None:
    _, out, _ = run(
        "train", corpus_folder, "--version", "v1", "--split", "random", "--epochs", 1, "-f", "table"
    )

    assert "held out, unseen speakers" not in out
    assert "repetitions of sentences" in out


def test_without_speakers_the_default_split_falls_back_and_an_explicit_one_fails(
    run: Run, write_clip: Callable[..., Path]
) -> None:
    for label in ("happy", "sad"):
        for i in range(10):
            write_clip(f"data/{label}/{i}.wav", seconds=0.3 + i / 100, f0=200 if label == "happy" else 90)

    code, out, err = run("train", "--version", "v1", "--epochs", 2, "--format", "json")
    document = json.loads(out)
    asked, _, refusal = run("train", "--version", "v1", "--epochs", 2, "--split", "both")

    assert code == 0
    assert (document["split"], document["test"]["new_speakers"]) == ("random", None)
    assert "using --split random" in err
    assert asked == 2
    assert "needs a corpus of at least two speakers" in refusal


def test_a_killed_training_is_gone_on_with_or_given_up_and_both_are_said(
    workdir: Path, corpus_folder: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from speechemo_cli.evaluation import holdout
    from speechemo_cli.models.training import Checkpoint

    done: list[int] = []

    class Killed(Checkpoint):
        def keep(self, model: Any, epochs: int, history: Any) -> None:
            super().keep(model, epochs, history)
            done.append(epochs)
            raise KeyboardInterrupt

    def train(*more: str, killed: bool) -> tuple[int, str, list[int]]:
        monkeypatch.setattr(holdout, "Checkpoint", partial(Killed if killed else Counted, every_s=0))
        done.clear()
        arguments = ("--version", "v1", "--epochs", 2, "-o", tmp_path / "v1.keras", "-f", "json")
        code, _, err = run("train", corpus_folder, *arguments, *more)
        return code, err, list(done)

    class Counted(Checkpoint):
        def keep(self, model: Any, epochs: int, history: Any) -> None:
            super().keep(model, epochs, history)
            done.append(epochs)

    code, err, epochs = train(killed=True)
    assert (code, epochs) == (130, [1])
    assert "unfinished" not in err

    code, err, epochs = train(killed=True)
    assert (code, epochs) == (130, [1])
    assert "an unfinished training of this kind is given up (--resume goes on with it)" in err

    code, err, epochs = train("--resume", killed=False)
    assert (code, epochs) == (0, [2])
    assert "going on with the unfinished training" in err

    assert (tmp_path / "v1.keras").exists()


def test_a_calibrated_training_is_told_of_from_end_to_end(
    workdir: Path, corpus_folder: Path, tmp_path: Path, run: Run, fitted: list[Fitted]
) -> None:
    model = tmp_path / "v1.keras"
    arguments = ("train", corpus_folder, "--version", "v1", "--calibrate", "--split", "none", "-o", model)
    runs = ("--set", f"runs={tmp_path / 'runs'}")

    code, out, err = run(*arguments, *runs, "-f", "json")
    _, table, _ = run(*arguments, *runs, "-f", "table")
    _, info, _ = run("model", "info", model, "-f", "json")
    _, card, _ = run("model", "card", model, "--plot", tmp_path / "reliability.png")
    _, _, worth = run("predict", corpus_folder / "Actor_01", "-m", model, "--min-confidence", 0.9)

    document = json.loads(out)
    measured = document["cross_validated"]
    share = f"{100 * measured['accuracy']['pooled']:.1f} %"
    assert code == 0
    # The network of the fixture knows nothing, and all its answers are as sure.
    assert err.splitlines()[-1].startswith("warning: the temperature stopped at its bound")
    assert document["temperature"] > 1
    assert measured["calibrated"] is measured["speaker_independent"] is True
    assert measured["n_answers"] == 240
    assert "each speaker left out in turn" in table
    assert f"corrected by a temperature of {document['temperature']:.2f}" in table
    assert f"ECE {100 * measured['ece']['pooled']:.1f} %." in table
    assert json.loads(info)["temperature"] == document["temperature"]
    assert json.loads(info)["results"]["cross_validated"] == measured
    assert share in card
    assert "Livingstone" in card
    assert (tmp_path / "reliability.png").read_bytes().startswith(b"\x89PNG")
    assert f"right {share} of the time on unseen speakers of ravdess" in worth
    assert "never corrected" not in worth


def test_one_label_is_not_enough(run: Run, write_clip: Callable[..., Path]) -> None:
    write_clip("data/happy/a.wav")
    write_clip("data/happy/b.wav", f0=99)

    code, _, err = run("train", "--split", "random")

    assert code == 2
    assert "needs training clips of at least two labels, found happy" in err


# --- evaluate ------------------------------------------------------------------------------------------


def test_evaluate_keeps_known_clips_apart(workdir: Path, corpus_folder: Path, run: Run) -> None:
    code, out, _ = run("evaluate", corpus_folder, "--model", "v1", "--plot", workdir / "c.png", "-f", "json")

    document = json.loads(out)
    training = json.loads((workdir / "train.json").read_text())
    assert code == 0
    assert document["n_clips"] == 240
    assert document["n_trained_on"] == training["train"]["n"]
    assert document["trained_on"]["accuracy"] == pytest.approx(training["train"]["accuracy"])
    assert document["unseen_speakers"]["accuracy"] == pytest.approx(
        training["test"]["new_speakers"]["accuracy"]
    )
    # The figures that come first are those of unseen speakers, and say whose they are.
    assert document["scored"] == "unseen_speakers"
    assert document["n"] == document["unseen_speakers"]["n"] == 60
    assert document["corpora"] == {"ravdess": {"speakers": 1, "clips": 60}}
    assert document["ci95"] is None
    assert document["no_interval"] == "1 speaker: no interval"
    parts = ("unseen_speakers", "seen_speakers", "trained_on")
    assert sum(np.sum(document[part]["confusion"]) for part in parts) == 240
    assert document["unknown_speakers"] is None
    assert (workdir / "c.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def few(corpus_folder: Path, tmp_path: Path) -> Path:
    """Every tenth clip of the corpus."""
    folder = tmp_path / "few"
    folder.mkdir()
    for path in sorted(corpus_folder.rglob("*.wav"))[::10]:
        shutil.copy(path, folder)
    return folder


def test_evaluate_scores_a_model_under_other_conditions(workdir: Path, few: Path, run: Run) -> None:
    arguments = ("evaluate", few, "--model", "v1", "--conditions")
    code, out, _ = run(*arguments, "--format", "json")
    _, table, _ = run(*arguments, "--format", "table")
    _, without, _ = run(*arguments[:-1], "--format", "json")

    document = json.loads(out)
    assert code == 0
    assert list(document["conditions"]) == list(CONDITIONS)
    for name, scores in document["conditions"].items():
        assert scores["title"] == CONDITIONS[name].title
        # Of the clips of the headline alone, not of those it was trained on.
        assert scores["n"] == document["n"] < document["n_clips"]
        assert scores["cost"] == pytest.approx(document["accuracy"] - scores["accuracy"])
    assert any(one["cost"] for one in document["conditions"].values())
    assert "conditions" not in json.loads(without)

    shown = table[table.index("the same clips") :].splitlines()
    for name, scores in document["conditions"].items():
        (line,) = [line for line in shown if CONDITIONS[name].title in line]
        assert percent(scores["accuracy"]) in line
        assert f"{100 * scores['cost']:+.1f}" in line.split()


def test_evaluate_by_protocol_scores_other_conditions_too(few: Path, run: Run) -> None:
    code, out, _ = run(
        *("evaluate", few, "--version", "v1", "--protocol", "speaker-5fold", "--conditions"),
        *("--epochs", 1, "--format", "json"),
    )

    document = json.loads(out)
    assert code == 0
    assert list(document["conditions"]) == list(CONDITIONS)
    for scores in document["conditions"].values():
        assert scores["n"] == document["n_answers"] == 24
        assert scores["cost"] == pytest.approx(document["accuracy"]["pooled"] - scores["accuracy"])


def test_evaluate_by_protocol_reports_every_fold(workdir: Path, corpus_folder: Path, run: Run) -> None:
    code, out, _ = run(
        "evaluate",
        corpus_folder,
        "--version",
        "v1",
        "--protocol",
        "speaker-5fold",
        "--epochs",
        2,
        "-f",
        "json",
    )

    document = json.loads(out)
    assert code == 0
    assert document["speaker_independent"] is True
    # Actors 01 ... 04 stand in four of the five published folds, 01 and 04 together.
    tested = sorted(fold["test_speakers"] for fold in document["folds"])
    assert tested == [["ravdess/01", "ravdess/04"], ["ravdess/02"], ["ravdess/03"]]
    assert document["corpora"] == {"trained_on": ["ravdess"], "tested": ["ravdess"]}
    assert document["accuracy"]["ci95"] is None
    assert document["no_interval"] == "4 speakers: no interval"
    why = "3 of 5 folds: the clips have 4 speakers"
    assert document["n_folds"] == {"asked": 5, "ran": 3, "why_fewer": why}
    assert set(document["slices"]) == {"speaker", "gender", "intensity", "statement"}
    assert 0 <= document["ece"]["pooled"] <= 1
    assert document["n_clips"] == 240


def test_evaluate_tells_whether_confidences_are_corrected(
    workdir: Path, corpus_folder: Path, tmp_path: Path, run: Run, fitted: list[Fitted]
) -> None:
    arguments = ("evaluate", corpus_folder, "--version", "v1", "--set", f"runs={tmp_path / 'runs'}")

    _, with_it, _ = run(*arguments, "--calibrate", "-f", "json")
    _, without, _ = run(*arguments, "--no-calibrate", "-f", "json")
    _, table, _ = run(*arguments, "--calibrate", "-f", "table")
    _, plain, _ = run(*arguments, "-f", "table")

    temperatures = [fold["temperature"] for fold in json.loads(with_it)["folds"]]
    assert json.loads(with_it)["calibrated"] is True
    assert json.loads(without)["calibrated"] is False
    assert [fold["temperature"] for fold in json.loads(without)["folds"]] == [None] * len(temperatures)
    said = ", ".join(f"{temperature:.2f}" for temperature in temperatures)
    # A terminal's width does not matter: what is said is one line.
    assert f"temperatures from the training speakers: {said}." in table
    assert "temperatures" not in plain  # v1 is not calibrated by itself


@pytest.mark.slow
def test_two_versions_can_be_compared_on_the_same_folds(corpus_folder: Path, run: Run) -> None:
    for name, epochs in (("short", 1), ("long", 15)):
        run(
            *("evaluate", corpus_folder, "--version", "v1", "--protocol", "random-5fold"),
            *("--epochs", epochs, "--predictions", f"{name}.csv"),
        )

    code, out, _ = run("compare", "short.csv", "long.csv", "--format", "json")
    _, table, _ = run("compare", "short.csv", "long.csv", "--format", "table")

    document = json.loads(out)
    assert code == 0
    assert (document["command"], document["n"]) == ("compare", 240)
    assert document["difference"] > 0.1
    assert document["better"] is None  # of four speakers nothing can be told
    assert "No verdict" in table


def test_evaluate_reads_well(workdir: Path, corpus_folder: Path, run: Run) -> None:
    _, out, _ = run("evaluate", corpus_folder, "--model", "v1", "-f", "table")

    assert out.startswith("Unseen speakers (ravdess: 1 speaker, 60 clips): right ")
    assert "1 speaker: no interval" in out.splitlines()[0]
    # One confusion matrix for each group, the title says whose.
    assert out.count("truth \\ answer") == 3
    for title in (
        "unseen speakers (ravdess: 1",
        "other clips of seen speakers (",
        "clips it was trained on (",
    ):
        assert title in out


def test_evaluate_tells_near_copies_between_train_and_test(
    corpus_folder: Path, run: Run, tmp_path: Path, fitted: list[Fitted]
) -> None:
    original = next(corpus_folder.rglob("03-01-05-*.wav"))
    y, sr = soundfile.read(original, dtype="int16")
    (tmp_path / "copy" / "angry").mkdir(parents=True)
    soundfile.write(tmp_path / "copy" / "angry" / "a.wav", y[3:-3], sr)

    arguments = ("evaluate", "--train", corpus_folder, "--test", tmp_path / "copy", "--version", "v1")
    code, out, err = run(*arguments, "-f", "json")

    assert code == 0
    assert json.loads(out)["near_copies"] == [[str(original), str(tmp_path / "copy" / "angry" / "a.wav")]]
    assert "1 pair of clips are nearly the same recording" in err
    assert "1 near copy of test clips stood in training" in err


def test_evaluate_repeats_a_protocol_with_several_seeds(
    workdir: Path, corpus_folder: Path, tmp_path: Path, run: Run, fitted: list[Fitted]
) -> None:
    runs = ("--set", f"runs={tmp_path / 'runs'}")
    arguments = (
        "evaluate",
        corpus_folder,
        *runs,
        "--version",
        "v1",
        "--protocol",
        "random-holdout",
        "--seeds",
        2,
    )
    _, out, _ = run(*arguments, "-f", "json")
    _, table, _ = run(*arguments, "-f", "table")
    _, alone, _ = run(*arguments[:-2], "--seed", 5, "-f", "json")

    document = json.loads(out)
    # Each of the five draws of a seed has a seed of its own.
    assert document["by_seed"]["seeds"] == [0, 5]
    values = document["by_seed"]["accuracy"]["values"]
    assert values == [document["accuracy"]["pooled"], json.loads(alone)["accuracy"]["pooled"]]
    assert document["by_seed"]["accuracy"]["mean"] == pytest.approx(sum(values) / 2)
    assert f"{percent(min(values))} to {percent(max(values))}" in table
    assert "Below: seed 0." in table


def test_evaluate_refuses_labels_the_model_does_not_know(
    workdir: Path, run: Run, tmp_path: Path, write_clip: Callable[..., Path]
) -> None:
    write_clip("own/bored/a.wav")

    code, _, err = run("evaluate", tmp_path / "own", "--model", "v1")

    assert code == 2
    assert "clips are labelled boredom, expected " in err


@pytest.fixture
def other_corpus(tmp_path: Path, write_clip: Callable[..., Path]) -> Path:
    """Clips of one who is happy, angry and bored."""
    rows = ["path,label,speaker"]
    for label, f0 in (("happy", 200), ("angry", 300), ("bored", 90)):
        for i in range(3):
            write_clip(f"other/{label}{i}.wav", seconds=0.5 + i / 10, f0=f0 + i)
            rows.append(f"{label}{i}.wav,{label},anna")
    (tmp_path / "other" / "manifest.csv").write_text("\n".join(rows))
    return tmp_path / "other"


def test_evaluate_trains_on_some_corpora_and_tests_on_another(
    corpus_folder: Path, other_corpus: Path, run: Run, fitted: list[Fitted]
) -> None:
    arguments = ("evaluate", "--train", corpus_folder, "--test", other_corpus, "--version", "v1")

    code, out, err = run(*arguments, "-f", "json")
    _, table, _ = run(*arguments, "-f", "table")

    document = json.loads(out)
    assert code == 0
    assert document["left_out"] == {"boredom": 3}
    assert "no such label: boredom (3) clips" in err
    assert document["corpora"] == {"trained_on": ["ravdess"], "tested": ["other"]}
    assert document["shared_labels"] == ["happy", "angry"]
    assert document["n_answers"] == 6
    recalls = [document["per_class"][label]["recall"] for label in ("happy", "angry")]
    assert document["uar"]["pooled"] == pytest.approx(sum(recalls) / 2)
    assert len(fitted[0].rows.x) == 240
    assert "every clip of ravdess is trained on and every clip of other tested" in table
    assert "mean of folds" not in table


def test_evaluate_refuses_a_test_on_what_it_trains_on(
    corpus_folder: Path, other_corpus: Path, run: Run, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    (copy / "happy").mkdir(parents=True)
    soundfile.write(copy / "happy" / "a.flac", *soundfile.read(other_corpus / "happy1.wav", dtype="int16"))

    leaks, _, leak = run("evaluate", "--train", other_corpus, "--test", copy)
    same, _, twice = run("evaluate", "--train", other_corpus, "--test", f"{other_corpus}/")

    assert leaks == same == 2
    assert "1 recordings stand in training and in test: " in leak
    assert "a.flac" in leak
    assert "other is both --train and --test" in twice


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train", "a"], "--train was given alone"),
        (["--test", "a"], "--test was given alone"),
        (["data", "--train", "a", "--test", "b"], "DATA does not go with --train and --test"),
        (["--train", "a", "--test", "b", "--model", "v1"], "--model does not go with"),
        (["--train", "a", "--test", "b", "--protocol", "loso"], "--protocol does not go with"),
        (["--model", "v1", "--seeds", "3"], "--seeds go with --version"),
    ],
)
def test_evaluate_refuses_options_that_do_not_go_with_train_and_test(
    arguments: list[str], message: str, run: Run
) -> None:
    code, _, err = run("evaluate", *arguments)

    assert code == 2
    assert message in err


def test_evaluate_knows_the_training_clips_in_another_format(
    workdir: Path, corpus_folder: Path, run: Run, tmp_path: Path
) -> None:
    for path in corpus_folder.rglob("*.wav"):
        target = tmp_path / "copy" / path.with_suffix(".flac").name
        target.parent.mkdir(exist_ok=True)
        soundfile.write(target, *soundfile.read(path, dtype="int16"))

    _, out, _ = run("evaluate", tmp_path / "copy", "--model", "v1", "-f", "json")

    document = json.loads(out)
    training = json.loads((workdir / "train.json").read_text())
    assert document["n_trained_on"] == training["train"]["n"]
    assert document["unseen_speakers"]["n"] == training["test"]["new_speakers"]["n"]


def test_extract_takes_several_data(run: Run, write_clip: Callable[..., Path]) -> None:
    write_clip("one/happy/a.wav", f0=100)
    write_clip("two/b.wav", f0=200)
    Path("two/manifest.csv").write_text("path,label\nb.wav,sad\n")

    code, out, _ = run("extract", "one", "two", "--features", "mfcc")

    document = json.loads(out)
    assert code == 0
    assert (document["data"], list(document["found"])) == (["one", "two"], ["one", "two"])
    assert document["found"]["two"] == {
        "clips": 1,
        "labels": {"sad": 1},
        "speakers": {},
        "unknown_speakers": 1,
    }
    assert (document["clips"], document["extracted"]) == (2, 2)


# --- predict -------------------------------------------------------------------------------------------


@pytest.fixture
def clips(corpus_folder: Path, tmp_path: Path) -> list[str]:
    """A good clip, a broken one, and another good one under a name that hurts."""
    folder = corpus_folder / "Actor_01"
    awkward = tmp_path / 'a [b]\nc, "d" é.wav'
    shutil.copy(folder / "03-01-03-01-01-01-01.wav", awkward)
    broken = tmp_path / "broken.wav"
    broken.write_text("nonsense")
    return [str(folder / "03-01-05-02-01-01-01.wav"), str(broken), str(awkward)]


def test_jsonl_has_a_record_a_clip_in_order(workdir: Path, clips: list[str], run: Run) -> None:
    code, out, err = run("predict", "--model", "v1", *clips, "--format", "jsonl")

    records = [json.loads(line) for line in out.splitlines()]
    assert code == 3
    assert [record["path"] for record in records] == clips
    assert [record["status"] for record in records] == ["ok", "error", "ok"]
    assert set(records[1]) == {"schema", "path", "status", "error"}
    good = records[0]
    assert set(good) == {
        "schema", "path", "status", "label", "confidence", "probabilities", "duration_s", "model", "warnings",
        "sha256", "key"
    }  # fmt: skip
    assert list(good["probabilities"]) == list(EMOTIONS)
    assert sum(good["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert good["probabilities"][good["label"]] == good["confidence"]
    assert good["model"] == "models/v1.keras"
    assert "model: models/v1.keras" in err
    assert "on unseen speakers" in err


def test_json_is_one_document(workdir: Path, clips: list[str], run: Run) -> None:
    _, out, _ = run("predict", "--model", "v1", *clips, "--format", "json")

    document = json.loads(out)
    assert (document["schema"], document["command"]) == (1, "predict")
    assert [record["path"] for record in document["clips"]] == clips


def test_csv_survives_any_name(workdir: Path, clips: list[str], run: Run) -> None:
    _, out, _ = run("predict", "--model", "v1", *clips, "--format", "csv")

    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["path"] for row in rows] == clips
    assert rows[1]["status"] == "error"
    assert rows[1]["error"]
    assert float(rows[2][rows[2]["label"]]) == float(rows[2]["confidence"])


def test_the_table_has_a_line_a_clip_and_escapes_names(workdir: Path, clips: list[str], run: Run) -> None:
    _, out, _ = run("predict", "--model", "v1", *clips, "--format", "table")

    lines = out.splitlines()
    assert len(lines) == 4
    assert lines[3].endswith('a [b]\\nc, "d" é.wav')


def test_label_is_the_bare_word_for_a_shell_variable(workdir: Path, clips: list[str]) -> None:
    predict = f'"{sys.executable}" -m speechemo_cli predict "$1" --model v1 --format label'
    script = f'label=$({predict}) && printf "<%s>" "$label"'

    done = subprocess.run(["sh", "-c", script, "sh", clips[0]], capture_output=True, text=True, check=True)

    assert done.stdout.strip("<>") in EMOTIONS


def test_a_folder_stands_for_its_clips(workdir: Path, corpus_folder: Path, run: Run) -> None:
    code, out, _ = run("predict", "--model", "v1", corpus_folder / "Actor_02", "--format", "jsonl")

    paths = [json.loads(line)["path"] for line in out.splitlines()]
    assert code == 0
    assert len(paths) == 60
    assert paths == sorted(paths)


def test_no_answer_at_all_exits_with_6_and_loads_no_network(
    workdir: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from speechemo_cli.models import model_file

    monkeypatch.setattr(model_file, "load", lambda _: pytest.fail("the network was loaded"))

    code, out, err = run("predict", "missing.wav")

    assert code == 6
    assert json.loads(out)["error"] == "no such file"
    assert "warning: missing.wav: no such file" in err


def test_an_empty_folder_is_no_input(workdir: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    code, _, err = run("predict", tmp_path / "empty")

    assert code == 6
    assert err.startswith("error: no audio in")


def test_doubtful_answers_are_uncertain_and_keep_their_probabilities(
    workdir: Path, clips: list[str], run: Run
) -> None:
    _, out, quiet = run("predict", "--model", "v1", clips[0], clips[2], "--format", "jsonl")
    plain = [json.loads(line) for line in out.splitlines()]
    code, out, err = run(
        "predict", "--model", "v1", clips[0], clips[2], "--min-confidence", 1, "--format", "jsonl"
    )
    doubted = [json.loads(line) for line in out.splitlines()]
    _, words, _ = run("predict", "--model", "v1", clips[0], "--min-confidence", 1, "--format", "label")

    assert code == 0
    assert doubted == [{**record, "label": "uncertain", "key": doubted[0]["key"]} for record in plain]
    assert doubted[0]["key"] != plain[0]["key"]
    assert words == "uncertain\n"
    assert "warning: this model's confidences were never corrected on unseen speakers" in err
    assert "never corrected" not in quiet


def test_predict_takes_the_packaged_model_unless_another_is_named(
    workdir: Path, clips: list[str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from speechemo_cli.models import model_file

    monkeypatch.setattr(model_file, "PACKAGED", workdir / "models" / "v1.keras")

    for named in ((), ("--model", "packaged"), ("--model", "v3")):
        code, out, err = run("predict", clips[0], *named, "--format", "jsonl")

        assert code == 0
        assert json.loads(out)["model"] == "packaged"
        assert err.startswith("model: packaged (v1; ")


# --- model ---------------------------------------------------------------------------------------------


def test_model_info_is_one_document(workdir: Path, run: Run) -> None:
    code, out, err = run("model", "info", "v1", "--format", "json")

    document = json.loads(out)
    training = json.loads((workdir / "train.json").read_text())
    assert (code, err) == (0, "")
    assert (document["schema"], document["command"]) == (1, "model info")
    assert set(document) == {
        *("schema", "command", "model", "version", "labels", "features", "parameters", "size_bytes"),
        *(
            "sha256",
            "epochs",
            "seed",
            "temperature",
            "data",
            "results",
            "history",
            "versions",
            "litert",
            "unlike",
        ),
    }
    assert document["model"] == "models/v1.keras"
    assert document["labels"] == list(EMOTIONS)
    assert document["parameters"] > 10_000
    assert document["temperature"] is None
    assert document["litert"]["usable"]
    assert document["data"]["ravdess"] is True
    assert document["data"]["train"]["n"] == training["train"]["n"]
    assert sum(counts["spoken"] for counts in document["data"]["clips"].values()) == training["train"]["n"]
    assert document["results"]["test"] == training["test"]


def test_model_info_reads_well(workdir: Path, run: Run) -> None:
    _, out, _ = run("model", "info", "v1", "--format", "table")

    rows = dict(line.split("  ", 1) for line in out.splitlines())
    assert rows["model"].strip() == "models/v1.keras"
    assert rows["labels"].strip() == ", ".join(EMOTIONS)
    assert rows["temperature"].strip() == "none"
    assert "right on unseen speakers" in rows


def test_a_card_goes_to_stdout_or_into_a_file(workdir: Path, tmp_path: Path, run: Run) -> None:
    code, out, _ = run("model", "card", "v1")
    _, nothing, err = run("model", "card", "v1", "--output", tmp_path / "cards" / "v1.md")

    assert code == 0
    assert out.startswith("# Model card: v1.keras")
    assert (tmp_path / "cards" / "v1.md").read_text(encoding="utf-8") == out
    assert nothing == ""
    assert "model card: " in err


def test_there_is_nothing_to_draw_of_a_model_that_was_never_cross_validated(
    workdir: Path, tmp_path: Path, run: Run
) -> None:
    code, _, err = run("model", "card", "v1", "--plot", tmp_path / "x.png")

    assert code == 2
    assert "was never cross-validated, so there is nothing to draw. Train it with --calibrate" in err
    assert not (tmp_path / "x.png").exists()


# --- cache and synth -----------------------------------------------------------------------------------


def test_the_store_can_be_looked_after(run: Run, write_clip: Callable[..., Path]) -> None:
    for i in range(3):
        write_clip(f"data/happy/{i}.wav", f0=100 + 10 * i)
        run("extract", "--features", "mfcc")  # one shard each time

    _, out, _ = run("cache", "info", "--format", "json")
    before = json.loads(out)["sets"][0]
    code, merged, _ = run("cache", "compact")
    _, out, _ = run("cache", "verify", "--format", "json")
    after = json.loads(out)["sets"][0]
    _, cleared, _ = run("cache", "clear")

    assert (before["clips"], before["shards"]) == (3, 3)
    assert (code, merged) == (0, "3 shards merged into 1\n")
    assert (after["clips"], after["shards"]) == (3, 1)
    assert cleared == "1 shards removed\n"


def test_verify_finds_a_flipped_byte(run: Run, write_clip: Callable[..., Path]) -> None:
    write_clip("data/happy/a.wav")
    run("extract", "--features", "mfcc")
    (shard,) = Path("features").glob("*/*.npz")
    content = bytearray(shard.read_bytes())
    content[content.index(b"values.npy") + 200] ^= 1
    shard.write_bytes(bytes(content))

    code, out, err = run("cache", "verify", "--format", "json")

    assert code == 4
    assert json.loads(out)["damaged"] == [str(shard)]
    assert "damaged" in err


def test_what_a_shard_says_of_itself_cannot_write_on_the_terminal(
    run: Run, write_clip: Callable[..., Path]
) -> None:
    write_clip("data/happy/a.wav")
    run("extract", "--features", "mfcc")
    (shard,) = Path("features").glob("*/*.npz")
    with np.load(shard) as stored:
        members = dict(stored)
    header = json.loads(str(members["header"]))
    members["header"] = np.array(json.dumps({**header, "feature_set": "\x1b[31mred\nx"}))
    np.savez(shard, **members)

    code, out, _ = run("cache", "info", "--format", "table")

    assert code == 0
    assert r"\x1b[31mred\nx" in out
    assert "\x1b" not in out


def test_synth_makes_a_corpus(run: Run) -> None:
    code, out, err = run("synth", "demo", "--actors", 1)

    assert (code, out) == (0, "")
    assert len(list(Path("demo").rglob("*.wav"))) == 60
    assert "60 synthetic clips of 1 voice in demo" in err


# --- pipes, terminals, signals -------------------------------------------------------------------------


def test_a_reader_that_leaves_ends_it_silently(workdir: Path, corpus_folder: Path) -> None:
    script = '"$0" -m speechemo_cli predict "$1" --format csv --quiet | head -n 1; echo "${PIPESTATUS[0]}"'

    done = subprocess.run(
        ["bash", "-c", script, sys.executable, str(corpus_folder)], capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines()[-1] == "141"
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_said() -> None:
    with Path("/dev/full").open("w") as full:
        done = shell("config", "--format", "json", capture_output=False, stdout=full, stderr=subprocess.PIPE)

    assert done.returncode == 5
    assert done.stderr.startswith("error: cannot write the output: no space left on device. Free some space")


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits")
def test_a_file_behind_stdout_that_may_not_grow_is_said(tmp_path: Path) -> None:
    import resource

    with (tmp_path / "out").open("w") as out:
        done = subprocess.run(
            [sys.executable, "-m", "speechemo_cli", "config"],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
            check=False,
        )

    assert done.returncode == 5
    assert done.stderr.startswith("error: cannot write the output: file too large. Raise the file size limit")
    assert len(done.stderr.splitlines()) == 1


def test_an_ascii_terminal_loses_nothing(workdir: Path, clips: list[str]) -> None:
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}

    done = shell("predict", "--model", "v1", clips[2], "--format", "table", env=env)

    assert done.returncode == 0
    assert "\\xe9.wav" in done.stdout


def test_bytes_that_are_no_utf8_come_out_as_they_went_in(
    workdir: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    shutil.copy(corpus_folder / "Actor_01" / "03-01-03-01-01-01-01.wav", name)

    done = subprocess.run(
        [sys.executable, "-m", "speechemo_cli", "predict", "--model", "v1", name, "--format", "csv"],
        capture_output=True,
        check=True,
    )

    assert done.stdout.splitlines()[1].startswith(name + b",ok,")


def test_home_need_not_exist(workdir: Path, clips: list[str]) -> None:
    done = shell(
        "predict", "--model", "v1", clips[0], "--format", "label", env={**os.environ, "HOME": "/nonexistent"}
    )

    assert done.returncode == 0
    assert done.stdout.strip() in EMOTIONS


def test_a_killed_extract_leaves_no_worker_and_is_gone_on_with(corpus_folder: Path) -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "speechemo_cli", "extract", str(corpus_folder)),
            *("--features", "mfcc", "--jobs", "2"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(Path("features").glob("mfcc-*/*.npz")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    # The pipes close when the last process that holds them is gone: workers too.
    process.communicate(timeout=20)

    done = shell("extract", corpus_folder, "--features", "mfcc", "--format", "json")

    document = json.loads(done.stdout)
    assert done.returncode == 0
    assert document["cached"] > 0
    assert document["cached"] + document["extracted"] == 240
    assert document["damaged"] == []


def test_ctrl_c_ends_with_130_and_keeps_the_old_model(
    workdir: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    model = tmp_path / "v1.keras"
    model.write_bytes(b"the old one")
    process = subprocess.Popen(
        [
            *[sys.executable, "-m", "speechemo_cli", "train", str(corpus_folder)],
            *["--version", "v1", "--epochs", "100000", "-o", str(model)],
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell lets what it runs in the background ignore Ctrl-C; the tests may be run so.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    try:
        process.stderr.readline()  # the corpus was found: the work begins
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()

    assert process.returncode == 130
    assert out == ""
    assert err.splitlines()[-1].startswith("error: interrupted; what is finished is kept")
    assert model.read_bytes() == b"the old one"


def test_the_traceback_is_there_for_who_asks(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from speechemo_cli.corpus import layouts

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(layouts, "find_clips", broken)
    monkeypatch.setenv("SPEECHEMO_DEBUG", "")  # --debug sets it, which must not outlive this test

    code, _, err = run("extract")
    _, _, debug = run("--debug", "extract")

    assert code == 1
    assert err == "error: internal error: RuntimeError: a bug. Run it with --debug for the traceback\n"
    assert "Traceback" in debug


def test_suffixes_may_be_in_capitals_where_no_library_minds(tmp_path: Path) -> None:
    from speechemo_cli.errors import ConfigError

    options.check_output("--plot", tmp_path / "CONFUSION.PNG", ".png")

    with pytest.raises(ConfigError, match=r"expected a name that ends in \.keras"):
        options.check_output("--output", tmp_path / "V1.KERAS", ".keras", any_case=False)


def test_features_that_no_model_file_may_ask_for_are_not_trained_on(workdir: Path, run: Run) -> None:
    given = ("--set", "mfcc.hop_length=1", "--set", "mfcc.sr=96000", "--set", "mfcc.n_fft=65536")
    code, out, err = run("train", "--version", "v1", *given)

    assert (code, out) == (2, "")
    assert err.startswith("error: the config asks for features that take too much: 96000 frames a second")


@pytest.mark.parametrize(
    ("command", "how"), [("stream", "to go on"), ("predict", "with --output and --resume to go on")]
)
def test_what_is_begun_anew_is_not_said_to_be_resumed(
    command: str, how: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from speechemo_cli.inference.predictor import Predictor

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Predictor, "open", interrupted)
    code, _, err = run(command, *(["clip.wav"] if command == "predict" else []))

    assert code == 130
    assert err.splitlines()[-1] == f"error: interrupted; what is finished is kept, run it again {how}"
