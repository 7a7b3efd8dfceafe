"""What a change of v3's training is worth, measured on speakers kept out of a training part.

    python benchmarks/ablation.py FOLDER [--song] [--keep-out 08,17,21,23,24] [RULE=VALUE ...]

Speakers who are kept out are neither trained on nor tested; the others are left out group by group
(`speaker-5fold`). RULE is a field of `augment.Augmentation`: `shift=2`, `warp=0.9,1.1`. Prints one
line of JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import fields, replace

import numpy as np

from speechemo_cli.config import Config, TrainConfig
from speechemo_cli.corpus.collection import find_all
from speechemo_cli.evaluation.protocols import preset_of, run_protocol
from speechemo_cli.features import dataset
from speechemo_cli.models import augment, version_module


def main() -> None:
    """Train and score the changed version."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder")
    parser.add_argument("--song", action="store_true")
    parser.add_argument("--keep-out", default="08,17,21,23,24")
    parser.add_argument("--store", default="features")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("rules", nargs="*", metavar="RULE=VALUE")
    given = parser.parse_intermixed_args()

    rules = replace(augment.Augmentation(), **dict(_rule(text) for text in given.rules))
    # A kept training does not know of changed rules, so each set of them has a folder of its own.
    tag = hashlib.sha256(repr(rules).encode()).hexdigest()[:8]
    config = Config(
        data=(given.folder,),
        store=given.store,
        runs=f"runs/ablation-{tag}",
        song=given.song,
        seed=given.seed,
        train=TrainConfig(calibrate=False),
    )
    augment.Augmentation = lambda: rules  # type: ignore[assignment, misc]
    preset = preset_of("v3", config)
    clips = find_all(config.data, song=config.song).clips
    data = dataset.load(clips, config, preset.feature_set, prepare=version_module("v3").prepare)
    kept_out = [f"ravdess/{actor}" for actor in given.keep_out.split(",")]
    rest = np.flatnonzero([example.clip.speaker_id not in kept_out for example in data.examples])
    result = run_protocol("v3", "speaker-5fold", data.subset(rest), config)
    print(
        json.dumps(
            {
                "song": given.song,
                "rules": given.rules,
                "seed": given.seed,
                "epochs": preset.epochs,
                "accuracy": result.pooled.accuracy,
                "ci95": result.intervals["accuracy"],
                "uar": result.pooled.uar,
                "nll": result.pooled.nll,
                "folds": [
                    {"speakers": fold.test_speakers, "accuracy": fold.scores.accuracy, "nll": fold.scores.nll}
                    for fold in result.folds
                ],
                "seconds": round(sum(fold.seconds for fold in result.folds)),
            }
        )
    )


def _rule(text: str) -> tuple[str, object]:
    name, _, value = text.partition("=")
    kinds = {field.name: field.default for field in fields(augment.Augmentation)}
    if name not in kinds:
        raise SystemExit(f"rule is {name!r}, expected one of {', '.join(kinds)}")
    if isinstance(kinds[name], tuple):
        return name, tuple(float(part) for part in value.split(","))
    return name, type(kinds[name])(value)


if __name__ == "__main__":
    main()
