"""What trainings leave in `config.runs`: the weights of finished ones, the state of unfinished ones."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from speechemo_cli.features import FEATURE_SETS
from speechemo_cli.features.dataset import clip_weights
from speechemo_cli.models import Preset, version_module
from speechemo_cli.models.training import Checkpoint, TrainingState

if TYPE_CHECKING:
    from speechemo_cli.config import Config
    from speechemo_cli.corpus.splits import Positions
    from speechemo_cli.features.dataset import Dataset


class CachedTraining:
    """One training on some clips, with its files.

    Their names hold a hash of everything that decides what comes out: the network's source, its
    preset, the features, the clips with their labels and weights, the seed. So nothing is ever taken for
    something else, and a change of any of them begins anew. Trainings that two protocols have in
    common, or a protocol and its calibration, are done once.
    """

    def __init__(
        self,
        version: str,
        preset: Preset,
        data: Dataset,
        train: Positions,
        seed: int,
        config: Config,
        purpose: str = "fold",
    ) -> None:
        # What is watched differs by purpose, and so does the history of an unfinished training.
        network = version_module(version)
        sources = [Path(module.__file__) for module in (network, *network.PARTS)]
        settings = asdict(preset)
        del settings["calibrate"]  # decides what is made of the answers, not the answers
        examples = [data.examples[i] for i in train]
        decisive = {
            "network": [hashlib.sha256(source.read_bytes()).hexdigest() for source in sources],
            "preset": settings,
            "features": [
                FEATURE_SETS[name].fingerprint(config) for name in (preset.feature_set, *preset.others)
            ],
            "labels": data.labels,
            "train": [
                (example.key, example.clip.label, weight)
                for example, weight in zip(examples, clip_weights(examples).tolist(), strict=True)
            ],
            "seed": seed,
        }
        key = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]
        self._path = Path(config.runs) / f"{version}-{key}.npz"
        self.checkpoint = Checkpoint(self._path.with_suffix(f".{purpose}.npz"))

    def read(self) -> TrainingState | None:
        """Read what an earlier run kept; None where there is nothing, or nothing whole."""
        return TrainingState.read(self._path)

    def write(self, finished: TrainingState) -> None:
        """Keep a finished training.

        Raises
        ------
        AccessError
            `config.runs` cannot be written.
        """
        finished.write(self._path)
