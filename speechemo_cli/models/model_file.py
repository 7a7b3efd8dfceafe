"""The model file: a `.keras` archive with a `speechemo.json` in it. Save, inspect without Keras, load."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import zipfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechemo_cli.errors import ConfigError, ModelFileError
from speechemo_cli.features import FEATURE_SETS
from speechemo_cli.files import atomic_path, display_name, open_regular
from speechemo_cli.models import VERSIONS, archive, version_module, weights
from speechemo_cli.models.metadata import ModelMetadata, check_features
from speechemo_cli.processes import quiet_stderr

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from speechemo_cli.config import Config

FORMAT = 2
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


def save(model: Any, metadata: ModelMetadata, path: Path) -> None:
    """Write the model file, complete or not at all.

    Parameters
    ----------
    model : keras.Model
    metadata : ModelMetadata
    path : Path
        Ends in `.keras`.

    Raises
    ------
    AccessError
        It cannot be written; a file that was there is as it was.
    ModelFileError
        The metadata hold what is no number, so nobody could read it again.
    """
    with atomic_path(path) as temp:
        # A bare copy: the optimizer's state would make the file up to four times as large, and is of no
        # use to anybody who has the answer.
        bare = type(model).from_config(model.get_config())
        bare.set_weights(model.get_weights())
        bare.save(temp)
        with zipfile.ZipFile(temp, "a", zipfile.ZIP_DEFLATED) as members:
            hashes = {name: hashlib.sha256(members.read(name)).hexdigest() for name in archive.KERAS_MEMBERS}
            document = {"format": FORMAT, "members": hashes, **asdict(metadata)}
            del document["sha256"]  # no text can hold its own
            try:
                text = json.dumps(document, indent=1, allow_nan=False)
            except ValueError:
                raise ModelFileError("the results of this training are not numbers") from None
            members.writestr(archive.METADATA, text)


def inspect(path: str | os.PathLike[str]) -> ModelMetadata:
    """Check a model file and read its metadata. Imports no Keras and executes nothing.

    Raises
    ------
    ModelFileError
        As `check`.
    """
    return check(path).metadata


def read_metadata(path: str | os.PathLike[str]) -> ModelMetadata:
    """Read the metadata alone: enough where the network stays where it is, as beside its LiteRT file.

    Raises
    ------
    ModelFileError
        No such file, not a model file, damaged as far as was looked, or written by a newer version.
    """
    with _refusing(path) as name:
        return _metadata_of(archive.members(_content(path, name), [archive.METADATA]))[0]


@dataclass(frozen=True)
class Checked:
    """A model file in memory, checked. Whatever happens to the file meanwhile, this is what is loaded.

    Attributes
    ----------
    name : str
        Of the file, for display.
    metadata : ModelMetadata
    arrays : dict of str to np.ndarray
        The weights, by their path in the file.
    """

    name: str
    metadata: ModelMetadata
    arrays: dict[str, NDArray[Any]]

    def load(self) -> Any:
        """Build the network that the metadata name, and put the weights into it.

        Returns
        -------
        keras.Model

        Raises
        ------
        ModelFileError
            The network cannot be built, or the weights are not those of that network.
        AccessError
            There is no room for the file that Keras reads weights from.
        """
        with quiet_stderr(), _refusing(self.name):
            try:
                model = _build(self.metadata)
            except Exception as error:  # no room for a filter, say; every backend has errors of its own
                reason = archive.short(str(error).strip().split("\n")[0], 200)
                raise archive.UnfitError(f"has a network that cannot be built: {reason}") from None
            weights.assign(model, self.arrays)
        return model


def _build(metadata: ModelMetadata) -> Any:
    network, config = version_module(metadata.version), metadata.resolved_config()
    features = FEATURE_SETS[metadata.feature_set]
    preset = network.PRESET.with_config(config.train)
    return network.build((features.dim(features.section(config)),), len(metadata.labels), preset)


def load(path: str | os.PathLike[str]) -> tuple[Any, ModelMetadata]:
    """Check a model file, then build its network with its weights. Nothing in it is executed.

    Returns
    -------
    model : keras.Model
    metadata : ModelMetadata

    Raises
    ------
    ModelFileError, AccessError
        As `check` and `Checked.load`.
    """
    checked = check(path)
    return checked.load(), checked.metadata


@contextmanager
def _refusing(path: str | os.PathLike[str]) -> Iterator[str]:
    """Give the name of a file, and say it with the reason if it turns out to be no model file."""
    name = display_name(path)
    try:
        yield name
    except archive.UnfitError as error:
        raise ModelFileError(f"{name} {error}", error.hint) from None


def _metadata_of(parts: dict[str, bytes]) -> tuple[ModelMetadata, dict[str, Any]]:
    """Return the metadata, and the hashes of the other parts."""
    document = archive.parse(parts[archive.METADATA], archive.METADATA)
    made, hashes = document.get("format"), document.get("members")
    if type(made) is not int or not isinstance(hashes, dict):
        raise archive.UnfitError(f"is damaged: {archive.METADATA} cannot be read")
    if made > FORMAT:
        raise archive.UnfitError("was written by a newer version of speechemo", "Update speechemo")
    if made < FORMAT:
        raise archive.UnfitError(
            "was written by speechemo 0.1.0, which computed other features", "Train it again"
        )
    return ModelMetadata.from_document(document, hashlib.sha256(parts[archive.METADATA]).hexdigest()), hashes


def require_moderate(feature_set: str, config: Config) -> None:
    """Refuse features that no model file may ask for, before anything is trained on them.

    Raises
    ------
    ConfigError
    """
    try:
        check_features(feature_set, config)
    except archive.UnfitError as error:
        raise ConfigError(
            f"the config {error}", f"Raise {feature_set}.hop_length, or lower the other values"
        ) from None


def check(path: str | os.PathLike[str]) -> Checked:
    """Check a model file. Imports no Keras and executes nothing.

    Raises
    ------
    ModelFileError
        No such file, not a model file, damaged, written by a newer version, or with weights that are no
        plain arrays of finite numbers.
    """
    with _refusing(path) as name:
        parts = archive.members(_content(path, name))
        metadata, hashes = _metadata_of(parts)
        # To find damage: an attacker writes the hashes that fit.
        for member in archive.KERAS_MEMBERS:
            if hashes.get(member) != hashlib.sha256(parts[member]).hexdigest():
                raise archive.UnfitError(f"is damaged: {member} is not the one it was saved with")
        return Checked(name, metadata, weights.read(parts[archive.WEIGHTS]))


def _content(path: str | os.PathLike[str], name: str) -> bytes:
    """Read the file once: what is checked is what is loaded."""
    wrong = ModelFileError(f"{name} is not a model file, expected a file that ends in {SUFFIX}")
    try:
        with open_regular(path) as file:
            if not name.endswith(SUFFIX):
                raise wrong
            size = os.fstat(file.fileno()).st_size
            content = file.read(size) if size <= archive.MAX_BYTES else None
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise ModelFileError(
            f"{name}: no such model file", "Train one with `speechemo train`, or give its path with --model"
        ) from None
    except OSError as error:
        if isinstance(error, IsADirectoryError) or error.errno == errno.EINVAL:
            raise wrong from None
        raise ModelFileError(f"{name} cannot be read: {(error.strerror or str(error)).lower()}") from None
    if content is None:
        raise ModelFileError(f"{name} is too large: {size} bytes, at most {archive.MAX_BYTES}")
    return content


def default_path(models: str, version: str) -> Path:
    """Where `train` puts a version: `models/v2.keras`."""
    return Path(models) / f"{version}{SUFFIX}"


def find(model: str | None, models: str) -> Path:
    """Resolve what the user calls a model.

    Parameters
    ----------
    model : str or None
        A path; a version's name for `models/vN.keras`, or for the packaged model where that is of
        this version and there is no such file; `packaged`, which None stands for too.
    models : str
        Folder of the model files.
    """
    if model in (None, PACKAGED_NAME):
        return PACKAGED
    if model in VERSIONS:
        own = default_path(models, model)
        return PACKAGED if model == _PACKAGED_VERSION and not own.exists() else own
    return Path(model)


def shown(path: Path) -> str:
    """Name a model file for display: the packaged one by the word that stands for it."""
    return PACKAGED_NAME if path == PACKAGED else display_name(path)
