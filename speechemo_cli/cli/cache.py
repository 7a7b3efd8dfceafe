"""`speechemo cache`: look after the feature store."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from speechemo_cli.choices import DocumentFormat
from speechemo_cli.cli import options, terminal
from speechemo_cli.errors import ExitCode
from speechemo_cli.files import display_name
from speechemo_cli.formatting import counted

if TYPE_CHECKING:
    from speechemo_cli.features.store_maintenance import SetInfo

app = typer.Typer(help="Look after the feature store.", no_args_is_help=True)


@app.command()
def info(
    store: options.Store = None,
    format_: options.DocumentFormat = None,
    config_file: options.ConfigFile = None,
) -> None:
    """Show what the store holds."""
    _show("cache info", store, config_file, format_, verify=False)


@app.command()
def verify(
    store: options.Store = None,
    format_: options.DocumentFormat = None,
    config_file: options.ConfigFile = None,
) -> None:
    """Read every value and check it; exit with 4 if a shard is damaged."""
    _show("cache verify", store, config_file, format_, verify=True)


@app.command()
def compact(store: options.Store = None, config_file: options.ConfigFile = None) -> None:
    """Merge small shards into large ones."""
    from speechemo_cli.features import store_maintenance

    before, after, damaged = store_maintenance.compact(
        options.build_config(config_file, None, store=store).store
    )
    for shard in damaged:
        terminal.warn(f"damaged, set aside: {shard}; the next extract computes its clips anew")
    terminal.emit(f"{before} shards merged into {after}")


@app.command()
def clear(store: options.Store = None, config_file: options.ConfigFile = None) -> None:
    """Remove every shard. Features can always be extracted again."""
    from speechemo_cli.features import store_maintenance

    removed = store_maintenance.clear(options.build_config(config_file, None, store=store).store)
    terminal.emit(f"{removed} shards removed")


def _show(
    command: str,
    store: str | None,
    config_file: options.ConfigFile,
    format_: DocumentFormat | None,
    *,
    verify: bool,
) -> None:
    from speechemo_cli.features import store_maintenance

    root = options.build_config(config_file, None, store=store).store
    infos = store_maintenance.inspect(root, verify=verify)
    damaged = [shard for info in infos for shard in info.damaged]
    if options.is_table(format_):
        terminal.emit(_table(root, infos))
    else:
        terminal.emit_json(
            command, {"store": root, "sets": [asdict(info) for info in infos], "damaged": damaged}
        )
    if outdated := sum(info.outdated for info in infos):
        terminal.note(
            f"{counted(outdated, 'shard')} of an older format, which nothing reads; `cache clear` removes all"
        )
    for shard in damaged:
        terminal.warn(f"damaged: {shard}; `cache compact` sets it aside, extract computes its clips anew")
    if damaged:
        raise typer.Exit(ExitCode.UNUSABLE_FILE)


def _table(root: str, infos: list[SetInfo]) -> str:
    if not infos:
        return f"{display_name(root)} is empty"
    rows = [
        [info.folder, info.feature_set, str(info.clips), str(info.shards), f"{info.size_bytes / 1e6:.1f} MB"]
        for info in infos
    ]
    return terminal.table(["folder", "set", "clips", "shards", "size"], rows)
