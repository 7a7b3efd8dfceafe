"""The model file: a `.keras` archive with a `speechemo.json` in it. Save, inspect without Keras, load."""

from __future__ import annotations

import hashlib
import json
import stat
import zipfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechemo_cli.config import Config
from speechemo_cli.errors import ConfigError, ModelFileError
from speechemo_cli.features import FEATURE_SETS
from speechemo_cli.files import atomic_path, display_name
from speechemo_cli.models import VERSIONS
from speechemo_cli.models.backend import load_keras, quiet_stderr

if TYPE_CHECKING:
    import os

FORMAT = 1
SUFFIX = ".keras"
PARTS_OF_DATA = ("train", "seen_speakers", "new_speakers")
# The model that comes with the package; `make packaged-model` makes it.
PACKAGED_NAME = "packaged"
PACKAGED = Path(__file__).with_name(f"packaged{SUFFIX}")
_PACKAGED_VERSION = "v3"
_CARD = "speechemo.json"
_KERAS_MEMBERS = ("metadata.json", "config.json", "model.weights.h5")
_MAX_CARD_BYTES = 16 * 2**20
_MAX_WEIGHTS_BYTES = 200 * 2**20


@dataclass(frozen=True)
class ModelCard:
    """What a model file says of itself, besides the weights.

    Attributes
    ----------
    version : str
        Version of the network, `v1`, `v2`, ...
    labels : tuple of str
        The class of each output, in order.
    feature_set : str
    feature_version : int
    config : dict
        The resolved config of the training.
    seed, epochs : int
    versions : dict of str to str
        Of Python and the libraries that trained it.
    data : dict
        Hashes of the clips by the part they played: `PARTS_OF_DATA`; the speakers heard in training
        under `speakers`, the number of clips by label under `clips`, the length of the longest under
        `longest_s`, and under `ravdess` whether all are named as RAVDESS names its own.
    results : dict
        Scores on the held-out clips, as `train` printed them.
    temperature : float or None
        What the network's confidences were corrected by: its last layer is divided by it already.
    parameters : int
        Weights of the network; 0 where an older file does not tell.
    twin : str or None
        SHA-256 of the LiteRT file that was exported from the same network.
    """

    version: str
    labels: tuple[str, ...]
    feature_set: str
    feature_version: int
    config: dict[str, Any]
    seed: int
    epochs: int
    versions: dict[str, str] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    temperature: float | None = None
    parameters: int = 0
    twin: str | None = None

    def resolved_config(self) -> Config:
        """Return the config of the training."""
        return Config.from_dict(self.config, "model file")

    def adopt(self, config: Config) -> Config:
        """Return this run's config with the feature part the model was trained with."""
        own = self.resolved_config()
        return replace(config, mfcc=own.mfcc, logmel=own.logmel)

    def trained_on(self) -> frozenset[str]:
        """Content hashes of the training clips."""
        return frozenset(self.data.get("train", ()))


def library_versions() -> dict[str, str]:
    """Versions of what takes part in a training."""
    import platform
    from importlib.metadata import version

    import speechemo_cli

    names = ("keras", "tensorflow", "numpy", "scipy", "soxr", "soundfile", "scikit-learn")
    return {
        "speechemo": speechemo_cli.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


def save(model: Any, card: ModelCard, path: Path) -> None:
    """Write the model file, complete or not at all.

    Parameters
    ----------
    model : keras.Model
    card : ModelCard
    path : Path
        Ends in `.keras`.

    Raises
    ------
    AccessError
        It cannot be written; a file that was there is as it was.
    """
    with atomic_path(path) as temp:
        # A bare copy: the optimizer's state would make the file up to four times as large, and is of no
        # use to anybody who has the answer.
        bare = type(model).from_config(model.get_config())
        bare.set_weights(model.get_weights())
        bare.save(temp)
        with zipfile.ZipFile(temp, "a", zipfile.ZIP_DEFLATED) as archive:
            hashes = {name: hashlib.sha256(archive.read(name)).hexdigest() for name in _KERAS_MEMBERS}
            document = {"format": FORMAT, "members": hashes, **asdict(card)}
            archive.writestr(_CARD, json.dumps(document, indent=1))


def inspect(path: str | os.PathLike[str]) -> ModelCard:
    """Check a model file and read its card. Imports no Keras and executes nothing.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    ModelCard

    Raises
    ------
    ModelFileError
        No such file, not a model file, damaged, written by a newer version, or with parts that do
        not fit together.
    """
    name = display_name(path)
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        raise ModelFileError(
            f"{name}: no such model file", "Train one with `speechemo train`, or give its path with --model"
        ) from None
    if not stat.S_ISREG(status.st_mode) or not name.endswith(SUFFIX):
        raise ModelFileError(f"{name} is not a model file, expected a file that ends in {SUFFIX}")
    try:
        with zipfile.ZipFile(path) as archive:
            document = _checked(archive)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, zipfile.zlib.error) as error:  # type: ignore[attr-defined]
        raise ModelFileError(f"{name} is damaged ({error})", "Restore a copy or train again") from None
    except OSError as error:
        raise ModelFileError(f"{name} cannot be read: {(error.strerror or str(error)).lower()}") from None
    except _UnfitError as error:
        raise ModelFileError(f"{name} {error}", "Restore a copy or train again") from None
    return _card(name, document)


class _UnfitError(Exception):
    """Why an archive is no model file."""


def _checked(archive: zipfile.ZipFile) -> dict[str, Any]:
    infos = archive.infolist()
    names = sorted(info.filename for info in infos)
    if _CARD not in names:
        raise _UnfitError("was not written by speechemo: it has no speechemo.json")
    if names != sorted((*_KERAS_MEMBERS, _CARD)):
        raise _UnfitError(f"holds unexpected parts: {', '.join(display_name(name) for name in names)[:200]}")
    for info in infos:
        limit = _MAX_WEIGHTS_BYTES if info.filename.endswith(".h5") else _MAX_CARD_BYTES
        if info.file_size > limit:
            raise _UnfitError(
                f"is too large: {info.filename} would take {info.file_size} bytes, at most {limit}"
            )
    contents = {info.filename: archive.read(info) for info in infos}
    try:
        document = json.loads(contents[_CARD])
        hashes = dict(document["members"])
        if document["format"] > FORMAT:
            raise _UnfitError("was written by a newer version of speechemo")
    except (ValueError, KeyError, TypeError):
        raise _UnfitError("is damaged: speechemo.json cannot be read") from None
    for member in _KERAS_MEMBERS:
        if hashes.get(member) != hashlib.sha256(contents[member]).hexdigest():
            raise _UnfitError(f"is damaged: {member} is not the one it was saved with")
    return dict(document)


def _card(name: str, document: dict[str, Any]) -> ModelCard:
    try:
        card = ModelCard(
            **{
                key: document[key]
                for key in ModelCard.__dataclass_fields__
                if key in document and key != "labels"
            },
            labels=tuple(document["labels"]),
        )
        card.resolved_config()
        current = FEATURE_SETS[card.feature_set].version
    except (KeyError, TypeError, ConfigError) as error:
        raise ModelFileError(f"{name} is damaged: speechemo.json does not fit ({error})") from None
    if card.version not in VERSIONS:
        raise ModelFileError(
            f"{name} holds a network of version {card.version!r}, known are {', '.join(VERSIONS)}",
            "Update speechemo, or train it again",
        )
    if card.feature_version != current:
        raise ModelFileError(
            f"{name} expects version {card.feature_version} of the {card.feature_set} features, "
            f"this speechemo computes version {current}",
            "Train it again",
        )
    return card


def load(path: str | os.PathLike[str]) -> tuple[Any, ModelCard]:
    """Check a model file, then load it. Nothing in it is executed.

    Returns
    -------
    model : keras.Model
    card : ModelCard

    Raises
    ------
    ModelFileError
        As `inspect`, or Keras refuses it, or its shapes do not fit its card.
    """
    card = inspect(path)
    keras = load_keras()
    name = display_name(path)
    try:
        with quiet_stderr():
            # The resolved path of a checked regular file: Keras would take a URL or a folder otherwise.
            model = keras.saving.load_model(Path(path).resolve(), compile=False, safe_mode=True)
    except Exception as error:
        first_line = str(error).strip().split("\n")[0][:200]
        raise ModelFileError(f"{name} cannot be loaded by Keras: {first_line}") from error
    section = FEATURE_SETS[card.feature_set].section(card.resolved_config())
    expected = (FEATURE_SETS[card.feature_set].dim(section), len(card.labels))
    received = (model.input_shape[-1], model.output_shape[-1])
    if received != expected:
        raise ModelFileError(
            f"{name} does not fit its card: {received[0]} inputs and {received[1]} outputs, "
            f"expected {expected[0]} and {expected[1]}"
        )
    return model, card


def default_path(models: str, version: str) -> Path:
    """Where `train` puts a version: `models/v2.keras`."""
    return Path(models) / f"{version}{SUFFIX}"


def find(model: str | None, models: str) -> Path:
    """Resolve what the user calls a model.

    Parameters
    ----------
    model : str or None
        A path; a version's name for `models/vN.keras`, or for the packaged model where that is of
        this version and there is no such file; `packaged`; None for the model trained last, or the
        packaged one where there is none.
    models : str
        Folder of the model files.

    Returns
    -------
    Path
    """
    if model == PACKAGED_NAME:
        return PACKAGED
    if model in VERSIONS:
        own = default_path(models, model)
        return PACKAGED if model == _PACKAGED_VERSION and not own.exists() else own
    if model is not None:
        return Path(model)
    trained = [path for path in Path(models).glob(f"*{SUFFIX}") if not path.name.startswith(".")]
    return max(trained, key=lambda path: path.stat().st_mtime_ns, default=PACKAGED)


def shown(path: Path) -> str:
    """Name a model file for display: the packaged one by the word that stands for it."""
    return PACKAGED_NAME if path == PACKAGED else display_name(path)
