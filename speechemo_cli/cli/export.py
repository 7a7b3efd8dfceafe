"""`speechemo export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from speechemo_cli.choices import ExportFormat
from speechemo_cli.cli import options, terminal
from speechemo_cli.cli.outputs import protect
from speechemo_cli.errors import ConfigError
from speechemo_cli.files import display_name, require_writable


def run(
    model: options.ModelArgument = None,
    format_: Annotated[
        ExportFormat | None,
        Option(
            "--format", "-f", show_default="by the name of --output, else litert", help="What to export to."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        Option(
            "--output",
            "-o",
            metavar="FILE",
            show_default="MODEL.tflite, MODEL.onnx or MODEL-savedmodel",
            help="Where it goes; for savedmodel a folder.",
        ),
    ] = None,
    *,
    settings: options.Settings,
) -> None:
    """Convert a model for other programs: a waveform goes in, probabilities come out.

    FILE.json beside it says what goes in and what comes out, with signals to try it with. Before
    anything appears, its answers are compared with those of the model. onnx needs the extra
    'speechemo[onnx]'.
    """
    from speechemo_cli import export
    from speechemo_cli.models import model_file

    source = model_file.find(model, settings.config().models)
    by_suffix = {suffix: name for name, suffix in export.SUFFIXES.items()}
    chosen = format_.value if format_ else by_suffix.get(output.suffix if output else "", "litert")
    path = output or Path(f"{source.stem}{export.SUFFIXES.get(chosen, f'-{chosen}')}")
    description = export.description_beside(path)
    model_file.inspect(source)
    if suffix := export.SUFFIXES.get(chosen):
        options.check_output("--output", path, suffix, any_case=False)
    elif path.suffix in (*by_suffix, ".keras", ".zip", ".pb", ".json"):
        raise ConfigError(f"--output is {display_name(path)}, expected the name of a folder")
    else:
        require_writable(path.parent)
    protect({"--output": [path, description]}, [source, settings.config_file])
    export.check(path, chosen)
    with terminal.progress("exporting", "steps") as update:
        done = export.write(source, path, chosen, lambda n, total, text: update(n, total, text=text))
    terminal.note(
        f"{model_file.shown(source)} to {chosen}, {done.size_bytes / 2**20:.1f} MiB."
        f" On {done.checked} signals its probabilities differ by at most {done.difference:.1g}"
        " from the model's"
    )
    terminal.note(f"what goes in and comes out: {display_name(description)}")
    terminal.emit(display_name(path))
