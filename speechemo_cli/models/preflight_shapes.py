"""Follow one clip through a network's config.json before Keras does: what it becomes, and what that takes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.models.preflight import HOSTILE, UnfitError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Shape = tuple[int, ...]

# v2 has 16 and v3 has 142. To stack them one by one takes Keras a time that grows with the square of their
# number.
_MAX_LAYERS = {"Sequential": 100, "Functional": 500}
# Numbers that all layers together make of one clip: v2 makes 20,000, and v3 39 times as many as go in. As
# `predict` has at most 64 clips and 2**20 numbers go in at a time, that is a GiB at most.
_MAX_NUMBERS = 2**20
_MAX_GROWTH = 2**8
# Products of a number and a weight for one clip: v3 takes 1.1e8, and 9e8 with the most bands there are.
_MAX_PRODUCTS = 2**31
_UNCHANGED = {
    *("Activation", "BatchNormalization", "Dropout", "Normalization", "ReLU", "Softmax", "Sqrt", "Square"),
}
_MERGING = {"Add", "Average", "Maximum", "Multiply", "Subtract"}


def follow(config: dict[str, Any]) -> tuple[Shape, int]:
    """Return the shape of one clip that goes in, and how many probabilities come out.

    What the config says of shapes is not believed: they are computed as Keras will, which goes by the
    settings of the layers and by the names of those before.

    Parameters
    ----------
    config : dict
        Of a Sequential or Functional network, of classes that are on the list.

    Returns
    -------
    input_shape : tuple of int
    n_outputs : int

    Raises
    ------
    UnfitError
        There are too many layers, too much would be made of one clip, or no probabilities.
    KeyError, TypeError, ValueError
        It is not as Keras saves a network.
    """
    own = config["config"]
    entry, *layers = own["layers"]
    most = _MAX_LAYERS[config["class_name"]]
    if len(layers) >= most:
        raise UnfitError(f"has {1 + len(layers)} layers, at most {most}", HOSTILE)
    functional = config["class_name"] == "Functional"
    input_shape = shape = _entered(entry)
    limit = max(_MAX_NUMBERS, _MAX_GROWTH * math.prod(input_shape))
    made = {entry.get("name"): (shape, entry)}
    numbers = products = 0
    for layer in layers:
        inputs = [made[name][0] for name in _before(layer)] if functional else [shape]
        shape, more = _step(layer["class_name"], inputs, layer["config"])
        numbers += math.prod(shape)
        products += more
        if numbers > limit:
            raise UnfitError(f"makes {numbers} numbers of one clip, at most {limit}", HOSTILE)
        if products > _MAX_PRODUCTS:
            raise UnfitError(f"multiplies {products} times for one clip, at most {_MAX_PRODUCTS}", HOSTILE)
        if functional and made.setdefault(layer["name"], (shape, layer))[1] is not layer:
            raise ValueError("two layers of one name")
    last = layers[-1]
    if functional:
        # A list of one, which Keras would take too, makes it warn at every answer.
        if own["input_layers"] != [entry["name"], 0, 0] or own["output_layers"][1:] != [0, 0]:
            raise ValueError("not one input and one output")
        shape, last = made[own["output_layers"][0]]
    (n_outputs,) = shape
    if last["config"].get("activation") != "softmax":
        raise UnfitError("does not answer with probabilities: it does not end with a softmax", HOSTILE)
    return input_shape, n_outputs


def size(value: Any) -> int:
    """Return a size as it is.

    Raises
    ------
    ValueError
        It is none.
    """
    if type(value) is not int or value < 1:
        raise ValueError("a size is a whole number from 1")
    return value


def _entered(entry: dict[str, Any]) -> Shape:
    own = entry["config"]
    clips, *shape = own["batch_shape"]
    if entry["class_name"] != "InputLayer" or clips is not None:
        raise ValueError("a network begins with any number of clips")
    if own.get("sparse") or own.get("ragged") or own.get("optional"):
        raise ValueError("a clip is a plain array")
    return tuple(map(size, shape))


def _before(layer: dict[str, Any]) -> list[str]:
    """Name the layers that a layer reads, each of which is called once and has one output."""
    (node,) = layer["inbound_nodes"]
    if any(value not in (None, False) for value in node["kwargs"].values()):
        raise ValueError("called in another way")
    args = node["args"][0] if isinstance(node["args"][0], list) else node["args"]
    names = []
    for one in args:
        if type(one) is not float:  # as the floor of a square root
            name, *which = one["config"]["keras_history"]
            if which != [0, 0]:
                raise ValueError("the output of another call")
            names.append(name)
    return names


def _step(name: str, inputs: Sequence[Shape], own: dict[str, Any]) -> tuple[Shape, int]:
    """Return what a layer makes, and how many products that takes."""
    if name in _MERGING:
        if len({len(shape) for shape in inputs}) != 1:  # with the clips in the place of something else
            raise ValueError("shapes of several ranks")
        return np.broadcast_shapes(*inputs), 0
    if name == "Concatenate":
        at = _axis(own, len(inputs[0]))
        (rest,) = {(*shape[:at], *shape[at + 1 :]) for shape in inputs}
        return (*rest[:at], sum(shape[at] for shape in inputs), *rest[at:]), 0
    (shape,) = inputs
    return (shape, 0) if name in _UNCHANGED else _RULES[name](shape, own)


def _axis(own: dict[str, Any], rank: int) -> int:
    """Return which of the sizes of one clip an axis is; the clips are the first of all."""
    axis: int = own["axis"]
    at = axis - 1 if axis > 0 else axis + rank
    if type(axis) is not int or axis == 0 or not 0 <= at < rank:
        raise ValueError("no axis of a clip")
    return at


def _summed(shape: Shape, own: dict[str, Any]) -> tuple[Shape, int]:
    at = _axis(own, len(shape))
    return (*shape[:at], *([1] if own["keepdims"] else []), *shape[at + 1 :]), 0


def _reshaped(shape: Shape, own: dict[str, Any]) -> tuple[Shape, int]:
    target = tuple(map(size, own["target_shape"]))
    if math.prod(target) != math.prod(shape):
        raise ValueError("another number of values")
    return target, 0


def _cropped(shape: Shape, own: dict[str, Any]) -> tuple[Shape, int]:
    rows, columns, channels = shape
    (top, bottom), (left, right) = own["cropping"]
    if min(top, bottom, left, right) < 0:
        raise ValueError("cropped by less than nothing")
    return (size(rows - top - bottom), size(columns - left - right), channels), 0


def _dense(shape: Shape, own: dict[str, Any]) -> tuple[Shape, int]:
    made = (*shape[:-1], size(own["units"]))
    return made, math.prod(made) * shape[-1]


def _convolved(shape: Shape, own: dict[str, Any]) -> tuple[Shape, int]:
    kernel = list(map(size, own["kernel_size"]))
    made = (*_slid(shape, kernel, own), size(own["filters"]))
    return made, math.prod(made) * math.prod(kernel) * shape[-1]


def _pooled(shape: Shape, own: dict[str, Any]) -> tuple[Shape, int]:
    pool = list(map(size, own["pool_size"]))
    made = (*_slid(shape, pool, own), shape[-1])
    return made, math.prod(made) * math.prod(pool)


def _slid(shape: Shape, window: Sequence[int], own: dict[str, Any]) -> Shape:
    """Return in how many places a window stands that slides over all but the channels."""
    padded = own["padding"] == "same"
    return tuple(
        -(-n // step) if padded else size((n - width) // step + 1)
        for n, width, step in zip(shape[:-1], window, map(size, own["strides"]), strict=True)
    )


_RULES: dict[str, Callable[[Shape, dict[str, Any]], tuple[Shape, int]]] = {
    "AveragePooling2D": _pooled,
    "Conv1D": _convolved,
    "Conv2D": _convolved,
    "Cropping2D": _cropped,
    "Dense": _dense,
    "Flatten": lambda shape, _own: ((math.prod(shape),), 0),
    "MaxPooling1D": _pooled,
    "Reshape": _reshaped,
    "Sum": _summed,
}
