"""`speechemo model`: what is in a model file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from speechemo_cli.cli import options, terminal
from speechemo_cli.cli.outputs import protect
from speechemo_cli.corpus.clips import speaker_names
from speechemo_cli.errors import ConfigError
from speechemo_cli.files import display_name
from speechemo_cli.formatting import interval, percent

app = typer.Typer(help="Show what is in a model file.", no_args_is_help=True)


@app.command()
@options.grouped
def info(
    model: options.ModelArgument = None, format_: options.DocumentFormat = None, *, settings: options.Settings
) -> None:
    """Show labels, features, size, data, results and hashes of a model file."""
    from speechemo_cli.evaluation import report
    from speechemo_cli.models import model_file

    facts = report.describe_model(model_file.find(model, settings.config().models))
    options.show("model info", format_, lambda: _table(facts), facts)


@app.command()
@options.grouped
def card(
    model: options.ModelArgument = None,
    output: Annotated[
        Path | None,
        Option("--output", "-o", metavar="FILE.md", show_default="stdout", help="Where the card goes."),
    ] = None,
    plot: Annotated[
        Path | None, Option(metavar="FILE.png", help="Draw how often answers are right, by confidence.")
    ] = None,
    *,
    settings: options.Settings,
) -> None:
    """Write the model card: data, results with intervals, limits and licence, in Markdown."""
    from speechemo_cli.evaluation import plots, report
    from speechemo_cli.files import atomic_path
    from speechemo_cli.models import model_file

    options.check_output("--output", output, ".md")
    options.check_output("--plot", plot, ".png")
    source = model_file.find(model, settings.config().models)
    read = [source, model_file.litert_path(source), settings.config_file]
    protect({"--output": [output], "--plot": [plot]}, read)
    text = report.model_card(source)
    if plot:
        measured = model_file.inspect(source).results.get("cross_validated")
        if not measured:
            raise ConfigError(
                f"{model_file.shown(source)} was never cross-validated, so there is nothing to draw",
                "Train it with --calibrate",
            )
        plots.reliability_diagram(
            [(one["confidence"], one["accuracy"]) for one in measured["reliability"]],
            f"{measured['version']}, {measured['n_answers']} answers for unseen speakers",
            plot,
        )
        terminal.note(f"reliability diagram: {display_name(plot)}")
    if output is None:
        terminal.emit(text)
        return
    with atomic_path(output) as temp:
        temp.write_text(text, encoding="utf-8", newline="\n")
    terminal.note(f"model card: {display_name(output)}")


def _table(facts: dict[str, Any]) -> str:
    features, data, results = facts["features"], facts["data"], facts["results"]
    settings = ", ".join(f"{key} {value}" for key, value in features.items() if key not in ("set", "version"))
    counts = [f"{name} {one['clips']} clips" for name, one in data["corpora"].items()]
    rows = {
        "model": facts["model"],
        "network": f"{facts['version']}, {facts['parameters']:,} parameters",
        "labels": ", ".join(facts["labels"]),
        "features": f"{features['set']} (version {features['version']}): {settings}",
        "training": f"{facts['epochs']} epochs, seed {facts['seed']}",
        "temperature": f"{facts['temperature']:.3f}" if facts["temperature"] else "none",
        "unlike the training": f"further than {facts['unlike']:.1f}" if facts["unlike"] else "not known",
        "speakers": f"{len(data['speakers'])}: {' '.join(speaker_names(data['speakers']).values())}",
        "corpora": ", ".join(counts) or "not known",
    }
    held_out = {"seen_speakers": "seen speakers", "new_speakers": "unseen speakers"}
    for part, words in {"train": "", **held_out}.items():
        if data[part]["n"]:
            clips = f"{data[part]['n']} clips, SHA-256 {data[part]['sha256']}"
            rows[f"held out, {words}" if words else "trained on"] = clips
    if measured := results.get("cross_validated"):
        accuracy, uar, ece = (measured[metric] for metric in ("accuracy", "uar", "ece"))
        shown = interval("accuracy", accuracy["ci95"], measured.get("no_interval", ""))
        pooled = [percent(metric["pooled"]) for metric in (accuracy, uar, ece)]
        rows["right on speakers left out"] = f"{pooled[0]} ({shown}), UAR {pooled[1]}, ECE {pooled[2]}"
    scored = {f"on {words}": results.get("test", {}).get(part) for part, words in held_out.items()}
    scored |= {f"without {name}": one for name, one in results.get("other_corpora", {}).items()}
    for words, one in scored.items():
        if one:
            rows[f"right {words}"] = f"{percent(one['accuracy'])}, UAR {percent(one['uar'])}"
    rows["file"] = f"{facts['size_bytes']:,} bytes, SHA-256 {facts['sha256']}"
    rows["LiteRT file"] = _litert(facts["litert"])
    rows["made with"] = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    width = max(map(len, rows))
    return "\n".join(display_name(f"{name:<{width}}  {value}") for name, value in rows.items())


def _litert(litert: dict[str, Any] | None) -> str:
    if litert is None:
        return "none: predict runs it with Keras"
    return f"SHA-256 {litert['sha256']}" if litert["usable"] else litert["problem"]
