"""`speechemo compare`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from speechemo_cli.cli import options, terminal
from speechemo_cli.cli.outputs import protect
from speechemo_cli.files import display_name
from speechemo_cli.formatting import percent

if TYPE_CHECKING:
    from speechemo_cli.evaluation.predictions import Comparison


def run(
    a: Annotated[Path, Argument(metavar="A.csv", help="Predictions of one version.")],
    b: Annotated[Path, Argument(metavar="B.csv", help="Predictions of another.")],
    plot: Annotated[
        Path | None,
        Option(metavar="FILE.png", help="Draw the difference, and that of each speaker, into this file."),
    ] = None,
    seed: Annotated[int, Option(min=0, max=2**31 - 1, help="Seed of the bootstrap.")] = 0,
    format_: options.DocumentFormat = None,
) -> None:
    """Compare two files of predictions, made on the same clips and folds, clip by clip.

    `speechemo evaluate --version V --predictions FILE.csv` makes such a file. One is called better
    where the interval of the difference, by bootstrap over speakers, leaves 0 out.
    """
    from speechemo_cli.evaluation import plots, predictions

    options.check_output("--plot", plot, ".png")
    protect({"--plot": [plot]}, [a, b])
    result = predictions.compare(predictions.read(a), predictions.read(b), seed)
    verdict = _verdict(result)
    if plot:
        plots.difference(result, verdict, plot)
        terminal.note(f"differences: {display_name(plot)}")
    rows = [
        [result.a, percent(result.accuracy_a), str(result.only_a)],
        [result.b, percent(result.accuracy_b), str(result.only_b)],
    ]
    columns = [f"{result.n} answers", "accuracy", "right alone"]
    document = {**asdict(result), "verdict": verdict}
    options.show("compare", format_, lambda: f"{terminal.table(columns, rows)}\n{verdict}", document)


def _verdict(result: Comparison) -> str:
    """Say in one sentence which is better, if that can be told."""
    from speechemo_cli.evaluation.metrics import MIN_SPEAKERS

    n, points = len(result.by_speaker), f"{100 * result.difference:+.1f} points"
    if result.ci95 is None:
        return (
            f"No verdict: the difference is {points}, but {n} speakers are known, and it takes"
            f" {MIN_SPEAKERS} to tell anything of others."
        )
    low, high = (f"{100 * edge:+.1f}" for edge in result.ci95)
    measured = f"{points}, 95 % interval {low} to {high} over {n} speakers"
    if result.better is None:
        return f"Neither is shown to be better: the difference is {measured}."
    better, other = (result.a, result.b) if result.better == "a" else (result.b, result.a)
    return f"{better} is better than {other}: the difference is {measured}."
