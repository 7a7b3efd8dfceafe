"""`speechemo cache`."""

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

app = typer.Typer(help="Show, check, compact or empty the feature store.", no_args_is_help=True)


@app.command()
@options.grouped
def info(
    store: options.Store = None, format_: options.DocumentFormat = None, *, settings: options.Settings
) -> None:
    """Show what the store holds."""
    _show("cache info", settings.config(store=store).store, format_, verify=False)


@app.command()
@options.grouped
def verify(
    store: options.Store = None, format_: options.DocumentFormat = None, *, settings: options.Settings
) -> None:
    """Read every value and check it; exit with 4 if a shard is damaged."""
    _show("cache verify", settings.config(store=store).store, format_, verify=True)


@app.command()
@options.grouped
def compact(store: options.Store = None, *, settings: options.Settings) -> None:
    """Merge small shards into large ones."""
    from speechemo_cli.features import store_maintenance

    before, after, damaged = store_maintenance.compact(settings.config(store=store).store)
    for shard in damaged:
        terminal.warn(f"damaged, set aside: {shard}; the next extract computes its clips anew")
    terminal.emit(f"{before} shards merged into {after}")


@app.command()
@options.grouped
def clear(store: options.Store = None, *, settings: options.Settings) -> None:
    """Remove every shard. Features can always be extracted again."""
    from speechemo_cli.features import store_maintenance

    terminal.emit(f"{store_maintenance.clear(settings.config(store=store).store)} shards removed")


def _show(command: str, root: str, format_: DocumentFormat | None, *, verify: bool) -> None:
    from speechemo_cli.features import store_maintenance

    infos = store_maintenance.inspect(root, verify=verify)
    damaged = [shard for info in infos for shard in info.damaged]
    document = {"store": root, "sets": [asdict(info) for info in infos], "damaged": damaged}
    options.show(command, format_, lambda: _table(root, infos), document)
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
