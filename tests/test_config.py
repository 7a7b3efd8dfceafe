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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speechemo_cli import config
from speechemo_cli.choices import Split
from speechemo_cli.config import Config
from speechemo_cli.errors import ConfigError, ExitCode

# For every key a value that is allowed and is not its default.
OTHER: dict[str, Any] = {
    "data": ("clips", "more"),
    "store": "cache",
    "runs": "folds",
    "models": "nets",
    "jobs": 3,
    "seed": 7,
    "song": True,
    "label_from": "/([a-z]+)_",
    "speaker_from": "^(.+)/",
    "audio.min_duration_s": 0.5,
    "audio.max_duration_s": 60.0,
    "audio.strict": True,
    "audio.track": 2,
    "audio.raw_sr": 8000,
    "mfcc.sr": 16000,
    "mfcc.n_mfcc": 13,
    "mfcc.n_fft": 1024,
    "mfcc.hop_length": 256,
    "mfcc.n_mels": 64,
    "augment.copies": 3,
    "train.epochs": 3,
    "train.batch_size": 16,
    "train.learning_rate": 0.01,
    "train.dropout": 0.25,
    "train.calibrate": True,
    "train.split": "random",
    "train.test_share": 0.3,
}


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


def toml(values: dict[str, Any], table: str = "") -> str:
    lines = [f"[{table}]"] if table else []
    # JSON spells texts, numbers and booleans as TOML does; TOML has no null.
    lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def test_every_key_has_another_value_in_this_file() -> None:
    assert set(OTHER) == set(config.keys())
    assert all(OTHER[key] != default for key, default in config.keys().items())


def test_without_any_source_every_value_is_the_default() -> None:
    cfg, origins = config.load(environ={})
    assert cfg == Config()
    assert set(origins) == set(config.keys())
    assert set(origins.values()) == {"default"}


def test_the_mfcc_defaults_are_those_of_librosa() -> None:
    import inspect

    import librosa

    spectrogram = inspect.signature(librosa.feature.melspectrogram).parameters
    cfg = Config().mfcc
    assert cfg.sr == inspect.signature(librosa.load).parameters["sr"].default
    assert cfg.n_fft == spectrogram["n_fft"].default
    assert cfg.hop_length == spectrogram["hop_length"].default
    assert cfg.n_mels == inspect.signature(librosa.filters.mel).parameters["n_mels"].default


@pytest.mark.parametrize("data", ["clips", (), ("",)], ids=repr)
def test_data_is_one_path_or_more_and_never_the_letters_of_one(data: Any) -> None:
    with pytest.raises(ConfigError, match=r"data is .*, expected one path or more"):
        Config(data=data)


def test_the_config_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().seed = 3  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().mfcc.sr = 8000  # type: ignore[misc]


@pytest.mark.parametrize("key", OTHER)
def test_each_source_beats_the_ones_below_it(key: str, tmp_path: Path) -> None:
    file = tmp_path / "speechemo.toml"
    file.write_text(toml({key: OTHER[key]}))
    cfg, origins = config.load(environ={})
    assert value_of(cfg, key) == OTHER[key]
    assert "speechemo.toml" in origins[key]

    default = config.keys()[key]
    environ = {variable(key): "" if default is None else in_environment(default)}
    cfg, origins = config.load(environ=environ)
    assert value_of(cfg, key) == default
    assert origins[key] == f"environment {variable(key)}"

    cfg, origins = config.load({key: OTHER[key]}, environ=environ)
    assert value_of(cfg, key) == OTHER[key]
    assert origins[key] == "option"
    assert cfg == Config.from_dict(config.load({key: OTHER[key]}, environ={})[0].to_dict())


_words = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=8)
# Ranges that stay allowed whatever the other keys hold.
_VALUES = {
    "data": _words.map(lambda word: (word,)),
    "models": _words,
    "jobs": st.integers(0, 1024),
    "seed": st.integers(0, 2**31 - 1),
    "song": st.booleans(),
    "audio.min_duration_s": st.floats(0.04, 1.0),
    "mfcc.n_mfcc": st.integers(1, 128),
    "augment.copies": st.integers(0, 100),
    "train.epochs": st.integers(1, 1000),
    "train.dropout": st.floats(0, 0.9),
    "train.split": st.sampled_from(["both", "random", "none"]),
}


def _layer() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=_VALUES)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(in_file=_layer(), in_environ=_layer(), in_options=_layer())
def test_precedence_holds_for_any_mixture_of_sources(
    tmp_path: Path, in_file: dict[str, Any], in_environ: dict[str, Any], in_options: dict[str, Any]
) -> None:
    file = tmp_path / "mix.toml"
    file.write_text(toml(in_file), encoding="utf-8")
    environ = {variable(key): in_environment(value) for key, value in in_environ.items()}
    cfg, origins = config.load(in_options, file=file, environ=environ)
    expected = {**config.keys(), **in_file, **in_environ, **in_options}
    assert {key: value_of(cfg, key) for key in expected} == expected
    for key, origin in origins.items():
        if key in in_options:
            assert origin == "option"
        elif key in in_environ:
            assert origin == f"environment {variable(key)}"
        elif key in in_file:
            assert origin.endswith("mix.toml")
        else:
            assert origin == "default"
    assert Config.from_dict(cfg.to_dict()) == cfg


@settings(max_examples=60, deadline=None)
@given(
    key=st.sampled_from(sorted(OTHER)),
    value=st.one_of(
        st.text(max_size=12),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.booleans(),
        st.none(),
        st.lists(st.integers()),
    ),
)
def test_any_single_value_is_taken_with_its_type_or_refused_by_name(key: str, value: Any) -> None:
    refusal = ""
    try:
        cfg, origins = config.load({key: value}, environ={})
    except ConfigError as error:
        refusal = error.message
    if refusal:
        assert "\n" not in refusal
        # Two values that do not fit each other are refused in the name of either.
        assert key.partition(".")[0] in refusal
    else:
        assert origins[key] == "option"
        default, got = config.keys()[key], value_of(cfg, key)
        assert got is None or isinstance(got, type(OTHER[key]))
        assert got is not None or default is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("speechemo.toml", "seed = 5\n[mfcc]\nn_mfcc = 13\n"),
        ("speechemo.toml", "seed = 5\nmfcc.n_mfcc = 13\n"),
        ("speechemo.toml", "seed = 5\nmfcc = { n_mfcc = 13 }\n"),
        ("pyproject.toml", "[tool.speechemo]\nseed = 5\n[tool.speechemo.mfcc]\nn_mfcc = 13\n"),
        ("pyproject.toml", "[tool.speechemo]\nseed = 5\nmfcc.n_mfcc = 13\n[tool.ruff]\nline-length = 3\n"),
    ],
)
def test_the_file_in_the_working_folder_is_read(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    cfg, origins = config.load(environ={})
    assert (cfg.seed, cfg.mfcc.n_mfcc) == (5, 13)
    assert origins["seed"] == origins["mfcc.n_mfcc"]
    assert name in origins["seed"]
    assert origins["mfcc.sr"] == "default"


def test_speechemo_toml_wins_over_pyproject_toml(tmp_path: Path) -> None:
    (tmp_path / "speechemo.toml").write_text("seed = 1\n")
    (tmp_path / "pyproject.toml").write_text("[tool.speechemo]\nseed = 2\njobs = 2\n")
    cfg, _ = config.load(environ={})
    assert (cfg.seed, cfg.jobs) == (1, 0)


@pytest.mark.parametrize(
    "content", ["[tool.ruff]\nline-length = 110\n", "this is [ not TOML", '[project]\nname = "speechemo"\n']
)
def test_a_pyproject_of_somebody_else_is_left_alone(content: str, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(content)
    assert config.load(environ={})[0] == Config()


def test_a_named_file_replaces_the_one_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "speechemo.toml").write_text("seed = 1\njobs = 1\n")
    named = tmp_path / "other.toml"
    named.write_text("seed = 2\n")
    for cfg, _ in (
        config.load(file=named, environ={}),
        config.load(environ={"SPEECHEMO_CONFIG": str(named)}),
    ):
        assert (cfg.seed, cfg.jobs) == (2, 0)


def test_the_option_for_the_file_beats_the_variable_for_it(tmp_path: Path) -> None:
    for i in (1, 2):
        (tmp_path / f"{i}.toml").write_text(f"seed = {i}\n")
    cfg, _ = config.load(file=tmp_path / "2.toml", environ={"SPEECHEMO_CONFIG": str(tmp_path / "1.toml")})
    assert cfg.seed == 2


def test_a_named_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml does not exist"):
        config.load(file=tmp_path / "gone.toml", environ={})
    with pytest.raises(ConfigError, match=r"gone\.toml does not exist"):
        config.load(environ={"SPEECHEMO_CONFIG": "gone.toml"})


@pytest.mark.parametrize(
    "content", [b"seed = ", b"seed = 1\nseed = 2\n", b"data = '\xff'\n", b"= 3", b"\x00"]
)
def test_a_file_that_is_not_toml_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "speechemo.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"speechemo\.toml: not valid TOML"):
        config.load(environ={})


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "speechemo.toml"
    file.write_text("seed = 1\n")
    file.chmod(0)
    with pytest.raises(ConfigError, match=r"speechemo\.toml: cannot be read"):
        config.load(environ={})


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEECHEMO_SEED", "11")
    assert config.load()[0].seed == 11


def test_variables_that_steer_the_program_or_belong_to_others_are_no_config_values() -> None:
    environ = {
        "SPEECHEMO_DEBUG": "1",
        "SPEECHEMO_CONFIG": "",
        "SPEECHEMO_TEST_X": "y",
        "PATH": "/bin",
        "SEED": "4",
    }
    cfg, origins = config.load(environ=environ)
    assert cfg == Config()
    assert set(origins.values()) == {"default"}


@pytest.mark.parametrize(
    ("unknown", "nearest"),
    [
        ({"sead": 1}, "seed"),
        ({"mfcc": {"n_mfc": 13}}, "mfcc.n_mfcc"),
        ({"mfcc": {"hop_lenght": 13}}, "mfcc.hop_length"),
        ({"augment": {"copy": 13}}, "augment.copies"),
        ({"train": {"epoch": 13}}, "train.epochs"),
        ({"train.batchsize": 13}, "train.batch_size"),
    ],
)
def test_an_unknown_key_names_itself_its_source_and_the_nearest_key(
    unknown: dict[str, Any], nearest: str
) -> None:
    with pytest.raises(ConfigError, match=r"^somewhere: unknown key ") as caught:
        Config.from_dict(unknown, "somewhere")
    assert caught.value.hint == f"Did you mean {nearest}?"
    assert caught.value.exit_code == ExitCode.USAGE


def test_an_unknown_key_that_resembles_none_points_to_the_list() -> None:
    with pytest.raises(ConfigError, match=r"option: unknown key zzzzzz.*speechemo config"):
        config.load({"zzzzzz": 1}, environ={})


def test_an_unknown_key_in_a_file_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.speechemo.mfcc]\nn_mel = 3\n")
    with pytest.raises(
        ConfigError, match=r"pyproject\.toml: unknown key mfcc\.n_mel.*Did you mean mfcc\.n_mels\?"
    ):
        config.load(environ={})


def test_an_unknown_variable_names_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"SPEECHEMO_MFCC_NMFCC.*Did you mean SPEECHEMO_MFCC_N_MFCC\?"):
        config.load(environ={"SPEECHEMO_MFCC_NMFCC": "13"})


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("seed", "many", "a whole number"),
        ("seed", 2.5, "a whole number"),
        ("seed", "2.5", "a whole number"),
        ("seed", True, "a whole number"),
        ("seed", None, "a whole number"),
        ("seed", [1], "a whole number"),
        ("seed", float("nan"), "a whole number"),
        ("seed", float("inf"), "a whole number"),
        ("mfcc.n_mfcc", "", "a whole number"),
        ("train.epochs", "ten", "a whole number"),
        ("audio.min_duration_s", "short", "a number"),
        ("audio.min_duration_s", False, "a number"),
        ("audio.max_duration_s", "nan", "a number"),
        ("audio.max_duration_s", float("inf"), "a number"),
        ("train.learning_rate", "1e999", "a number"),
        ("song", "maybe", "true or false"),
        ("song", "", "true or false"),
        ("song", 2.0, "true or false"),
        ("data", 3, "a text or a list of texts"),
        ("data", None, "a text or a list of texts"),
        ("data", True, "a text or a list of texts"),
        ("data", ["a", 3], "a text or a list of texts"),
        ("train.split", "speaker", "one of both, random, none"),
        ("train.split", "", "one of both, random, none"),
        ("train.split", 1, "one of both, random, none"),
    ],
)
def test_a_value_of_the_wrong_kind_says_what_was_expected(key: str, value: Any, expected: str) -> None:
    message = f"option: {key} is {value!r}, expected {expected}"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        config.load({key: value}, environ={})


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
        ("song", "TRUE", True),
        ("song", "1", True),
        ("song", "Yes", True),
        ("song", "false", False),
        ("song", "0", False),
        ("song", "no", False),
        ("data", "12", ("12",)),
        ("data", ["a", "b"], ("a", "b")),
    ],
)
def test_a_value_gets_the_type_of_its_key(key: str, text: Any, value: Any) -> None:
    got = value_of(config.load({key: text}, environ={})[0], key)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("jobs", -1),
        ("jobs", 1025),
        ("seed", -1),
        ("seed", 2**31),
        ("audio.min_duration_s", 0),
        ("audio.min_duration_s", -1),
        ("audio.max_duration_s", 0.1),
        ("audio.max_duration_s", 0.2),
        ("mfcc.sr", 3999),
        ("mfcc.sr", 192001),
        ("mfcc.n_mels", 0),
        ("mfcc.n_mels", 513),
        ("mfcc.n_mfcc", 0),
        ("mfcc.n_mfcc", 129),
        ("mfcc.n_fft", 15),
        ("mfcc.n_fft", 65537),
        ("mfcc.hop_length", 0),
        ("mfcc.hop_length", 2049),
        ("augment.copies", -1),
        ("augment.copies", 101),
        ("train.epochs", 0),
        ("train.batch_size", 0),
        ("train.learning_rate", 0),
        ("train.learning_rate", 1.5),
        ("train.dropout", -0.1),
        ("train.dropout", 1),
        ("train.test_share", 0),
        ("train.test_share", 1),
    ],
)
def test_a_value_out_of_range_names_its_key_value_and_source(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"^option: {re.escape(key)} is {value}(\.0)?, expected "):
        config.load({key: value}, environ={})


@pytest.mark.parametrize(
    "values",
    [
        {"jobs": 1024, "seed": 2**31 - 1},
        {"mfcc.n_mfcc": 1, "mfcc.n_mels": 1},
        {"mfcc.hop_length": 16, "mfcc.n_fft": 16},
        {"augment.copies": 0},
        {"train.learning_rate": 1, "train.dropout": 0},
        {"audio.min_duration_s": 700, "audio.max_duration_s": 701},
        {"audio.min_duration_s": 0.0001},
    ],
)
def test_the_edges_of_the_ranges_are_allowed(values: dict[str, Any]) -> None:
    cfg, _ = config.load(values, environ={})
    assert {key: value_of(cfg, key) for key in values} == values


def test_values_that_depend_on_each_other_may_come_in_any_order() -> None:
    values = {"mfcc.n_mfcc": 200, "mfcc.n_mels": 256}
    for order in (values, dict(reversed(values.items()))):
        assert config.load(order, environ={})[0].mfcc.n_mfcc == 200


@pytest.mark.parametrize("key", OTHER)
@pytest.mark.parametrize("feature_set", ["mfcc", "augment"])
def test_a_fingerprint_changes_exactly_when_its_feature_part_does(key: str, feature_set: str) -> None:
    changed, _ = config.load({key: OTHER[key]}, environ={})
    same = changed.fingerprint(feature_set, 1) == Config().fingerprint(feature_set, 1)
    # The track, and the rate of files without a header, decide what is decoded.
    assert same == (not key.startswith((f"{feature_set}.", "audio.track", "audio.raw_sr")))


def test_a_fingerprint_changes_with_the_version_and_the_set() -> None:
    prints = {Config().fingerprint(name, version) for name in ("mfcc", "augment") for version in (1, 2, 3)}
    assert len(prints) == 6
    assert all(re.fullmatch(r"[0-9a-f]{12}", fingerprint) for fingerprint in prints)


def test_a_fingerprint_does_not_depend_on_how_a_number_is_spelt() -> None:
    spelt = [config.load({"mfcc.sr": sr}, environ={})[0] for sr in (8000, 8000.0, "8000")]
    assert len({cfg.fingerprint("mfcc", 1) for cfg in spelt}) == 1


@pytest.mark.parametrize("key", OTHER)
def test_to_dict_and_from_dict_are_a_round_trip_through_json(key: str) -> None:
    cfg, _ = config.load({key: OTHER[key]}, environ={})
    again = Config.from_dict(json.loads(json.dumps(cfg.to_dict())))
    assert again == cfg
    assert again.fingerprint("augment", 1) == cfg.fingerprint("augment", 1)


def test_from_dict_names_its_origin() -> None:
    with pytest.raises(ConfigError, match=r"^m\.keras: seed is 'x'"):
        Config.from_dict({"seed": "x"}, "m.keras")


def test_zero_jobs_mean_one_worker_a_core_that_may_be_used() -> None:
    assert Config(jobs=3).workers == 3
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    assert Config(jobs=0).workers == cores


@pytest.mark.parametrize("values", [{"nope": {}}, {"seed": {}}, {"seed": {"x": 1}}, {"mfcc": 3}])
def test_a_section_where_none_belongs_is_refused(values: dict) -> None:
    with pytest.raises(ConfigError, match=r"nope|seed|mfcc"):
        Config.from_dict(values)


@pytest.mark.parametrize(
    "content", [f"seed = {'9' * 5000}", "seed = " + "[" * 5000, f"train = {{learning_rate = {'9' * 400}}}"]
)
def test_absurd_numbers_and_depths_are_config_errors(content: str) -> None:
    Path("speechemo.toml").write_text(content)

    with pytest.raises(ConfigError, match=r"speechemo\.toml"):
        config.load(environ={})


@pytest.mark.parametrize(
    "content", ["[tool]\nspeechemo = {seed = 5}", "[ tool.speechemo ]\nseed = 5", "tool.speechemo.seed = 5"]
)
def test_every_spelling_of_the_table_counts(content: str) -> None:
    Path("pyproject.toml").write_text(content)

    assert config.load(environ={})[0].seed == 5


@pytest.mark.parametrize("content", ["[[tool.speechemo]]\nseed = 1", "tool = 3 # [tool.speechemo"])
def test_a_table_that_is_none_is_refused(content: str) -> None:
    Path("pyproject.toml").write_text(content)

    with pytest.raises(ConfigError, match="expected a table"):
        config.load(environ={})


def test_the_layer_that_broke_a_default_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^option: mfcc\.n_mfcc is 40, expected 1 to mfcc\.n_mels"):
        config.load({"mfcc.n_mels": "20"}, environ={})


def test_an_unknown_key_cannot_write_to_the_terminal() -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_dict({"a\x1b[31m\nb": 1})

    assert str(caught.value).isprintable()


def test_a_pyproject_that_is_no_utf8_is_none_of_ours_unless_it_says_so() -> None:
    Path("pyproject.toml").write_bytes(b"[project]\nauthors = 'Jos\xe9'\n")
    assert config.load(environ={})[0] == Config()

    Path("pyproject.toml").write_bytes(b"[tool.speechemo]\nseed = 5\n[project]\nauthors = 'Jos\xe9'\n")
    with pytest.raises(ConfigError, match=r"^pyproject\.toml: not valid TOML: 'utf-8' codec can't decode"):
        config.load(environ={})


def test_a_file_that_nobody_named_and_that_cannot_be_seen_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a working folder of somebody else. Root may enter every folder, so the system is played."""
    Path("speechemo.toml").write_text("seed = 5")
    stat = os.stat

    def closed(path: object, *more: object, **options: bool) -> os.stat_result:
        if str(path).endswith(".toml"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, *more, **options)

    monkeypatch.setattr(os, "stat", closed)

    assert config.load(environ={})[0] == Config()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"seed = 0x{'f' * 5000}", r"seed is a number of thousands of digits, expected a whole number$"),
        (f"seed = {'9' * 4000}", r"seed is 9{100}\.\.\., expected a whole number$"),
        (f"seed = [0x{'f' * 5000}]", r"seed is a number of thousands of digits, expected a whole number$"),
        ("seed = 9223372036854775808", r"seed is 9223372036854775808, expected a whole number$"),
        (f"data = [{', '.join(['1'] * 5000)}]", r"data is \[1, .{95,100}\.\.\., expected a text or a list"),
        (f"{'x' * 300_000} = 1", r"unknown key x{100}\. "),
    ],
    ids=["hex", "digits", "list", "65 bits", "long", "key"],
)
def test_what_is_absurdly_long_is_said_in_one_short_line(text: str, message: str) -> None:
    Path("speechemo.toml").write_text(text)

    with pytest.raises(ConfigError, match=message) as refused:
        config.load()

    assert len(str(refused.value)) < 300


def test_a_path_may_begin_with_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    Path("speechemo.toml").write_text("store = '~/x'\ndata = ['~/a', 'b~', '~/c/']\n")

    cfg, _ = config.load(environ={})

    assert (cfg.store, cfg.data) == ("/home/ann/x", ("/home/ann/a", "b~", "/home/ann/c/"))


@pytest.mark.parametrize("line", ['store = "a\\u0000b"', 'data = ["a", "b\\u0000"]'])
def test_a_path_with_nul_is_refused_and_named(line: str) -> None:
    Path("speechemo.toml").write_text(f"{line}\n")

    with pytest.raises(ConfigError, match=r"^speechemo\.toml: (store|data) is .*x00.*without NUL"):
        config.load(environ={})
