"""`speechemo compare`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speechemo_cli.cli import options, render
from speechemo_cli.evaluation.wording import percent

if TYPE_CHECKING:
    from speechemo_cli.evaluation.predictions import Comparison


def run(
    a: Annotated[Path, typer.Argument(metavar="A.csv", help="Predictions of one version.")],
    b: Annotated[Path, typer.Argument(metavar="B.csv", help="Predictions of another.")],
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of the bootstrap.")] = 0,
    format_: options.DocumentFormat = None,
) -> None:
    """Compare two files of predictions, made on the same clips and folds, clip by clip.

    `speechemo evaluate --version V --predictions FILE.csv` makes such a file. The difference comes with
    an interval (bootstrap over speakers) and a test (exact McNemar).
    """
    from speechemo_cli.evaluation import predictions

    result = predictions.compare(predictions.read(a), predictions.read(b), seed)
    if options.is_table(format_):
        render.emit(_table(result))
    else:
        render.emit_json("compare", asdict(result))


def _table(result: Comparison) -> str:
    rows = [
        [result.a, percent(result.accuracy_a), str(result.only_a)],
        [result.b, percent(result.accuracy_b), str(result.only_b)],
    ]
    low, high = (f"{100 * edge:+.1f}" for edge in result.ci95)
    certain = result.ci95[0] > 0 or result.ci95[1] < 0
    return "\n".join(
        [
            render.table([f"{result.n} answers", "accuracy", "right alone"], rows),
            f"Difference {100 * result.difference:+.1f} points, 95 % interval {low} to {high} (speakers);",
            f"McNemar p = {result.p_value:.2g}.",
            f"The interval {'leaves 0 out: a difference' if certain else 'holds 0: it may be chance'}.",
        ]
    )
