"""What a change of v3's training is worth, measured on speakers kept out of a training part.

    python benchmarks/inner_folds.py DATA... [--song] [--keep-out 08,17,21,23,24] [--preset NAME=VALUE ...]

RAVDESS actors who are kept out are neither trained on nor tested; the others are left out group by group
(`speaker-5fold`). NAME is a field of the preset (`epochs`, `dropout`, ...) or a constant of `models/v3.py`
or `features/dataset.py` (`_HEADS`, `_MIXUP`, `CORPUS_WEIGHT`, ...). Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import fields, replace

import numpy as np

from speechemo_cli.config import Config, TrainConfig
from speechemo_cli.corpus.known import RAVDESS
from speechemo_cli.corpus.layouts import find_all
from speechemo_cli.evaluation.protocols import run_protocol
from speechemo_cli.features import dataset
from speechemo_cli.features.augment import condition_sets
from speechemo_cli.models import v3


def main() -> None:
    """Train and score the changed version."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+")
    parser.add_argument("--song", action="store_true")
    parser.add_argument("--keep-out", default="08,17,21,23,24")
    parser.add_argument("--store", default="features")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--conditions", action="store_true")
    parser.add_argument("--copies", type=int, default=Config().augment.copies)
    parser.add_argument("--preset", nargs="*", default=[], metavar="NAME=VALUE")
    given = parser.parse_args()

    known = {field.name: getattr(v3.PRESET, field.name) for field in fields(v3.PRESET)}
    for text in given.preset:
        name, _, value = text.partition("=")
        if name in known:
            v3.PRESET = replace(v3.PRESET, **{name: type(known[name])(value)})
        else:
            module = v3 if hasattr(v3, name) else dataset
            setattr(module, name, type(getattr(module, name))(float(value)))
    config = Config(
        data=tuple(given.data), store=given.store, song=given.song, train=TrainConfig(calibrate=False)
    )
    config = replace(config, augment=replace(config.augment, copies=given.copies))
    sets = condition_sets("whisper") if given.conditions else ()
    clips = find_all(config.data, config).clips
    data = dataset.load(clips, config, "whisper", others=(*v3.PRESET.others, *sets))
    kept_out = {f"{RAVDESS}/{actor}" for actor in given.keep_out.split(",")}
    rest = np.flatnonzero([example.clip.speaker_id not in kept_out for example in data.examples])
    started = time.perf_counter()
    results = []
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory() as runs:  # what is kept does not know of changed constants
            changed = replace(config, runs=runs, seed=seed)
            results.append(run_protocol("v3", "speaker-5fold", data.subset(rest), changed))
    told = {
        "preset": given.preset,
        "accuracy": [round(100 * result.scores.accuracy, 1) for result in results],
        "nll": [round(result.scores.nll, 3) for result in results],
        "folds": [[round(100 * fold.scores.accuracy, 1) for fold in result.folds] for result in results],
        "conditions": {
            name: round(100 * float(np.mean([result.conditions[name].accuracy for result in results])), 1)
            for name in results[0].conditions
        },
        "seconds": round(time.perf_counter() - started),
    }
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
