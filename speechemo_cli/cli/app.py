"""The application: its commands, and the one place where errors become exit codes."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

import speechemo_cli
from speechemo_cli import files
from speechemo_cli.cli import (
    cache,
    compare,
    config,
    evaluate,
    export,
    extract,
    model,
    predict,
    render,
    synth,
    train,
)
from speechemo_cli.errors import ExitCode, SpeechemoError

app = typer.Typer(
    name="speechemo",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("extract")(extract.run)
app.command("train")(train.run)
app.command("evaluate")(evaluate.run)
app.command("compare")(compare.run)
app.command("predict")(predict.run)
app.add_typer(model.app, name="model")
app.command("export")(export.run)
app.command("config")(config.run)
app.add_typer(cache.app, name="cache")
app.command("synth")(synth.run)


def _show_version(wanted: bool) -> None:
    if wanted:
        render.emit(f"speechemo {speechemo_cli.__version__}")
        raise typer.Exit


@app.callback()
def _top(
    _version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Tell the emotion in a voice, from a shell: extract, train, evaluate and predict.

    Results go to stdout, everything else to stderr. Exit codes: 0 done, 2 usage, 3 some clips failed,
    4 a model or store file is unusable, 5 cannot read or write, 6 no usable input.
    """
    if debug:
        os.environ["SPEECHEMO_DEBUG"] = "1"


def main() -> None:
    """Run the command line and exit with the code that tells what happened."""
    render.prepare_streams()
    render.remember_interrupts()
    code = run(sys.argv[1:])
    if code == ExitCode.INTERRUPTED:
        # An interrupt inside some extension module's import leaves the interpreter determined to end by
        # SIGINT, whatever the exit code. So tidy up here and go; workers follow by themselves.
        files.drop_scratch()
        os._exit(code)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run a command line.

    Parameters
    ----------
    arguments : list of str

    Returns
    -------
    int
        The exit code.
    """
    try:
        code = int(app(arguments, prog_name="speechemo", standalone_mode=False) or 0)
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except typer.TyperException as error:
        return _fail(error, f"{error.format_message().rstrip('.')}. Try --help", error.exit_code)
    except SpeechemoError as error:
        return _fail(error, str(error), error.exit_code)
    except MemoryError as error:
        return _fail(error, "out of memory. Use fewer --jobs", ExitCode.INTERNAL)
    except Exception as error:
        if not render.was_interrupted():  # an import that was cut short fails in many ways
            what = f"internal error: {type(error).__name__}: {error}"
            return _fail(error, f"{what}. Run it with --debug for the traceback", ExitCode.INTERNAL)
        code = ExitCode.INTERRUPTED
    if code == ExitCode.INTERRUPTED:  # caught above, or by typer
        render.error_line("interrupted; what is finished is kept, run it again to go on")
    return code


def _fail(error: BaseException, line: str, code: int) -> int:
    if os.environ.get("SPEECHEMO_DEBUG"):
        import traceback

        render.note("".join(traceback.format_exception(error)))
    render.error_line(line)
    return code
