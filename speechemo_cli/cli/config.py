"""`speechemo config`."""

from __future__ import annotations

from speechemo_cli.cli import options, terminal


def run(
    format_: options.DocumentFormat = None,
    config_file: options.ConfigFile = None,
    sets: options.Sets = None,
) -> None:
    """Show every config value and where it comes from.

    Defaults < speechemo.toml or [tool.speechemo] in pyproject.toml < SPEECHEMO_* variables < options.
    """
    from speechemo_cli.config import flatten

    config, origins = options.resolve_config(config_file, sets)
    values = flatten(config.to_dict(), "config")
    if options.is_table(format_):
        rows = [[key, _shown(value), origins[key]] for key, value in values.items()]
        terminal.emit(terminal.table(["key", "value", "from"], rows))
    else:
        terminal.emit_json("config", {"values": config.to_dict(), "origins": origins})


def _shown(value: object) -> str:
    if value is None:
        return "the version's own"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
