"""The options that commands share, and the config they add up to."""

from __future__ import annotations

from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from speechemo_cli.cli import render
from speechemo_cli.errors import ConfigError
from speechemo_cli.files import display_name, require_writable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from speechemo_cli.config import Config
    from speechemo_cli.corpus.clips import Clip


class Format(StrEnum):
    """How one document is printed."""

    table = "table"
    json = "json"


class PredictFormat(StrEnum):
    """How answers are printed."""

    table = "table"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"
    label = "label"
    srt = "srt"
    audacity = "audacity"
    rttm = "rttm"


class Backend(StrEnum):
    """Whose workers compute."""

    loky = "loky"
    dask = "dask"


class Runtime(StrEnum):
    """What runs the network; a test holds them against `runtime.RUNTIMES`."""

    auto = "auto"
    litert = "litert"
    keras = "keras"


class Channel(StrEnum):
    """What of a recording is listened to; a test holds them against `reader.CHANNELS`."""

    mix = "mix"
    left = "left"
    right = "right"
    each = "each"


class Split(StrEnum):
    """What a training holds out."""

    both = "both"
    random = "random"
    none = "none"


class Protocol(StrEnum):
    """How a version is evaluated; a test holds them against `folds.PROTOCOLS`."""

    random_holdout = "random-holdout"
    random_5fold = "random-5fold"
    random_10fold = "random-10fold"
    twin_safe_5fold = "twin-safe-5fold"
    speaker_5fold = "speaker-5fold"
    speaker_6fold = "speaker-6fold"
    loso = "loso"


class SynthLayout(StrEnum):
    """Names that `synth` gives its clips; a test holds them against `synthetic.LAYOUTS`."""

    ravdess = "ravdess"
    tess = "tess"
    crema_d = "crema-d"
    emo_db = "emo-db"
    folders = "folders"


class Version(StrEnum):
    """The versions of the network; a test holds them against `models.VERSIONS`."""

    v1 = "v1"
    v2 = "v2"
    v3 = "v3"


DEFAULT_VERSION = Version.v2


def complete_labels(incomplete: str) -> list[str]:
    """Complete the last label of a list with commas, for the shell."""
    from speechemo_cli.corpus.labels import EMOTIONS

    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{label}" for label in EMOTIONS if label.startswith(last)]


def complete_models(incomplete: str) -> list[str]:
    """Complete what `--model` takes by name, for the shell; it completes paths by itself."""
    from speechemo_cli.models import VERSIONS, model_file

    return [name for name in (*VERSIONS, model_file.PACKAGED_NAME) if name.startswith(incomplete)]


Data = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[DATA]...",
        show_default="data",
        help="Folders of labelled clips (a public corpus, or one folder a label), or CSV manifests.",
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="TOML file to read instead of speechemo.toml."),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set any config key, e.g. --set mfcc.n_mfcc=20."),
]
_MODEL_HELP = "Model file; v1, v2, v3 for the one in models/; or packaged."
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        show_default="packaged",
        help=_MODEL_HELP,
        autocompletion=lambda incomplete: complete_models(incomplete),
    ),
]
ModelArgument = Annotated[
    str | None, typer.Argument(metavar="[MODEL]", show_default="packaged", help=_MODEL_HELP)
]
Store = Annotated[
    str | None, typer.Option(metavar="DIR", show_default="features", help="Folder of the feature store.")
]
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", "-j", metavar="N", show_default="one a core", help="Workers that read clips."),
]
BackendOption = Annotated[
    Backend,
    typer.Option("--backend", help="Whose workers compute: processes here, or a dask cluster's."),
]
Scheduler = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", show_default=False, help="With --backend dask: e.g. tcp://host:8786."),
]
Seed = Annotated[
    int | None, typer.Option(metavar="N", show_default="0", help="Seed of splits and trainings.")
]
Calibrate = Annotated[
    bool | None,
    typer.Option(
        "--calibrate/--no-calibrate",
        show_default="the version's own",
        help="Correct confidences by a temperature from training speakers left out in turn.",
    ),
]
Song = Annotated[
    bool | None,
    typer.Option(
        "--song/--no-song",
        show_default="no-song",
        help="Train on RAVDESS's sung clips too; they are never tested.",
    ),
]
LabelFrom = Annotated[
    str | None,
    typer.Option(
        metavar="REGEX",
        show_default=False,
        help="Label of a clip: what the first group matches in its path below DATA.",
    ),
]
SpeakerFrom = Annotated[
    str | None, typer.Option(metavar="REGEX", show_default=False, help="Likewise its speaker.")
]
Strict = Annotated[
    bool | None,
    typer.Option(
        "--strict/--no-strict",
        show_default="no-strict",
        help="Refuse clips that are cut off or otherwise faulty instead of using them with a warning.",
    ),
]
DocumentFormat = Annotated[
    Format | None,
    typer.Option("--format", "-f", show_default="table; json in a pipe", help="How to print the result."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes on stderr.")]


def workers_of(backend: Backend, scheduler: str | None) -> AbstractContextManager[None]:
    """Connect to the workers that were chosen.

    Raises
    ------
    ConfigError
        One option without the other, or a worker that does not fit.
    AccessError
        No such cluster.
    """
    if (backend is Backend.dask) != (scheduler is not None):
        raise ConfigError(
            "--backend dask and --scheduler go together",
            "For example --backend dask --scheduler tcp://host:8786",
        )
    if scheduler is None:
        return nullcontext()
    from speechemo_cli import cluster

    return cluster.connected(scheduler)


def is_table(chosen: Format | None) -> bool:
    """Whether to print for a person: asked for, or not asked and on a terminal."""
    return chosen is Format.table if chosen else render.on_terminal()


def build_config(file: Path | None, sets: list[str] | None, **options: Any) -> Config:
    """Resolve the config of this run; the origins are `resolve_config`'s second value."""
    return resolve_config(file, sets, **options)[0]


def resolve_config(
    file: Path | None, sets: list[str] | None, **options: Any
) -> tuple[Config, dict[str, str]]:
    """Lay the options that were given over file and environment.

    Parameters
    ----------
    file : Path or None
        What --config named.
    sets : list of str or None
        What --set named, KEY=VALUE each.
    **options
        Values of options by config key, `__` for the dot; None where the option was not given.

    Raises
    ------
    ConfigError
        An unknown key, or a value that cannot be used.
    """
    from speechemo_cli import config

    given = {}
    for item in sets or []:
        key, equals, value = item.partition("=")
        if not equals:
            raise ConfigError(f"--set is {item!r}, expected KEY=VALUE", "For example --set mfcc.n_mfcc=20")
        given[key.strip()] = value.strip()
    # Typer gives an empty list where nothing was named.
    given.update({key.replace("__", "."): value for key, value in options.items() if value not in (None, [])})
    return config.load(given, file=file)


def check_output(
    option: str, path: Path | None, suffix: str, *, any_case: bool = True, n_bytes: int = 0
) -> None:
    """Refuse a file that could not be written in the end, before the work.

    Parameters
    ----------
    option : str
    path : Path or None
        None is nothing to refuse.
    suffix : str
        In small letters.
    any_case : bool
        Take `FILE.PNG` for `.png` too. Keras knows its own suffix in small letters alone.
    n_bytes : int
        How large the file may become.

    Raises
    ------
    ConfigError
        The name does not end in `suffix`, or is that of a folder.
    AccessError
        Its folder cannot be written, or has no room.
    """
    if path is None:
        return
    if (path.suffix.lower() if any_case else path.suffix) != suffix:
        raise ConfigError(f"{option} is {display_name(path)}, expected a name that ends in {suffix}")
    if path.is_dir():
        raise ConfigError(f"{option} is {display_name(path)}, which is a folder, expected a file")
    require_writable(path.parent, n_bytes)


def split_for(config: Config, clips: Sequence[Clip], *, asked: bool) -> Config:
    """Fall back from the default split where no corpus tells two speakers, and say so.

    Somebody who asked for `--split both` gets the error instead.
    """
    from dataclasses import replace

    speakers: dict[str, set[str | None]] = {}
    for clip in clips:
        speakers.setdefault(clip.corpus, set()).add(clip.speaker_id)
    told = any(None not in ids and len(ids) > 1 for ids in speakers.values())
    if asked or config.train.split != "both" or told:
        return config
    render.warn(
        "no corpus tells two speakers, so unseen speakers cannot be measured: using --split random. "
        "Name the speakers by a folder level, --speaker-from or the manifest's speaker column"
    )
    return replace(config, train=replace(config.train, split="random"))
