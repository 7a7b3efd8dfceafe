"""Tables of what `speechemo evaluate` has measured, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from speechemo_cli.cli import render
from speechemo_cli.corpus.clips import speaker_names
from speechemo_cli.evaluation.wording import TITLES, measure, percent
from speechemo_cli.files import display_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from speechemo_cli.evaluation.holdout import ModelResult
    from speechemo_cli.evaluation.metrics import Scores
    from speechemo_cli.evaluation.protocols import ProtocolResult


def of_model(result: ModelResult, headline: Scores) -> str:
    """Show the scores of a model file on the clips it was trained on and on others."""
    parts = {
        "trained on": result.trained_on,
        "other clips of seen speakers": result.seen_speakers,
        "unseen speakers": result.unseen_speakers,
        "files it was not trained on": result.unknown_speakers,
    }
    rows = [
        [name, str(s.n), percent(s.accuracy), percent(s.uar), percent(s.macro_f1)]
        for name, s in parts.items()
        if s is not None
    ]
    text = render.table(["", "clips", "accuracy", "UAR", "macro-F1"], rows)
    if result.not_trained_on is None:
        words = "The model was trained on every one of these clips: this shows its memory, not its skill."
    else:
        trained_on = result.trained_on.n if result.trained_on else 0
        words = (
            f"Below: the {headline.n} clips it was not trained on. It was trained on {trained_on} of these."
        )
        if result.unknown_speakers:
            words += f" Of {result.unknown_speakers.n} it is not known whether it has seen their speakers."
    tables = [render.per_class_table({"scored": headline}), render.confusion_table(headline)]
    return "\n".join([text, words, "", *tables, *_conditions(result.conditions, headline)])


def of_protocol(result: ProtocolResult) -> str:
    """Show the scores of the folds and of all of them together."""
    names = speaker_names({who for fold in result.folds for who in fold.test_speakers})
    # One training and one test have neither a mean nor a deviation.
    several = len(result.folds) > 1
    folds = [
        [
            fold.name,
            str(fold.scores.n),
            percent(fold.scores.accuracy),
            percent(fold.scores.uar),
            " ".join(names.get(who, who) for who in fold.test_speakers),
        ]
        for fold in result.folds
    ]
    summary = []
    for metric, name in TITLES.items():
        spread = result.spread(metric)
        values = (spread["mean"], spread["sd"], spread["pooled"], *spread["ci95"])
        mean, sd, pooled, low, high = (measure(metric, value) for value in values)
        summary.append([name, *([mean, sd] if several else []), pooled, f"{low} to {high}"])
    slices = [
        [name, value, str(scores.n), percent(scores.accuracy), percent(scores.uar)]
        for name, parts in result.slices.items()
        if name != "speaker"
        for value, scores in parts.items()
    ]
    title = f"{result.version}, {result.protocol.name}"
    columns = [
        title,
        *(["mean of folds", "sd of folds", "pooled"] if several else ["value"]),
        "95 % interval",
    ]
    return "\n".join(
        [
            *(
                [render.table(["fold", "clips", "accuracy", "UAR", "test speakers"], folds)]
                if several
                else []
            ),
            render.table(columns, summary),
            f"In this protocol {result.protocol.meaning}.{_more_corpora(result)}{_correction(result)}",
            "",
            render.per_class_table({"all folds" if several else "test": result.pooled}),
            render.confusion_table(result.pooled),
            *([render.table(["slice", "", "clips", "accuracy", "UAR"], slices)] if slices else []),
            *_conditions(result.conditions, result.pooled),
        ]
    )


def _more_corpora(result: ProtocolResult) -> str:
    more = sorted(set(result.trained_corpora) - set(result.tested_corpora))
    if not more or len(result.folds) == 1:
        return ""
    tested, others = (display_name(", ".join(names)) for names in (result.tested_corpora, more))
    return f" Tested on {tested} alone; {others} stands in every training."


def _correction(result: ProtocolResult) -> str:
    if not result.calibrated:
        return ""
    temperatures = ", ".join(f"{fold.temperature:.2f}" for fold in result.folds)
    return f" Confidences are corrected by temperatures from the training speakers: {temperatures}."


def _conditions(scores: Mapping[str, Scores], plain: Scores) -> list[str]:
    """Lay out what other recording conditions cost; nothing where they were not asked for."""
    from speechemo_cli.evaluation import conditions

    rows = [
        [title, percent(accuracy), percent(uar), f"{100 * cost:+.1f}"]
        for title, accuracy, uar, cost in conditions.rows(scores, plain)
    ]
    return [render.table(["the same clips", "accuracy", "UAR", "points lost"], rows)] if rows else []
