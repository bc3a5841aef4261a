"""Mixtures of Erlangs and general phase-type distributions by expectation and maximisation (EM)."""

from __future__ import annotations

import math

import numpy as np

from toolkit.model.distributions import FloatArray, HyperErlang, PhaseType
from toolkit.model.likelihood import TINY, Likelihood

_MOST_VALUES = 200
_MOST_PHASE_TYPE_VALUES = 80


def fit_hyper_erlang(sample: Likelihood) -> HyperErlang:
    """EM over weights and rates for two and three branches; shapes moved as long as that helps."""
    values, counts = thinned(sample)
    best: tuple[float, HyperErlang] | None = None
    for branches in (2, 3):
        groups = _groups(sample, branches)
        shapes = [k for _, k, _ in groups]
        found = hyper_em(values, counts, shapes, groups)
        for factor in (0.5, 0.75, 1.3, 2.0):
            for i in range(branches):
                trial = list(shapes)
                trial[i] = int(np.clip(round(trial[i] * factor), 1, 100))
                if trial[i] == shapes[i]:
                    continue
                other = hyper_em(values, counts, trial, groups, steps=25)
                if other[0] > found[0] + 1e-6:
                    found, shapes = other, trial
        found = hyper_em(values, counts, shapes, groups, steps=300)
        price = 3 * branches - 1
        if best is None or -2 * found[0] + 2 * price < best[0]:
            best = (-2 * found[0] + 2 * price, found[1])
    assert best is not None
    return best[1]


def _groups(sample: Likelihood, branches: int) -> list[tuple[float, int, float]]:
    """Start of the hyper-Erlang search: the sorted sample in equal parts, an Erlang by moments for each."""
    parts = np.array_split(np.sort(np.maximum(sample.all, sample.mean * 1e-6)), branches)
    made = []
    for part in parts:
        mean, variance = float(part.mean()), float(part.var())
        shape = int(np.clip(round(mean**2 / max(variance, 1e-12 * mean**2)), 1, 60))
        made.append((len(part) / sample.n, shape, shape / mean))
    return made


def thinned(sample: Likelihood) -> tuple[FloatArray, FloatArray]:
    """At most a few hundred values with counts that sum to n: means of neighbours, for methods that iterate."""
    if len(sample.values) <= _MOST_VALUES:
        return sample.values, sample.counts
    parts = np.array_split(np.sort(sample.all), _MOST_VALUES)
    return np.array([p.mean() for p in parts]), np.array([float(len(p)) for p in parts])


def hyper_em(
    values: FloatArray,
    counts: FloatArray,
    shapes: list[int],
    groups: list[tuple[float, int, float]],
    *,
    steps: int = 100,
) -> tuple[float, HyperErlang]:
    """(log-likelihood, mixture) for given shapes; `groups` are where each branch starts: weight, shape, rate."""
    k = np.array(shapes, dtype=np.float64)
    weights = np.array([w for w, _, _ in groups])
    rates = np.array([rate * shape / start for (_, start, rate), shape in zip(groups, shapes, strict=True)])
    logs = np.log(values)[:, None]
    constant = np.array([math.lgamma(s) for s in shapes])
    before = -math.inf
    for _ in range(steps):
        with np.errstate(divide="ignore"):
            density = np.log(weights) + k * np.log(rates) + (k - 1) * logs - rates * values[:, None] - constant
        top = density.max(axis=1, keepdims=True)
        parts = np.exp(density - top)
        total = parts.sum(axis=1, keepdims=True)
        likelihood = float(counts @ (np.log(total) + top)[:, 0])
        share = parts / total * counts[:, None]
        mass = np.maximum(share.sum(axis=0), 1e-12)
        weights, rates = mass / mass.sum(), k * mass / np.maximum(share.T @ values, TINY)
        if likelihood - before < 1e-9 * abs(likelihood):
            break
        before = likelihood
    made = HyperErlang(
        weights=tuple(float(w) for w in weights / weights.sum()),
        shapes=tuple(shapes),
        rates=tuple(float(r) for r in rates),
    )
    return likelihood, made


def fit_phase_type(sample: Likelihood, *, phases: int = 4, steps: int = 120, seed: int = 7) -> PhaseType:
    """General phase-type distribution by EM (Asmussen, Nerman, Olsson 1996), integrals by block exponentials."""
    values, counts = thinned(sample)
    if len(values) > _MOST_PHASE_TYPE_VALUES:
        parts = np.array_split(np.arange(len(values)), _MOST_PHASE_TYPE_VALUES)
        values, counts = (
            np.array([np.average(values[p], weights=counts[p]) for p in parts]),
            np.array([counts[p].sum() for p in parts]),
        )
    scale = float(np.average(values, weights=counts))
    x = values / scale
    rng = np.random.Generator(np.random.Philox(seed))
    n = phases
    start = rng.random(n) + 0.1
    start /= start.sum()
    rates = rng.random((n, n)) + n * np.eye(n, k=1)
    np.fill_diagonal(rates, 0.0)
    ends = rng.random(n) * 0.5 + 0.1
    ends[-1] += n
    before = -math.inf
    for _ in range(steps):
        generator = rates - np.diag(rates.sum(axis=1) + ends)
        block = np.zeros((2 * n, 2 * n))
        block[:n, :n] = block[n:, n:] = generator
        block[:n, n:] = np.outer(ends, start)
        powers = _exponentials(block, x)
        forward = start @ powers[:, :n, :n]
        backward = powers[:, :n, :n] @ ends
        density = np.maximum(backward @ start, TINY)
        likelihood = float(counts @ np.log(density))
        if likelihood - before < 1e-7 * abs(likelihood):
            break
        before = likelihood
        share = counts / density
        both = np.einsum("v,vij->ij", share, powers[:, :n, n:])
        stay = np.maximum(np.diag(both), TINY)
        start = np.maximum(start * (share @ backward), 0.0)
        start /= start.sum()
        rates = rates * both.T / stay[:, None]
        ends = ends * (share @ forward) / stay
    generator = (rates - np.diag(rates.sum(axis=1) + ends)) / scale
    return PhaseType(
        start=tuple(float(v) for v in start), generator=tuple(tuple(float(v) for v in r) for r in generator)
    )


def _exponentials(matrix: FloatArray, times: FloatArray) -> FloatArray:
    """exp(matrix t) for each t at once: Taylor series of a scaled matrix, squared back."""
    size = float(np.abs(matrix).sum(axis=1).max() * times.max())
    halvings = max(0, math.ceil(math.log2(max(size, 1e-9))) + 1)
    scaled = matrix * (times / 2.0**halvings)[:, None, None]
    term = np.broadcast_to(np.eye(len(matrix)), scaled.shape)
    total = term.copy()
    for k in range(1, 15):
        term = term @ scaled / k
        total += term
    for _ in range(halvings):
        total = total @ total
    return total
