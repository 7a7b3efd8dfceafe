"""What was found in DATA, shown before anything is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from speechemo_cli.cli import render
from speechemo_cli.corpus.clips import NO_LABEL, NOT_MATCHED
from speechemo_cli.corpus.labels import ordered
from speechemo_cli.files import display_name
from speechemo_cli.formatting import counted

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Mapping, Sequence

    from speechemo_cli.config import Config
    from speechemo_cli.corpus.collection import Collection
    from speechemo_cli.features.extraction import Extraction

_SHOWN = 24  # labels, and speakers, of a corpus


def find(config: Config, data: Sequence[str] | None = None) -> Collection:
    """Find the clips of DATA, and show corpus by corpus their labels and speakers, and what was left out."""
    from speechemo_cli.corpus.collection import find_all

    found = find_all(
        data or config.data, song=config.song, label_from=config.label_from, speaker_from=config.speaker_from
    )
    counts = found.counts()
    for corpus, labels in counts.labels.items():
        render.note(f"{display_name(corpus)}: {counted(labels.total(), 'clip')}")
        render.note(f"  {counted(len(labels), 'label')}: {_listed(labels, ordered(labels))}")
        render.note(f"  {_speakers(counts.speakers[corpus])}")
    for part in found.parts.values():
        for line in part.notes:
            render.note(line)
        for reason, n in part.skipped.items():
            example = part.examples.get(reason)
            said = f"left out: {n} {reason}" + (f", such as {display_name(example)}" if example else "")
            (render.warn if reason in (NO_LABEL, NOT_MATCHED) else render.note)(said)
        for folder in part.unreadable:
            render.warn(f"{display_name(folder)}: the folder cannot be read")
    return found


def _listed(counts: Mapping[Any, int], names: Iterable[str]) -> str:
    """List names with their numbers of clips, those beyond a line or two by their number alone."""
    told = [f"{display_name(name)} {counts[name]}" for name in names]
    more = f", and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    return f"{', '.join(told[:_SHOWN])}{more}"


def _speakers(counts: Counter[str | None]) -> str:
    names = sorted(name for name in counts if name is not None)
    if not names:
        return "speakers not known (--speaker-from REGEX or the column of a manifest tells them)"
    rest = f"; of {counted(counts[None], 'clip')} not known" if counts[None] else ""
    return f"{counted(len(names), 'speaker')}: {_listed(counts, names)}{rest}"


def to_dict(found: Collection) -> dict[str, Any]:
    """Return the same for JSON documents: `found`, and `skipped` with the reasons."""
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
    }


def exit_for(found: Collection, extraction: Extraction) -> None:
    """End as `render.exit_for` does, where clips failed, had no label, or cannot be reached."""
    not_used = len(found.unreadable) + found.unlabelled
    render.exit_for(len(extraction.failed) + not_used, len(found) + not_used)
