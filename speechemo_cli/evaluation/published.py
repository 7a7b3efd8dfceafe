"""Published results on RAVDESS speech (published.toml), for runs on the same clips by the same protocol."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from speechemo_cli.corpus.known import RAVDESS
from speechemo_cli.corpus.labels import EMOTIONS
from speechemo_cli.corpus.synthetic import is_synthetic

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from speechemo_cli.corpus.splits import Example

_ACTORS = frozenset(f"{RAVDESS}/{actor:02d}" for actor in range(1, 25))


@dataclass(frozen=True)
class PublishedFigure:
    """A published figure, 0 to 1, of a metric, `accuracy` or `UAR`.

    `system` is short enough for a picture. `caveat` tells what makes the figure easier or harder to reach.
    `year` is None where the source does not tell, `pretrained` (on other recordings or pictures) for people.
    """

    work: str
    system: str
    metric: str
    value: float
    caveat: str
    year: int | None = None
    pretrained: bool | None = None
    parameters: str = ""


@cache
def published_figures() -> dict[str, tuple[PublishedFigure, ...]]:
    """Return all figures by protocol, best first."""
    text = files(__package__).joinpath("published.toml").read_text(encoding="utf-8")
    rows = tomllib.loads(text)
    return {protocol: tuple(PublishedFigure(**row) for row in rows[protocol]) for protocol in rows}


def published_for(
    protocol: str, labels: Iterable[str], examples: Sequence[Example]
) -> tuple[PublishedFigure, ...]:
    """Return what was published by a protocol, best first, if the clips are what it was published on.

    That is so if the labels are RAVDESS's eight and every clip is speech of one of its actors. Voices of
    `speechemo synth` have the names of its clips, but are not.
    """
    comparable = set(labels) == set(EMOTIONS) and all(
        example.clip.speaker_id in _ACTORS and not example.clip.song for example in examples
    )
    one_a_speaker = {example.clip.speaker_id: example.clip.path for example in examples}
    if not comparable or any(map(is_synthetic, one_a_speaker.values())):
        return ()
    return published_figures().get(protocol, ())
