"""A model and its features, ready to answer for clips."""

from __future__ import annotations

import os
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from speechemo_cli.audio import quality, reader
from speechemo_cli.choices import Channel, Runtime
from speechemo_cli.config import Config
from speechemo_cli.errors import AudioError, ClipError, ConfigError
from speechemo_cli.features import FEATURE_SETS
from speechemo_cli.formatting import percent
from speechemo_cli.inference import Result, html_table
from speechemo_cli.inference import runtime as runtimes
from speechemo_cli.models import model_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from speechemo_cli.audio.isolate import DecoderPool
    from speechemo_cli.inference import Style
    from speechemo_cli.inference.timeline import Timeline
    from speechemo_cli.models.metadata import ModelMetadata

    # A file; or a name, and what a file of that name would hold.
    ClipSource = str | tuple[str, bytes]
    Items = list["Answer | ClipError"]
    # Features [shape=(1, dim)], and the answer without what the network says.
    Prepared = tuple[NDArray[np.float32], "Answer"]

# Clips that go through the network together. Also what is in memory at a time.
BATCH = 64
# The answer where no label is probable enough.
UNCERTAIN = "uncertain"


@dataclass(frozen=True, repr=False)
class Answer(Result):
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
        What is wrong with the recording, or unlike the training.
    channel : str or None
        Which channel this is for; None for the mean of all.
    sha256 : str
        Hash of the file's content; empty where samples were given.
    """

    path: str
    label: str
    confidence: float
    probabilities: dict[str, float]
    duration_s: float
    warnings: tuple[str, ...] = ()
    channel: str | None = None
    sha256: str = ""

    def _summary(self) -> str:
        return f"{self.label} {percent(self.confidence)}"

    def _rows(self) -> list[tuple[str, str, float | None]]:
        falling = sorted(self.probabilities.items(), key=lambda one: -one[1])
        return [(label, percent(p), p) for label, p in falling]

    def _record(self, style: Style) -> dict[str, Any]:
        return {
            "label": self.label,
            "confidence": round(self.confidence, 6),
            "probabilities": style.probabilities(self),
            "duration_s": round(self.duration_s, 3),
            "model": style.model,
            "warnings": list(self.warnings),
            "sha256": self.sha256,
            "key": style.key,
        }


@dataclass(eq=False, repr=False)
class Predictor:
    """A loaded model that answers for clips.

    Attributes
    ----------
    path : path-like
        The model file.
    metadata : ModelMetadata
    config : Config
        How clips are read, with the model's own features.
    min_confidence : float
    channel : str
    sr : int
        Rate in Hz of the waveforms the features are computed of.
    labels : tuple of str
        What it answers with, in the one order.
    runtime : {"litert", "keras"}
        What runs the network.
    slow_because : str
        Why it is not `litert`, where `auto` was asked for; else empty.

    Examples
    --------
    >>> predictor = Predictor.open("models/v2.keras")         # doctest: +SKIP
    >>> predictor.predict("clip.wav").label                   # doctest: +SKIP
    'happy'
    >>> for answer in predictor.predict(["a.wav", "b.wav"]):  # doctest: +SKIP
    ...     print(answer.label, answer.confidence)
    """

    path: str | os.PathLike[str]
    metadata: ModelMetadata
    config: Config
    min_confidence: float
    channel: str
    labels: tuple[str, ...]
    slow_because: str
    _runtime: runtimes.Runtime
    _pool: DecoderPool | None

    def __post_init__(self) -> None:
        self.runtime = self._runtime.name
        self._features = FEATURE_SETS[self.metadata.feature_set]
        self.sr = self._features.sr(self.config)
        self._columns = [self.metadata.labels.index(label) for label in self.labels]

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | None = None,
        config: Config | None = None,
        *,
        runtime: str = "auto",
        min_confidence: float = 0.0,
        labels: Sequence[str] | None = None,
        channel: str = "mix",
        isolate: bool = False,
    ) -> Predictor:
        """Check a model file and get ready.

        Parameters
        ----------
        path : path-like, optional
            The model that comes with the package, unless another is given.
        config : Config, optional
            How clips are read. The features are those the model was trained on, whatever it says.
        runtime : {"auto", "litert", "keras"}
            `auto` takes the LiteRT file that belongs to the model, if there is one, else Keras.
        min_confidence : float
            Answers below this probability are `uncertain`.
        labels : sequence of str, optional
            Answer with one of these alone; their probabilities are brought to a sum of 1.
        channel : {"mix", "left", "right", "each"}
            The mean of all channels, one of two, or an answer for each.
        isolate : bool
            Decode compressed clips of a list in up to `config.workers` other processes: a file that crashes
            the decoder, or takes all memory, is refused like others.

        Raises
        ------
        ModelFileError
            No such file, damaged, foreign, or not fitting; or no LiteRT file where `litert` was asked for.
        ConfigError
            A label the model does not know, or a channel or runtime that there is not.
        """
        for name, value, known in (("runtime", runtime, Runtime), ("channel", channel, Channel)):
            if value not in tuple(known):
                raise ConfigError(f"{name} is {value!r}, expected one of {', '.join(known)}")
        path = model_file.PACKAGED if path is None else path
        metadata = model_file.read_metadata(path)
        config = metadata.adopt(config or Config())
        own = metadata.labels if labels is None else _in_order(labels, metadata.labels)
        chosen, slow_because = runtimes.choose(runtime, path, metadata)
        pool = None
        if isolate:
            from speechemo_cli.audio.isolate import DecoderPool

            pool = DecoderPool(config.audio, channel)
        return cls(path, metadata, config, min_confidence, channel, own, slow_because, chosen, pool)

    def to_dict(self) -> dict[str, Any]:
        """Return what answers, with the keys of `speechemo model info --format json`, and the runtime."""
        metadata, features = self.metadata, self._features
        return {
            "model": model_file.shown(Path(self.path)),
            "version": metadata.version,
            "labels": list(self.labels),
            "features": {"set": features.name, "sr": self.sr, **features.settings(self.config)},
            "temperature": metadata.temperature,
            "unlike": metadata.unlike,
            "runtime": self.runtime,
        }

    def __repr__(self) -> str:
        name = model_file.shown(Path(self.path))
        return f"<Predictor {name}: {self.metadata.version}, {len(self.labels)} labels, {self.runtime}>"

    def _repr_html_(self) -> str:
        shown = self.to_dict()
        shown |= {"labels": ", ".join(self.labels), "features": self._features.name}
        return html_table(repr(self)[1:-1], [(name, f"{value}", None) for name, value in shown.items()])

    @overload
    def predict(  # type: ignore[overload-overlap]  # a str is an iterable of str, and meant as one path
        self, paths: str | os.PathLike[str]
    ) -> Answer | ClipError | list[Answer | ClipError]: ...

    @overload
    def predict(self, paths: Iterable[str | os.PathLike[str]]) -> Iterator[Answer | ClipError]: ...

    def predict(
        self, paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
    ) -> Answer | ClipError | list[Answer | ClipError] | Iterator[Answer | ClipError]:
        """Answer for one clip now, or for any number in order, each as soon as its batch is through.

        With `channel="each"` there is one answer for each channel: of one file a list.
        """
        if not isinstance(paths, str | bytes | os.PathLike):
            return (item for items in self.predict_groups(map(os.fsdecode, paths)) for item in items)
        items = self.predict_one(paths)
        return items if self.channel == "each" else items[0]

    def timeline(self, path: str | os.PathLike[str], **options: Any) -> Timeline | list[Timeline]:
        """Find the emotion over time in a recording of any length; with `channel="each"` a list of timelines.

        Options are `window_s`, `hop_s` and `on_progress` of `inference.timeline.timelines`. Raises AudioError
        if the recording cannot be read.
        """
        from speechemo_cli.inference.timeline import timelines

        found = timelines(self, path, **options)
        return list(found) if self.channel == "each" else next(found)

    def predict_groups(self, clips: Iterable[ClipSource]) -> Iterator[Items]:
        """Answer as `predict` does, but keep the answers of a clip together: a list for each clip.

        Instead of a file, a clip may be a name and what a file of that name would hold.
        """
        clips = iter(clips)
        with closing(self._pool) if self._pool else nullcontext():
            while batch := list(islice(clips, BATCH)):
                yield from self._answers(self._in_threads(self._prepared, batch))

    def predict_batch(self, clips: Sequence[ClipSource]) -> list[Items]:
        """Answer as `predict_groups` does, in this thread, and keep the processes that decode."""
        return self._answers([self._prepared(clip) for clip in clips])

    def predict_one(self, path: str | os.PathLike[str]) -> Items:
        """Answer for one clip in this thread: one answer a channel."""
        return self.predict_batch([os.fsdecode(path)])[0]

    def predict_content(self, content: bytes, name: str = "-") -> Items:
        """Answer for the bytes of an audio file, which the answers call `name`: one answer a channel."""
        return self.predict_batch([(name, content)])[0]

    def predict_samples(self, y: ArrayLike, sr: int) -> Answer:
        """Answer for samples; the path of the answer is empty.

        Parameters
        ----------
        y : array-like [shape=(n,)]
            Mono samples: of floats, full scale is 1.0; of integers, what their type can hold.
        sr : int
            Their rate in Hz.

        Raises
        ------
        AudioError
            Not one dimension, too short, too long, silent, not finite, or with an offset and `audio.strict`.
        ConfigError
            A rate that is no positive integer.
        """
        samples = _full_scale_at_1(np.asarray(y))
        if samples.ndim != 1:
            raise AudioError(f"samples of shape {samples.shape}, expected one dimension: mix the channels")
        if not (isinstance(sr, int | np.integer) and sr > 0):
            raise ConfigError(f"sr is {sr!r}, expected a positive number of samples a second")
        quality.check(samples, int(sr), self.config.audio)
        recording = reader.as_recording(samples, int(sr), self.config.audio)
        ((answer,),) = self._answers([[self._with_features("", recording)]])
        assert isinstance(answer, Answer)
        return answer

    def probabilities(self, windows: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return a row of probabilities for each part of a recording [shape=(windows, n_labels)].

        The parts, at least one, are waveforms [shape=(n,)] at `sr` Hz and are not checked. Columns are in the
        order of `labels`; rows sum to 1.
        """
        rows, _ = self._runtime.answer(np.concatenate(self._in_threads(self._compute, windows)))
        return np.stack([self._chosen(row) for row in rows]).astype(np.float32)

    def _in_threads(self, compute: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """Compute side by side: decoding, resampling and the network leave the interpreter lock alone."""
        workers = min(self.config.workers, len(items))
        if workers < 2:
            return [compute(item) for item in items]
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(compute, items))

    def choose(self, probabilities: NDArray[np.float64]) -> tuple[str, float, dict[str, float]]:
        """Return the label of a row of probabilities, its confidence, and the row by label."""
        by_label = dict(zip(self.labels, probabilities.tolist(), strict=True))
        label = max(by_label, key=by_label.__getitem__)
        confidence = by_label[label]
        return label if confidence >= self.min_confidence else UNCERTAIN, confidence, by_label

    def _chosen(self, row: NDArray[np.float32]) -> NDArray[np.float64]:
        """Bring the probabilities of the labels to choose from to a sum of 1."""
        chosen = row[self._columns].astype(np.float64)
        total = chosen.sum()
        # Where the network is sure that it is none of them, it says nothing of which.
        return chosen / total if total > 0 else np.full_like(chosen, 1 / len(chosen))

    def _prepared(self, clip: ClipSource) -> list[Prepared | ClipError]:
        path, content = (clip, None) if isinstance(clip, str) else clip
        try:
            with reader.clip_errors():
                if self._pool:
                    recordings = self._pool.read_channels(path, content)
                else:
                    recordings = reader.read_channels(path, self.config.audio, self.channel, content)
                return [self._with_features(path, one) for one in recordings]
        except AudioError as error:
            return [ClipError(path, str(error))]

    def _with_features(self, path: str, recording: reader.Recording) -> Prepared | ClipError:
        try:
            quality.check(recording.y, recording.sr, self.config.audio)
        except AudioError as error:
            return ClipError(path, str(error), recording.channel)
        warnings = recording.warnings + quality.quality_warnings(recording.y, recording.sr)
        longest_s = self.metadata.data.get("longest_s")
        if longest_s and (long := quality.long(recording.duration_s, longest_s)):
            warnings += (long,)
        # Not answered yet: the network runs once for all clips of a batch.
        answer = Answer(
            path, "", 0.0, {}, recording.duration_s, warnings, recording.channel, recording.sha256
        )
        return self._compute(reader.resample(recording.y, recording.sr, self.sr)), answer

    def _compute(self, y: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features of a waveform [shape=(1, dim)], as in training."""
        return self._features.compute(y, self.config, "")

    def _answers(self, groups: Sequence[list[Prepared | ClipError]]) -> list[Items]:
        usable = [one[0] for group in groups for one in group if not isinstance(one, ClipError)]
        rows = iter(zip(*self._runtime.answer(np.concatenate(usable)), strict=True) if usable else ())
        return [
            [one if isinstance(one, ClipError) else self._answer(one[1], *next(rows)) for one in group]
            for group in groups
        ]

    def _answer(self, answer: Answer, row: NDArray[np.float32], distance: float) -> Answer:
        label, confidence, probabilities = self.choose(self._chosen(row))
        warnings, limit = answer.warnings, self.metadata.unlike
        if limit is not None and float(distance) > limit:
            warnings += (
                f"unlike the training: its features are {distance:.1f} from those of the training,"
                f" whose own speakers stay below {limit:.1f}",
            )
        return replace(
            answer, label=label, confidence=confidence, probabilities=probabilities, warnings=warnings
        )


def _full_scale_at_1(y: NDArray[Any]) -> NDArray[np.float32]:
    """Scale integers as audio files do; the middle of unsigned ones is silence."""
    if y.dtype.kind not in "iu":
        return y.astype(np.float32, copy=False)
    half = 2.0 ** (8 * y.dtype.itemsize - 1)
    return ((y - half * (y.dtype.kind == "u")) / half).astype(np.float32)


def _in_order(asked: Sequence[str], known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the labels that were asked for in the model's order."""
    unknown = [label for label in asked if label not in known]
    if unknown:
        raise ConfigError(
            f"the model does not know {', '.join(map(repr, unknown))}", f"Its labels are {', '.join(known)}"
        )
    if len(set(asked)) < 2:
        raise ConfigError(f"labels is {', '.join(asked)!r}, expected at least two to choose from")
    return tuple(label for label in known if label in asked)
