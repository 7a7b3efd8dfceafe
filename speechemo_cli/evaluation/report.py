"""What there is to read about a result: a protocol's as one HTML page, and the card of a model file."""

from __future__ import annotations

import base64
import hashlib
import io
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.audio import reader
from speechemo_cli.config import AudioConfig
from speechemo_cli.corpus import EMOTIONS
from speechemo_cli.corpus.clips import speaker_names
from speechemo_cli.corpus.known import LICENCES, RAVDESS
from speechemo_cli.corpus.synthetic import is_synthetic
from speechemo_cli.errors import AudioError, ModelFileError
from speechemo_cli.evaluation import plots
from speechemo_cli.evaluation.metrics import METRICS
from speechemo_cli.features import FEATURE_SETS
from speechemo_cli.files import atomic_path, display_name, sha256_file
from speechemo_cli.formatting import GROUP_TITLES, TITLES, interval, measure, percent
from speechemo_cli.models import model_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from speechemo_cli.corpus.splits import Example
    from speechemo_cli.evaluation.results import ProtocolResult
    from speechemo_cli.models.metadata import ModelMetadata

    Floats = NDArray[np.float64]
_WORST = 12
# What is embedded of a clip: seconds, and Hz, which is one of the rates of Opus.
_PLAYED_S, _PLAYED_SR = 15, 24000
_WORDS = {"gender": {"m": "men", "f": "women"}, "intensity": {"1": "normal", "2": "strong"}}
_MARKUP = str.maketrans({"<": "&lt;", "`": "'", **{character: f"\\{character}" for character in "|[]*_"}})


def _filled(template: str, **values: Any) -> str:
    """Fill in a template of this folder; a value that it asks for and does not get is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("speechemo_cli", "evaluation"),
        # In Markdown names of labels and speakers go through the filter `cell`.
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, shown=display_name, cell=_cell, names=speaker_names)
    return environment.get_template(template).render(**values)


def licences(corpora: Iterable[str]) -> dict[str, str]:
    """Return the licence of each corpus, by its name."""
    return {name: LICENCES.get(name, "see its authors") for name in corpora}


# --- a protocol: pictures, tables and the worst clips to play


def write_report(result: ProtocolResult, path: Path, origin: Mapping[str, str], *, audio: bool) -> None:
    """Write a result as one HTML page that needs nothing from anywhere else.

    `origin` tells where the result comes from, beside what it tells itself: data, command, date. With `audio`
    the first seconds of clips that were answered wrong are embedded, as Opus: whoever gets the page has the
    voices.
    """
    coverage, risk = risk_coverage(result.confidence, result.hits)
    names = speaker_names({e.clip.speaker_id for e in result.examples if e.clip.speaker_id})
    spread = {metric: result.spread(metric) for metric in METRICS}
    published = published_for(result.protocol.name, result.labels, result.examples)
    page = _filled(
        "report.html.j2",
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
        origin=origin,
        licences=licences(sorted({*result.corpora, *result.trained_corpora})),
        versions=model_file.library_versions(),
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


def worst_clips(result: ProtocolResult, *, audio: bool) -> list[dict[str, Any]]:
    """Return the wrong answers with the highest confidence, most confident first.

    `audio` of each is a data URI with the first seconds of the clip; where it is empty `why_silent` may say
    why.
    """
    answers = result.probabilities.argmax(axis=1)
    order = np.argsort(-result.confidence, kind="stable")
    worst = []
    for i in order[result.hits[order] == 0][:_WORST]:
        clip = result.examples[i].clip
        uri, why_silent = _data_uri(clip.path) if audio else ("", "")
        worst.append(
            {
                "name": display_name(Path(clip.path).name),
                "speaker": clip.speaker_id,
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


# --- what others have published on RAVDESS speech (published.toml), beside runs on the same clips

_ACTORS = frozenset(f"{RAVDESS}/{actor:02d}" for actor in range(1, 25))


def published_figures() -> dict[str, list[dict[str, Any]]]:
    """Return all figures by protocol, best first."""
    return tomllib.loads(files(__package__).joinpath("published.toml").read_text(encoding="utf-8"))


def published_for(protocol: str, labels: Iterable[str], examples: Sequence[Example]) -> list[dict[str, Any]]:
    """Return what was published by a protocol, best first, if the clips are what it was published on.

    That is so if the labels are RAVDESS's eight and every clip is speech of one of its actors. Voices of
    `speechemo synth` have the names of its clips, but are not.
    """
    comparable = set(labels) == set(EMOTIONS) and all(
        example.clip.speaker_id in _ACTORS and not example.clip.song for example in examples
    )
    one_a_speaker = {example.clip.speaker_id: example.clip.path for example in examples}
    if not comparable or any(map(is_synthetic, one_a_speaker.values())):
        return []
    return published_figures().get(protocol, [])


# --- the model card: what a model file is, what it was trained on, how good it is and what it is not for


def describe_model(path: Path) -> dict[str, Any]:
    """Say what a model file holds, as plain values: of lists of clips their number and one hash.

    Imports no Keras. Raises ModelFileError as `model_file.inspect` does.
    """
    metadata = model_file.inspect(path)
    features, config = FEATURE_SETS[metadata.feature_set], metadata.resolved_config()
    # Files from before a card told so much have less.
    data = {"speakers": [], "corpora": {}, "clips": {}, "longest_s": None, "ravdess": False, **metadata.data}
    parts = {}
    for name in model_file.PARTS_OF_DATA:
        keys = sorted(data.pop(name, []))
        parts[name] = {"n": len(keys), "sha256": hashlib.sha256("\n".join(keys).encode()).hexdigest()}
    return {
        "model": model_file.shown(path),
        "version": metadata.version,
        "labels": list(metadata.labels),
        "features": {
            "set": metadata.feature_set,
            "version": metadata.feature_version,
            "sr": features.sr(config),
            **features.settings(config),
        },
        "parameters": metadata.parameters,
        "size_bytes": path.stat().st_size,
        "sha256": sha256_file(path),
        "epochs": metadata.epochs,
        "seed": metadata.seed,
        "temperature": metadata.temperature,
        "litert": _litert(path, metadata),
        "unlike": metadata.unlike,
        "data": {**parts, **data},
        "results": metadata.results,
        "history": metadata.history,
        "versions": metadata.versions,
    }


def model_card(path: Path) -> str:
    """Write the model card of a file as Markdown; the same file gives the same text."""
    facts = describe_model(path)
    return _filled(
        "model_card.md.j2",
        **facts,
        name=path.name,
        licences=licences(facts["data"]["corpora"]),
        titles=TITLES,
        measure=measure,
        interval=interval,
    )


def _litert(path: Path, metadata: ModelMetadata) -> dict[str, Any] | None:
    """Say whether the LiteRT file that a model file names lies beside it."""
    if metadata.litert is None:
        return None
    problem = ""
    try:
        model_file.read_litert(path, metadata)
    except ModelFileError as error:
        problem = error.message
    return {"sha256": metadata.litert, "usable": not problem, "problem": problem}


def _cell(text: str) -> str:
    """Make a name harmless inside a Markdown table: labels and speakers may be names of folders."""
    return display_name(text).translate(_MARKUP)
