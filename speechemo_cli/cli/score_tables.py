"""Tables of what `speechemo train` and `evaluate` have measured, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from speechemo_cli.cli import terminal
from speechemo_cli.corpus.clips import speaker_names
from speechemo_cli.files import display_name
from speechemo_cli.formatting import (
    GROUP_TITLES,
    MODEL_GROUP_TITLES,
    SEEN,
    TITLES,
    TRAINED,
    UNKNOWN,
    UNSEEN,
    interval,
    measure,
    percent,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from speechemo_cli.evaluation.metrics import Scores
    from speechemo_cli.evaluation.results import Answers, ProtocolResult

SCORES = ("clips", "accuracy", "UAR")
_MEANINGS = {
    UNSEEN: "",
    UNKNOWN: "Whether it was trained on their speakers is not known: the clips or the model file tell no"
    " speaker, or a name that another folder had in the training.",
    SEEN: "All speakers were seen in training: expect less on others.",
    TRAINED: "It was trained on every one of these clips: this shows its memory, not its skill.",
}


def score_cells(scores: Scores) -> list[str]:
    """Return the cells below `SCORES`."""
    return [str(scores.n), percent(scores.accuracy), percent(scores.uar)]


def per_class_table(parts: Mapping[str, Scores]) -> str:
    """Lay out precision and recall of every label, side by side for each part; all have the same labels."""
    columns = ["label"]
    for name in parts:
        columns += [f"{name}: clips", "precision", "recall"]
    rows = []
    for label in next(iter(parts.values())).per_class:
        rows.append([label])
        for scores in parts.values():
            one = scores.per_class[label]
            rows[-1] += [str(one.n), percent(one.precision), percent(one.recall)]
    return terminal.table(columns, rows)


def _matrices(titles: Mapping[str, str], groups: Mapping[str, Answers]) -> list[str]:
    """Lay out a confusion matrix for each group, titled with its corpora: rows are the truth."""
    shown = []
    for name, group in groups.items():
        labels = list(group.scores.per_class)
        rows = [
            [label, *(str(n) if n else "·" if terminal.draws_blocks() else "." for n in counts)]
            for label, counts in zip(labels, group.scores.confusion, strict=True)
        ]
        table = terminal.table(["truth \\ answer", *labels], rows)
        shown.append(f"{titles[name]} ({group.origin})\n{table}")
    return shown


def _conditions(scores: Mapping[str, Scores], plain: Scores) -> list[str]:
    """Lay out what other recording conditions cost; nothing where they were not asked for."""
    from speechemo_cli.evaluation.results import conditions_to_dict

    rows = [
        [one["title"], percent(one["accuracy"]), percent(one["uar"]), f"{100 * one['cost']:+.1f}"]
        for one in conditions_to_dict(scores, plain).get("conditions", {}).values()
    ]
    return [terminal.table(["the same clips", "accuracy", "UAR", "points lost"], rows)] if rows else []


def of_model(groups: Mapping[str, Answers], conditions: Mapping[str, Scores]) -> str:
    """Show the scores of a model file by what it was trained on, those of unseen speakers first."""
    rows = [
        [MODEL_GROUP_TITLES[name], *score_cells(group.scores), percent(group.scores.macro_f1)]
        for name, group in groups.items()
    ]
    first, headline = next(iter(groups.items()))
    scores = headline.scores
    shown = interval("accuracy", headline.intervals.get("accuracy"), headline.no_interval, "95 % interval ")
    title = MODEL_GROUP_TITLES[first]
    return "\n".join(
        [
            f"{title[0].upper()}{title[1:]} ({display_name(headline.origin)}): right"
            f" {percent(scores.accuracy)} of the time ({shown}),"
            f" UAR {percent(scores.uar)}. {_MEANINGS[first]}".rstrip(),
            terminal.table(["", *SCORES, "macro-F1"], rows),
            per_class_table({title: scores}),
            *_matrices(MODEL_GROUP_TITLES, groups),
            *_conditions(conditions, scores),
        ]
    )


def of_protocol(result: ProtocolResult) -> str:
    """Show the scores of the folds and of all of them together."""
    several = len(result.folds) > 1  # one training and one test have neither a mean nor a deviation
    parts = []
    if len(result.groups) > 1:
        groups = [
            [f"{GROUP_TITLES[name]} ({group.origin})", *score_cells(group.scores)[1:]]
            for name, group in result.groups.items()
        ]
        parts.append(terminal.table(["", *SCORES[1:]], groups))
    if several:
        names = speaker_names({who for fold in result.folds for who in fold.test_speakers})
        folds = [
            [
                fold.name,
                *score_cells(fold.scores),
                " ".join(names.get(who, who) for who in fold.test_speakers),
            ]
            for fold in result.folds
        ]
        parts.append(terminal.table(["fold", *SCORES, "test speakers"], folds))
    values = (
        {"mean": "mean of folds", "sd": "sd of folds", "pooled": "pooled"} if several else {"pooled": "value"}
    )
    summary = []
    for metric, name in TITLES.items():
        spread = result.spread(metric)
        shown = interval(metric, spread["ci95"], result.no_interval)
        summary.append([name, *(measure(metric, spread[value]) for value in values), shown])
    columns = [f"{result.version}, {result.protocol.name}", *values.values(), "95 % interval"]
    parts += [
        terminal.table(columns, summary),
        f"In this protocol {result.protocol.meaning}.{_more_corpora(result)}{_correction(result)}",
        *(f"Note: {display_name(caution)}." for caution in result.cautions),
        "",
        per_class_table({"all folds" if several else "test": result.scores}),
        *_matrices(GROUP_TITLES, result.groups),
    ]
    slices = [
        [name, value, *score_cells(scores)]
        for name, by_value in result.slices.items()
        if name != "speaker"
        for value, scores in by_value.items()
    ]
    if slices:
        parts.append(terminal.table(["slice", "", *SCORES], slices))
    return "\n".join(parts + _conditions(result.conditions, result.scores))


def of_seeds(summary: Mapping[str, Any]) -> str:
    """Show accuracy and UAR by seed, their mean and their range."""
    columns = [summary["accuracy"], summary["uar"]]
    rows = [
        [str(seed), *(percent(one["values"][i]) for one in columns)]
        for i, seed in enumerate(summary["seeds"])
    ]
    rows.append(["mean", *(percent(one["mean"]) for one in columns)])
    rows.append(["range", *(f"{percent(one['min'])} to {percent(one['max'])}" for one in columns)])
    return terminal.table(["seed", "accuracy", "UAR"], rows) + f"Below: seed {summary['seeds'][0]}.\n"


def _more_corpora(result: ProtocolResult) -> str:
    more = sorted(set(result.trained_corpora) - set(result.corpora))
    if not more or len(result.folds) == 1:
        return ""
    tested, others = (display_name(", ".join(names)) for names in (result.corpora, more))
    return f" Tested on {tested} alone; {others} stands in every training."


def _correction(result: ProtocolResult) -> str:
    if not result.calibrated:
        return ""
    temperatures = ", ".join(f"{fold.temperature:.2f}" for fold in result.folds)
    return f" Confidences are corrected by temperatures from the training speakers: {temperatures}."


def report_calibration(lacking: bool, temperatures: Sequence[float]) -> None:
    """Say where confidences could not be corrected, or only as far as is allowed."""
    from speechemo_cli.evaluation.metrics import at_bound

    if lacking:
        terminal.warn(
            "confidences are left as they are: correcting them takes clips of at least two known speakers,"
            " with two labels left whoever stays out"
        )
    for temperature in filter(at_bound, temperatures):
        terminal.warn(
            f"the temperature stopped at its bound, {temperature:.2f}: the network knows too little of unseen"
            " speakers for its confidences to be believed"
        )
