"""The model card: what a model file is, what it was trained on, how good it is and what it is not for."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from speechemo_cli.corpus.clips import speaker_names
from speechemo_cli.corpus.known import LICENCES
from speechemo_cli.errors import ModelFileError
from speechemo_cli.features import FEATURE_SETS
from speechemo_cli.files import display_name, sha256_file
from speechemo_cli.formatting import TITLES, interval, measure, percent
from speechemo_cli.models import model_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from speechemo_cli.models.metadata import ModelMetadata

_MARKUP = str.maketrans({"<": "&lt;", "`": "'", **{character: f"\\{character}" for character in "|[]*_"}})


def describe(path: Path) -> dict[str, Any]:
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


def markdown(path: Path) -> str:
    """Write the model card of a file as Markdown; the same file gives the same text."""
    facts = describe(path)
    return render_template(
        "model_card.md.j2",
        {"cell": _cell, "names": lambda ids: speaker_names(ids).values()},
        **facts,
        name=path.name,
        licences=licences(facts["data"]["corpora"]),
        titles=TITLES,
        measure=measure,
        interval=interval,
    )


def render_template(template: str, filters: Mapping[str, Any], **values: Any) -> str:
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
    environment.filters.update(percent=percent, **filters)
    return environment.get_template(template).render(**values)


def licences(corpora: Iterable[str]) -> dict[str, str]:
    """Return the licence of each corpus, by its name."""
    return {name: LICENCES.get(name, "see its authors") for name in corpora}


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
