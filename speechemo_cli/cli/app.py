"""The application: its commands, and the one place where errors become exit codes."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
import tempfile
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

import speechemo_cli
from speechemo_cli import files
from speechemo_cli.cli import options, terminal
from speechemo_cli.errors import ExitCode, SpeechemoError

if TYPE_CHECKING:
    from collections.abc import Sequence

# By the panels of --help. Each has a module of its name, with `run`, or with an `app` of further commands.
_PANELS = {
    "Recognise emotion": ("predict", "timeline", "stream", "show", "serve", "model", "export"),
    "Train and evaluate": ("extract", "train", "evaluate", "compare"),
    "Data and settings": ("download", "synth", "config", "cache", "completion"),
}
COMMANDS = {name: panel for panel, names in _PANELS.items() for name in names}
# Of the options that several commands have, by the names of their parameters. All others are "Options".
_OPTION_PANELS = {
    "Audio": ("channel", "strict"),
    "Output": ("format_", "output", "resume", "top", "plot", "predictions", "report"),
    "Settings": (
        "calibrate",
        "seed",
        "store",
        "jobs",
        "backend",
        "scheduler",
        "config_file",
        "sets",
        "quiet",
    ),
}
_PANEL_OF = {name: panel for panel, names in _OPTION_PANELS.items() for name in names}
# Options that `predict` had, and the commands that have taken their place.
_MOVED = {
    "--stream": "speechemo stream",
    **dict.fromkeys(("--timeline", "--window", "--hop", "--plot"), "speechemo timeline RECORDING"),
}
# What a package is called where it is not called as it is imported.
_DISTRIBUTIONS = {"sklearn": "scikit-learn", "ai_edge_litert": "ai-edge-litert"}
_EXTRAS = {"distributed": "dask", "dask": "dask", "starlette": "serve", "uvicorn": "serve"}


def application(arguments: Sequence[str] = ()) -> Any:
    """Put together what a command line asks for: the command that it begins with, else all.

    To import every command and read its options takes as long as to answer for a clip.
    """
    app = typer.Typer(
        name="speechemo",
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_top)
    asked = [name for name in COMMANDS if name in arguments[:1]]
    for name in asked or COMMANDS:
        module = importlib.import_module(f"speechemo_cli.cli.{name}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name, rich_help_panel=COMMANDS[name])
        else:
            app.command(name, rich_help_panel=COMMANDS[name])(options.grouped(module.run))
    command = typer.main.get_command(app)
    _arrange_help(command)
    return command


def _arrange_help(command: Any) -> None:
    """Put the options of a command, and of those below it, into panels, and let paragraphs flow.

    A bracket is a bracket: rich would take [tool.speechemo] for markup.
    """
    paragraphs = (command.help or "").replace("[", "\\[").split("\n\n")
    command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    for option in command.params:
        option.rich_help_panel = getattr(option, "rich_help_panel", None) or _PANEL_OF.get(option.name)
    for one in getattr(command, "commands", {}).values():
        _arrange_help(one)


def _show_version(wanted: bool) -> None:
    if wanted:
        terminal.emit(f"speechemo {speechemo_cli.__version__}")
        raise typer.Exit


def _top(
    _version: Annotated[
        bool, Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Recognise the emotion in speech: extract features, train, evaluate and predict.

    Results go to stdout, everything else to stderr. Exit codes: 0 done, 2 usage, 3 some clips failed,
    4 a model or store file is unusable, 5 cannot read or write, 6 no usable input.
    """
    if debug:
        os.environ["SPEECHEMO_DEBUG"] = "1"


def main() -> None:
    """Run the command line and exit with the code that tells what happened."""
    arguments = sys.argv[1:]
    try:
        terminal.prepare_streams()
        terminal.watch_signals(_leave)
        try:  # libraries and child processes write temporary files where they go with the process
            tempfile.tempdir = os.environ["TMPDIR"] = str(files.scratch_folder())
        except OSError:
            pass  # there is no place for any: who needs one will say so
        with terminal.raising():
            code = run(arguments)
    except KeyboardInterrupt:  # before the command has begun, or after its end
        code = _interrupted(arguments)
    if terminal.signal_received():
        # An interrupt inside some extension module's import leaves the interpreter determined to end by
        # SIGINT, whatever the exit code. So tidy up here and go; workers follow by themselves.
        files.drop_scratch()
        os._exit(code)
    # No last garbage collection: it would take a tenth of predict's time.
    gc.freeze()
    sys.exit(code)


def _leave(number: int) -> None:
    """End the process from beside the main thread, which cannot be waited for."""
    terminal.take_back_stderr()
    terminal.error_line(_how_to_go_on(sys.argv[1:]))
    files.drop_scratch()
    os._exit(128 + number)


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit code."""
    terminal.shown = terminal.Shown()  # not what another run in this process has shown
    try:
        code = int(application(arguments)(arguments, prog_name="speechemo", standalone_mode=False) or 0)
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except SystemExit as ended:
        # Typer's answer where nobody reads --help to its end.
        closed = isinstance(ended.__context__, BrokenPipeError)
        return ExitCode.STDOUT_CLOSED if closed else int(ended.code or 0)
    except Exception as error:
        if not terminal.signal_received():  # an import that was cut short fails in many ways
            return _fail(error)
        code = ExitCode.INTERRUPTED
    return _interrupted(arguments) if code == ExitCode.INTERRUPTED else code  # caught above, or by typer


def _interrupted(arguments: list[str]) -> int:
    terminal.error_line(_how_to_go_on(arguments))
    return 128 + (terminal.signal_received() or signal.SIGINT)


def _how_to_go_on(arguments: list[str]) -> str:
    """Say after an interrupt what is kept, and how to use it."""
    shown = terminal.shown
    if shown.stage == "extracting":
        return f"interrupted; {shown.done} of {shown.total} clips done; run it again to go on"
    command = next((argument for argument in arguments if not argument.startswith("-")), "")
    if command == "download":
        return "interrupted; nothing of it is kept, run it again to begin anew"
    if command == "serve":
        return "stopped"
    how = {"train": "with --resume ", "predict": "with --output and --resume "}.get(command, "")
    return f"interrupted; what is finished is kept, run it again {how}to go on"


def _fail(error: Exception) -> int:
    """Tell an error in one line and return its exit code."""
    line, code = _line_and_code(error)
    if not line:
        return code
    if os.environ.get("SPEECHEMO_DEBUG"):
        import traceback

        terminal.note("".join(traceback.format_exception(error)))
    terminal.error_line(line)
    return code


def _line_and_code(error: Exception) -> tuple[str, int]:
    if isinstance(error, typer.TyperException):
        if not error.format_message():
            return "", error.exit_code  # a group was called alone, and typer has shown its help
        option, context = getattr(error, "option_name", None), getattr(error, "ctx", None)
        if context and option in _MOVED and context.info_name == "predict":
            return f"predict {option} is now: {_MOVED[option]}", error.exit_code
        return f"{error.format_message().rstrip('.')}. Try --help", error.exit_code
    if isinstance(error, OSError):
        terminal.give_up_stdout()
        error = files.access_error("read or write", os.fsdecode(error.filename or "a file"), error)
    if isinstance(error, SpeechemoError):
        return str(error), error.exit_code
    missing = (error.name or "").split(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if missing not in ("", "speechemo_cli"):
        package = _DISTRIBUTIONS.get(missing, missing)
        how = f"pip install speechemo brings all that it needs, pip install {package} this one"
        if missing in _EXTRAS:
            how = f"Run: pip install 'speechemo[{_EXTRAS[missing]}]'"
        return f"the package {package} is not installed, which this command needs. {how}", ExitCode.USAGE
    if isinstance(error, MemoryError):
        return "out of memory. Use fewer --jobs", ExitCode.INTERNAL
    what = f"internal error: {type(error).__name__}: {error}"
    return f"{what}. Run it with --debug for the traceback", ExitCode.INTERNAL
