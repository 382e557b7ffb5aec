"""Layers in NumPy, whose operations on few rows cost a fraction of torch's.

Maps and norms are pairs of weight and bias.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from torch import Tensor

_EPSILON = 1e-5  # of LayerNorm
_BLOCK = 64  # values of which one is compared first


def array(tensor: Any) -> np.ndarray:
    """Return a view of a tensor on the CPU."""
    view: np.ndarray = tensor.detach().numpy()
    return view


def arrays(value: Any) -> Any:
    """Return the same lists and tuples with arrays in place of tensors.

    The weight of a linear map becomes [in, out], which one row is multiplied with faster.
    """
    if isinstance(value, Tensor):
        return array(value)
    fields = getattr(value, "_fields", None)
    if fields == ("weight", "bias"):
        return np.ascontiguousarray(array(value.weight).T), array(value.bias)
    if fields is not None:
        return type(value)(*(arrays(part) for part in value))
    return [arrays(part) for part in value] if isinstance(value, (tuple, list)) else value


def linear(x: np.ndarray, weights: Any) -> np.ndarray:
    """Multiply ``x`` [..., d] by the weight [d, out], add the bias [out]."""
    result: np.ndarray = x @ weights[0]
    result += weights[1]
    return result


def normed(x: np.ndarray, norm: Any) -> np.ndarray:
    """Normalise the last dimension (LayerNorm) with weight and bias."""
    average = _average(x.shape[-1], x.dtype)  # a product is quicker than a sum of few rows
    x = x - x @ average
    x /= np.sqrt((x * x) @ average + _EPSILON)
    x *= norm[0]
    x += norm[1]
    return x


@lru_cache
def _average(width: int, dtype: np.dtype) -> np.ndarray:
    return np.full((width, 1), 1 / width, dtype)


def fed_forward(x: np.ndarray, norm: Any, first: Any, second: Any) -> np.ndarray:
    """Add to ``x`` [..., d] its norm after linear, ReLU, linear."""
    hidden = linear(normed(x, norm), first)
    result: np.ndarray = x + linear(np.maximum(hidden, 0, out=hidden), second)
    return result


def softmax(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    """Take the softmax over an axis."""
    scores = np.exp(scores - np.maximum.reduce(scores, axis, keepdims=True))
    scores /= np.add.reduce(scores, axis, keepdims=True)
    return scores


def expand(first: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """List the members of G groups: group g is ``first[g] .. first[g] + counts[g] - 1``.

    Returns (owner, member), both int64 [E], group after group.
    """
    owner = np.repeat(np.arange(len(counts)), counts)
    start = np.cumsum(counts) - counts
    return owner, np.arange(len(owner)) + (first - start)[owner]


def group_logsumexp(values: np.ndarray, start: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the log-sum-exp of each of G groups, which are consecutive and none empty: [G]."""
    peak = np.maximum.reduceat(values, start)
    total = np.add.reduceat(np.exp(values - np.repeat(peak, counts)), start)
    result: np.ndarray = np.log(total) + peak
    return result


def largest(values: np.ndarray, k: int) -> np.ndarray:
    """Return the places of the k largest of [n] values in any order: int64 [k]; k is at most n.

    The k-th largest of the maxima of blocks bounds the k-th largest value from below.
    """
    places, n_blocks = np.arange(len(values)), len(values) // _BLOCK
    if n_blocks >= k:
        maxima = values[: n_blocks * _BLOCK].reshape(n_blocks, _BLOCK).max(1)
        above = np.flatnonzero(values >= np.partition(maxima, n_blocks - k)[n_blocks - k])
        places = above if len(above) >= k else places  # fewer: there are NaNs
    chosen: np.ndarray = places[np.argpartition(values[places], len(places) - k)[-k:]]
    return chosen
