"""The options that commands share, and the config they add up to."""

from __future__ import annotations

import functools
import inspect
import json
import math
from contextlib import nullcontext
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from speechemo_cli import choices
from speechemo_cli.cli import terminal
from speechemo_cli.errors import SCHEMA, ConfigError
from speechemo_cli.files import display_name, require_writable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from speechemo_cli.config import Config


def complete_labels(incomplete: str) -> list[str]:
    """Offer all labels behind the last comma of a list; of what is offered, Typer takes what fits."""
    from speechemo_cli.corpus import EMOTIONS

    before, comma, _ = incomplete.rpartition(",")
    return [f"{before}{comma}{label}" for label in EMOTIONS]


def _no_nan(value: float) -> float:
    """Refuse what no limit stops."""
    if math.isnan(value):
        raise ConfigError("--min-confidence is nan, expected a number from 0 to 1")
    return value


def complete_models() -> list[str]:
    """Offer the names that `--model` takes; the shell completes paths by itself."""
    from speechemo_cli.models import VERSIONS, model_file

    return [*VERSIONS, model_file.PACKAGED_NAME]


_MODEL_HELP = "Model file; v1, v2, v3 for the one in models/; or packaged."
Model = Annotated[
    str | None,
    Option(
        "--model",
        "-m",
        metavar="MODEL",
        show_default="packaged",
        help=_MODEL_HELP,
        autocompletion=complete_models,
    ),
]
ModelArgument = Annotated[str | None, Argument(metavar="[MODEL]", show_default="packaged", help=_MODEL_HELP)]
FilesFrom = Annotated[
    str | None,
    Option(metavar="FILE", help="List of recordings, one a line or separated by NUL; - for stdin."),
]
Output = Annotated[
    str | None,
    Option(
        "--output",
        "-o",
        metavar="FILE|DIR",
        show_default="stdout",
        help="One file for all answers, or a folder for one file a recording.",
    ),
]
Top = Annotated[
    int | None, Option(metavar="N", min=1, show_default="all", help="Write the N most probable labels only.")
]
Store = Annotated[
    str | None, Option(metavar="DIR", show_default="features", help="Folder of the feature store.")
]
Jobs = Annotated[
    int | None,
    Option("--jobs", "-j", metavar="N", show_default="one a core", help="Number of workers that read clips."),
]
BackendOption = Annotated[
    choices.Backend, Option(help="Who does the work: processes here, or a dask cluster.")
]
Scheduler = Annotated[
    str | None, Option(metavar="ADDRESS", help="With --backend dask: e.g. tcp://host:8786.")
]
Strict = Annotated[
    bool | None,
    Option(
        show_default="no-strict",
        help="Refuse clips that are cut off or otherwise faulty instead of using them with a warning.",
    ),
]
DocumentFormat = Annotated[
    choices.DocumentFormat | None,
    Option("--format", "-f", show_default="table; json in a pipe", help="How to print the result."),
]
Quiet = Annotated[
    bool, Option("--quiet", "-q", callback=terminal.set_quiet, help="No progress and no notes on stderr.")
]

# Options that are not called as the key that they set.
_KEYS = {
    "strict": "audio.strict",
    "track": "audio.track",
    "raw": "audio.raw_sr",
    "epochs": "train.epochs",
    "calibrate": "train.calibrate",
    "split": "train.split",
}


@dataclass(frozen=True)
class Settings:
    """The options of every command that has a config; see `grouped`."""

    config_file: Annotated[
        Path | None, Option("--config", metavar="FILE", help="TOML file to read instead of speechemo.toml.")
    ] = None
    sets: Annotated[
        list[str] | None,
        Option("--set", metavar="KEY=VALUE", help="Set any config key, e.g. --set mfcc.n_mfcc=20."),
    ] = None
    quiet: Quiet = False

    def config(self, *groups: Any, **options: Any) -> Config:
        """Resolve the config of this run, as `resolve`."""
        return self.resolve(*groups, **options)[0]

    def resolve(self, *groups: Any, **options: Any) -> tuple[Config, dict[str, str]]:
        """Lay the options that were given over file and environment, and say where each value comes from.

        Options are by the names of their parameters, None or an empty list where one was not given; those of
        a group that are in no config are passed over.
        """
        from speechemo_cli import config

        given, known = {}, config.keys()
        for item in self.sets or []:
            key, equals, value = item.partition("=")
            if not equals:
                raise ConfigError(
                    f"--set is {item!r}, expected KEY=VALUE", "For example --set mfcc.n_mfcc=20"
                )
            given[key.strip()] = value.strip()
        for group in groups:
            options |= vars(group)
        for name, value in options.items():
            key = _KEYS.get(name, name)
            if key in known and value not in (None, []):
                given[key] = value
        return config.load(given, file=self.config_file)


@dataclass(frozen=True)
class Clips:
    """Which clips extract, train and evaluate are given, and where their features are; see `grouped`."""

    data: Annotated[
        list[str] | None,
        Argument(
            metavar="[DATA]...",
            show_default="data",
            help="Folders of labelled clips (a public corpus, or one folder a label), or CSV manifests.",
        ),
    ] = None
    store: Store = None
    jobs: Jobs = None
    song: Annotated[
        bool | None,
        Option(show_default="no-song", help="Train on RAVDESS's sung clips too; they are never tested."),
    ] = None
    label_from: Annotated[
        str | None,
        Option(metavar="REGEX", help="Label of a clip: what the first group matches in its path below DATA."),
    ] = None
    speaker_from: Annotated[
        str | None, Option(metavar="REGEX", help="Speaker of a clip, in the same way.")
    ] = None
    strict: Strict = None


@dataclass(frozen=True)
class Training:
    """How train and evaluate train a network; see `grouped`."""

    epochs: Annotated[
        int | None,
        Option(metavar="N", show_default="the version's own", help="Passes over the training clips."),
    ] = None
    calibrate: Annotated[
        bool | None,
        Option(
            show_default="the version's own",
            help="Correct confidences by a temperature from training speakers left out in turn.",
        ),
    ] = None
    seed: Annotated[
        int | None, Option(metavar="N", show_default="0", help="Seed of splits and trainings.")
    ] = None


@dataclass(frozen=True)
class Answering:
    """What predict, timeline and stream answer with, and how they read audio; see `grouped`."""

    model: Model = None
    runtime: Annotated[choices.Runtime, Option(help="What runs the network: LiteRT, or Keras.")] = (
        choices.Runtime.auto
    )
    channel: Annotated[choices.Channel, Option(help="Channel to use; `each` gives each one an answer.")] = (
        choices.Channel.mix
    )
    labels: Annotated[
        str | None,
        Option(
            metavar="LABEL,...",
            show_default="all",
            help="Choose among these labels only.",
            autocompletion=complete_labels,
        ),
    ] = None
    min_confidence: Annotated[
        float,
        Option(
            metavar="P",
            min=0.0,
            max=1.0,
            show_default=False,
            callback=_no_nan,
            help="Answer `uncertain` below this confidence.",
        ),
    ] = 0.0
    track: Annotated[
        int | None,
        Option(
            metavar="N", min=1, show_default="the one with speech", help="Which track of a file with several."
        ),
    ] = None
    raw: Annotated[
        int | None,
        Option(
            metavar="RATE",
            min=8000,
            max=384000,
            help="Read files as samples without a header: 16-bit mono PCM at RATE Hz.",
        ),
    ] = None
    strict: Strict = None


def grouped(run: Callable[..., None]) -> Callable[..., None]:
    """Let Typer, which knows no groups of options, take each field of a dataclass parameter for one."""
    parameters: list[inspect.Parameter] = []
    groups: dict[str, Any] = {}
    for parameter in inspect.signature(run, eval_str=True).parameters.values():
        group = parameter.annotation
        if isinstance(group, type) and is_dataclass(group):
            groups[parameter.name] = group
            parameters += inspect.signature(group, eval_str=True).parameters.values()
        else:
            parameters.append(parameter)

    @functools.wraps(run)
    def call(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        run(**given)

    keyword_only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    call.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]
    return call


def workers_of(backend: choices.Backend, scheduler: str | None) -> AbstractContextManager[None]:
    """Connect to the workers that were chosen; AccessError where there is no such cluster.

    A ConfigError refuses one option without the other, and workers that do not fit.
    """
    if (backend is choices.Backend.dask) != (scheduler is not None):
        raise ConfigError(
            "--backend dask and --scheduler go together",
            "For example --backend dask --scheduler tcp://host:8786",
        )
    if scheduler is None:
        return nullcontext()
    from speechemo_cli.inference import cluster

    return cluster.connected(scheduler)


def is_table(chosen: choices.DocumentFormat | None) -> bool:
    """Whether to print for a person: asked for, or not asked and on a terminal."""
    return chosen is choices.DocumentFormat.table if chosen else terminal.on_terminal()


def show(
    command: str, chosen: choices.DocumentFormat | None, table: Callable[[], str], document: Mapping[str, Any]
) -> None:
    """Print a result as a table or as a JSON document: of ASCII, so that any pipe carries any file name."""
    shown = {"schema": SCHEMA, "command": command, **document}
    terminal.emit(table() if is_table(chosen) else json.dumps(shown, indent=2))


def check_output(
    option: str, path: Path | None, suffix: str, *, any_case: bool = True, n_bytes: int = 0
) -> None:
    """Refuse a file that could not be written in the end, before the work; None is nothing to refuse.

    `suffix` is in small letters, as Keras knows its own alone; with `any_case`, FILE.PNG is taken for `.png`
    too. `n_bytes` is how large the file may become.
    """
    if path is None:
        return
    if (path.suffix.lower() if any_case else path.suffix) != suffix:
        raise ConfigError(f"{option} is {display_name(path)}, expected a name that ends in {suffix}")
    if path.is_dir():
        raise ConfigError(f"{option} is {display_name(path)}, which is a folder, expected a file")
    require_writable(path.parent, n_bytes)
