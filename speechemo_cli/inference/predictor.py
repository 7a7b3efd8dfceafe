"""A model and its features, ready to answer for clips."""

from __future__ import annotations

import hashlib
import os
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from speechemo_cli.audio import quality, reader
from speechemo_cli.audio.samples import check, check_warnings, without_offset
from speechemo_cli.config import Config
from speechemo_cli.errors import AudioError, ConfigError
from speechemo_cli.features import FEATURE_SETS
from speechemo_cli.formatting import percent
from speechemo_cli.inference import runtime as runtimes
from speechemo_cli.inference.results import Result, html_table
from speechemo_cli.models import model_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from speechemo_cli.audio.isolate import DecoderPool
    from speechemo_cli.config import AudioConfig
    from speechemo_cli.inference.timeline import Timeline
    from speechemo_cli.models.metadata import ModelMetadata

    Known = Callable[[str], Mapping[str, Sequence["Answer"]]]

# Clips that go through the network together. Also what is in memory at a time.
BATCH = 64
# The answer where no label is probable enough.
UNCERTAIN = "uncertain"
_NO_SAMPLES = np.empty(0, np.float32)


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
        Why the answer deserves doubt.
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


@dataclass(frozen=True, repr=False)
class Refusal(Result):
    """A clip that got no answer, and why."""

    path: str
    error: str
    channel: str | None = None

    def _summary(self) -> str:
        return self.error


@dataclass(frozen=True)
class _Prepared:
    """A clip after the part of the work that threads share."""

    path: str
    clip: reader.PreparedClip
    features: NDArray[np.float32]


class Predictor:
    """A loaded model that answers for clips.

    Attributes
    ----------
    path : path-like
        The model file.
    metadata : ModelMetadata
    sr : int
        Rate in Hz of the waveforms the features are computed of.
    labels : tuple of str
        What it answers with, in the one order.
    runtime : str
        What runs the network: `litert` or `keras`.
    slow_because : str
        Why it is not `litert`, where that was wished for; else empty.

    Examples
    --------
    >>> predictor = Predictor.open("models/v2.keras")         # doctest: +SKIP
    >>> predictor.predict("clip.wav").label                   # doctest: +SKIP
    'happy'
    >>> for answer in predictor.predict(["a.wav", "b.wav"]):  # doctest: +SKIP
    ...     print(answer.label, answer.confidence)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        metadata: ModelMetadata,
        config: Config,
        *,
        runtime: str = "auto",
        min_confidence: float = 0.0,
        labels: Sequence[str] | None = None,
        channel: str = "mix",
        isolate: bool = False,
    ) -> None:
        self.path = path
        self.metadata = metadata
        self._config = metadata.adopt(config)
        self._features = FEATURE_SETS[metadata.feature_set]
        self._section = self._features.section(self._config)
        self.sr = self._features.sr(self._section)
        self._min_confidence = min_confidence
        self._channel = channel
        self._pool = _decoders(self._config.audio, channel) if isolate else None
        self.labels = metadata.labels if labels is None else _in_order(labels, metadata.labels)
        self._columns = [metadata.labels.index(label) for label in self.labels]
        self._runtime, self.slow_because = runtimes.choose(runtime, path, metadata)
        self.runtime = self._runtime.name

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
            What runs the network. `auto` takes the model's LiteRT file if it has one that belongs to
            it, else Keras, and says why in `slow_because`.
        min_confidence : float
            Answers below this probability are `uncertain`.
        labels : sequence of str, optional
            Answer with one of these alone; the probabilities of the others are left out and the rest
            brought to a sum of 1.
        channel : {"mix", "left", "right", "each"}
            The mean of all channels, one of two, or an answer for each.
        isolate : bool
            Decode compressed clips of a list in processes of their own, as many as `config.workers`: a file
            that crashes the decoder, or takes all memory, is refused like others.

        Raises
        ------
        ModelFileError
            No such file, damaged, foreign, or not fitting; or no LiteRT file where `litert` was asked for.
        ConfigError
            A label the model does not know, or a channel or runtime that there is not.
        """
        _one_of("runtime", runtime, runtimes.RUNTIMES)
        _one_of("channel", channel, reader.CHANNELS)
        path = model_file.PACKAGED if path is None else path
        return cls(
            path,
            model_file.read_metadata(path),
            config or Config(),
            runtime=runtime,
            min_confidence=min_confidence,
            labels=labels,
            channel=channel,
            isolate=isolate,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what answers, with the keys of `speechemo model info --format json`, and the runtime."""
        metadata, features = self.metadata, self._features
        return {
            "model": model_file.shown(Path(self.path)),
            "version": metadata.version,
            "labels": list(self.labels),
            "features": {"set": features.name, "sr": self.sr, **features.settings(self._config)},
            "temperature": metadata.temperature,
            "unlike": metadata.unlike,
            "runtime": self.runtime,
        }

    def __repr__(self) -> str:
        name = model_file.shown(Path(self.path))
        return f"<Predictor {name}: {self.metadata.version}, {len(self.labels)} labels, {self.runtime}>"

    def _repr_html_(self) -> str:
        told = self.to_dict()
        told |= {"labels": ", ".join(self.labels), "features": self._features.name}
        return html_table(repr(self)[1:-1], [(name, f"{value}", None) for name, value in told.items()])

    @overload
    def predict(  # type: ignore[overload-overlap]  # a str is an iterable of str, and meant as one path
        self, paths: str | os.PathLike[str]
    ) -> Answer | Refusal | list[Answer | Refusal]: ...

    @overload
    def predict(self, paths: Iterable[str | os.PathLike[str]]) -> Iterator[Answer | Refusal]: ...

    def predict(
        self, paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
    ) -> Answer | Refusal | list[Answer | Refusal] | Iterator[Answer | Refusal]:
        """Answer for one clip now, or for many in order, each as soon as its batch is through.

        Parameters
        ----------
        paths : path-like or iterable of path-like
            One file, or any number, taken a batch at a time.

        Returns
        -------
        Answer or Refusal, or an iterator of them
            With `channel="each"` one for each channel: of one file a list.
        """
        if not isinstance(paths, str | bytes | os.PathLike):
            return (item for items in self.predict_groups(map(os.fsdecode, paths)) for item in items)
        items = self.predict_one(paths)
        return items if self._channel == "each" else items[0]

    def timeline(self, path: str | os.PathLike[str], **options: Any) -> Timeline | list[Timeline]:
        """Follow the emotion through a recording of any length.

        Parameters
        ----------
        path : path-like
        **options
            `window_s`, `hop_s` and `on_progress` of `inference.timeline.timeline`.

        Returns
        -------
        Timeline
            With `channel="each"` a list, one for each channel.

        Raises
        ------
        AudioError
            The recording cannot be read.
        """
        from speechemo_cli.inference.timeline import timelines

        options |= {"min_confidence": self._min_confidence, "config": self._config.audio}
        found = timelines(self, path, channel=self._channel, **options)
        return list(found) if self._channel == "each" else next(found)

    def predict_groups(
        self, clips: Iterable[str | tuple[str, bytes]], known: Known | None = None
    ) -> Iterator[list[Answer | Refusal]]:
        """Answer as `predict` does, but keep the answers of a clip together.

        Parameters
        ----------
        clips : iterable of str or (str, bytes)
            Files, or a name and what a file of that name would hold.
        known : callable, optional
            `known(path)` gives answers of an earlier run by the SHA-256 of the content they were given
            for: a clip that has not changed is not decoded again.

        Yields
        ------
        list of Answer or Refusal
            One list a clip, one answer a channel.
        """
        clips = iter(clips)
        batch = list(islice(clips, BATCH))
        with ExitStack() as stack:
            if self._pool:
                stack.enter_context(closing(self._pool))
            run = stack.enter_context(_side_by_side(min(self._config.workers, len(batch))))
            while batch:
                yield from self._grouped(list(run(lambda clip: self._prepared(clip, known), batch)))
                batch = list(islice(clips, BATCH))

    def predict_batch(
        self, clips: Sequence[str | tuple[str, bytes]], known: Known | None = None
    ) -> list[list[Answer | Refusal]]:
        """Answer as `predict_groups` does, in this thread, and keep the processes that decode."""
        return list(self._grouped([self._prepared(clip, known) for clip in clips]))

    def _grouped(
        self, prepared: Sequence[Sequence[_Prepared | Answer | Refusal]]
    ) -> Iterator[list[Answer | Refusal]]:
        answered = self._answers([item for items in prepared for item in items])
        for items in prepared:
            yield list(islice(answered, len(items)))

    def predict_one(self, path: str | os.PathLike[str]) -> list[Answer | Refusal]:
        """Answer for one clip in this thread: one answer a channel."""
        return list(self._answers(self._prepared(os.fsdecode(path))))

    def predict_content(self, content: bytes, name: str = "-") -> list[Answer | Refusal]:
        """Answer for the bytes of an audio file.

        Parameters
        ----------
        content : bytes
            Of any format a file could have.
        name : str
            What the answer calls it.

        Returns
        -------
        list of Answer or Refusal
            One answer a channel.
        """
        return list(self._answers(self._prepared((name, content))))

    def predict_samples(self, y: ArrayLike, sr: int) -> Answer:
        """Answer for samples.

        Parameters
        ----------
        y : array-like [shape=(n,)]
            Mono samples: of floats, full scale is 1.0; of integers, what their type can hold.
        sr : int
            Their rate in Hz.

        Returns
        -------
        Answer
            With an empty path.

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
        check(samples, int(sr), self._config.audio)
        samples, offset = without_offset(samples)
        check_warnings(offset, self._config.audio)
        recording = reader.Recording(samples, int(sr), "", offset)
        (answer,) = self._answers([self._with_features("", self._checked(recording))])
        assert isinstance(answer, Answer)
        return answer

    def probabilities(self, windows: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Answer for waveforms at `sr` as they are, without any check: parts of a recording.

        Parameters
        ----------
        windows : sequence of np.ndarray [shape=(n,), dtype=float32]
            At least one.

        Returns
        -------
        np.ndarray [shape=(windows, n_labels), dtype=float32]
            In the order of `labels`; rows sum to 1.
        """
        with _side_by_side(min(self._config.workers, len(windows))) as run:
            features = np.concatenate(list(run(self._compute, windows)))
        rows, _ = self._runtime.answer(features)
        return np.stack([self._chosen(row) for row in rows]).astype(np.float32)

    def _chosen(self, row: NDArray[np.float32]) -> NDArray[np.float64]:
        """Bring the probabilities of the labels to choose from to a sum of 1."""
        chosen = row[self._columns].astype(np.float64)
        total = chosen.sum()
        # Where the network is sure that it is none of them, it says nothing of which.
        return chosen / total if total > 0 else np.full_like(chosen, 1 / len(chosen))

    def _read(self, path: str, content: bytes | None) -> list[reader.Recording]:
        if self._pool:
            return self._pool.read_channels(path, content)
        return reader.read_channels(path, self._config.audio, self._channel, content)

    def _prepared(
        self, clip: str | tuple[str, bytes], known: Known | None = None
    ) -> Sequence[_Prepared | Answer | Refusal]:
        path, content = (clip, None) if isinstance(clip, str) else clip
        try:
            with reader.clip_errors():
                if known and (earlier := known(path)):
                    content = reader.read_bytes(path) if content is None else content
                    same = self._whole(earlier.get(hashlib.sha256(content).hexdigest(), ()), content)
                    if same:
                        return same
                recordings = self._read(path, content)
                return [self._with_features(path, self._checked(one)) for one in recordings]
        except AudioError as error:
            return [Refusal(path, str(error))]

    def _checked(self, recording: reader.Recording) -> reader.PreparedClip | reader.ClipError:
        return reader.prepare(recording, self._config.audio, self.sr)

    def _whole(self, earlier: Sequence[Answer], content: bytes) -> Sequence[Answer]:
        """Return the earlier answers of a clip if no channel lacks one: it was refused, or never reached."""
        if self._channel != "each" or not earlier:
            return earlier
        found = {answer.channel: answer for answer in earlier}
        try:
            names = reader.channels_of(content, self._config.audio)
        except AudioError:
            return ()
        return [found[name] for name in names] if found.keys() == set(names) else ()

    def _with_features(
        self, path: str, prepared: reader.PreparedClip | reader.ClipError
    ) -> _Prepared | Refusal:
        if isinstance(prepared, reader.ClipError):
            return Refusal(path, prepared.error, prepared.channel)
        longest_s = self.metadata.data.get("longest_s")
        long = longest_s and quality.long(prepared.duration_s, longest_s)
        # The samples have been of use: those of a whole batch would be gigabytes.
        sound = prepared._replace(warnings=(*prepared.warnings, *filter(None, [long])), y=_NO_SAMPLES)
        return _Prepared(path, sound, self._compute(prepared.y))

    def _compute(self, y: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features of a waveform [shape=(1, dim)], as in training."""
        return self._features.compute(y, self._section, "")

    def _answers(self, prepared: Sequence[_Prepared | Answer | Refusal]) -> Iterator[Answer | Refusal]:
        usable = [one.features for one in prepared if isinstance(one, _Prepared)]
        rows = iter(zip(*self._runtime.answer(np.concatenate(usable)), strict=True) if usable else ())
        for one in prepared:
            yield self._answer(one, *next(rows)) if isinstance(one, _Prepared) else one

    def _answer(self, prepared: _Prepared, row: NDArray[np.float32], distance: float) -> Answer:
        probabilities = dict(zip(self.labels, self._chosen(row).tolist(), strict=True))
        label = max(probabilities, key=probabilities.__getitem__)
        confidence = probabilities[label]
        if confidence < self._min_confidence:
            label = UNCERTAIN
        clip = prepared.clip
        return Answer(
            prepared.path,
            label,
            confidence,
            probabilities,
            clip.duration_s,
            (*clip.warnings, *self._unlike(float(distance))),
            clip.channel,
            clip.sha256,
        )

    def _unlike(self, distance: float) -> tuple[str, ...]:
        """Say that a clip is unlike those of the training."""
        if self.metadata.unlike is None or distance <= self.metadata.unlike:
            return ()
        return (
            f"unlike the training: its features are {distance:.1f} from those of the training,"
            f" whose own speakers stay below {self.metadata.unlike:.1f}",
        )


@contextmanager
def _side_by_side(workers: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """Give a `map` that works in threads, where there is work for more than one.

    Decoding, resampling and the network leave the interpreter lock alone, so threads do.
    """
    if workers < 2:
        yield map
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(workers) as pool:
        yield pool.map


def _decoders(config: AudioConfig, channel: str) -> DecoderPool:
    from speechemo_cli.audio.isolate import DecoderPool

    return DecoderPool(config, channel)


def _full_scale_at_1(y: NDArray[Any]) -> NDArray[np.float32]:
    """Scale integers as audio files do; the middle of unsigned ones is silence."""
    if y.dtype.kind not in "iu":
        return y.astype(np.float32, copy=False)
    half = 2.0 ** (8 * y.dtype.itemsize - 1)
    return ((y - half * (y.dtype.kind == "u")) / half).astype(np.float32)


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"{name} is {value!r}, expected one of {', '.join(known)}")


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
