"""The model file (a `.keras` archive with a `speechemo.json` in it), and the LiteRT file beside it."""

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

import numpy as np

import speechemo_cli
from speechemo_cli.errors import ConfigError, ModelFileError
from speechemo_cli.features import FEATURE_SETS
from speechemo_cli.files import atomic_path, display_name, open_regular, sha256_file
from speechemo_cli.litert import LiteRtModel
from speechemo_cli.models import VERSIONS, archive, version_module
from speechemo_cli.models.metadata import ModelMetadata, check_features
from speechemo_cli.processes import quiet_stderr

if TYPE_CHECKING:
    from collections.abc import Iterator

    from speechemo_cli.config import Config

    PathLike = str | os.PathLike[str]

FORMAT = 2
SUFFIX = ".keras"
PARTS_OF_DATA = ("train", "train_samples", "seen_speakers", "new_speakers")
# The model that comes with the package; `make packaged-model` makes it.
PACKAGED_NAME = "packaged"
PACKAGED = Path(__file__).with_name(f"packaged{SUFFIX}")
_PACKAGED_VERSION = "v3"


def default_path(models: str, version: str) -> Path:
    """Where `train` puts a version: `models/v2.keras`."""
    return Path(models) / f"{version}{SUFFIX}"


def litert_path(model: Path) -> Path:
    """Where the LiteRT file of a model file is: `models/v3.tflite` for `models/v3.keras`."""
    return model.with_suffix(".tflite")


def find(model: str | None, models: str) -> Path:
    """Resolve what the user calls a model, where `models` is the folder of the trained ones.

    It is a path; a version's name for `models/vN.keras`, or for the packaged model where that is of this
    version and there is no such file; or `packaged`, which None stands for too.
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


def library_versions() -> dict[str, str]:
    """Versions of what takes part in a training."""
    import platform
    from importlib.metadata import version

    names = ("keras", "tensorflow", "numpy", "scipy", "soxr", "soundfile", "scikit-learn")
    return {
        "speechemo": speechemo_cli.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


def require_moderate(feature_set: str, config: Config) -> None:
    """Refuse (ConfigError) features that no model file may ask for, before anything is trained on them."""
    try:
        check_features(feature_set, config)
    except archive.UnfitError as error:
        raise ConfigError(
            f"the config {error}", f"Raise {feature_set}.hop_length, or lower the other values"
        ) from None


def save(model: Any, metadata: ModelMetadata, path: Path) -> None:
    """Write the model file, complete or not at all (AccessError).

    Raises ModelFileError where the metadata hold what is no number, so that nobody could read it again.
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


def write_litert(network: Any, path: Path) -> str:
    """Convert a network, complete or not at all (AccessError); return the SHA-256, for the metadata.

    Raises ModelFileError where it cannot be converted, as Keras does not run on TensorFlow, or not be run.
    """
    with atomic_path(path) as temp, quiet_stderr():
        try:
            import keras

            shape = (1, *network.input_shape[1:])
            spec = keras.InputSpec(shape=shape, dtype="float32", name="features")
            network.export(temp, format="litert", verbose=False, input_signature=[spec])
            # LiteRT says only then whether it can run it.
            LiteRtModel(temp.read_bytes()).run(np.zeros(shape, np.float32))
        except OSError:
            raise
        except Exception as error:
            reason = str(error).strip().split("\n")[0][:200]
            raise ModelFileError(f"the network cannot be converted to LiteRT: {reason}") from error
    return sha256_file(path)


@dataclass(frozen=True)
class Checked:
    """A model file in memory, checked. Whatever happens to the file meanwhile, this is what is loaded."""

    name: str  # of the file, for display
    metadata: ModelMetadata
    arrays: archive.Arrays

    def load(self) -> Any:
        """Build the network (keras.Model) that the metadata name, and put the weights into it.

        Raises ModelFileError where it cannot be built or has other weights; AccessError as `archive.assign`.
        """
        config, network = self.metadata.resolved_config(), version_module(self.metadata.version)
        features = FEATURE_SETS[self.metadata.feature_set]
        shape, preset = (features.dim(config),), network.PRESET.with_config(config.train)
        with quiet_stderr(), _refusing(self.name):
            try:
                model = network.build(shape, len(self.metadata.labels), preset)
            except Exception as error:  # no room for a filter, say; every backend has errors of its own
                reason = archive.short(str(error).strip().split("\n")[0], 200)
                raise archive.UnfitError(f"has a network that cannot be built: {reason}") from None
            archive.assign(model, self.arrays)
        return model


def check(path: PathLike) -> Checked:
    """Check a model file. Imports no Keras and executes nothing.

    Raises ModelFileError where there is none, or it is damaged, was written by a newer version, or has
    weights that are no plain arrays of finite numbers.
    """
    with _refusing(path) as name:
        parts = archive.members(_content(path, name))
        metadata, hashes = _metadata_of(parts[archive.METADATA])
        # To find damage: an attacker writes the hashes that fit.
        for member in archive.KERAS_MEMBERS:
            if hashes.get(member) != hashlib.sha256(parts[member]).hexdigest():
                raise archive.UnfitError(f"is damaged: {member} is not the one it was saved with")
        return Checked(name, metadata, archive.read_weights(parts[archive.WEIGHTS]))


def load(path: PathLike) -> tuple[Any, ModelMetadata]:
    """Check a model file, then build its network (keras.Model) with its weights: `check`, `Checked.load`."""
    checked = check(path)
    return checked.load(), checked.metadata


def inspect(path: PathLike) -> ModelMetadata:
    """Check a model file and return its metadata."""
    return check(path).metadata


def read_metadata(path: PathLike) -> ModelMetadata:
    """Check the metadata alone: enough where the network stays where it is, as beside its LiteRT file."""
    with _refusing(path) as name:
        parts = archive.members(_content(path, name), [archive.METADATA])
        return _metadata_of(parts[archive.METADATA])[0]


def read_litert(model: PathLike, metadata: ModelMetadata) -> bytes:
    """Read the bytes that have the hash the metadata name; ModelFileError where there are none."""
    path = litert_path(Path(model))
    name = display_name(path)
    if metadata.litert is None:
        raise ModelFileError(f"{display_name(model)} has no LiteRT file", "Train it again")
    try:
        with open_regular(path) as file:
            # A longer one has another hash than any that was saved.
            content = file.read(archive.MAX_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ModelFileError(f"the LiteRT file {name} cannot be read: {reason}", "Train it again") from None
    if hashlib.sha256(content).hexdigest() != metadata.litert:
        raise ModelFileError(
            f"the LiteRT file {name} does not belong to {display_name(model)}", "Train it again"
        )
    return content


@contextmanager
def _refusing(path: PathLike) -> Iterator[str]:
    """Give the name of a file, and say it with the reason if it turns out to be no model file."""
    name = display_name(path)
    try:
        yield name
    except archive.UnfitError as error:
        raise ModelFileError(f"{name} {error}", error.hint) from None


def _metadata_of(content: bytes) -> tuple[ModelMetadata, dict[str, Any]]:
    """Return the metadata, and the hashes of the other parts."""
    document = archive.parse(content, archive.METADATA)
    made, hashes = document.get("format"), document.get("members")
    if type(made) is not int or not isinstance(hashes, dict):
        raise archive.UnfitError(f"is damaged: {archive.METADATA} cannot be read")
    if made > FORMAT:
        raise archive.UnfitError("was written by a newer version of speechemo", "Update speechemo")
    if made < FORMAT:
        raise archive.UnfitError(
            "was written by speechemo 0.1.0, which computed other features", "Train it again"
        )
    return ModelMetadata.from_document(document, hashlib.sha256(content).hexdigest()), hashes


def _content(path: PathLike, name: str) -> bytes:
    """Read the file once: what is checked is what is loaded."""
    wrong = ModelFileError(f"{name} is not a model file, expected a file that ends in {SUFFIX}")
    try:
        with open_regular(path) as file:
            if not name.endswith(SUFFIX):
                raise wrong
            size = os.fstat(file.fileno()).st_size
            if size > archive.MAX_BYTES:
                raise ModelFileError(f"{name} is too large: {size} bytes, at most {archive.MAX_BYTES}")
            return file.read(size)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise ModelFileError(
            f"{name}: no such model file", "Train one with `speechemo train`, or give its path with --model"
        ) from None
    except OSError as error:
        if isinstance(error, IsADirectoryError) or error.errno == errno.EINVAL:
            raise wrong from None
        raise ModelFileError(f"{name} cannot be read: {(error.strerror or str(error)).lower()}") from None
