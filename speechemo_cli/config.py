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
    from collections.abc import Callable, Iterable, Mapping

ENV_PREFIX = "SPEECHEMO_"
# Variables that steer the program rather than hold a config value.
_ENV_RESERVED = {"SPEECHEMO_DEBUG", "SPEECHEMO_CONFIG"}

# numpy takes 32 bits, and folds and draws count on from the seed.
MAX_SEED = 2**31 - 1

# Characters of a value or a key that an error shows.
_MOST_SHOWN = 100

# By key: whether a value fits in its config, and how an error says what does. None is never checked.
_RANGES: dict[str, tuple[Callable[[Any, Config], bool], str]] = {
    "audio.track": (lambda v, _: 0 <= v <= 99, "0 to 99"),
    "audio.raw_sr": (lambda v, _: v == 0 or 8000 <= v <= 384000, "0, or 8000 to 384000"),
    "audio.min_duration_s": (lambda v, _: v > 0, "a number above 0"),
    "audio.max_duration_s": (lambda v, c: v > c.audio.min_duration_s, "more than audio.min_duration_s"),
    "mfcc.sr": (lambda v, _: 4000 <= v <= 192000, "a rate from 4000 to 192000 Hz"),
    "mfcc.n_mels": (lambda v, _: 1 <= v <= 512, "1 to 512 bands"),
    "mfcc.n_mfcc": (lambda v, c: 1 <= v <= c.mfcc.n_mels, "1 to mfcc.n_mels coefficients"),
    "mfcc.n_fft": (lambda v, _: 16 <= v <= 65536, "16 to 65536 samples"),
    "mfcc.hop_length": (lambda v, c: 1 <= v <= c.mfcc.n_fft, "1 to mfcc.n_fft"),
    "augment.copies": (lambda v, _: 0 <= v <= 100, "0 to 100 copies of each clip"),
    "train.epochs": (lambda v, _: v >= 1, "1 or more"),
    "train.batch_size": (lambda v, _: v >= 1, "1 or more"),
    "train.learning_rate": (lambda v, _: 0 < v <= 1, "above 0, at most 1"),
    "train.dropout": (lambda v, _: 0 <= v < 1, "from 0 up to below 1"),
    "train.test_share": (lambda v, _: 0 < v < 1, "a share between 0 and 1"),
    "data": (lambda v, _: isinstance(v, tuple) and v != () and all(v), "one path or more"),
    "jobs": (lambda v, _: 0 <= v <= 1024, "0 (one a core) to 1024"),
    "seed": (lambda v, _: 0 <= v <= MAX_SEED, f"0 to {MAX_SEED}"),
}


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


@dataclass(frozen=True)
class MfccConfig:
    """Feature set `mfcc`. Names and defaults are librosa's, but for `n_mfcc`, which is the study's 40."""

    sr: int = 22050
    n_mfcc: int = 40
    n_fft: int = 2048
    hop_length: int = 512
    n_mels: int = 128


@dataclass(frozen=True)
class AugmentConfig:
    """Augmented copies of each clip that v3 is trained on beside the clip itself."""

    copies: int = 2


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


@dataclass(frozen=True)
class Config:
    """Everything that the commands share.

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
        values = _flat(dataclasses.asdict(self))
        for key, (fits, expected) in _RANGES.items():
            if values[key] is not None and not fits(values[key], self):
                raise ConfigError(f"{key} is {_shown(values[key])}, expected {expected}")

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
        return _resolve([(origin, flatten(values, origin))])[0]


# The fields of a config that are sections, by name.
_SECTIONS: dict[str, Any] = {
    one.name: one.default_factory
    for one in dataclasses.fields(Config)
    if dataclasses.is_dataclass(one.default_factory)
}


def keys() -> dict[str, Any]:
    """Every key with its default, flat: `{"seed": 0, "mfcc.n_mfcc": 40, ...}`."""
    return _flat(dataclasses.asdict(Config()))


@lru_cache(maxsize=1)
def _types() -> dict[str, Any]:
    nested = {name: typing.get_type_hints(section) for name, section in _SECTIONS.items()}
    return _flat({**typing.get_type_hints(Config), **nested})


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        if name in _SECTIONS and isinstance(value, dict):
            flat.update({f"{name}.{key}": inner for key, inner in value.items()})
        else:
            flat[name] = value
    return flat


def flatten(values: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Flatten nested values. A ConfigError names a key that does not exist, and the nearest one that does."""
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


def _whole(value: Any) -> int:
    number = int(value)  # int(2.5) and int(True) would pass silently
    cut = isinstance(value, float) and number != value
    if isinstance(value, bool) or cut or not -(2**63) <= number < 2**63:
        raise ValueError
    return number


def _finite(value: Any) -> float:
    number = float(value)
    if isinstance(value, bool) or not math.isfinite(number):
        raise ValueError
    return number


def _bool(value: Any) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    return value if isinstance(value, bool) else words[value.lower()]


def _text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError
    return os.path.expanduser(value)  # noqa: PTH111 - every text is a path, and Path drops its last slash


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(_text, [value] if isinstance(value, str) else value))


# By the type of a key: what reads a value from a file, a variable or an option, and what it expects.
_READERS: dict[Any, tuple[Callable[[Any], Any], str]] = {
    int: (_whole, "a whole number"),
    float: (_finite, "a number"),
    bool: (_bool, "true or false"),
    str: (_text, "a text without NUL"),
    tuple[str, ...]: (_texts, "a text or a list of texts, without NUL"),
    Split: (Split, f"one of {', '.join(Split)}"),
}


def _coerce(key: str, value: Any, origin: str) -> Any:
    """Give a value the type of its key."""
    kind = _types()[key]
    if isinstance(kind, types.UnionType):
        if value in (None, "", "none"):
            return None
        kind = typing.get_args(kind)[0]
    read, expected = _READERS[kind]
    try:
        return read(value)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        raise ConfigError(f"{origin}: {key} is {_shown(value)}, expected {expected}") from None


def _resolve(layers: Iterable[tuple[str, Mapping[str, Any]]]) -> tuple[Config, dict[str, str]]:
    """Lay flat values, each with its origin, over the defaults, later layers over earlier ones."""
    values = keys()
    origins = dict.fromkeys(values, "default")
    for origin, layer in layers:
        for key, value in layer.items():
            values[key] = _coerce(key, value, origin)
            origins[key] = origin
    sections: dict[str, dict[str, Any]] = {name: {} for name in ("", *_SECTIONS)}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        sections[section][name] = value
    top = sections.pop("")
    try:
        config = Config(**top, **{name: _SECTIONS[name](**inner) for name, inner in sections.items()})
    except ConfigError as error:
        raise ConfigError(f"{_blame(error, origins)}: {error.message}") from None
    return config, origins


def _blame(error: ConfigError, origins: Mapping[str, str]) -> str:
    """Find the layer that a value out of range comes from.

    A default that no longer fits was made unfit by another value of its section.
    """
    key = error.message.partition(" is ")[0]
    section = key.rpartition(".")[0]
    of_section = [origin for other, origin in origins.items() if other.rpartition(".")[0] == section]
    return next(origin for origin in (origins[key], *reversed(of_section)) if origin != "default")


def load(
    options: Mapping[str, Any] | None = None,
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> tuple[Config, dict[str, str]]:
    """Resolve the config of a run, and for every key where its value comes from.

    `options` are flat keys of the command line, `file` is read instead of the one in the working folder,
    and `SPEECHEMO_MFCC_N_MFCC` in `environ` holds `mfcc.n_mfcc`. A ConfigError names an unknown key, a value
    of the wrong kind or out of range, and a file that is not TOML.
    """
    environ = os.environ if environ is None else environ
    if file is None and environ.get("SPEECHEMO_CONFIG"):
        file = Path(environ["SPEECHEMO_CONFIG"])
    if file is not None and not file.is_file():
        raise ConfigError(f"config file {display_name(file)} does not exist")
    # Not Path.is_file, which may raise: what nobody named and cannot be seen is no config file.
    here = (Path(name) for name in ("speechemo.toml", "pyproject.toml") if os.path.isfile(name))  # noqa: PTH113
    found = file or next(here, None)
    in_file = [(display_name(found), _read_file(found))] if found else []
    return _resolve([*in_file, *_from_environment(environ), ("option", flatten(options or {}, "option"))])


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


def _from_environment(environ: Mapping[str, str]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    by_variable = {ENV_PREFIX + key.replace(".", "_").upper(): key for key in _types()}
    for variable, value in environ.items():
        if variable in by_variable:
            yield f"environment {variable}", {by_variable[variable]: value}
        elif variable.startswith("SPEECHEMO_TEST_") or variable in _ENV_RESERVED:
            continue
        elif variable.startswith(ENV_PREFIX):
            raise ConfigError(f"environment: unknown variable {variable}", _nearest(variable, by_variable))
