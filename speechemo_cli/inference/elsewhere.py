"""Answers for clips from the workers of joblib's backend: a cluster's."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from speechemo_cli import processes
from speechemo_cli.errors import ModelFileError
from speechemo_cli.features import workers
from speechemo_cli.files import display_name, sha256_file
from speechemo_cli.inference.predictor import BATCH, Predictor, Refusal
from speechemo_cli.models import model_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from speechemo_cli.config import Config
    from speechemo_cli.inference.predictor import Answer, Known

# Batches for each worker that are read ahead of the answers.
_AHEAD = 8


class Model(NamedTuple):
    """What a worker opens: the arguments of `Predictor.open`.

    Attributes
    ----------
    path : str
        Empty for the packaged model, which lies elsewhere on each machine.
    sha256 : str
    config : Config
    options : tuple of (str, object)
    """

    path: str
    sha256: str
    config: Config
    options: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, path: Path, config: Config, **options: Any) -> Model:
        """Name a model file by its place and content."""
        place = "" if path == model_file.PACKAGED else os.path.abspath(path)  # noqa: PTH100
        return cls(place, sha256_file(path), replace(config, jobs=1), tuple(options.items()))


class _Item(NamedTuple):
    i: int
    clip: str | tuple[str, bytes]
    known: Mapping[str, Sequence[Answer]]


def predict_groups(
    model: Model, clips: Iterable[str | tuple[str, bytes]], known: Known
) -> Iterator[list[Answer | Refusal]]:
    """Answer as `Predictor.predict_groups` does, on workers that see the clips under the same paths."""
    clips = iter(clips)
    n = max(1, workers.given())
    while some := list(islice(clips, BATCH * _AHEAD * n)):
        names = [clip if isinstance(clip, str) else clip[0] for clip in some]
        items = [_Item(i, _absolute(some[i]), known(name)) for i, name in enumerate(names)]
        batches = [items[i : i + BATCH] for i in range(0, len(items), BATCH)]
        ready: dict[int, list[Answer | Refusal]] = {}
        at = 0
        for batch, groups in workers.run(batches, answer_batch, n, model):
            ready |= zip(
                [item.i for item in batch], groups or [[Refusal("", processes.CRASHED)]], strict=True
            )
            while at in ready:
                yield [replace(item, path=names[at]) for item in ready.pop(at)]
                at += 1


def _absolute(clip: str | tuple[str, bytes]) -> str | tuple[str, bytes]:
    return os.path.abspath(clip) if isinstance(clip, str) else clip  # noqa: PTH100


def answer_batch(batch: list[_Item], model: Model) -> list[list[Answer | Refusal]]:
    """Answer for some clips. Runs on a worker."""
    earlier = {item.clip: item.known for item in batch}
    return _opened(model).predict_batch([item.clip for item in batch], lambda path: earlier.get(path, {}))


@lru_cache(maxsize=1)
def _opened(model: Model) -> Predictor:
    path = model.path or model_file.PACKAGED
    predictor = Predictor.open(path, model.config, isolate=True, **dict(model.options))
    if sha256_file(path) != model.sha256:
        raise ModelFileError(f"{display_name(path)} is another file on a worker than here", "Copy it there")
    return predictor
