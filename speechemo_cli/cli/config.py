"""`speechemo config`."""

from __future__ import annotations

from speechemo_cli.cli import options, terminal


def run(format_: options.DocumentFormat = None, *, settings: options.Settings) -> None:
    """Show every config value and where it comes from.

    Defaults < speechemo.toml or [tool.speechemo] in pyproject.toml < SPEECHEMO_* variables < options.
    """
    from speechemo_cli.config import flatten

    config, origins = settings.resolve()
    values = config.to_dict()
    rows = [[key, _shown(value), origins[key]] for key, value in flatten(values, "config").items()]
    document = {"values": values, "origins": origins}
    options.show("config", format_, lambda: terminal.table(["key", "value", "from"], rows), document)


def _shown(value: object) -> str:
    if value is None:
        return "the version's own"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
