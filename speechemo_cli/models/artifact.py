"""The model file: a `.keras` archive with a `speechemo.json` in it. Save, inspect without Keras, load."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.errors import ConfigError, ModelFileError, SpeechemoError
from speechemo_cli.features import FEATURE_SETS
from speechemo_cli.files import access_error, atomic_path, display_name, open_regular, scratch_folder
from speechemo_cli.models import VERSIONS, preflight, preflight_card, version_module
from speechemo_cli.models.card import ModelCard as ModelCard
from speechemo_cli.models.keras_backend import load_keras, require_safe_keras
from speechemo_cli.models.preflight import short
from speechemo_cli.stderr import quiet_stderr

if TYPE_CHECKING:
    from collections.abc import Iterator

    from speechemo_cli.config import Config

FORMAT = 1
SUFFIX = ".keras"
PARTS_OF_DATA = ("train", "train_samples", "seen_speakers", "new_speakers")
# The model that comes with the package; `make packaged-model` makes it.
PACKAGED_NAME = "packaged"
PACKAGED = Path(__file__).with_name(f"packaged{SUFFIX}")
_PACKAGED_VERSION = "v3"


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
    ModelFileError
        The card holds what is no number, so nobody could read it again.
    """
    with atomic_path(path) as temp:
        # A bare copy: the optimizer's state would make the file up to four times as large, and is of no
        # use to anybody who has the answer.
        bare = type(model).from_config(model.get_config())
        bare.set_weights(model.get_weights())
        bare.save(temp)
        with zipfile.ZipFile(temp, "a", zipfile.ZIP_DEFLATED) as archive:
            hashes = {
                name: hashlib.sha256(archive.read(name)).hexdigest() for name in preflight.KERAS_MEMBERS
            }
            document = {"format": FORMAT, "members": hashes, **asdict(card)}
            del document["sha256"]  # no text can hold its own
            try:
                text = json.dumps(document, indent=1, allow_nan=False)
            except ValueError:
                raise ModelFileError("the results of this training are not numbers") from None
            archive.writestr(preflight.CARD, text)


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
        As `check`.
    """
    return check(path).card


def read_card(path: str | os.PathLike[str]) -> ModelCard:
    """Read the card alone: enough where the network stays where it is, as beside its LiteRT twin.

    Raises
    ------
    ModelFileError
        No such file, not a model file, damaged as far as was looked, or written by a newer version.
    """
    with _refusing(path) as name:
        return _card_of(preflight.members(_content(path, name), [preflight.CARD]))[0]


@dataclass(frozen=True)
class Checked:
    """A model file in memory, checked. Whatever happens to the file meanwhile, this is what is loaded.

    Attributes
    ----------
    name : str
        Of the file, for display.
    card : ModelCard
    parts : dict of str to bytes
    expected : (shape, n_outputs)
        What goes into its network and comes out.
    """

    name: str
    card: ModelCard
    parts: dict[str, bytes]
    expected: tuple[tuple[int, ...], int]

    def load(self) -> Any:
        """Have Keras load it. Nothing in it is executed.

        Returns
        -------
        keras.Model

        Raises
        ------
        ModelFileError
            The installed Keras is too old to be trusted with it, or Keras refuses it.
        AccessError
            There is no room for the copy that Keras reads.
        """
        require_safe_keras()
        keras = load_keras()
        try:
            with _copy(self.parts) as copy, quiet_stderr(), _safe_mode():
                model = keras.saving.load_model(copy, compile=False, safe_mode=True)
            received = (tuple(model.input_shape[1:]), model.output_shape[-1])
        except SpeechemoError:
            raise
        except Exception as error:
            first_line = short(str(error).strip().split("\n")[0], 200)
            raise ModelFileError(f"{self.name} cannot be loaded by Keras: {first_line}") from error
        if received != self.expected:
            raise _unlike(self.name, received, self.expected)
        return model


def load(path: str | os.PathLike[str]) -> tuple[Any, ModelCard]:
    """Check a model file, then load it. Nothing in it is executed.

    Returns
    -------
    model : keras.Model
    card : ModelCard

    Raises
    ------
    ModelFileError, AccessError
        As `check` and `Checked.load`.
    """
    checked = check(path)
    return checked.load(), checked.card


@contextmanager
def _copy(parts: dict[str, bytes]) -> Iterator[Path]:
    """Give Keras the very bytes that were checked, under a name that it takes for nothing but a file.

    Meanwhile anybody may exchange the file itself, and to Keras `hf://` and `/gcs/` are places elsewhere.
    """
    folder = scratch_folder()
    try:
        private = Path(tempfile.mkdtemp(dir=folder))
        path = private / f"model{SUFFIX}"
        with zipfile.ZipFile(path, "w") as archive:
            for name in preflight.KERAS_MEMBERS:
                archive.writestr(name, parts[name])
    except OSError as error:
        raise access_error("write to", folder, error) from error
    try:
        yield path
    finally:
        shutil.rmtree(private, ignore_errors=True)


@contextmanager
def _safe_mode() -> Iterator[None]:
    """Overrule `keras.config.enable_unsafe_deserialization`, which would overrule `safe_mode=True`."""
    from keras.src.saving.serialization_lib import SafeModeScope

    with SafeModeScope(True):
        yield


@contextmanager
def _refusing(path: str | os.PathLike[str]) -> Iterator[str]:
    """Give the name of a file, and say it with the reason if it turns out to be no model file."""
    name = display_name(path)
    try:
        yield name
    except preflight.UnfitError as error:
        raise ModelFileError(f"{name} {error}", error.hint) from None


def _card_of(parts: dict[str, bytes]) -> tuple[ModelCard, dict[str, Any]]:
    """Return the card, and the hashes of the other parts."""
    document = preflight.parse(parts[preflight.CARD], preflight.CARD)
    made, hashes = document.get("format"), document.get("members")
    if type(made) is not int or not isinstance(hashes, dict):
        raise preflight.UnfitError(f"is damaged: {preflight.CARD} cannot be read")
    if made > FORMAT:
        raise preflight.UnfitError("was written by a newer version of speechemo", "Update speechemo")
    return ModelCard.from_document(document, hashlib.sha256(parts[preflight.CARD]).hexdigest()), hashes


def require_moderate(feature_set: str, config: Config) -> None:
    """Refuse features that no model file may ask for, before anything is trained on them.

    Raises
    ------
    ConfigError
    """
    features = FEATURE_SETS[feature_set]
    try:
        preflight_card.check_features(features, features.section(config))
    except preflight.UnfitError as error:
        raise ConfigError(
            f"the config {error}", f"Raise {feature_set}.hop_length, or lower the other values"
        ) from None


def check(path: str | os.PathLike[str]) -> Checked:
    """Check a model file. Imports no Keras and executes nothing.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    Checked

    Raises
    ------
    ModelFileError
        No such file, not a model file, damaged, written by a newer version, with a layer that is not
        on the list of `preflight_network` or layers that would take too much, with weights that are no
        plain arrays of finite numbers, or with parts that do not fit together.
    """
    from speechemo_cli.models import preflight_network, preflight_weights

    with _refusing(path) as name:
        parts = preflight.members(_content(path, name))
        card, hashes = _card_of(parts)
        # To find damage: an attacker writes the hashes that fit.
        for member in preflight.KERAS_MEMBERS:
            if hashes.get(member) != hashlib.sha256(parts[member]).hexdigest():
                raise preflight.UnfitError(f"is damaged: {member} is not the one it was saved with")
        config = preflight.parse(parts[preflight.CONFIG], preflight.CONFIG)
        received = preflight_network.check(config, len(parts[preflight.WEIGHTS]))
        preflight_weights.check(parts[preflight.WEIGHTS])
    features = FEATURE_SETS[card.feature_set]
    dim = features.dim(features.section(card.resolved_config()))
    clip = version_module(card.version).prepare([np.zeros((1, dim), np.float32)])
    expected = (clip.shape[1:], len(card.labels))
    if received != expected:
        raise _unlike(name, received, expected)
    return Checked(name, card, parts, expected)


def _content(path: str | os.PathLike[str], name: str) -> bytes:
    """Read the file once: what is checked is what is loaded."""
    wrong = ModelFileError(f"{name} is not a model file, expected a file that ends in {SUFFIX}")
    try:
        with open_regular(path) as file:
            if not name.endswith(SUFFIX):
                raise wrong
            size = os.fstat(file.fileno()).st_size
            content = file.read(size) if size <= preflight.MAX_BYTES else None
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise ModelFileError(
            f"{name}: no such model file", "Train one with `speechemo train`, or give its path with --model"
        ) from None
    except OSError as error:
        if isinstance(error, IsADirectoryError) or error.errno == errno.EINVAL:
            raise wrong from None
        raise ModelFileError(f"{name} cannot be read: {(error.strerror or str(error)).lower()}") from None
    if content is None:
        raise ModelFileError(f"{name} is too large: {size} bytes, at most {preflight.MAX_BYTES}")
    return content


def _unlike(name: str, received: Any, expected: Any) -> ModelFileError:
    """Say that what a network takes and gives is not what its card says."""
    (shape, outputs), (wanted_shape, wanted) = (("x".join(map(str, s)), n) for s, n in (received, expected))
    return ModelFileError(
        f"{name} does not fit its card: {shape} inputs and {outputs} outputs, "
        f"expected {wanted_shape} and {wanted}"
    )


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
