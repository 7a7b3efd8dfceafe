"""A model and its features, ready to answer for clips."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from speechemo_cli.audio import reader
from speechemo_cli.config import Config
from speechemo_cli.errors import AudioError
from speechemo_cli.features.extraction import compute
from speechemo_cli.features.store import Entry
from speechemo_cli.models import artifact, training, version_module

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

# Clips that go through the network together. Also what is in memory at a time.
_BATCH = 64
# The answer where no label is probable enough.
UNCERTAIN = "uncertain"


@dataclass(frozen=True)
class Answer:
    """What a model says about a clip.

    Attributes
    ----------
    path : str
        As it was given.
    label : str
        The most probable label, or `uncertain` where its probability is below what was asked for.
    confidence : float
        The highest probability.
    probabilities : dict of str to float
        Every label with its probability, in the one order; they sum to 1.
    duration_s : float
    warnings : tuple of str
        Why the answer deserves doubt.
    """

    path: str
    label: str
    confidence: float
    probabilities: dict[str, float]
    duration_s: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refusal:
    """A clip that got no answer, and why."""

    path: str
    error: str


class Predictor:
    """A loaded model that answers for clips.

    Examples
    --------
    >>> predictor = Predictor.open("models/v2.keras")         # doctest: +SKIP
    >>> for answer in predictor.predict(["clip.wav"]):        # doctest: +SKIP
    ...     print(answer.label, answer.confidence)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        card: artifact.ModelCard,
        config: Config,
        min_confidence: float = 0.0,
    ) -> None:
        self.path = path
        self._min_confidence = min_confidence
        self.card = card
        self._config = card.adopt(config)
        self._prepare = version_module(card.version).prepare
        self._loaded: Any = None

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], config: Config | None = None, min_confidence: float = 0.0
    ) -> Predictor:
        """Check a model file and get ready. The network itself is loaded for the first clip.

        Parameters
        ----------
        path : path-like
        config : Config, optional
            How clips are read. The features are those the model was trained on, whatever it says.
        min_confidence : float
            Answers below this probability are `uncertain`.

        Raises
        ------
        ModelFileError
            No such file, damaged, foreign, or not fitting.
        """
        return cls(path, artifact.inspect(path), config or Config(), min_confidence)

    def _model(self) -> Any:
        # Late, so that a folder of broken clips costs no TensorFlow.
        if self._loaded is None:
            self._loaded, _ = artifact.load(self.path)
        return self._loaded

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels it can answer, in the one order."""
        return self.card.labels

    def predict(self, paths: Iterable[str]) -> Iterator[Answer | Refusal]:
        """Answer for each clip, in order, as soon as its batch is through.

        Parameters
        ----------
        paths : iterable of str
            Files; any number, taken a batch at a time.

        Yields
        ------
        Answer or Refusal
            One for each path.
        """
        paths = iter(paths)
        # Decoding, resampling and transforms leave the interpreter lock alone, so threads do.
        with ThreadPoolExecutor(self._config.workers) as pool:
            while batch := list(islice(paths, _BATCH)):
                read = list(pool.map(self._features, batch))
                usable = [item for item in read if not isinstance(item, Refusal)]
                rows = iter(
                    training.predict(self._model(), self._prepare([item.values for item in usable]))
                    if usable
                    else ()
                )
                for path, item in zip(batch, read, strict=True):
                    if isinstance(item, Refusal):
                        yield item
                    else:
                        yield self._answer(path, next(rows), item)

    def _features(self, path: str) -> Entry | Refusal:
        try:
            recording = reader.read(path, self._config.audio)
        except AudioError as error:
            return Refusal(path, str(error))
        values = compute(recording, self.card.feature_set, self._config)
        return Entry(values, recording.duration_s, recording.warnings)

    def _answer(self, path: str, row: Any, entry: Entry) -> Answer:
        probabilities = {label: float(p) for label, p in zip(self.labels, row, strict=True)}
        label = max(probabilities, key=probabilities.__getitem__)
        confidence = probabilities[label]
        if confidence < self._min_confidence:
            label = UNCERTAIN
        return Answer(path, label, confidence, probabilities, entry.duration_s, entry.warnings)
