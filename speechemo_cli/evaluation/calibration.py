"""One temperature, under which confidences come near to how often answers are right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Probabilities = NDArray[np.float32]

# A temperature beyond these bounds belongs to a network that knows nothing, or to a handful of clips.
BOUNDS = (0.2, 10.0)
# The least probability whose logarithm float32 tells from the next one's.
_LEAST = 1e-30


def fit_temperature(probabilities: Probabilities, truth: NDArray[np.int64]) -> float:
    """Find the temperature under which the answers were least surprised by the truth.

    Minimises the mean cross-entropy of softmax(log(p) / T) over T (Guo et al. 2017, ICML: temperature
    scaling; log p is the logit, but for a constant that cancels). It is convex in 1 / T.

    Parameters
    ----------
    probabilities : np.ndarray [shape=(n, n_labels), dtype=float32]
        Answers for clips that were not trained on.
    truth : np.ndarray [shape=(n,), dtype=int64]

    Returns
    -------
    float
        Above 1 where the network is too sure of itself. Within `BOUNDS`.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    logits = _logits(probabilities)
    of_truth = logits[np.arange(len(truth)), truth]

    def surprise(sharpness: float) -> float:
        return float(np.mean(logsumexp(sharpness * logits, axis=1) - sharpness * of_truth))

    low, high = BOUNDS
    found: Any = minimize_scalar(surprise, bounds=(1 / high, 1 / low), method="bounded")
    return float(1 / found.x)


def at_bound(temperature: float) -> bool:
    """Whether a fitted temperature stopped at one of `BOUNDS`, so that a better one may lie beyond."""
    low, high = BOUNDS
    return not low * 1.01 < temperature < high * 0.99


def apply_temperature(probabilities: Probabilities, temperature: float) -> Probabilities:
    """Soften (above 1) or sharpen (below 1) probabilities; which label is first stays as it is.

    Parameters
    ----------
    probabilities : np.ndarray [shape=(n, n_labels), dtype=float32]
    temperature : float

    Returns
    -------
    np.ndarray [shape=(n, n_labels), dtype=float32]
    """
    if temperature == 1:
        return probabilities
    from scipy.special import softmax

    out: Probabilities = softmax(_logits(probabilities) / temperature, axis=1).astype(np.float32)
    return out


def _logits(probabilities: Probabilities) -> NDArray[np.float64]:
    return np.log(np.maximum(probabilities.astype(np.float64), _LEAST))
