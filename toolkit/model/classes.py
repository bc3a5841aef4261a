"""Kinds of messages: hops that are slow together, found by a mixture of independent log-normals over all hops."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from toolkit.model.distributions import FloatArray

MOST_CLASSES = 5
_LEAST_MEMBERS = 30
"""A kind with fewer messages says too little of each hop."""
_MOST_VALUES = 20_000
_LEAST_SD = 1e-3
_STEPS = 200


def message_classes(delays: FloatArray, *, most: int = MOST_CLASSES, seed: int = 1) -> NDArray[np.int64]:
    """The kind of each message: shape (messages,), 0 the most frequent.

    `delays` has a column for each hop. Within a kind the hops are taken as independent; a hop that is late together
    with another puts both into a kind of their own. The number of kinds is the one with the lowest BIC.
    """
    n = len(delays)
    constant = np.ptp(delays, axis=0) == 0
    values = delays[:, ~constant]
    if n < 4 * _LEAST_MEMBERS or values.shape[1] == 0:
        return np.zeros(n, dtype=np.int64)
    least = np.where(values > 0, values, np.inf).min(axis=0)
    logs = np.log(np.maximum(values, least / 2))
    rng = np.random.Generator(np.random.Philox(seed))
    used = logs if n <= _MOST_VALUES else logs[rng.choice(n, _MOST_VALUES, replace=False)]
    best = (math.inf, np.zeros(n, dtype=np.int64))
    for count in range(1, most + 1):
        weights, means, sds = _mixture(used, count)
        likelihood = float(_joint(used, weights, means, sds)[1].sum())
        bic = (count * (2 * used.shape[1] + 1) - 1) * math.log(len(used)) - 2 * likelihood
        kinds = _joint(logs, weights, means, sds)[0].argmax(axis=1)
        members = np.bincount(kinds, minlength=count)
        if members.min() < _LEAST_MEMBERS:
            break
        if bic < best[0]:
            order = np.argsort(np.argsort(-members, kind="stable"))
            best = (bic, order[kinds].astype(np.int64))
    return best[1]


def _joint(logs: FloatArray, weights: FloatArray, means: FloatArray, sds: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Logarithm of (weight x density) of each value in each class, and of their sum."""
    scaled = (logs[:, None, :] - means) / sds
    joint = np.log(weights) - 0.5 * (scaled**2).sum(axis=2) - np.log(sds).sum(axis=1)
    joint -= 0.5 * logs.shape[1] * math.log(2 * math.pi)
    top = joint.max(axis=1)
    return joint, top + np.log(np.exp(joint - top[:, None]).sum(axis=1))


def _mixture(logs: FloatArray, count: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Weights, means and standard deviations by EM, from slices of the messages in the order of their total delay."""
    total = np.argsort(np.exp(logs).sum(axis=1), kind="stable")
    # Slices get thinner towards the tail, where the slow kinds are.
    edges = [0, *(round(len(total) * (1 - 0.3**k)) for k in range(1, count)), len(total)]
    parts = [total[a:b] for a, b in pairwise(edges)]
    weights = np.array([len(p) for p in parts]) / len(logs)
    means = np.array([logs[p].mean(axis=0) for p in parts])
    sds = np.array([np.maximum(logs[p].std(axis=0), _LEAST_SD) for p in parts])
    before = -math.inf
    for _ in range(_STEPS):
        joint, whole = _joint(logs, weights, means, sds)
        likelihood = float(whole.sum())
        if likelihood - before < 1e-7 * abs(likelihood):
            break
        before = likelihood
        share = np.exp(joint - whole[:, None])
        mass = np.maximum(share.sum(axis=0), 1e-9)
        weights = mass / mass.sum()
        means = (share.T @ logs) / mass[:, None]
        spread = np.stack([share[:, k] @ (logs - means[k]) ** 2 for k in range(count)]) / mass[:, None]
        sds = np.maximum(np.sqrt(spread), _LEAST_SD)
    return weights, means, sds
