"""The weights of a model file: plain arrays read out of HDF5, and put into a network of our own making."""

from __future__ import annotations

import io
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.files import access_error, scratch_folder
from speechemo_cli.models.archive import HOSTILE, WEIGHTS, UnfitError, short

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

_MAX_OBJECTS = 10_000
# Weights and statistics, and how many clips the statistics are of.
_DTYPES = ("float32", "int32", "int64")


def read(content: bytes) -> Arrays:
    """Read the arrays of an HDF5 file of weights; refuse all but plain ones in the file itself.

    Keras writes groups, and in them whole arrays of float32 and one counter. So whatever leads out of
    the file (links, external storage, virtual datasets) or needs a filter to be read is none of its work.

    Parameters
    ----------
    content : bytes
        Of `model.weights.h5`.

    Returns
    -------
    dict of str to np.ndarray
        Finite numbers by their path in the file.

    Raises
    ------
    UnfitError
        They lie elsewhere, are packed, declare more than the file holds, or are no finite numbers.
    """
    import h5py

    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            return _read_groups(file, len(content))
    except UnfitError:
        raise
    except Exception as error:  # h5py raises whatever HDF5's C code makes of a damaged file
        reason = short(error)
        raise UnfitError(f"is damaged: {WEIGHTS} cannot be read ({reason})") from None


def _read_groups(file: Any, size: int) -> Arrays:
    import h5py

    arrays: Arrays = {}
    seen, held = {h5py.h5o.get_info(file.id).addr}, 0
    waiting = [file]
    while waiting:
        group = waiting.pop()
        for name in group:
            shown = short(f"{group.name}/{name}")
            link = type(group.get(name, getlink=True))
            if link is not h5py.HardLink:
                raise UnfitError(f"has weights that lie elsewhere ({link.__name__}): {shown}", HOSTILE)
            info = h5py.h5o.get_info(group.id, name.encode())
            # A part that stands in two places would be read twice, or, if it holds itself, for ever.
            if info.addr in seen or len(seen) > _MAX_OBJECTS:
                raise UnfitError(f"has weights that a network does not have: {shown}", HOSTILE)
            seen.add(info.addr)
            part = group[name]
            if isinstance(part, h5py.Group):
                waiting.append(part)
                continue
            held += _check_plain(part, shown)
            if held > size:
                raise UnfitError(f"declares more weights than it holds: {shown}", HOSTILE)
            arrays[part.name] = part[()]
            if not np.isfinite(arrays[part.name]).all():
                raise UnfitError(f"has weights that are not finite: {shown}", HOSTILE)
    return arrays


def _check_plain(dataset: Any, shown: str) -> int:
    """Return how many bytes it holds."""
    import h5py

    if not isinstance(dataset, h5py.Dataset):
        raise UnfitError(f"has weights that are a {type(dataset).__name__}: {shown}", HOSTILE)
    made = dataset.id.get_create_plist()
    if made.get_layout() == h5py.h5d.VIRTUAL or made.get_external_count():
        raise UnfitError(f"has weights that lie in other files: {shown}", HOSTILE)
    if made.get_nfilters() or made.get_layout() == h5py.h5d.CHUNKED:
        raise UnfitError(f"has weights that are packed: {shown}", HOSTILE)
    if dataset.dtype.name not in _DTYPES or dataset.shape is None or len(dataset.attrs):
        raise UnfitError(f"has weights that are no plain numbers: {shown}", HOSTILE)
    declared = math.prod(dataset.shape) * dataset.dtype.itemsize
    held = int(dataset.id.get_storage_size())
    if declared != held:
        raise UnfitError(f"declares {declared} bytes of weights and holds {held}: {shown}", HOSTILE)
    return held


def assign(model: Any, arrays: Arrays) -> None:
    """Put weights into a network that was just built, in place.

    Keras never sees the file they came from: it writes its own, which gets their numbers and is read back.

    Parameters
    ----------
    model : keras.Model
    arrays : dict of str to np.ndarray
        As `read` gives them.

    Raises
    ------
    UnfitError
        The network has other weights, or of other shapes.
    AccessError
        There is no room for the file that Keras writes.
    """
    import h5py

    folder = scratch_folder()
    try:
        with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as private:
            path = Path(private) / WEIGHTS
            model.save_weights(path)
            with h5py.File(path, "r+") as file:
                own: dict[str, Any] = {}
                file.visititems(
                    lambda _, part: own.update({part.name: part}) if hasattr(part, "dtype") else None
                )
                for name in sorted(own.keys() | arrays.keys()):
                    received, expected = (
                        "x".join(map(str, some[name].shape)) or "a number" if name in some else "nothing"
                        for some in (arrays, own)
                    )
                    if received != expected:
                        raise UnfitError(
                            f"has other weights than its network: {short(name)} is {received}, "
                            f"expected {expected}"
                        )
                    own[name][()] = arrays[name]
            model.load_weights(path)
    except OSError as error:
        raise access_error("write to", folder, error) from error
