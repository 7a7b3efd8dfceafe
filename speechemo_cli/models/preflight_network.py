"""Look into a network's config.json before Keras does: a list of classes, and sizes that are there."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from speechemo_cli.models import preflight_shapes
from speechemo_cli.models.preflight import CONFIG, HOSTILE, UnfitError, short
from speechemo_cli.models.preflight_shapes import size

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_DEPTH = 32
# No size, stride or number of clips in a config is larger.
_MAX_NUMBER = 2**24
_NETWORKS = {("keras", "Sequential"), ("keras.src.models.functional", "Functional")}
# Every class that the networks v1, v2 and v3 are saved with. Adding one here says that it neither runs
# code nor reads files, that `_weights_of` knows how many weights it makes, and `preflight_shapes` what
# becomes of a clip.
_ALLOWED = {
    ("keras", "DTypePolicy"),
    *(("keras.initializers", name) for name in ("GlorotUniform", "Ones", "Zeros")),
    *(
        ("keras.layers", name)
        for name in (
            *("Activation", "Add", "Average", "AveragePooling2D", "BatchNormalization", "Concatenate"),
            *("Conv1D", "Conv2D", "Cropping2D", "Dense", "Dropout", "Flatten", "InputLayer"),
            *("MaxPooling1D", "Normalization", "ReLU", "Reshape", "Softmax"),
        )
    ),
    *(("keras.src.ops.numpy", name) for name in ("Maximum", "Multiply", "Sqrt", "Square", "Subtract", "Sum")),
}
_KNOWN_TEXTS = {
    "activation": {"linear", "relu", "softmax", "tanh"},
    "dtype": {"float32"},
    "data_format": {"channels_last"},
    "padding": {"same", "valid"},
}
_LOOKED_UP = ("_initializer", "_regularizer", "_constraint")
_PLAIN_KEYS = {"module", "class_name", "config", "registered_name", "args", "kwargs", "shape"}
_KEYS = {"module", "class_name", "config", "registered_name"}
_MORE_KEYS = {"name", "build_config", "compile_config", "inbound_nodes"}
# What makes Keras look up a class or a function, or build something, where no class is named.
_MARKS = {
    *(_KEYS - {"config"}),
    *("build_config", "compile_config", "shared_object_id", "spec_name", "fn", "fn_name", "function"),
}
# Each would make more weights than `_weights_of` counts, or code to quantise them, or stand in for weights.
_ALWAYS_NULL = ("lora_rank", "lora_alpha", "quantization_config", "mean", "variance")
# Every other would make other weights, or take memory by itself.
_ALWAYS_ONE = ("dilation_rate", "groups")
_LAYER_NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}")


def check(config: dict[str, Any], weights_bytes: int) -> tuple[tuple[int, ...], int]:
    """Refuse a network that names a class, function or size which the networks of speechemo do not.

    Parameters
    ----------
    config : dict
        What `config.json` holds.
    weights_bytes : int
        Size of the weights, which no network may ask for more of.

    Returns
    -------
    input_shape : tuple of int
        Of one clip.
    n_outputs : int
        Both as the config declares them.

    Raises
    ------
    UnfitError
        It names another one, or cannot be understood.
    """
    n_weights = 0
    try:
        for found in _objects(config):
            _check_values(found)
            if "class_name" in found or found is config:
                _check_class(found, network=found is config)
                n_weights += _weights_of(found)
            elif _MARKS & found.keys():
                _refuse_class(found)
        if 4 * n_weights > weights_bytes:
            raise UnfitError(
                f"declares {n_weights} weights, more than its {weights_bytes} bytes of weights can be",
                HOSTILE,
            )
        return preflight_shapes.follow(config)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError):
        raise UnfitError(f"is damaged: {CONFIG} does not fit") from None


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Yield every JSON object, however deep; refuse numbers and depths that no network has."""
    waiting = [(config, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise UnfitError(f"nests its {CONFIG} deeper than {_MAX_DEPTH}", HOSTILE)
        if isinstance(value, dict):
            yield value
            value = value.values()
        for inner in value:
            kind = type(inner)
            if kind is dict or kind is list:
                waiting.append((inner, depth + 1))
            elif (kind is int or kind is float) and not -_MAX_NUMBER <= inner <= _MAX_NUMBER:
                raise UnfitError(f"declares a size of {inner:g}, at most {_MAX_NUMBER}", HOSTILE)


def _check_values(found: dict[str, Any]) -> None:
    """Refuse texts that Keras would look up by name."""
    for key in found.keys() - _PLAIN_KEYS:
        value = found[key]
        if value is None:
            continue
        known = _KNOWN_TEXTS.get(key)
        if (
            (known is not None and isinstance(value, str) and value not in known)
            or (isinstance(value, str) and key.endswith(_LOOKED_UP))
            or key in _ALWAYS_NULL
            or (key in _ALWAYS_ONE and value not in (1, [1], [1, 1]))
            or (key == "name" and not (isinstance(value, str) and _LAYER_NAME.fullmatch(value)))
        ):
            raise UnfitError(
                f"contains {short(key)} {short(repr(value))}, which speechemo never loads", HOSTILE
            )


def _check_class(found: dict[str, Any], *, network: bool) -> None:
    """Refuse a class that is not on the list, or that is made or built as Keras saves none."""
    name, module = found["class_name"], found.get("module")
    if name == "__keras_tensor__" and found.keys() == {"class_name", "config"}:
        return
    if (
        not isinstance(name, str)
        or not isinstance(module, str)
        or (module, name) not in (_NETWORKS if network else _ALLOWED)
        or not found.keys() >= _KEYS
        or not found.keys() <= _KEYS | _MORE_KEYS
        or not isinstance(found["config"], dict)
        or found["registered_name"] not in (None, name)
        or found.get("compile_config")
        or (found.get("build_config") or {"input_shape": None}).keys() != {"input_shape"}
    ):
        _refuse_class(found)
    if name == "DTypePolicy" and found["config"] != {"name": "float32"}:
        raise UnfitError("computes in another type than float32", HOSTILE)


def _refuse_class(found: dict[str, Any]) -> None:
    """Name what is refused: a function stands in the config of its entry."""
    name = found.get("class_name") or found.get("fn") or found.get("registered_name")
    if name == "function":
        name = found.get("config")
    shown = ".".join(part for part in (found.get("module"), name) if isinstance(part, str))
    extra = sorted((_MARKS & found.keys()) - _KEYS)
    shown = shown or (extra[0] if extra else "an object without a class")
    raise UnfitError(f"contains {short(shown)}, which speechemo never loads", HOSTILE)


def _weights_of(found: dict[str, Any]) -> int:
    """How many float32 weights Keras allocates for a layer, by the shape it says it was built for."""
    name, own = found["class_name"], found["config"]
    if name not in ("Dense", "Conv1D", "Conv2D", "BatchNormalization", "Normalization"):
        return 0
    width = size(found["build_config"]["input_shape"][-1])
    if name.endswith("Normalization"):
        if own["axis"] not in (-1, [-1]):
            raise ValueError("statistics of another axis than the last are not counted here")
        # Of batches: scale, offset, mean and variance. Of features: mean, variance and a count of 8 bytes.
        return 4 * width if name == "BatchNormalization" else 2 * width + 2
    units = size(own["units"] if name == "Dense" else own["filters"])
    kernel = [] if name == "Dense" else [size(n) for n in own["kernel_size"]]
    if len(kernel) > 2:
        raise ValueError("no kernel has more than two dimensions")
    return math.prod((*kernel, width, units)) + (units if own["use_bias"] else 0)
