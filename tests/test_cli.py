"""The commands as a shell script sees them: stdout, stderr and the exit code."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import COMMAND, Fitted, Run, path_with_speechemo, run_each

from speechemo_cli.cli import app, options
from speechemo_cli.corpus import EMOTIONS
from speechemo_cli.errors import AccessError
from speechemo_cli.features.augment import CONDITIONS
from speechemo_cli.formatting import percent

Told = Callable[..., dict[str, Any]]


@pytest.fixture
def told(run: Run) -> Told:
    """Run a command line that makes no mistake: the document that it tells."""

    def call(*arguments: object) -> dict[str, Any]:
        code, out, err = run(*arguments, "--format", "json")
        assert code == 0, err
        return json.loads(out)

    return call


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tables that commands would have shown, whatever they were asked for."""
    shown: list[str] = []
    show = options.show

    def also(command: str, format_: Any, table: Callable[[], str], document: dict[str, Any]) -> None:
        shown.append(table())
        show(command, format_, table, document)

    monkeypatch.setattr(options, "show", also)
    return shown


@pytest.fixture(scope="module")
def trained(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and a v1 in models/, made by `speechemo train`."""
    folder = tmp_path_factory.mktemp("trained")
    command = ["train", str(corpus_folder), "--version", "v1", "--epochs", "6", "--format", "json"]
    with (
        chdir(folder),
        Path("train.json").open("w") as out,
        Path("train.err").open("w") as err,
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        assert app.run(command) == 0
    return folder


@pytest.fixture
def workdir(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with store and model, and a place of its own for the trainings of each test."""
    monkeypatch.chdir(trained)
    monkeypatch.setenv("SPEECHEMO_RUNS", str(tmp_path / "runs"))
    return trained


@pytest.fixture
def training(trained: Path) -> dict[str, Any]:
    """What `speechemo train` printed."""
    return json.loads((trained / "train.json").read_text())


@pytest.fixture
def no_litert(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write no LiteRT file beside a model, which takes longer than the training."""
    from speechemo_cli.models import model_file

    monkeypatch.setattr(model_file, "write_litert", lambda *_: "0" * 64)


@pytest.fixture(scope="module")
def few(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every twentieth clip of the corpus: three of each actor."""
    folder = tmp_path_factory.mktemp("few")
    for path in sorted(corpus_folder.rglob("*.wav"))[::20]:
        shutil.copy(path, folder)
    return folder


# --- help, config, errors: nothing heavy is imported ---------------------------------------------------


def test_help_imports_nothing_heavy_and_a_model_card_no_keras(tmp_path: Path) -> None:
    groups = {"model": ("info", "card"), "cache": ("info", "verify", "compact", "clear")}
    commands = ["", *app.COMMANDS, *(f"{name} {sub}" for name, subs in groups.items() for sub in subs)]

    *told, card = run_each([*(f"{command} --help" for command in commands), "model card packaged"], tmp_path)

    for command, (code, out, _, heavy) in zip(commands, told, strict=True):
        assert (command, code, heavy) == (command, 0, [])
        assert "Usage: speechemo" in out
    _, text, _, heavy = card
    assert text.startswith("# Model card: ")
    assert not {"keras", "tensorflow", "librosa"} & set(heavy)


def test_help_shows_every_command_in_its_panel(run: Run) -> None:
    code, out, _ = run("--help")

    assert code == 0
    for command, panel in app.COMMANDS.items():
        assert re.search(rf"^│ {command} +[A-Z]", out[out.index(panel) :], flags=re.MULTILINE), command


@pytest.mark.parametrize("group", [[], ["model"], ["cache"]])
@pytest.mark.parametrize("debug", ["", "1"])
def test_group_alone_shows_its_help(
    group: list[str], debug: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPEECHEMO_DEBUG", debug)  # help is no error, and has no traceback

    code, out, err = run(*group)

    assert (code, err) == (2, "")
    assert out.strip() == run(*group, "--help")[1].strip()


def test_options_stand_in_panels(run: Run) -> None:
    _, out, _ = run("predict", "--help")

    panels = {part.split(" ─")[0]: part for part in out.split("╭─ ")[1:]}
    expected = {"Options": "--model", "Audio": "--channel", "Output": "--format", "Settings": "--jobs"}
    for panel, option in expected.items():
        assert f"│ {option} " in panels[panel]
    assert "[tool.speechemo] in pyproject.toml" in run("config", "--help")[1]  # brackets are kept


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
    code, out, _ = run("completion", shell_)
    monkeypatch.setenv("_SPEECHEMO_COMPLETE", f"source_{shell_}")

    assert (code, out) == (0, run()[1].strip() + "\n")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_completion_completes_in_bash(tmp_path: Path) -> None:
    script = (
        'eval "$(speechemo completion bash)"; COMP_WORDS=(speechemo downl); COMP_CWORD=1; '
        '_speechemo_completion speechemo; echo "${COMPREPLY[@]}"'
    )
    env = {**os.environ, "PATH": path_with_speechemo(tmp_path)}
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=True)

    assert done.stdout == "download\n"


# Run where m.keras, c.png and empty are folders, and taken is a file.
MISTAKES = {
    "train --version v9": (2, "Invalid value for '--version'"),
    "extract --nonsense": (2, "No such option: --nonsense"),
    "nonsense": (2, "No such command 'nonsense'"),
    "predict": (2, "no CLIP was given"),
    "extract --set mfcc.n_mfc=3": (2, "option: unknown key mfcc.n_mfc. Did you mean mfcc.n_mfcc?"),
    "extract --set seed": (2, "--set is 'seed', expected KEY=VALUE"),
    "train --seed -1": (2, "option: seed is -1, expected 0 to 2147483647"),
    "train --set train.dropout=1.5": (2, "option: train.dropout is 1.5, expected from 0"),
    "train -o model.h5": (2, "--output is model.h5, expected a name that ends in .keras"),
    "train -o M.KERAS": (2, "--output is M.KERAS, expected a name that ends in .keras"),
    "train -o m.keras": (2, "--output is m.keras, which is a folder, expected a file"),
    "train -o c.keras": (2, "--output is c.png, which is a folder, expected a file"),
    "train -o taken/v1.keras": (5, "cannot write to taken:"),
    "train --version v1 --set mfcc.hop_length=1 --set mfcc.sr=96000 --set mfcc.n_fft=65536": (
        2,
        "the config asks for features that take too much: 96000 frames a second",
    ),
    "train": (6, "data does not exist. Give the folder of your clips, or fetch RAVDESS: speechemo dow"),
    "extract --features mfc": (2, "--features is 'mfc', expected mfcc or whisper or augment"),
    "extract --export x.txt": (2, "features is x.txt, expected .csv or .npz or .parquet"),
    "extract --export x.npz --features mfcc --features whisper": (2, "--export writes one feature set"),
    "extract --config no.toml": (2, "config file no.toml does not exist"),
    "extract nowhere": (6, "nowhere does not exist"),
    "evaluate --model v1 --version v1": (2, "--model and --version were both given"),
    "evaluate --protocol loso": (2, "--protocol, --epochs, --predictions, --report and --seeds go with"),
    "evaluate --model v1 --seeds 3": (2, "--protocol, --epochs, --predictions, --report and --seeds go with"),
    "evaluate --plot x.pdf": (2, "--plot is x.pdf, expected a name that ends in .png"),
    "evaluate --model no.keras": (4, "no.keras: no such model file"),
    "evaluate --train a": (2, "--train was given alone"),
    "evaluate --test a": (2, "--test was given alone"),
    "evaluate data --train a --test b": (2, "DATA does not go with --train and --test"),
    "evaluate --train a --test b --model v1": (2, "--model does not go with"),
    "evaluate --train a --test b --protocol loso": (2, "--protocol does not go with"),
    "evaluate --train a --test b --conditions": (2, "--conditions does not go with"),
    "evaluate --train empty --test empty/": (2, "empty is both --train and --test"),
    "predict empty": (6, "no audio in"),
    "predict a.wav --model v1": (4, "models/v1.keras: no such model file. Train one with `speechemo train`"),
    "predict a.wav --min-confidence 1.5": (2, "Invalid value for '--min-confidence'"),
    "predict a.wav --min-confidence nan": (2, "--min-confidence is nan, expected a number from 0 to 1"),
    "predict a.wav --format srt": (2, "Invalid value for '--format'"),
    "predict a.wav --top 0": (2, "Invalid value for '--top'"),
    "predict a.wav --channel middle": (2, "Invalid value for '--channel'"),
    "predict a.wav --runtime torch": (2, "Invalid value for '--runtime'"),
    "predict a.wav --labels happy": (2, "labels is 'happy', expected at least two to choose from"),
    "predict a.wav --labels ' \"a,b\" , sad'": (2, "the model does not know 'a,b'. Its labels are"),
    "predict a.wav -o ''": (2, "--output is empty, expected a file or a folder. Leave it out for stdout"),
    "predict a.wav -o a.rttm": (2, "--output is a.rttm, expected a name that ends in .json, .jsonl, .csv"),
    "predict in/a.wav x/a.wav -o out --quiet": (
        2,
        "in/a.wav and x/a.wav would both be answered in out/a.wav.jsonl. Name the folder they are in instead",
    ),
    "predict a.wav --resume": (2, "--resume needs answers it can read again. Give --output and --format jso"),
    "predict a.wav --resume -o out.json": (2, "--resume needs answers it can read again"),
    "predict a.wav --resume -o out --format label": (2, "--resume needs answers it can read again"),
    # Options that have become commands.
    "predict a.wav --hop 2 --timeline": (2, "predict --hop is now: speechemo timeline RECORDING"),
    "predict a.wav --stream --top 1": (2, "predict --stream is now: speechemo stream"),
    "timeline a.wav --top 2": (2, "No such option: --top"),
    "timeline a.wav --format label": (2, "Invalid value for '--format'"),
    "timeline a.wav --plot x.svg": (2, "--plot is x.svg, expected a name that ends in"),
    "timeline a.wav x.wav --plot x.png": (2, "this holds one recording only"),
    "timeline a.wav x.wav -f srt": (2, "this holds one recording only"),
    "timeline a.wav x.wav -o x.srt": (2, "this holds one recording only"),
    "timeline a.wav --channel each -f srt -o out/": (2, "--plot and the formats srt and audacity are of one"),
    "timeline a.wav --channel each --plot x.png": (2, "--plot and the formats srt and audacity are of one"),
    "stream --channel each": (2, "stream gives one answer a line, --channel each several"),
    "show nowhere.wav --plot a.png": (6, "nowhere.wav: no such file"),
    "show clip.wav --plot a.pdf": (2, "--plot is a.pdf, expected a name that ends in .png"),
    "show clip.wav": (2, "Missing option '--plot'"),
    "model info v2": (4, "models/v2.keras: no such model file"),
    "model card v1 -o x.txt": (2, "--output is x.txt, expected a name that ends in .md"),
    "model card v1 --plot x.pdf": (2, "--plot is x.pdf, expected a name that ends in .png"),
}


@pytest.fixture(scope="module")
def mistakes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What was told of each mistake."""
    folder = tmp_path_factory.mktemp("mistakes")
    for name in ("m.keras", "c.png", "empty"):
        (folder / name).mkdir()
    (folder / "taken").write_text("a file")
    return dict(zip(MISTAKES, run_each(list(MISTAKES), folder), strict=True))


@pytest.mark.parametrize("command", MISTAKES)
def test_mistake_gets_one_line_and_a_code_and_costs_no_tensorflow(
    command: str, mistakes: dict[str, Any]
) -> None:
    expected_code, message = MISTAKES[command]
    code, out, err, heavy = mistakes[command]

    assert (code, out, "tensorflow" in heavy) == (expected_code, "", False)
    assert err.startswith("error: ")
    assert message in err
    assert len(err.splitlines()) == 1


def test_config_shows_each_value_and_where_it_comes_from(
    told: Told, tables: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("speechemo.toml").write_text("seed = 3\n[mfcc]\nn_mfcc = 20\n")
    monkeypatch.setenv("SPEECHEMO_SEED", "4")

    document = told("config", "--set", "jobs=2")
    (table,) = tables

    assert (document["schema"], document["command"]) == (1, "config")
    assert (document["values"]["seed"], document["values"]["mfcc"]["n_mfcc"]) == (4, 20)
    origins = {
        "seed": "environment SPEECHEMO_SEED",
        "mfcc.n_mfcc": "speechemo.toml",
        "jobs": "option",
        "store": "default",
    }
    assert {key: document["origins"][key] for key in origins} == origins
    assert re.search(r"mfcc\.n_mfcc\W+20\W+speechemo\.toml", table)


# --- extract -------------------------------------------------------------------------------------------


def test_extract_reports_what_it_did_and_does_it_once(run: Run, told: Told, few: Path) -> None:
    code, out, err = run("extract", few, "--features", "mfcc", "--format", "json")
    first = json.loads(out)
    second = told("extract", few, "--features", "mfcc")

    assert code == 0
    assert (first["schema"], first["command"], first["skipped"]) == (1, "extract", {})
    assert sum(first["found"]["ravdess"]["labels"].values()) == 12
    assert first["found"]["ravdess"]["speakers"] == dict.fromkeys(["01", "02", "03", "04"], 3)
    assert (first["clips"], first["extracted"], first["cached"], first["failed"]) == (12, 12, 0, [])
    assert (second["extracted"], second["cached"]) == (0, 12)
    assert [part["feature_set"] for part in told("cache", "info")["sets"]] == ["mfcc"]
    assert "ravdess: 12 clips\n  " in err
    assert "  4 speakers: 01 3, 02 3, 03 3, 04 3\n" in err


def test_extract_takes_several_data(told: Told, write_clip: Callable[..., Path]) -> None:
    write_clip("one/happy/a.wav", f0=100)
    write_clip("two/b.wav", f0=200)
    Path("two/manifest.csv").write_text("path,label\nb.wav,sad\n")

    document = told("extract", "one", "two", "--features", "mfcc")

    assert (document["data"], list(document["found"])) == (["one", "two"], ["one", "two"])
    expected = {"clips": 1, "labels": {"sad": 1}, "speakers": {}, "unknown_speakers": 1}
    assert document["found"]["two"] == expected
    assert (document["clips"], document["extracted"]) == (2, 2)


def test_extract_export_writes_the_features(told: Told, write_clip: Callable[..., Path]) -> None:
    clips = [str(write_clip(f"data/{label}/1.wav", f0=f0)) for label, f0 in (("happy", 150), ("sad", 120))]

    document = told("extract", clips[0][: clips[0].index("happy")], "--export", "x.csv")

    assert document["feature_sets"] == ["whisper"]
    with Path("x.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert [row[:4] for row in rows[1:]] == [[clips[0], "happy", "", "data"], [clips[1], "sad", "", "data"]]
    assert {len(row) for row in rows} == {4 + 3072}


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


def test_extract_names_broken_clips_even_with_quiet_and_exits_with_3_or_without_another_with_6(
    run: Run, write_clip: Callable[..., Path]
) -> None:
    good = write_clip("data/happy/good.wav")
    Path("data/happy/broken.wav").write_text("nonsense")
    Path("data/happy/notes.txt").write_text("not audio")

    code, out, err = run("extract", "--features", "mfcc", "--format", "json")
    _, _, quiet = run("extract", "--features", "mfcc", "--quiet")
    good.unlink()
    of_none, nothing, _ = run("extract", "--features", "mfcc", "--format", "json")

    document = json.loads(out)
    assert code == 3
    assert document["extracted"] == 1
    assert document["failed"][0]["path"] == "data/happy/broken.wav"
    assert "warning: data/happy/broken.wav: not audio that can be read" in err
    assert "left out: 1 not audio, by the suffix" in err
    assert quiet.startswith("warning: data/happy/broken.wav: ")
    assert len(quiet.splitlines()) == 1
    assert (of_none, json.loads(nothing)["extracted"]) == (6, 0)


# --- train ---------------------------------------------------------------------------------------------


def test_train_tells_what_it_measured_and_wrote(trained: Path, training: dict[str, Any]) -> None:
    assert (training["schema"], training["command"], training["version"]) == (1, "train", "v1")
    assert (training["epochs"], training["seed"], training["split"]) == (6, 0, "both")
    seen, new = training["test"]["seen_speakers"], training["test"]["new_speakers"]
    assert training["train"]["n"] + seen["n"] + new["n"] == 240
    assert len(new["speakers"]) == 1
    assert seen["accuracy"] > 0.4
    assert set(new["per_class"]) == set(EMOTIONS)
    assert 0 <= new["uar"] <= 1
    history = training["history"]
    assert set(history) == {f"{p}_{m}" for p in ("train", "seen", "new") for m in ("accuracy", "loss")}
    assert all(len(values) == 6 for values in history.values())
    assert history["train_loss"][-1] < history["train_loss"][0]
    assert training["files"] == ["models/v1.keras", "models/v1.tflite", "models/v1.png"]
    assert sorted(training["files"]) == sorted(f"models/{path.name}" for path in trained.glob("models/*"))
    assert (trained / "models" / "v1.png").read_bytes().startswith(b"\x89PNG")
    err = (trained / "train.err").read_text()
    assert err.count("\n") == 3
    assert err.startswith("ravdess: 240 clips\n  8 labels: neutral 16, calm 32, ")


@pytest.mark.slow
def test_train_gives_the_same_accuracy_for_the_same_seed(
    workdir: Path, corpus_folder: Path, training: dict[str, Any], tmp_path: Path, told: Told, no_litert: None
) -> None:
    # What the fixture's training and others have left in this process must not matter.
    command = ("train", corpus_folder, "--version", "v1", "--epochs", 6, "-o", tmp_path / "v1.keras")

    assert told(*command)["test"] == training["test"]


def test_train_without_speakers_falls_back_from_the_default_split_and_fails_with_an_explicit_one(
    run: Run, tables: list[str], no_litert: None, write_clip: Callable[..., Path], fitted: list[Fitted]
) -> None:
    for label in ("happy", "sad"):
        for i in range(10):
            write_clip(f"data/{label}/{i}.wav", seconds=0.3 + i / 100, f0=200 if label == "happy" else 90)

    code, out, err = run("train", "--version", "v1", "--format", "json")
    asked, _, refusal = run("train", "--version", "v1", "--split", "both")

    assert code == 0
    assert (json.loads(out)["split"], json.loads(out)["test"]["new_speakers"]) == ("random", None)
    assert "using --split random" in err
    (table,) = tables
    assert "held out, unseen speakers" not in table
    assert "repetitions of sentences" in table
    assert asked == 2
    assert "needs a corpus of at least two speakers" in refusal


def test_train_goes_on_where_a_kill_or_a_full_disk_ended_it_or_gives_that_up_and_says_so(
    workdir: Path,
    corpus_folder: Path,
    tmp_path: Path,
    run: Run,
    no_litert: None,
    eager: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from speechemo_cli.evaluation import holdout
    from speechemo_cli.models import model_file
    from speechemo_cli.models.training import Checkpoint

    done: list[int] = []

    class Counted(Checkpoint):
        killed = True

        def keep(self, model: Any, epochs: int, history: Any) -> None:
            super().keep(model, epochs, history)
            done.append(epochs)
            if self.killed:
                raise KeyboardInterrupt

    def killed_at_once(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def full(*_: object) -> None:
        raise AccessError("cannot write v1.keras: no space left on device")

    history = tmp_path / "h.csv"
    command = ("train", corpus_folder, "--version", "v1", "--epochs", 2, "-f", "json", "--history", history)
    monkeypatch.setattr(holdout, "Checkpoint", partial(Counted, every_s=0))
    code, _, err = run(*command)
    assert (code, done) == (130, [1])
    assert "unfinished" not in err

    with monkeypatch.context() as patch:
        patch.setattr(holdout, "train_with_holdout", killed_at_once)
        code, _, err = run(*command)
    assert code == 130
    assert "an unfinished training of this kind is given up (--resume goes on with it)" in err

    Counted.killed = False
    with monkeypatch.context() as patch:
        patch.setattr(model_file, "save", full)
        code, out, err = run(*command, "-o", tmp_path / "v1.keras", "--resume")
    lost = json.loads(out)
    assert (code, done, lost["model"]) == (5, [1, 2], None)
    assert lost["test"]["new_speakers"]["n"] > 0
    assert "going on with the unfinished training" in err
    assert "with --resume it is saved without being done again" in err
    assert err.splitlines()[-1] == "error: cannot write v1.keras: no space left on device"

    code, out, _ = run(*command, "-o", tmp_path / "elsewhere" / "v1.keras", "--resume")
    saved = json.loads(out)
    assert (code, done) == (0, [1, 2])
    assert saved["test"] == lost["test"]
    assert (tmp_path / "elsewhere" / "v1.keras").exists()
    with history.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [float(row["seen_loss"]) for row in rows] == saved["history"]["seen_loss"]
    assert not list((tmp_path / "runs").glob("*.train.npz"))


def test_train_calibrated_is_reported_from_end_to_end(
    workdir: Path,
    corpus_folder: Path,
    few: Path,
    tmp_path: Path,
    run: Run,
    told: Told,
    no_litert: None,
    fitted: list[Fitted],
) -> None:
    model = tmp_path / "v1.keras"

    code, table, err = run(
        *("train", corpus_folder, "--version", "v1", "--calibrate", "--split", "none", "-o", model),
        *("-f", "table"),
    )
    info = told("model", "info", model)
    _, card, _ = run("model", "card", model, "--plot", tmp_path / "reliability.png")
    _, _, worth = run("predict", few, "-m", model, "--min-confidence", 0.9)

    measured = info["results"]["cross_validated"]
    share = f"{100 * measured['accuracy']['pooled']:.1f} %"
    assert code == 0
    # The network of the fixture knows nothing, and all its answers are as sure.
    assert err.splitlines()[-1].startswith("warning: the temperature stopped at its bound")
    assert info["temperature"] > 1
    assert measured["calibrated"] is measured["speaker_independent"] is True
    assert measured["n_answers"] == 240
    assert "each speaker left out in turn" in table
    assert f"corrected by a temperature of {info['temperature']:.2f}" in table
    assert f"ECE {100 * measured['ece']['pooled']:.1f} %." in table
    assert share in card
    assert "Livingstone" in card
    assert (tmp_path / "reliability.png").read_bytes().startswith(b"\x89PNG")
    assert f"right {share} of the time on unseen speakers of ravdess" in worth
    assert "never corrected" not in worth


# --- evaluate ------------------------------------------------------------------------------------------


def test_evaluate_scores_clips_by_what_the_model_was_trained_on(
    workdir: Path,
    corpus_folder: Path,
    training: dict[str, Any],
    tmp_path: Path,
    told: Told,
    tables: list[str],
) -> None:
    document = told("evaluate", corpus_folder, "--model", "v1", "--plot", tmp_path / "C.PNG")
    (table,) = tables

    assert document["n_clips"] == 240
    assert document["n_trained_on"] == training["train"]["n"]
    assert document["trained_on"]["accuracy"] == pytest.approx(training["train"]["accuracy"])
    new_speakers = training["test"]["new_speakers"]["accuracy"]
    assert document["unseen_speakers"]["accuracy"] == pytest.approx(new_speakers)
    # The figures that come first are those of unseen speakers, and say whose they are.
    assert document["scored"] == "unseen_speakers"
    assert document["n"] == document["unseen_speakers"]["n"] == 60
    assert document["corpora"] == {"ravdess": {"speakers": 1, "clips": 60}}
    assert (document["ci95"], document["no_interval"]) == (None, "1 speaker: no interval")
    parts = ("unseen_speakers", "seen_speakers", "trained_on")
    assert sum(np.sum(document[part]["confusion"]) for part in parts) == 240
    assert document["unknown_speakers"] is None
    assert "conditions" not in document
    assert (tmp_path / "C.PNG").read_bytes().startswith(b"\x89PNG")
    assert table.startswith("Unseen speakers (ravdess: 1 speaker, 60 clips): right ")
    assert "1 speaker: no interval" in table.splitlines()[0]
    # One confusion matrix for each group, the title says whose.
    assert table.count("truth \\ answer") == 3
    for title in ("unseen speakers (ravd", "other clips of seen speakers (", "clips it was trained on ("):
        assert title in table


def test_evaluate_scores_a_model_under_other_conditions(
    workdir: Path, few: Path, told: Told, tables: list[str]
) -> None:
    document = told("evaluate", few, "--model", "v1", "--conditions")
    (table,) = tables

    assert list(document["conditions"]) == list(CONDITIONS)
    assert any(one["cost"] for one in document["conditions"].values())
    shown = table[table.index("the same clips") :].splitlines()
    for name, scores in document["conditions"].items():
        assert scores["title"] == CONDITIONS[name].title
        # Of the clips of the headline alone, not of those it was trained on.
        assert scores["n"] == document["n"] < document["n_clips"]
        assert scores["cost"] == pytest.approx(document["accuracy"] - scores["accuracy"])
        (line,) = [line for line in shown if CONDITIONS[name].title in line]
        assert percent(scores["accuracy"]) in line
        assert f"{100 * scores['cost']:+.1f}" in line.split()


def test_evaluate_refuses_labels_the_model_does_not_know(
    workdir: Path, run: Run, tmp_path: Path, write_clip: Callable[..., Path]
) -> None:
    write_clip("own/bored/a.wav")

    code, _, err = run("evaluate", tmp_path / "own", "--model", "v1")

    assert code == 2
    assert "clips are labelled boredom, expected " in err


def test_evaluate_by_protocol_scores_other_conditions_too(
    workdir: Path, few: Path, told: Told, fitted: list[Fitted]
) -> None:
    document = told("evaluate", few, "--version", "v1", "--conditions")

    assert list(document["conditions"]) == list(CONDITIONS)
    for scores in document["conditions"].values():
        assert scores["n"] == document["n_answers"] == 12
        assert scores["cost"] == pytest.approx(document["accuracy"]["pooled"] - scores["accuracy"])


def test_evaluate_by_protocol_reports_every_fold(
    workdir: Path, corpus_folder: Path, told: Told, fitted: list[Fitted]
) -> None:
    document = told("evaluate", corpus_folder, "--version", "v1", "--protocol", "speaker-5fold")

    assert document["speaker_independent"] is True
    assert document["calibrated"] is False  # v1 is not calibrated by itself
    assert [fold["temperature"] for fold in document["folds"]] == [None] * 3
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
    workdir: Path, corpus_folder: Path, run: Run, told: Told, tables: list[str], fitted: list[Fitted]
) -> None:
    document = told("evaluate", corpus_folder, "--version", "v1", "--calibrate")
    (table,) = tables
    _, plain, _ = run("evaluate", corpus_folder, "--version", "v1", "--no-calibrate", "-f", "table")

    assert document["calibrated"] is True
    said = ", ".join(f"{fold['temperature']:.2f}" for fold in document["folds"])
    # A terminal's width does not matter: what is said is one line.
    assert f"temperatures from the training speakers: {said}." in table
    assert "temperatures" not in plain


@pytest.mark.slow
def test_evaluate_and_compare_two_versions_on_the_same_folds(
    corpus_folder: Path, run: Run, told: Told, tables: list[str]
) -> None:
    for name, epochs in (("short", 1), ("long", 15)):
        run(
            *("evaluate", corpus_folder, "--version", "v1", "--protocol", "random-5fold"),
            *("--epochs", epochs, "--predictions", f"{name}.csv"),
        )

    document = told("compare", "short.csv", "long.csv")

    assert (document["command"], document["n"]) == ("compare", 240)
    assert document["difference"] > 0.1
    assert document["better"] is None  # of four speakers nothing can be told
    assert "No verdict" in tables[-1]


def test_evaluate_repeats_a_protocol_with_several_seeds(
    workdir: Path, corpus_folder: Path, told: Told, tables: list[str], fitted: list[Fitted]
) -> None:
    arguments = ("evaluate", corpus_folder, "--version", "v1", "--protocol", "random-holdout")
    document = told(*arguments, "--seeds", 2)
    (table,) = tables
    alone = told(*arguments, "--seed", 5)

    # Each of the five draws of a seed has a seed of its own.
    assert document["by_seed"]["seeds"] == [0, 5]
    values = document["by_seed"]["accuracy"]["values"]
    assert values == [document["accuracy"]["pooled"], alone["accuracy"]["pooled"]]
    assert document["by_seed"]["accuracy"]["mean"] == pytest.approx(sum(values) / 2)
    assert f"{percent(min(values))} to {percent(max(values))}" in table
    assert "Below: seed 0." in table


def test_evaluate_tells_near_copies_between_train_and_test(
    workdir: Path, corpus_folder: Path, run: Run, tmp_path: Path, fitted: list[Fitted]
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


def test_evaluate_trains_on_some_corpora_and_tests_on_another(
    workdir: Path,
    corpus_folder: Path,
    tmp_path: Path,
    write_clip: Callable[..., Path],
    run: Run,
    tables: list[str],
    fitted: list[Fitted],
) -> None:
    for label, f0 in (("happy", 200), ("angry", 300), ("bored", 90)):
        for i in range(3):
            write_clip(f"other/{label}/{i}.wav", seconds=0.5 + i / 10, f0=f0 + i)

    code, out, err = run(
        "evaluate", "--train", corpus_folder, "--test", tmp_path / "other", "--version", "v1"
    )
    (table,) = tables

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


# --- predict -------------------------------------------------------------------------------------------


def test_predict_tells_what_a_model_is_worth_and_calls_its_answers_uncertain(
    workdir: Path, few: Path, run: Run
) -> None:
    command = ("predict", "--model", "v1", next(few.iterdir()), "--format", "jsonl")
    _, out, err = run(*command)
    plain = json.loads(out)
    code, out, warned = run(*command, "--min-confidence", 1)
    uncertain = json.loads(out)

    assert code == 0
    assert plain["model"] == "models/v1.keras"
    assert plain["probabilities"][plain["label"]] == plain["confidence"]
    assert re.match(r"model: models/v1\.keras \(v1; .*on unseen speakers", err)
    assert "never corrected" not in err
    assert uncertain == {**plain, "label": "uncertain", "key": uncertain["key"]}
    assert uncertain["key"] != plain["key"]
    assert "warning: this model's confidences were never corrected on unseen speakers" in warned


# --- model ---------------------------------------------------------------------------------------------


def test_model_info_tells_what_is_in_a_file(
    workdir: Path, training: dict[str, Any], told: Told, tables: list[str]
) -> None:
    document = told("model", "info", "v1")
    (table,) = tables

    assert (document["schema"], document["command"]) == (1, "model info")
    assert set(document) == {
        "schema", "command", "model", "version", "labels", "features", "parameters", "size_bytes", "sha256",
        "epochs", "seed", "temperature", "data", "results", "history", "versions", "litert", "unlike"
    }  # fmt: skip
    assert document["labels"] == list(EMOTIONS)
    assert document["parameters"] > 10_000
    assert document["litert"]["usable"]
    assert document["data"]["ravdess"] is True
    assert document["data"]["train"]["n"] == training["train"]["n"]
    assert sum(counts["spoken"] for counts in document["data"]["clips"].values()) == training["train"]["n"]
    assert document["results"]["test"] == training["test"]
    assert document["history"] == training["history"]
    rows = dict(re.split("  +", line, maxsplit=1) for line in table.splitlines())
    assert rows["model"] == "models/v1.keras"
    assert rows["labels"] == ", ".join(EMOTIONS)
    assert rows["temperature"] == "none"
    assert "right on unseen speakers" in rows


def test_model_card_goes_to_stdout_or_into_a_file(workdir: Path, tmp_path: Path, run: Run) -> None:
    code, out, _ = run("model", "card", "v1")
    _, nothing, err = run("model", "card", "v1", "--output", tmp_path / "cards" / "v1.md")
    refused, _, refusal = run("model", "card", "v1", "--plot", tmp_path / "x.png")

    assert code == 0
    assert out.startswith("# Model card: v1.keras")
    assert (tmp_path / "cards" / "v1.md").read_text(encoding="utf-8") == out
    assert nothing == ""
    assert "model card: " in err
    assert refused == 2
    assert "was never cross-validated, so there is nothing to draw. Train it with --calibrate" in refusal
    assert not (tmp_path / "x.png").exists()


# --- cache and synth -----------------------------------------------------------------------------------


def test_cache_looks_after_the_store(run: Run, told: Told, write_clip: Callable[..., Path]) -> None:
    for i in range(3):
        write_clip(f"data/happy/{i}.wav", f0=100 + 10 * i)
        run("extract", "--features", "mfcc")  # one shard each time

    (before,) = told("cache", "info")["sets"]
    code, merged, _ = run("cache", "compact")
    (after,) = told("cache", "verify")["sets"]
    _, cleared, _ = run("cache", "clear")

    assert (before["clips"], before["shards"]) == (3, 3)
    assert (code, merged) == (0, "3 shards merged into 1\n")
    assert (after["clips"], after["shards"]) == (3, 1)
    assert cleared == "1 shards removed\n"


@pytest.fixture
def shard(run: Run, write_clip: Callable[..., Path]) -> Path:
    """The only file of a store."""
    write_clip("data/happy/a.wav")
    run("extract", "--features", "mfcc")
    (path,) = Path("features").glob("*/*.npz")
    return path


def test_cache_verify_finds_a_flipped_byte(run: Run, shard: Path) -> None:
    content = bytearray(shard.read_bytes())
    content[content.index(b"values.npy") + 200] ^= 1
    shard.write_bytes(bytes(content))

    code, out, err = run("cache", "verify", "--format", "json")

    assert code == 4
    assert json.loads(out)["damaged"] == [str(shard)]
    assert "damaged" in err


def test_extract_names_a_damaged_shard(run: Run, shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:100])

    code, out, err = run("extract", "--features", "mfcc", "--format", "json")

    assert (code, json.loads(out)["damaged"]) == (0, [f"{shard}.damaged"])
    assert f"warning: damaged, set aside and computed anew: {shard}.damaged\n" in err


def test_synth_makes_a_corpus(run: Run) -> None:
    code, out, err = run("synth", "demo", "--actors", 1)

    assert (code, out) == (0, "")
    assert len(list(Path("demo").rglob("*.wav"))) == 60
    assert "60 synthetic clips of 1 voice in demo" in err


# --- pipes, terminals, signals -------------------------------------------------------------------------


def test_predict_writes_bytes_that_are_no_utf8_as_they_came(
    workdir: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    shutil.copy(corpus_folder / "Actor_01" / "03-01-03-01-01-01-01.wav", name)

    done = subprocess.run(
        [*COMMAND, "predict", "--model", "v1", name, "--format", "csv"], capture_output=True, check=True
    )

    assert done.stdout.splitlines()[1].startswith(name + b",ok,")


def test_debug_shows_the_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
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
