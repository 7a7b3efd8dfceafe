"""Check the HDF5 file of a model's weights: plain arrays of finite numbers that are where they say."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np

from speechemo_cli.models.archive import HOSTILE, WEIGHTS, UnfitError, short

_MAX_OBJECTS = 10_000


def check(content: bytes) -> None:
    """Refuse weights that lie elsewhere, are packed, declare more than the file holds, or are no numbers.

    Keras writes groups, and in them arrays of float32 and one counter, each whole and as it is. So
    whatever leads out of the file (links, external storage, virtual datasets) or needs a filter to be
    read is none of its work.

    Parameters
    ----------
    content : bytes
        Of `model.weights.h5`.

    Raises
    ------
    UnfitError
    """
    import h5py

    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            _check_groups(file, len(content))
    except UnfitError:
        raise
    except Exception as error:  # h5py raises whatever HDF5's C code makes of a damaged file
        reason = short(error)
        raise UnfitError(f"is damaged: {WEIGHTS} cannot be read ({reason})") from None


def _check_groups(file: Any, size: int) -> None:
    import h5py

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
            else:
                held += _check_dataset(part, shown)
            if held > size:
                raise UnfitError(f"declares more weights than it holds: {shown}", HOSTILE)


def _check_dataset(dataset: Any, shown: str) -> int:
    """Return how many bytes it holds."""
    import h5py

    if not isinstance(dataset, h5py.Dataset):
        raise UnfitError(f"has weights that are a {type(dataset).__name__}: {shown}", HOSTILE)
    made = dataset.id.get_create_plist()
    if made.get_layout() == h5py.h5d.VIRTUAL or made.get_external_count():
        raise UnfitError(f"has weights that lie in other files: {shown}", HOSTILE)
    if made.get_nfilters() or made.get_layout() == h5py.h5d.CHUNKED:
        raise UnfitError(f"has weights that are packed: {shown}", HOSTILE)
    if dataset.dtype.kind not in "fi" or dataset.shape is None or len(dataset.attrs):
        raise UnfitError(f"has weights that are no plain numbers: {shown}", HOSTILE)
    declared = math.prod(dataset.shape) * dataset.dtype.itemsize
    held = int(dataset.id.get_storage_size())
    if declared != held:
        raise UnfitError(f"declares {declared} bytes of weights and holds {held}: {shown}", HOSTILE)
    if not np.isfinite(dataset[()]).all():
        raise UnfitError(f"has weights that are not finite: {shown}", HOSTILE)
    return held
