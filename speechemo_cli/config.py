"""The one config object: frozen, built once, defaults < file < environment < options."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import types
import typing
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from speechemo_cli.choices import Split
from speechemo_cli.errors import ConfigError
from speechemo_cli.files import display_name

if typing.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ENV_PREFIX = "SPEECHEMO_"
# Variables that steer the program rather than hold a config value.
_ENV_RESERVED = {"SPEECHEMO_DEBUG", "SPEECHEMO_CONFIG"}

# numpy takes 32 bits, and folds and draws count on from the seed.
MAX_SEED = 2**31 - 1

# Characters of a value or a key that an error shows.
_MOST_SHOWN = 100


def _require(condition: bool, key: str, value: object, expected: str) -> None:
    if not condition:
        raise ConfigError(f"{key} is {_shown(value)}, expected {expected}")


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


@dataclass(frozen=True)
class AudioConfig:
    """What a clip must be to be used. Durations in seconds.

    `strict` refuses clips that would be used with a warning: cut off, with a constant offset, with
    channels that cancel each other. `track` is the sound track of a file with several, from 1; 0 takes
    the one with most speech. `raw_sr` is the rate in Hz of files without a header, which are 16-bit mono
    samples; 0 expects a header.
    """

    min_duration_s: float = 0.2
    max_duration_s: float = 600.0
    strict: bool = False
    track: int = 0
    raw_sr: int = 0

    def __post_init__(self) -> None:
        _require(0 <= self.track <= 99, "audio.track", self.track, "0 to 99")
        _require(
            self.raw_sr == 0 or 8000 <= self.raw_sr <= 384000,
            "audio.raw_sr",
            self.raw_sr,
            "0, or 8000 to 384000",
        )
        _require(self.min_duration_s > 0, "audio.min_duration_s", self.min_duration_s, "a number above 0")
        _require(
            self.max_duration_s > self.min_duration_s,
            "audio.max_duration_s",
            self.max_duration_s,
            "more than audio.min_duration_s",
        )


@dataclass(frozen=True)
class MfccConfig:
    """Feature set `mfcc`. Names and defaults are librosa's, but for `n_mfcc`, which is the study's 40."""

    sr: int = 22050
    n_mfcc: int = 40
    n_fft: int = 2048
    hop_length: int = 512
    n_mels: int = 128

    def __post_init__(self) -> None:
        _require(4000 <= self.sr <= 192000, "mfcc.sr", self.sr, "a rate from 4000 to 192000 Hz")
        _require(1 <= self.n_mels <= 512, "mfcc.n_mels", self.n_mels, "1 to 512 bands")
        _require(1 <= self.n_mfcc <= self.n_mels, "mfcc.n_mfcc", self.n_mfcc, "1 to mfcc.n_mels coefficients")
        _require(16 <= self.n_fft <= 65536, "mfcc.n_fft", self.n_fft, "16 to 65536 samples")
        _require(1 <= self.hop_length <= self.n_fft, "mfcc.hop_length", self.hop_length, "1 to mfcc.n_fft")


@dataclass(frozen=True)
class AugmentConfig:
    """Augmented copies of each clip that v3 is trained on beside the clip itself."""

    copies: int = 2

    def __post_init__(self) -> None:
        _require(0 <= self.copies <= 100, "augment.copies", self.copies, "0 to 100 copies of each clip")


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained. None: what the version's own preset says."""

    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    dropout: float | None = None
    calibrate: bool | None = None
    split: Split = Split.both
    test_share: float = 0.2

    def __post_init__(self) -> None:
        _require(self.epochs is None or self.epochs >= 1, "train.epochs", self.epochs, "1 or more")
        _require(
            self.batch_size is None or self.batch_size >= 1, "train.batch_size", self.batch_size, "1 or more"
        )
        _require(
            self.learning_rate is None or 0 < self.learning_rate <= 1,
            "train.learning_rate",
            self.learning_rate,
            "above 0, at most 1",
        )
        _require(
            self.dropout is None or 0 <= self.dropout < 1,
            "train.dropout",
            self.dropout,
            "from 0 up to below 1",
        )
        _require(0 < self.test_share < 1, "train.test_share", self.test_share, "a share between 0 and 1")


@dataclass(frozen=True)
class Config:
    """Everything the four commands share.

    Parameters
    ----------
    data : tuple of str
        Folders and CSV manifests of labelled clips.
    store : str
        Folder of the feature store.
    models : str
        Folder where `train` puts model files.
    runs : str
        Folder where `evaluate` keeps finished folds.
    jobs : int
        Worker processes of `extract`; 0 means one a core.
    seed : int
        Seed of splits and trainings.
    song : bool
        Train on RAVDESS's sung clips too; no test holds one.
    label_from, speaker_from : str or None
        Regular expressions that tell label and speaker from the path below a folder.
    """

    data: tuple[str, ...] = ("data",)
    store: str = "features"
    models: str = "models"
    runs: str = "runs"
    jobs: int = 0
    seed: int = 0
    song: bool = False
    label_from: str | None = None
    speaker_from: str | None = None
    audio: AudioConfig = field(default_factory=AudioConfig)
    mfcc: MfccConfig = field(default_factory=MfccConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        _require(
            isinstance(self.data, tuple) and bool(self.data) and all(self.data),
            "data",
            self.data,
            "one path or more",
        )
        _require(0 <= self.jobs <= 1024, "jobs", self.jobs, "0 (one a core) to 1024")
        _require(0 <= self.seed <= MAX_SEED, "seed", self.seed, f"0 to {MAX_SEED}")

    @property
    def workers(self) -> int:
        """How many worker processes `jobs` means on this machine."""
        # The affinity mask, not cpu_count(): a container may own fewer cores than the machine has.
        return self.jobs or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else (0,))

    def fingerprint(self, feature_set: str, version: int) -> str:
        """Key of the feature part of this config: equal exactly when the stored numbers are.

        Parameters
        ----------
        feature_set : str
            `mfcc`, `whisper` or `augment`.
        version : int
            Version of the code that computes the set.

        Returns
        -------
        str
            12 hexadecimal digits.
        """
        section = getattr(self, feature_set.partition("@")[0], None)
        settings = {} if section is None else dataclasses.asdict(section)
        part = {"set": feature_set, "version": version, **settings}
        # They decide what is decoded of the same file.
        part |= {name: value for name in ("track", "raw_sr") if (value := getattr(self.audio, name))}
        return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain values, as a model file stores them."""
        return {**dataclasses.asdict(self), "data": list(self.data)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], origin: str = "config") -> Config:
        """Build from nested values.

        Raises
        ------
        ConfigError
            An unknown key, a value of the wrong kind, or one out of range.
        """
        return resolve([(origin, flatten(values, origin))])[0]


def keys() -> dict[str, Any]:
    """Every key with its default, flat: `{"seed": 0, "mfcc.n_mfcc": 40, ...}`."""
    return _flat(dataclasses.asdict(Config()))


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        if isinstance(value, dict) and dataclasses.is_dataclass(_hints().get(name)):
            flat.update({f"{name}.{key}": inner for key, inner in value.items()})
        else:
            flat[name] = value
    return flat


def flatten(values: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Flatten nested values and refuse keys that do not exist, naming the nearest one that does.

    Raises
    ------
    ConfigError
        An unknown key.
    """
    flat = _flat(values)
    for key in flat:
        if key not in _types():
            shown = display_name(key[:_MOST_SHOWN])
            raise ConfigError(f"{origin}: unknown key {shown}", _nearest(shown, _types()))
    return flat


def _nearest(key: str, known: Iterable[str]) -> str:
    import difflib  # a spelling mistake is the only one to pay for it

    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"Did you mean {near[0]}?" if near else "`speechemo config` lists the keys"


@lru_cache(maxsize=1)
def _hints() -> dict[str, Any]:
    return typing.get_type_hints(Config)


@lru_cache(maxsize=1)
def _types() -> dict[str, Any]:
    flat = {}
    for name, kind in _hints().items():
        if dataclasses.is_dataclass(kind):
            flat.update({f"{name}.{key}": inner for key, inner in typing.get_type_hints(kind).items()})
        else:
            flat[name] = kind
    return flat


def _coerce(key: str, value: Any, kind: Any, origin: str) -> Any:
    """Give a value from a file, a variable or an option the type of its key."""
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if types.NoneType in options:
        if value is None or value in ("", "none"):
            return None
        kind = options[0]
    if kind is Split:
        if value not in tuple(Split):
            raise ConfigError(f"{origin}: {key} is {_shown(value)}, expected one of {', '.join(Split)}")
        return Split(value)
    try:
        return _as_kind(value, kind)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        noun = _NOUNS[kind]
        raise ConfigError(f"{origin}: {key} is {_shown(value)}, expected {noun}") from None


_NOUNS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text without NUL",
    tuple[str, ...]: "a text or a list of texts, without NUL",
}
_BOOL_WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def _as_kind(value: Any, kind: Any) -> Any:
    if kind == tuple[str, ...]:
        return tuple(_as_kind(one, str) for one in ([value] if isinstance(value, str) else value))
    if kind is bool:
        return value if isinstance(value, bool) else _BOOL_WORDS[value.lower()]
    # int(2.5) and int(True) would pass silently, and str() takes anything.
    if isinstance(value, bool) or (kind is str and not isinstance(value, str)):
        raise TypeError
    if kind is int and isinstance(value, float) and not value.is_integer():
        raise ValueError
    if kind is str:
        if "\0" in value:
            raise ValueError
        return os.path.expanduser(value)  # noqa: PTH111 - every text is a path, and Path drops its last slash
    result = kind(value)
    if kind is float and not math.isfinite(result):
        raise ValueError
    if kind is int and not -(2**63) <= result < 2**63:
        raise OverflowError
    return result


def resolve(layers: list[tuple[str, Mapping[str, Any]]]) -> tuple[Config, dict[str, str]]:
    """Lay flat values over the defaults, later layers over earlier ones.

    Parameters
    ----------
    layers : list of (origin, values)
        Values by flat key, with the words that say where they come from.

    Returns
    -------
    config : Config
    origins : dict
        For every key, where its value comes from.

    Raises
    ------
    ConfigError
        A value of the wrong kind or out of range.
    """
    values = keys()
    origins = dict.fromkeys(values, "default")
    for origin, layer in layers:
        for key, value in layer.items():
            values[key] = _coerce(key, value, _types()[key], origin)
            origins[key] = origin
    sections: dict[str, dict[str, Any]] = {}
    top: dict[str, Any] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        (sections.setdefault(section, {}) if section else top)[name] = value
    try:
        config = Config(**top, **{name: _hints()[name](**inner) for name, inner in sections.items()})
    except ConfigError as error:
        raise ConfigError(f"{_blame(error, origins)}: {error.message}") from None
    return config, origins


def _blame(error: ConfigError, origins: Mapping[str, str]) -> str:
    """Find the layer that a value out of range comes from.

    A default that no longer fits was made unfit by another value of its section.
    """
    key = error.message.split(" is ", 1)[0]
    section = key.rpartition(".")[0]
    set_here = [origin for other, origin in origins.items() if other.rpartition(".")[0] == section]
    candidates = [origins.get(key, "config"), *reversed(set_here)]
    return next((origin for origin in candidates if origin != "default"), "default")


def load(
    options: Mapping[str, Any] | None = None,
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> tuple[Config, dict[str, str]]:
    """Resolve the config of a run: defaults < file < environment < options.

    Parameters
    ----------
    options : mapping, optional
        Flat keys given on the command line.
    file : Path, optional
        The file to read instead of the ones in `folder`.
    environ : mapping, optional
        Environment variables; `SPEECHEMO_MFCC_N_MFCC` holds `mfcc.n_mfcc`.
    folder : Path, optional
        Where `speechemo.toml` or `pyproject.toml` is looked for; the working folder by default.

    Returns
    -------
    config : Config
    origins : dict
        For every key, where its value comes from.

    Raises
    ------
    ConfigError
        An unknown key, a value of the wrong kind or out of range, or a file that is not TOML.
    """
    environ = os.environ if environ is None else environ
    layers: list[tuple[str, Mapping[str, Any]]] = []
    if file is None and environ.get("SPEECHEMO_CONFIG"):
        file = Path(environ["SPEECHEMO_CONFIG"])
    found = _find_file(file, folder or Path())
    if found is not None:
        layers.append((display_name(found), _read_file(found)))
    layers.extend(_from_environment(environ))
    layers.append(("option", flatten(options or {}, "option")))
    return resolve(layers)


def _find_file(file: Path | None, folder: Path) -> Path | None:
    if file is not None:
        if not file.is_file():
            raise ConfigError(f"config file {display_name(file)} does not exist")
        return file
    for name in ("speechemo.toml", "pyproject.toml"):
        # Not Path.is_file, which may raise: what nobody named and cannot be seen is no config file.
        if os.path.isfile(folder / name):  # noqa: PTH113
            return folder / name
    return None


def _read_file(file: Path) -> dict[str, Any]:
    import tomllib

    origin = display_name(file)
    shared = file.name == "pyproject.toml"
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{origin}: cannot be read: {(error.strerror or str(error)).lower()}") from None
    if shared and b"speechemo" not in content:
        return {}
    try:
        document = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        # Not ours to judge where nothing in it is ours.
        if shared and b"tool.speechemo" not in content:
            return {}
        raise ConfigError(f"{origin}: not valid TOML: {display_name(str(error))}") from None
    for table in ("tool", "speechemo") if shared else ():
        document = document.get(table, {})
        if not isinstance(document, dict):
            raise ConfigError(f"{origin}: {table} is {type(document).__name__}, expected a table")
    return flatten(document, origin)


def _from_environment(environ: Mapping[str, str]) -> list[tuple[str, Mapping[str, Any]]]:
    by_variable = {ENV_PREFIX + key.replace(".", "_").upper(): key for key in _types()}
    layers: list[tuple[str, Mapping[str, Any]]] = []
    for variable, value in environ.items():
        if (
            not variable.startswith(ENV_PREFIX)
            or variable in _ENV_RESERVED
            or variable.startswith("SPEECHEMO_TEST_")
        ):
            continue
        if variable not in by_variable:
            hint = _nearest(variable, by_variable)
            raise ConfigError(f"environment: unknown variable {variable}", hint)
        layers.append((f"environment {variable}", {by_variable[variable]: value}))
    return layers
