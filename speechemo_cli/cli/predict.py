"""`speechemo predict`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from speechemo_cli.cli import options, render
from speechemo_cli.files import display_name

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    from speechemo_cli.inference.predictor import Answer, Refusal
    from speechemo_cli.models.artifact import ModelCard

_BARS = " ▁▂▃▄▅▆▇█"


def run(
    clips: Annotated[list[str], typer.Argument(metavar="CLIP...", help="Audio files, or folders of them.")],
    model: options.Model = None,
    format_: Annotated[
        options.PredictFormat | None,
        typer.Option(
            "--format", "-f", show_default="table; jsonl in a pipe", help="How to print the answers."
        ),
    ] = None,
    min_confidence: Annotated[
        float,
        typer.Option(
            metavar="P",
            min=0.0,
            max=1.0,
            show_default=False,
            help="Answer `uncertain` below this confidence.",
        ),
    ] = 0.0,
    jobs: options.Jobs = None,
    config_file: options.ConfigFile = None,
    sets: options.Sets = None,
    quiet: options.Quiet = False,
) -> None:
    """Tell the emotion in each CLIP: label, confidence, and the probability of every label.

    Answers come in the order of the clips. A clip that cannot be read gets an error record, the others
    their answer, and the exit code is 3 (6 if there is no answer at all).
    """
    from speechemo_cli.inference.predictor import Predictor
    from speechemo_cli.models import artifact

    render.set_quiet(quiet)
    config = options.build_config(config_file, sets, jobs=jobs)
    path = artifact.find(model, config.models)
    predictor = Predictor.open(path, config, min_confidence)
    paths = list(_expand(clips))
    render.note(f"model: {artifact.shown(path)} {_worth(predictor.card)}")
    if min_confidence and predictor.card.temperature is None:
        render.warn(
            "this model's confidences were never corrected on new voices, so --min-confidence may keep"
            " too much. Train it with --calibrate"
        )
    chosen = format_ or (options.PredictFormat.table if render.on_terminal() else options.PredictFormat.jsonl)
    writer = _WRITERS[chosen.value](artifact.shown(path), predictor.labels)
    failed = 0
    with render.progress("listening", "clips") as update:
        for done, item in enumerate(predictor.predict(paths), start=1):
            if _refused(item):
                failed += 1
                render.warn(f"{display_name(item.path)}: {item.error}")
            writer.write(item)
            update(done, len(paths))
    writer.close()
    render.exit_for(failed, len(paths))


def _expand(clips: list[str]) -> Iterator[str]:
    """Replace each folder by the audio files in it; an empty one is said and passed over."""
    from speechemo_cli.corpus.layouts import walk_audio
    from speechemo_cli.errors import NoInputError

    found_any = False
    for clip in clips:
        if not Path(clip).is_dir():
            found_any = True
            yield clip
            continue
        walk = walk_audio(clip)
        if walk.other:
            render.note(
                f"{display_name(clip)}: left out {walk.other} files that are not audio, by the suffix"
            )
        for folder in walk.unreadable:
            render.warn(f"{display_name(folder)}: the folder cannot be read")
        found_any = found_any or bool(walk.audio)
        yield from walk.audio
    if not found_any:
        raise NoInputError(f"no audio in {', '.join(map(display_name, clips))}")


def _worth(card: ModelCard) -> str:
    """Say what the model's answers are worth, from its own results."""
    test = card.results.get("test", {})
    new, seen = test.get("new_speakers"), test.get("seen_speakers")
    left_out = card.results.get("cross_validated")
    if new:
        return (
            f"({card.version}; right {render.percent(new['accuracy'])} of the time on voices it never heard)"
        )
    if left_out:
        share = render.percent(left_out["accuracy"]["pooled"])
        return f"({card.version}; right {share} of the time on voices left out of its trainings)"
    if seen:
        share = render.percent(seen["accuracy"])
        return f"({card.version}; right {share} of the time on voices it knows, less on others)"
    return f"({card.version}; never measured on clips it was not trained on)"


def _refused(item: Answer | Refusal) -> TypeIs[Refusal]:
    # By its field, not by its class, which would have to be imported to print a --help.
    return hasattr(item, "error")


class _Writer:
    """Prints records as they come."""

    def __init__(self, model: str, labels: tuple[str, ...]) -> None:
        self.model = model
        self.labels = labels

    def write(self, item: Answer | Refusal) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Print what belongs after the last record."""

    def record(self, item: Answer | Refusal) -> dict[str, Any]:
        """Return the record as JSON has it."""
        if _refused(item):
            return {"schema": render.SCHEMA, "path": item.path, "status": "error", "error": item.error}
        return {
            "schema": render.SCHEMA,
            "path": item.path,
            "status": "ok",
            "label": item.label,
            "confidence": round(item.confidence, 6),
            "probabilities": {label: round(p, 6) for label, p in item.probabilities.items()},
            "duration_s": round(item.duration_s, 3),
            "model": self.model,
            "warnings": list(item.warnings),
        }


class _Jsonl(_Writer):
    def write(self, item: Answer | Refusal) -> None:
        render.emit(json.dumps(self.record(item)))


class _Json(_Writer):
    def __init__(self, model: str, labels: tuple[str, ...]) -> None:
        super().__init__(model, labels)
        self._records: list[dict[str, Any]] = []

    def write(self, item: Answer | Refusal) -> None:
        self._records.append(self.record(item))

    def close(self) -> None:
        render.emit_json("predict", {"model": self.model, "clips": self._records})


class _Csv(_Writer):
    def __init__(self, model: str, labels: tuple[str, ...]) -> None:
        super().__init__(model, labels)
        self._line(["path", "status", "label", "confidence", *labels, "duration_s", "warnings", "error"])

    def write(self, item: Answer | Refusal) -> None:
        record = self.record(item)
        if record["status"] == "error":
            self._line([item.path, "error", *[""] * (len(self.labels) + 4), record["error"]])
        else:
            probabilities = record["probabilities"].values()
            warnings = "; ".join(record["warnings"])
            self._line(
                [
                    item.path,
                    "ok",
                    record["label"],
                    record["confidence"],
                    *probabilities,
                    record["duration_s"],
                    warnings,
                    "",
                ]
            )

    def _line(self, cells: list[Any]) -> None:
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerow(cells)
        render.emit(out.getvalue())


class _Label(_Writer):
    """The bare word, one line a clip; `error` keeps the place of a clip without an answer."""

    def write(self, item: Answer | Refusal) -> None:
        render.emit("error" if _refused(item) else item.label)


class _Table(_Writer):
    """Fixed columns with the path last, so that rows can be printed as they come and no name is cut."""

    def __init__(self, model: str, labels: tuple[str, ...]) -> None:
        super().__init__(model, labels)
        self._width = max(len("uncertain"), *(len(label) for label in labels))
        names = " ".join(f"{label[:4]:<4}" for label in labels)
        render.emit(f"{'label':<{self._width}} {'conf.':>6}  {names}  clip")

    def write(self, item: Answer | Refusal) -> None:
        name = display_name(item.path)
        if _refused(item):
            render.emit(
                f"{'–' if render.draws_blocks() else '-':<{self._width}} {'':>6}  {item.error}: {name}"
            )
            return
        cells = " ".join(f"{self._bar(p):<4}" for p in item.probabilities.values())
        doubt = f"  ({'; '.join(item.warnings)})" if item.warnings else ""
        render.emit(f"{item.label:<{self._width}} {item.confidence:>6.0%}  {cells}  {name}{doubt}")

    @staticmethod
    def _bar(p: float) -> str:
        if not render.draws_blocks():
            return f"{100 * p:3.0f}"
        return _BARS[round(p * (len(_BARS) - 1))] * 3


_WRITERS: dict[str, type[_Writer]] = {
    "table": _Table,
    "json": _Json,
    "jsonl": _Jsonl,
    "csv": _Csv,
    "label": _Label,
}
