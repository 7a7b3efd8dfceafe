"""A protocol's result as one HTML page to look at: pictures, tables and the worst clips to play."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.audio import reader
from speechemo_cli.config import AudioConfig
from speechemo_cli.corpus.clips import speaker_names
from speechemo_cli.errors import AudioError
from speechemo_cli.evaluation import plots
from speechemo_cli.evaluation.metrics import METRICS
from speechemo_cli.evaluation.model_card import licences, render_template
from speechemo_cli.evaluation.published import published_for
from speechemo_cli.files import atomic_path, display_name
from speechemo_cli.formatting import GROUP_TITLES, interval
from speechemo_cli.models.model_file import library_versions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from speechemo_cli.evaluation.results import ProtocolResult

    Floats = NDArray[np.float64]

_WORST = 12
# What is embedded of a clip: seconds, and Hz, which is one of the rates of Opus.
_PLAYED_S, _PLAYED_SR = 15, 24000
_WORDS = {"gender": {"m": "men", "f": "women"}, "intensity": {"1": "normal", "2": "strong"}}


def write_report(
    result: ProtocolResult, path: Path, origin: Mapping[str, str] | None = None, *, audio: bool = True
) -> None:
    """Write a result as one HTML page that needs nothing from anywhere else.

    `origin` tells where the result comes from, beside what it tells itself: data, command, date. With `audio`
    the first seconds of clips that were answered wrong are embedded, as Opus: whoever gets the page has the
    voices.
    """
    coverage, risk = risk_coverage(result.confidence, result.hits)
    names = speaker_names({e.clip.speaker_id for e in result.examples if e.clip.speaker_id})
    spread = {metric: result.spread(metric) for metric in METRICS}
    published = published_for(result.protocol.name, result.labels, result.examples)
    page = render_template(
        "report.html.j2",
        {"shown": display_name},
        result=result,
        spread=spread,
        published=published,
        group_titles=GROUP_TITLES,
        interval=lambda name: interval(name, spread[name]["ci95"], result.no_interval, "95 % interval "),
        recordings=len({example.key for example in result.examples}),
        speakers=len(names),
        names=names,
        slices={name: parts for name, parts in result.slices.items() if name != "speaker"},
        words=_WORDS,
        risk_at_half=float(risk[np.searchsorted(coverage, 0.5)]),
        worst=worst_clips(result, audio=audio),
        played_s=_PLAYED_S,
        origin=origin or {},
        licences=licences(sorted({*result.tested_corpora, *result.trained_corpora})),
        versions=library_versions(),
        comparison=plots.comparison(result, published),
        speaker_bars=plots.speaker_bars(result),
        reliability=plots.reliability_svg(result),
        risk_coverage=plots.risk_curve(coverage, risk),
        curves=[plots.training_curve(result, metric) for metric in ("accuracy", "loss")],
    )
    with atomic_path(path) as temp:
        temp.write_text(page, encoding="utf-8", newline="\n")


def risk_coverage(confidence: Floats, hits: Floats) -> tuple[Floats, Floats]:
    """Return shares of answers kept, 1/n to 1, and the share of wrong ones among so many most confident."""
    kept = np.arange(1, len(hits) + 1)
    order = np.argsort(-confidence, kind="stable")
    return kept / len(hits), np.cumsum(1 - hits[order]) / kept


def worst_clips(result: ProtocolResult, *, audio: bool = True) -> list[dict[str, Any]]:
    """Return the wrong answers with the highest confidence, most confident first.

    `audio` of each is a data URI with the first seconds of the clip; where it is empty `why_silent` may say
    why.
    """
    answers = result.probabilities.argmax(axis=1)
    names = speaker_names({e.clip.speaker_id for e in result.examples if e.clip.speaker_id})
    order = np.argsort(-result.confidence, kind="stable")
    worst = []
    for i in order[result.hits[order] == 0][:_WORST]:
        clip = result.examples[i].clip
        uri, why_silent = _data_uri(clip.path) if audio else ("", "")
        worst.append(
            {
                "name": display_name(Path(clip.path).name),
                "speaker": names.get(clip.speaker_id or "", "–"),
                "truth": result.labels[result.truth[i]],
                "answer": result.labels[answers[i]],
                "confidence": float(result.confidence[i]),
                "audio": uri,
                "why_silent": why_silent,
            }
        )
    return worst


def _data_uri(path: str) -> tuple[str, str]:
    """Encode the first seconds of a clip; without it, the reason."""
    import soundfile

    try:
        recording = reader.read(path, AudioConfig())
    except AudioError as error:
        return "", error.message
    y = recording.y[: _PLAYED_S * recording.sr]
    out = io.BytesIO()
    y = reader.resample(y, recording.sr, _PLAYED_SR).clip(-1, 1)
    soundfile.write(out, y, _PLAYED_SR, format="OGG", subtype="OPUS")
    return f"data:audio/ogg;base64,{base64.b64encode(out.getvalue()).decode('ascii')}", ""
