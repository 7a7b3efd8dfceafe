"""What a model file says of itself, besides the weights."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from speechemo_cli.config import Config
from speechemo_cli.errors import ConfigError
from speechemo_cli.features import FEATURE_SETS
from speechemo_cli.models import VERSIONS, preflight_card
from speechemo_cli.models.preflight import CARD, UnfitError, short


@dataclass(frozen=True)
class ModelCard:
    """What a model file says of itself, besides the weights.

    Attributes
    ----------
    version : str
        Version of the network, `v1`, `v2`, ...
    labels : tuple of str
        The class of each output, in order.
    feature_set : str
    feature_version : int
    config : dict
        The resolved config of the training.
    seed, epochs : int
    versions : dict of str to str
        Of Python and the libraries that trained it.
    data : dict
        Hashes of the clips by the part they played: `PARTS_OF_DATA`; the ids of the speakers it was
        trained on under `speakers`, the number of clips by corpus under `corpora` and by label under
        `clips`, the length of the longest under `longest_s`, and under `ravdess` whether all are named as
        RAVDESS names its own.
    results : dict
        Scores on the held-out clips, as `train` printed them.
    temperature : float or None
        What the network's confidences were corrected by: its last layer is divided by it already.
    parameters : int
        Weights of the network; 0 where an older file does not tell.
    twin : str or None
        SHA-256 of the LiteRT file that was exported from the same network.
    sha256 : str
        Of the `speechemo.json` that it was read from. As that names the SHA-256 of every other part, it
        stands for the whole model file. Empty where it was read from none.
    """

    version: str
    labels: tuple[str, ...]
    feature_set: str
    feature_version: int
    config: dict[str, Any]
    seed: int
    epochs: int
    versions: dict[str, str] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    temperature: float | None = None
    parameters: int = 0
    twin: str | None = None
    sha256: str = field(default="", compare=False)

    def resolved_config(self) -> Config:
        """Return the config of the training."""
        return Config.from_dict(self.config, "model file")

    def adopt(self, config: Config) -> Config:
        """Return this run's config with the feature part the model was trained with."""
        own = self.resolved_config()
        return replace(config, mfcc=own.mfcc)

    def trained_on(self) -> frozenset[str]:
        """Content hashes of the training clips."""
        return frozenset(self.data.get("train", ()))

    def trained_on_samples(self) -> frozenset[str]:
        """Hashes of the decoded samples of the training clips; empty where an older file has none."""
        return frozenset(self.data.get("train_samples", ()))

    @classmethod
    def from_document(cls, document: dict[str, Any], sha256: str) -> ModelCard:
        """Make the card of what `speechemo.json` holds, whose SHA-256 is given.

        Raises
        ------
        UnfitError
            A value is of the wrong kind, or belongs to another version of the network or the features.
        """
        preflight_card.check(document)
        known = {key: document[key] for key in cls.__dataclass_fields__ if key in document}
        card = cls(**{**known, "labels": tuple(document["labels"]), "sha256": sha256})
        if card.version not in VERSIONS:
            raise UnfitError(
                f"holds a network of version {short(repr(card.version))}, known are {', '.join(VERSIONS)}",
                "Update speechemo, or train it again",
            )
        if card.feature_set not in FEATURE_SETS:
            raise UnfitError(f"is damaged: {CARD} does not fit (feature_set)")
        features = FEATURE_SETS[card.feature_set]
        try:
            if features.section(card.resolved_config()) is not None:
                preflight_card.check_features(features, features.section(card.resolved_config()))
        except ConfigError as error:
            raise UnfitError(f"is damaged: {CARD} does not fit ({short(error, 200)})") from None
        if card.feature_version != features.version:
            raise UnfitError(
                f"expects version {card.feature_version} of the {card.feature_set} features, "
                f"this speechemo computes version {features.version}",
                "Train it again",
            )
        return card
