"""The clips of DATA: found, shown, protected from being written over, and their features loaded."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from speechemo_cli.cli import terminal
from speechemo_cli.cli.outputs import protect
from speechemo_cli.corpus.clips import NO_LABEL, NOT_MATCHED
from speechemo_cli.corpus.labels import ordered
from speechemo_cli.files import display_name
from speechemo_cli.formatting import counted

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from speechemo_cli.config import Config
    from speechemo_cli.corpus.clips import Collection
    from speechemo_cli.features.dataset import Dataset
    from speechemo_cli.features.extraction import Extraction

    Outputs = Mapping[str, Iterable[Path | None]]

_SHOWN = 24  # labels, and speakers, of a corpus


def load_data(
    config: Config,
    feature_set: str,
    others: Sequence[str] = (),
    labels: Sequence[str] | None = None,
    *,
    outputs: Outputs,
    read: Iterable[Path | None],
) -> tuple[Collection, Dataset]:
    """Find the clips of DATA and load their features, and those of `others`; only `labels` are allowed.

    `outputs` and what is `read` are protected as `protect` does; the clips are read, too.
    """
    found = find(config, outputs=outputs, read=read)
    from speechemo_cli.features import dataset

    with terminal.progress("extracting", "clips") as update:
        data = dataset.load(found.clips, config, feature_set, labels, others, update)
    report_loaded(data)
    return found, data


def report_loaded(*data: Dataset) -> None:
    """Name the clips that failed or are odd, and those that are nearly the same recording."""
    for one in data:
        report_extraction(one.extraction)
    pairs = list(dict.fromkeys(pair for one in data for pair in one.near_copies))
    if pairs:
        names = (f"{one.clip.path} and {other.clip.path}" for one, other in pairs[:3])
        shown = "; ".join(map(display_name, names)) + (", ..." if len(pairs) > 3 else "")
        n = counted(len(pairs), "pair")
        terminal.warn(f"{n} of clips are nearly the same recording, encoded anew or trimmed: {shown}")


def find(
    config: Config, data: Sequence[str] | None = None, *, outputs: Outputs, read: Iterable[Path | None]
) -> Collection:
    """Find the clips of DATA, and show corpus by corpus their labels and speakers, and what was left out."""
    from speechemo_cli.corpus.layouts import find_all

    found = find_all(
        data or config.data, song=config.song, label_from=config.label_from, speaker_from=config.speaker_from
    )
    counts = found.counts()
    for corpus, labels in counts.labels.items():
        terminal.note(f"{display_name(corpus)}: {counted(labels.total(), 'clip')}")
        terminal.note(f"  {counted(len(labels), 'label')}: {_listed(labels, ordered(labels))}")
        terminal.note(f"  {_speakers(counts.speakers[corpus])}")
    for part in found.parts.values():
        for line in part.notes:
            terminal.note(line)
        for reason, n in part.skipped.items():
            example = part.examples.get(reason)
            line = f"left out: {n} {reason}" + (f", such as {display_name(example)}" if example else "")
            (terminal.warn if reason in (NO_LABEL, NOT_MATCHED) else terminal.note)(line)
        for folder in part.unreadable:
            terminal.warn(f"{display_name(folder)}: the folder cannot be read")
    manifests = [path for data in found.parts for path in (data, f"{data}/manifest.csv")]
    clips = (clip.path for part in found.parts.values() for clip in part)
    protect(outputs, chain(manifests, clips, read))
    return found


def _listed(counts: Mapping[Any, int], names: Iterable[str]) -> str:
    """List names with their numbers of clips, those beyond a line or two by their number alone."""
    shown = [f"{display_name(name)} {counts[name]}" for name in names]
    more = [f"and {len(shown) - _SHOWN} more"] if len(shown) > _SHOWN else []
    return ", ".join(shown[:_SHOWN] + more)


def _speakers(counts: Counter[str | None]) -> str:
    names = sorted(name for name in counts if name is not None)
    if not names:
        return "speakers not known (--speaker-from REGEX or the column of a manifest tells them)"
    rest = f"; of {counted(counts[None], 'clip')} not known" if counts[None] else ""
    return f"{counted(len(names), 'speaker')}: {_listed(counts, names)}{rest}"


def to_dict(found: Collection, extraction: Extraction) -> dict[str, Any]:
    """Return the same for JSON documents: `found`, and `skipped` and `failed` with the reasons."""
    counts = found.counts()
    return {
        "found": {
            corpus: {
                "clips": labels.total(),
                "labels": {label: labels[label] for label in ordered(labels)},
                "speakers": {name: speakers[name] for name in sorted(filter(None, speakers))},
                "unknown_speakers": speakers[None],
            }
            for corpus, labels in counts.labels.items()
            for speakers in [counts.speakers[corpus]]
        },
        "skipped": found.skipped,
        "failed": [{"path": clip.path, "error": clip.error} for clip in extraction.failed],
    }


def exit_for(found: Collection, extraction: Extraction) -> None:
    """End as `terminal.exit_for` does, where clips failed, had no label, or cannot be reached."""
    terminal.exit_for(len(extraction.failed) + found.unusable, len(found) + found.unusable)


def report_extraction(extraction: Extraction) -> None:
    """Name every clip that failed or is odd, and every shard that was set aside."""
    for odd in extraction.quality_warnings:
        terminal.warn(f"{display_name(odd.path)}: {odd.warning}")
    for failure in extraction.failed:
        terminal.warn(f"{display_name(failure.path)}: {failure.error}")
    for shard in extraction.damaged:
        terminal.warn(f"damaged, set aside and computed anew: {shard}")
