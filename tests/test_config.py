"""The config object: precedence, refusals, fingerprints."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from speechemo_cli import config
from speechemo_cli.choices import Split
from speechemo_cli.config import Config
from speechemo_cli.errors import ConfigError, ExitCode

# By key: a value that is allowed and is not the default, and values out of its range.
KEYS: dict[str, tuple[Any, list[Any]]] = {
    "data": (("clips", "more"), []),
    "store": ("cäche 猫", []),
    "runs": ("folds", []),
    "models": ("nets", []),
    "jobs": (3, [-1, 1025]),
    "seed": (7, [-1, 2**31]),
    "song": (True, []),
    "label_from": ("/([a-z]+)_", []),
    "speaker_from": ("^(.+)/", []),
    "audio.min_duration_s": (0.5, [0, -1]),
    "audio.max_duration_s": (60.0, [0.1, 0.2]),
    "audio.strict": (True, []),
    "audio.track": (2, [-1, 100]),
    "audio.raw_sr": (8000, [-1, 7999, 384001]),
    "mfcc.sr": (16000, [3999, 192001]),
    "mfcc.n_mfcc": (13, [0, 129]),
    "mfcc.n_fft": (1024, [15, 65537]),
    "mfcc.hop_length": (256, [0, 2049]),
    "mfcc.n_mels": (64, [0, 513]),
    "augment.copies": (3, [-1, 101]),
    "train.epochs": (3, [0]),
    "train.batch_size": (16, [0]),
    "train.learning_rate": (0.01, [0, 1.5]),
    "train.dropout": (0.25, [-0.1, 1]),
    "train.calibrate": (True, []),
    "train.split": ("random", []),
    "train.test_share": (0.3, [0, 1]),
}
OTHER = {key: value for key, (value, _) in KEYS.items()}
NAN, INF = float("nan"), float("inf")


def load(values: dict[str, Any] | None = None, **more: Any) -> Config:
    """Load a config of options alone, without the environment."""
    return config.load(values, environ={}, **more)[0]


def value_of(cfg: Config, key: str) -> Any:
    value: Any = cfg
    for part in key.split("."):
        value = getattr(value, part)
    return value


def variable(key: str) -> str:
    return "SPEECHEMO_" + key.replace(".", "_").upper()


def in_environment(value: Any) -> str:
    """Spell a value as a variable does, which holds one path where a file may hold several."""
    return value[0] if isinstance(value, tuple) else str(value)


def toml(values: dict[str, Any]) -> str:
    # JSON spells texts, numbers and booleans as TOML does; TOML has no null.
    return "\n".join(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())


# --- where values come from


def test_keys_have_another_value_each_in_this_file() -> None:
    assert set(OTHER) == set(config.keys())
    assert all(OTHER[key] != default for key, default in config.keys().items())


def test_load_without_any_source_gives_the_defaults() -> None:
    steering = {"SPEECHEMO_DEBUG": "1", "SPEECHEMO_CONFIG": "", "SPEECHEMO_TEST_X": "y"}
    for environ in ({}, {**steering, "PATH": "/bin", "SEED": "4"}):
        cfg, origins = config.load(environ=environ)
        assert cfg == Config()
        assert origins == dict.fromkeys(config.keys(), "default")


def test_config_is_frozen() -> None:
    for part, name in ((Config(), "seed"), (Config().mfcc, "sr")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, name, 3)


@pytest.mark.parametrize("key", OTHER)
def test_load_prefers_each_source_to_those_below_it(key: str, tmp_path: Path) -> None:
    (tmp_path / "speechemo.toml").write_text(toml({key: OTHER[key]}), encoding="utf-8")
    cfg, origins = config.load(environ={})
    assert value_of(cfg, key) == OTHER[key]
    assert {**dict.fromkeys(origins, "default"), key: "speechemo.toml"} == origins

    default = config.keys()[key]
    environ = {variable(key): "" if default is None else in_environment(default)}
    cfg, origins = config.load(environ=environ)
    assert value_of(cfg, key) == default
    assert origins[key] == f"environment {variable(key)}"

    cfg, origins = config.load({key: OTHER[key]}, environ=environ)
    assert value_of(cfg, key) == OTHER[key]
    assert origins[key] == "option"
    again = Config.from_dict(json.loads(json.dumps(cfg.to_dict())))
    assert again == cfg
    assert again.fingerprint("augment", 1) == cfg.fingerprint("augment", 1)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"speechemo.toml": "seed = 5\n[mfcc]\nn_mfcc = 13\n"}, {"seed": 5, "mfcc.n_mfcc": 13}),
        ({"speechemo.toml": "seed = 5\nmfcc.n_mfcc = 13\n"}, {"seed": 5, "mfcc.n_mfcc": 13}),
        ({"speechemo.toml": "mfcc = { n_mfcc = 13 }\n"}, {"mfcc.n_mfcc": 13}),
        (
            {"pyproject.toml": "[tool.speechemo]\nseed = 5\n[tool.speechemo.mfcc]\nn_mfcc = 13\n"},
            {"seed": 5, "mfcc.n_mfcc": 13},
        ),
        ({"pyproject.toml": "[tool.speechemo]\nseed = 5\n[tool.ruff]\nline-length = 3\n"}, {"seed": 5}),
        ({"pyproject.toml": "[tool]\nspeechemo = {seed = 5}"}, {"seed": 5}),
        ({"pyproject.toml": "[ tool.speechemo ]\nseed = 5"}, {"seed": 5}),
        ({"pyproject.toml": "tool.speechemo.seed = 5"}, {"seed": 5}),
        ({"speechemo.toml": "seed = 1\n", "pyproject.toml": "[tool.speechemo]\njobs = 2\n"}, {"seed": 1}),
        # A pyproject.toml of somebody else is left alone.
        ({"pyproject.toml": "[tool.ruff]\nline-length = 110\n"}, {}),
        ({"pyproject.toml": "this is [ not TOML"}, {}),
        ({"pyproject.toml": '[project]\nname = "speechemo"\n'}, {}),
        ({"pyproject.toml": "[project]\nauthors = 'Jos\xe9'\n"}, {}),
    ],
)
def test_load_reads_the_file_in_the_working_folder(files: dict[str, str], expected: dict[str, int]) -> None:
    for name, content in files.items():
        Path(name).write_bytes(content.encode("latin-1"))

    cfg, origins = config.load(environ={})

    assert cfg == load(file=None) == Config.from_dict(expected)
    assert {key for key, origin in origins.items() if origin == next(iter(files))} == set(expected)


def test_load_reads_a_named_file_instead_of_the_one_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "speechemo.toml").write_text("seed = 1\njobs = 1\n")
    for i in (2, 3):
        (tmp_path / f"{i}.toml").write_text(f"seed = {i}\n")
    environ = {"SPEECHEMO_CONFIG": str(tmp_path / "3.toml")}

    assert load(file=tmp_path / "2.toml") == Config(seed=2)
    assert config.load(environ=environ)[0] == Config(seed=3)
    assert config.load(file=tmp_path / "2.toml", environ=environ)[0] == Config(seed=2)
    for gone in ({"file": Path("gone.toml"), "environ": {}}, {"environ": {"SPEECHEMO_CONFIG": "gone.toml"}}):
        with pytest.raises(ConfigError, match=r"gone\.toml does not exist"):
            config.load(**gone)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_load_names_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    file = tmp_path / "speechemo.toml"
    file.write_text("seed = 1\n")
    file.chmod(0)
    with pytest.raises(ConfigError, match=r"speechemo\.toml: cannot be read"):
        load()


def test_load_passes_over_a_file_that_nobody_named_and_that_cannot_be_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in a working folder of somebody else. Root may enter every folder, so the system is played."""
    Path("speechemo.toml").write_text("seed = 5")
    stat = os.stat

    def closed(path: object, *more: object, **options: bool) -> os.stat_result:
        if str(path).endswith(".toml"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, *more, **options)

    monkeypatch.setattr(os, "stat", closed)

    assert load() == Config()


def test_load_reads_the_environment_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEECHEMO_SEED", "11")
    assert config.load()[0].seed == 11


# --- refusals


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"seed = 1\nseed = 2\n", "not valid TOML"),
        (b"data = '\xff'\n", "not valid TOML: 'utf-8' codec can't decode"),
        (b"\x00", "not valid TOML"),
        (b"seed = " + b"[" * 5000, "not valid TOML"),
        (b"seed = " + b"9" * 5000, "not valid TOML"),
        (b"[mfcc]\nn_mel = 3\n", r"unknown key mfcc\.n_mel\. Did you mean mfcc\.n_mels\?"),
        (b"x" * 300_000 + b" = 1", r"unknown key x{100}\. "),
        (b"seed = 0x" + b"f" * 5000, "seed is a number of thousands of digits, expected a whole number$"),
        (b"seed = " + b"9" * 4000, r"seed is 9{100}\.\.\., expected a whole number$"),
        (
            b"seed = [0x" + b"f" * 5000 + b"]",
            "seed is a number of thousands of digits, expected a whole number$",
        ),
        (b"seed = 9223372036854775808", "seed is 9223372036854775808, expected a whole number$"),
        (b"train = {learning_rate = " + b"9" * 400 + b"}", r"train\.learning_rate is 9{100}\.\.\., expected"),
        (
            b"data = [" + b"1, " * 5000 + b"]",
            r"data is \[1, .{95,100}\.\.\., expected a text or a list of texts",
        ),
        (b'store = "a\\u0000b"', "store is .*x00.*without NUL"),
        (b'data = ["a", "b\\u0000"]', "data is .*x00.*without NUL"),
    ],
    ids=range(15),
)
def test_load_refuses_a_file_in_one_short_line_that_names_it(content: bytes, message: str) -> None:
    Path("speechemo.toml").write_bytes(content)

    with pytest.raises(ConfigError, match=rf"^speechemo\.toml: {message}") as refused:
        load()

    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "[tool.speechemo]\nseed = 5\n[project]\nauthors = 'Jos\xe9'\n",
            "not valid TOML: 'utf-8' codec can't",
        ),
        ("[[tool.speechemo]]\nseed = 1", "speechemo is list, expected a table"),
        ("tool = 3 # [tool.speechemo", "tool is int, expected a table"),
        ("[tool.speechemo.mfcc]\nn_mel = 3\n", r"unknown key mfcc\.n_mel\. Did you mean"),
    ],
)
def test_load_refuses_a_table_in_pyproject_toml(content: str, message: str) -> None:
    Path("pyproject.toml").write_bytes(content.encode("latin-1"))

    with pytest.raises(ConfigError, match=rf"^pyproject\.toml: {message}"):
        load()


@pytest.mark.parametrize(
    ("unknown", "hint"),
    [
        ({"sead": 1}, "Did you mean seed?"),
        ({"mfcc": {"n_mfc": 13}}, "Did you mean mfcc.n_mfcc?"),
        ({"train.batchsize": 13}, "Did you mean train.batch_size?"),
        ({"zzzzzz": 1}, "`speechemo config` lists the keys"),
        ({"q\x1b[31m\nz": 1}, "`speechemo config` lists the keys"),
        ({"nope": {}}, "`speechemo config` lists the keys"),
    ],
)
def test_unknown_key_names_itself_its_source_and_the_nearest_key(unknown: dict[str, Any], hint: str) -> None:
    with pytest.raises(ConfigError, match=r"^somewhere: unknown key ") as caught:
        Config.from_dict(unknown, "somewhere")
    assert caught.value.hint == hint
    assert caught.value.exit_code == ExitCode.USAGE
    assert str(caught.value).isprintable()


def test_unknown_variable_names_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"SPEECHEMO_MFCC_NMFCC.*Did you mean SPEECHEMO_MFCC_N_MFCC\?"):
        config.load(environ={"SPEECHEMO_MFCC_NMFCC": "13"})


WRONG_KIND = [
    ("a whole number", "seed", ["many", 2.5, "2.5", True, None, [1], NAN, INF, {}, {"x": 1}]),
    ("a whole number", "mfcc.n_mfcc", [""]),
    ("a whole number", "train.epochs", ["ten"]),
    ("a number", "audio.min_duration_s", ["short", False]),
    ("a number", "audio.max_duration_s", ["nan", INF]),
    ("a number", "train.learning_rate", ["1e999"]),
    ("true or false", "song", ["maybe", "", 2.0]),
    ("a text or a list of texts", "data", [3, None, True, ["a", 3]]),
    ("one of both, random, none", "train.split", ["speaker", "", 1]),
]


@pytest.mark.parametrize(
    ("expected", "key", "value"), [(noun, key, value) for noun, key, values in WRONG_KIND for value in values]
)
def test_value_of_the_wrong_kind_says_what_was_expected(expected: str, key: str, value: Any) -> None:
    message = f"m.keras: {key} is {value!r}, expected {expected}"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        Config.from_dict({key: value}, "m.keras")


@pytest.mark.parametrize(("key", "value"), [(key, v) for key, (_, wrong) in KEYS.items() for v in wrong])
def test_value_out_of_range_names_its_key_value_and_source(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"^option: {re.escape(key)} is {value}(\.0)?, expected "):
        load({key: value})


@pytest.mark.parametrize("data", ["clips", (), ("",)], ids=repr)
def test_data_is_one_path_or_more_and_never_the_letters_of_one(data: Any) -> None:
    with pytest.raises(ConfigError, match=r"data is .*, expected one path or more"):
        Config(data=data)


def test_load_names_the_layer_that_broke_a_default() -> None:
    with pytest.raises(ConfigError, match=r"^option: mfcc\.n_mfcc is 40, expected 1 to mfcc\.n_mels"):
        load({"mfcc.n_mels": "20"})


# --- values that are taken


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("seed", "12", 12),
        ("seed", 12.0, 12),
        ("train.test_share", "25e-2", 0.25),
        ("train.learning_rate", "1e-3", 0.001),
        ("train.epochs", "none", None),
        ("train.epochs", "", None),
        ("train.split", "none", Split.none),
        *(("song", word, True) for word in ("TRUE", "1", "Yes")),
        *(("song", word, False) for word in ("false", "0", "no")),
        ("data", "12", ("12",)),
        ("data", ["~/a", "b~", "~/c/"], ("/home/ann/a", "b~", "/home/ann/c/")),
        ("store", "~/x", "/home/ann/x"),
    ],
)
def test_value_gets_the_type_of_its_key(
    key: str, text: Any, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    got = value_of(load({key: text}), key)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    "values",
    [
        {"jobs": 1024, "seed": 2**31 - 1},
        {"mfcc.n_mfcc": 1, "mfcc.n_mels": 1},
        {"mfcc.n_mfcc": 200, "mfcc.n_mels": 256},
        {"mfcc.n_mels": 256, "mfcc.n_mfcc": 200},
        {"mfcc.hop_length": 16, "mfcc.n_fft": 16},
        {"augment.copies": 0},
        {"train.learning_rate": 1, "train.dropout": 0},
        {"audio.min_duration_s": 700, "audio.max_duration_s": 701},
        {"audio.min_duration_s": 0.0001},
    ],
)
def test_values_at_the_edges_of_the_ranges_are_allowed(values: dict[str, Any]) -> None:
    cfg = load(values)
    assert {key: value_of(cfg, key) for key in values} == values


def test_zero_jobs_mean_one_worker_a_core_that_may_be_used() -> None:
    assert Config(jobs=3).workers == 3
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    assert Config(jobs=0).workers == cores


# --- fingerprints


@pytest.mark.parametrize("feature_set", ["mfcc", "augment"])
def test_fingerprint_changes_exactly_when_its_feature_part_does(feature_set: str) -> None:
    for key, value in OTHER.items():
        same = load({key: value}).fingerprint(feature_set, 1) == Config().fingerprint(feature_set, 1)
        # The track, and the rate of files without a header, decide what is decoded.
        assert same == (not key.startswith((f"{feature_set}.", "audio.track", "audio.raw_sr"))), key


def test_fingerprint_changes_with_the_version_and_the_set_and_not_with_the_spelling() -> None:
    prints = {Config().fingerprint(name, version) for name in ("mfcc", "augment") for version in (1, 2, 3)}
    assert len(prints) == 6
    assert all(re.fullmatch(r"[0-9a-f]{12}", fingerprint) for fingerprint in prints)
    assert len({load({"mfcc.sr": sr}).fingerprint("mfcc", 1) for sr in (8000, 8000.0, "8000")}) == 1
