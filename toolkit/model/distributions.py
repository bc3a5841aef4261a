"""How long things take: the distributions that a transition of a net may have."""

# ruff: noqa: D102 - what the methods of a family return is said once, in Distribution

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import ModelError

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
ComplexArray: TypeAlias = NDArray[np.complex128]


class Distribution(ABC):
    """A non-negative random delay, in the unit of its net."""

    __slots__ = ()

    @property
    @abstractmethod
    def mean(self) -> float:
        """First moment."""

    @property
    @abstractmethod
    def variance(self) -> float:
        """Second central moment."""

    @abstractmethod
    def cdf(self, x: FloatArray) -> FloatArray:
        """P(X <= x), element by element."""

    @abstractmethod
    def pdf(self, x: FloatArray) -> FloatArray:
        """Density at x, element by element; zero where there is none."""

    @abstractmethod
    def sample(self, rng: np.random.Generator, size: int) -> FloatArray:
        """`size` independent draws."""

    def transform(self, s: ComplexArray) -> ComplexArray:
        """E exp(-sX) for Re s >= 0, by quadrature between the extreme quantiles where there is no closed form."""
        nodes, weights = _quadrature(self)
        out = np.empty(s.shape, dtype=np.complex128)
        flat, result = s.ravel(), out.ravel()
        for start in range(0, flat.size, 512):
            part = flat[start : start + 512]
            result[start : start + 512] = np.exp(-part[:, None] * nodes) @ weights
        return result.reshape(s.shape)

    def quantile(self, p: FloatArray) -> FloatArray:
        """Smallest x with P(X <= x) >= p, by bisection unless a family knows better."""
        p = np.asarray(p, dtype=np.float64)
        low = np.zeros_like(p)
        high = np.full_like(p, max(self.mean, 1e-300))
        for _ in range(2000):
            short = self.cdf(high) < p
            if not short.any():
                break
            high[short] *= 2.0
        for _ in range(90):
            middle = (low + high) / 2
            below = self.cdf(middle) < p
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return high

    @property
    def sd(self) -> float:
        """Standard deviation."""
        return math.sqrt(self.variance)

    def moment(self, order: int) -> float:
        """E X^order for orders 1 to 3."""
        if order == 1:
            return self.mean
        if order == 2:
            return self.variance + self.mean**2
        nodes, weights = _quadrature(self)
        return float(weights @ nodes**order)

    def __str__(self) -> str:
        values = (getattr(self, f.name) for f in fields(self))  # type: ignore[arg-type]
        return f"{NAMES[type(self)]}({', '.join(_written(v) for v in values)})"


class _OfMoments(Distribution):
    """A family whose moments of any order are known in closed form: mean and variance follow."""

    __slots__ = ()

    @abstractmethod
    def moment(self, order: int) -> float: ...

    @property
    def mean(self) -> float:
        return self.moment(1)

    @property
    def variance(self) -> float:
        return max(self.moment(2) - self.moment(1) ** 2, 0.0)


def _written(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_written(v) for v in value)}]"
    return f"{value:.10g}" if isinstance(value, int | float) else str(value)


def _quadrature(distribution: Distribution) -> tuple[FloatArray, FloatArray]:
    """Gauss-Legendre nodes and probability weights on panels that are even in log x."""
    low, high = distribution.quantile(np.array([1e-14, 1 - 1e-14]))
    low = max(float(low), float(high) * 1e-9)
    edges = np.linspace(math.log(low), math.log(float(high)), 161)
    x, w = np.polynomial.legendre.leggauss(10)
    half = np.diff(edges)[:, None] / 2
    logs = (edges[:-1, None] + half + half * x).ravel()
    nodes = np.exp(logs)
    weights = (half * w).ravel() * nodes * distribution.pdf(nodes)
    return nodes, weights / weights.sum()


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ModelError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exponential(Distribution):
    """Memoryless, mean 1/rate."""

    rate: float

    def __post_init__(self) -> None:
        _require(0 < self.rate < math.inf, f"exponential(rate={self.rate:g}): the rate must be above 0")

    @property
    def mean(self) -> float:
        return 1 / self.rate

    @property
    def variance(self) -> float:
        return self.rate**-2

    def moment(self, order: int) -> float:
        return math.factorial(order) / self.rate**order

    def cdf(self, x: FloatArray) -> FloatArray:
        return -np.expm1(-self.rate * np.maximum(x, 0.0))

    def pdf(self, x: FloatArray) -> FloatArray:
        return np.where(x >= 0, self.rate * np.exp(-self.rate * np.maximum(x, 0.0)), 0.0)

    def quantile(self, p: FloatArray) -> FloatArray:
        return -np.log1p(-np.asarray(p)) / self.rate

    def transform(self, s: ComplexArray) -> ComplexArray:
        return self.rate / (self.rate + s)

    def sample(self, rng: np.random.Generator, size: int) -> FloatArray:
        return rng.standard_exponential(size) / self.rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Gamma(Distribution):
    """Gamma with a shape and a rate (not a scale): mean shape/rate."""

    shape: float
    rate: float

    def __post_init__(self) -> None:
        _require(
            0 < self.shape < math.inf and 0 < self.rate < math.inf,
            f"gamma(shape={self.shape:g}, rate={self.rate:g}): shape and rate must be above 0",
        )

    @property
    def mean(self) -> float:
        return self.shape / self.rate

    @property
    def variance(self) -> float:
        return self.shape / self.rate**2

    def moment(self, order: int) -> float:
        return math.prod(self.shape + i for i in range(order)) / self.rate**order

    def cdf(self, x: FloatArray) -> FloatArray:
        from scipy.special import gammainc

        return np.asarray(gammainc(self.shape, self.rate * np.maximum(x, 0.0)), dtype=np.float64)

    def pdf(self, x: FloatArray) -> FloatArray:
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = (self.shape - 1) * np.log(x) - self.rate * x + self.shape * math.log(self.rate)
            density = np.exp(logs - math.lgamma(self.shape))
        edge = self.rate if self.shape == 1 else (0.0 if self.shape > 1 else math.inf)
        return np.where(x > 0, density, np.where(x == 0, edge, 0.0))

    def quantile(self, p: FloatArray) -> FloatArray:
        from scipy.special import gammaincinv

        return np.asarray(gammaincinv(self.shape, p) / self.rate, dtype=np.float64)

    def transform(self, s: ComplexArray) -> ComplexArray:
        return np.exp(-self.shape * np.log1p(s / self.rate))

    def sample(self, rng: np.random.Generator, size: int) -> FloatArray:
        return rng.standard_gamma(self.shape, size) / self.rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Erlang(Gamma):
    """Sum of a whole number of exponential phases of one rate."""

    def __post_init__(self) -> None:
        # The two-argument form is needed: slots=True makes a new class that a bare super() does not know.
        Gamma.__post_init__(self)
        _require(float(self.shape).is_integer(), f"erlang(shape={self.shape:g}): the shape must be whole; use gamma")


@dataclass(frozen=True, slots=True, kw_only=True)
class Uniform(Distribution):
    """Equally likely anywhere between low and high."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _require(
            0 <= self.low < self.high < math.inf,
            f"uniform(low={self.low:g}, high={self.high:g}): needs 0 <= low < high",
        )

    @property
    def mean(self) -> float:
        return (self.low + self.high) / 2

    @property
    def variance(self) -> float:
        return (self.high - self.low) ** 2 / 12

    def moment(self, order: int) -> float:
        return (self.high ** (order + 1) - self.low ** (order + 1)) / ((order + 1) * (self.high - self.low))

    def cdf(self, x: FloatArray) -> FloatArray:
        return np.clip((x - self.low) / (self.high - self.low), 0.0, 1.0)

    def pdf(self, x: FloatArray) -> FloatArray:
        return np.where((x >= self.low) & (x <= self.high), 1 / (self.high - self.low), 0.0)

    def quantile(self, p: FloatArray) -> FloatArray:
        return self.low + np.asarray(p) * (self.high - self.low)

    def transform(self, s: ComplexArray) -> ComplexArray:
        width = s * (self.high - self.low)
        small = np.abs(width) < 1e-5
        safe = np.where(small, 1.0, width)
        ratio = np.where(small, 1 - width / 2 + width**2 / 6, -np.expm1(-safe) / safe)
        return np.exp(-s * self.low) * ratio

    def sample(self, rng: np.random.Generator, size: int) -> FloatArray:
        return self.low + (self.high - self.low) * rng.random(size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deterministic(Distribution):
    """Always the same value."""

    value: float

    def __post_init__(self) -> None:
        _require(0 <= self.value < math.inf, f"deterministic({self.value:g}): the value must be 0 or more")

    @property
    def mean(self) -> float:
        return self.value

    @property
    def variance(self) -> float:
        return 0.0

    def moment(self, order: int) -> float:
        return self.value**order

    def cdf(self, x: FloatArray) -> FloatArray:
        return (np.asarray(x) >= self.value).astype(np.float64)

    def pdf(self, x: FloatArray) -> FloatArray:
        return np.zeros_like(np.asarray(x, dtype=np.float64))

    def quantile(self, p: FloatArray) -> FloatArray:
        return np.full(np.shape(p), self.value)

    def transform(self, s: ComplexArray) -> ComplexArray:
        return np.exp(-s * self.value)

    def sample(self, rng: np.random.Generator, size: int) -> FloatArray:  # noqa: ARG002 - nothing is random here
        return np.full(size, self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lognormal(Distribution):
    """exp of a normal with mean mu and standard deviation sigma."""

    mu: float
    sigma: float

    def __post_init__(self) -> None:
        _require(self.sigma > 0 and math.isfinite(self.mu), f"lognormal(sigma={self.sigma:g}): sigma must be above 0")

    @property
    def mean(self) -> float:
        return math.exp(self.mu + self.sigma**2 / 2)

    @property
    def variance(self) -> float:
        return math.expm1(self.sigma**2) * self.mean**2

    def moment(self, order: int) -> float:
        return math.exp(order * self.mu + order**2 * self.sigma**2 / 2)

    def cdf(self, x: FloatArray) -> FloatArray:
        from scipy.special import ndtr

        with np.errstate(divide="ignore"):
            return np.asarray(ndtr((np.log(np.maximum(x, 0.0)) - self.mu) / self.sigma), dtype=np.float64)

    def pdf(self, x: FloatArray) -> FloatArray:
        safe = np.where(x > 0, x, 1.0)
        z = (np.log(safe) - self.mu) / self.sigma
        return np.where(x > 0, np.exp(-z * z / 2) / (safe * self.sigma * math.sqrt(2 * math.pi)), 0.0)

    def quantile(self, p: FloatArray) -> FloatArray:
        from scipy.special import ndtri

        return np.asarray(np.exp(self.mu + self.sigma * ndtri(p)), dtype=np.float64)

    def sample(self, rng: np.random.Generator, size: int) -> FloatArray:
        return np.exp(self.mu + self.sigma * rng.standard_normal(size))


@dataclass(frozen=True, slots=True, kw_only=True)
class Weibull(_OfMoments):
    """P(X > x) = exp(-(x/scale)^shape)."""

    shape: float
    scale: float

    def __post_init__(self) -> None:
        _require(
            self.shape > 0 and self.scale > 0,
            f"weibull(shape={self.shape:g}, scale={self.scale:g}): both must be above 0",
        )

    def moment(self, order: int) -> float:
        return self.scale**order * math.gamma(1 + order / self.shape)

    def cdf(self, x: FloatArray) -> FloatArray:
        return -np.expm1(-((np.maximum(x, 0.0) / self.scale) ** self.shape))

    def pdf(self, x: FloatArray) -> FloatArray:
        z = np.where(x > 0, x, 1.0) / self.scale
        return np.where(x > 0, self.shape / self.scale * z ** (self.shape - 1) * np.exp(-(z**self.shape)), 0.0)

    def quantile(self, p: FloatArray) -> FloatArray:
        return self.scale * (-np.log1p(-np.asarray(p))) ** (1 / self.shape)

    def sample(self, rng: np.random.Generator, size: int) -> FloatArray:
        return self.scale * rng.weibull(self.shape, size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loglogistic(_OfMoments):
    """P(X <= x) = 1 / (1 + (x/scale)^-shape); the shape must exceed 2 so that a variance exists."""

    shape: float
    scale: float

    def __post_init__(self) -> None:
        _require(
            self.shape > 2 and self.scale > 0,
            f"loglogistic(shape={self.shape:g}, scale={self.scale:g}): needs shape above 2 and scale above 0",
        )

    def moment(self, order: int) -> float:
        angle = order * math.pi / self.shape
        return self.scale**order * angle / math.sin(angle) if order < self.shape else math.inf

    def cdf(self, x: FloatArray) -> FloatArray:
        z = (np.maximum(x, 0.0) / self.scale) ** self.shape
        return z / (1 + z)

    def pdf(self, x: FloatArray) -> FloatArray:
        z = np.where(x > 0, x, 1.0) / self.scale
        return np.where(x > 0, self.shape / self.scale * z ** (self.shape - 1) / (1 + z**self.shape) ** 2, 0.0)

    def quantile(self, p: FloatArray) -> FloatArray:
        p = np.asarray(p)
        return self.scale * (p / (1 - p)) ** (1 / self.shape)

    def sample(self, rng: np.random.Generator, size: int) -> FloatArray:
        return self.quantile(rng.random(size))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shifted(Distribution):
    """A distribution moved right by a constant offset."""

    offset: float
    base: Distribution

    def __post_init__(self) -> None:
        _require(0 <= self.offset < math.inf, f"shifted(offset={self.offset:g}): the offset must be 0 or more")

    @property
    def mean(self) -> float:
        return self.offset + self.base.mean

    @property
    def variance(self) -> float:
        return self.base.variance

    def moment(self, order: int) -> float:
        return sum(
            math.comb(order, i) * self.offset ** (order - i) * (self.base.moment(i) if i else 1.0)
            for i in range(order + 1)
        )

    def cdf(self, x: FloatArray) -> FloatArray:
        return np.where(x >= self.offset, self.base.cdf(np.maximum(x - self.offset, 0.0)), 0.0)

    def pdf(self, x: FloatArray) -> FloatArray:
        return np.where(x >= self.offset, self.base.pdf(np.maximum(x - self.offset, 0.0)), 0.0)

    def quantile(self, p: FloatArray) -> FloatArray:
        return self.offset + self.base.quantile(p)

    def transform(self, s: ComplexArray) -> ComplexArray:
        return np.exp(-s * self.offset) * self.base.transform(s)

    def sample(self, rng: np.random.Generator, size: int) -> FloatArray:
        return self.offset + self.base.sample(rng, size)


@dataclass(frozen=True, slots=True, kw_only=True)
class HyperErlang(_OfMoments):
    """A mixture of Erlang distributions, branch by branch: weight, whole shape, rate."""

    weights: tuple[float, ...]
    shapes: tuple[int, ...]
    rates: tuple[float, ...]

    def __post_init__(self) -> None:
        sizes = {len(self.weights), len(self.shapes), len(self.rates)}
        _require(len(sizes) == 1 and 0 not in sizes, "hypererlang: weights, shapes and rates must be equally many")
        _require(
            min(self.weights) >= 0 and abs(sum(self.weights) - 1) < 1e-6,
            f"hypererlang: the weights must sum to 1, not {sum(self.weights):g}",
        )
        _require(
            all(k >= 1 and float(k).is_integer() for k in self.shapes) and min(self.rates) > 0,
            "hypererlang: shapes must be whole and 1 or more, rates above 0",
        )

    def _mix(self, value: Callable[[Erlang], FloatArray]) -> FloatArray:
        parts = (w * value(e) for w, e in self.branches())
        return np.asarray(sum(parts), dtype=np.float64)

    def branches(self) -> list[tuple[float, Erlang]]:
        """Each branch with its weight."""
        return [
            (w, Erlang(shape=k, rate=r)) for w, k, r in zip(self.weights, self.shapes, self.rates, strict=True) if w > 0
        ]

    def moment(self, order: int) -> float:
        return sum(w * e.moment(order) for w, e in self.branches())

    def cdf(self, x: FloatArray) -> FloatArray:
        return self._mix(lambda e: e.cdf(x))

    def pdf(self, x: FloatArray) -> FloatArray:
        return self._mix(lambda e: e.pdf(x))

    def transform(self, s: ComplexArray) -> ComplexArray:
        return np.asarray(sum(w * e.transform(s) for w, e in self.branches()), dtype=np.complex128)

    def sample(self, rng: np.random.Generator, size: int) -> FloatArray:
        weights = np.asarray(self.weights)
        branch = rng.choice(len(weights), size, p=weights / weights.sum())
        return np.asarray(rng.standard_gamma(np.asarray(self.shapes)[branch]) / np.asarray(self.rates)[branch])


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseType(_OfMoments):
    """Time to leave the phases of a Markov chain: start probabilities and generator among the phases."""

    start: tuple[float, ...]
    generator: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        n = len(self.start)
        _require(
            n > 0 and all(len(row) == n for row in self.generator) and len(self.generator) == n,
            "phasetype: the generator must be a square of the start vector's length",
        )
        matrix = np.asarray(self.generator)
        off_diagonal = matrix - np.diag(np.diag(matrix))
        _require(
            bool((off_diagonal >= 0).all() and (np.diag(matrix) < 0).all() and (matrix.sum(axis=1) <= 1e-9).all()),
            "phasetype: generator rows need a negative diagonal, non-negative rest and a sum of 0 or less",
        )
        _require(min(self.start) >= 0 and abs(sum(self.start) - 1) < 1e-6, "phasetype: the start must sum to 1")

    def moment(self, order: int) -> float:
        vector = np.ones(len(self.start))
        for _ in range(order):
            vector = np.linalg.solve(-np.asarray(self.generator), vector)
        return math.factorial(order) * float(np.asarray(self.start) @ vector)

    def _survival(self, x: FloatArray, *, density: bool) -> FloatArray:
        """Uniformisation: the powers of the jump chain weighted by Poisson probabilities."""
        matrix = np.asarray(self.generator)
        rate = float(-matrix.diagonal().min())
        step = np.eye(len(matrix)) + matrix / rate
        ends = -matrix.sum(axis=1) if density else np.ones(len(matrix))
        x = np.asarray(x, dtype=np.float64)
        top = float(x.max(initial=0.0)) * rate
        count = int(top + 10 * math.sqrt(top + 1) + 30)
        values = np.empty(count)
        vector = np.asarray(self.start)
        for i in range(count):
            values[i] = vector @ ends
            vector = vector @ step
        return poisson_mix(values, np.maximum(x, 0.0).ravel() * rate).reshape(x.shape)

    def cdf(self, x: FloatArray) -> FloatArray:
        return np.where(np.asarray(x) >= 0, 1 - self._survival(x, density=False), 0.0)

    def pdf(self, x: FloatArray) -> FloatArray:
        return np.where(np.asarray(x) >= 0, self._survival(x, density=True), 0.0)

    def transform(self, s: ComplexArray) -> ComplexArray:
        matrix = np.asarray(self.generator)
        ends = -matrix.sum(axis=1)
        flat = s.ravel()[:, None, None]
        solved = np.linalg.solve(
            flat * np.eye(len(matrix)) - matrix, np.broadcast_to(ends[:, None], (s.size, len(ends), 1))
        )
        return np.asarray(solved[:, :, 0] @ np.asarray(self.start)).reshape(s.shape)

    def sample(self, rng: np.random.Generator, size: int) -> FloatArray:
        matrix = np.asarray(self.generator)
        n = len(matrix)
        rates = -matrix.diagonal()
        jumps = np.hstack([matrix - np.diag(np.diag(matrix)), -matrix.sum(axis=1)[:, None]]) / rates[:, None]
        cumulative = np.cumsum(jumps, axis=1)
        phase = np.searchsorted(np.cumsum(self.start), rng.random(size)).clip(max=n - 1)
        total = np.zeros(size)
        alive = np.arange(size)
        while alive.size:
            at = phase[alive]
            total[alive] += rng.standard_exponential(alive.size) / rates[at]
            following = (rng.random(alive.size)[:, None] > cumulative[at]).sum(axis=1)
            phase[alive] = following
            alive = alive[following < n]
        return total


@dataclass(frozen=True, slots=True, kw_only=True)
class Empirical(_OfMoments):
    """As measured: quantiles at given levels (the first 0, the last 1), straight lines between them."""

    levels: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        _require(
            len(self.levels) == len(self.values) >= 2 and self.levels[0] == 0 and self.levels[-1] == 1,
            "empirical: needs as many values as levels, at least two, the first level 0 and the last 1",
        )
        _require(
            bool((np.diff(self.levels) > 0).all() and (np.diff(self.values) >= 0).all()) and self.values[0] >= 0,
            "empirical: levels must rise, values must not fall, nor start below 0",
        )

    def moment(self, order: int) -> float:
        low, high = np.array(self.values[:-1]), np.array(self.values[1:])
        # Mean of x^order on a straight piece from low to high.
        pieces = sum(low**i * high ** (order - i) for i in range(order + 1)) / (order + 1)
        return float(np.diff(self.levels) @ pieces)

    def cdf(self, x: FloatArray) -> FloatArray:
        x = np.asarray(x, dtype=np.float64)
        values, levels = np.array(self.values), np.array(self.levels)
        # Of equal values the last level counts: the function is continuous from the right.
        last = np.append(np.diff(values) > 0, True)
        return np.where(x < values[0], 0.0, np.interp(x, values[last], levels[last]))

    def pdf(self, x: FloatArray) -> FloatArray:
        values = np.array(self.values)
        index = np.clip(np.searchsorted(values, x, side="right") - 1, 0, len(values) - 2)
        width = np.diff(values)[index]
        inside = (x >= values[0]) & (x <= values[-1]) & (width > 0)
        return np.where(inside, np.diff(self.levels)[index] / np.where(width > 0, width, 1.0), 0.0)

    def quantile(self, p: FloatArray) -> FloatArray:
        return np.interp(np.asarray(p, dtype=np.float64), self.levels, self.values)

    def transform(self, s: ComplexArray) -> ComplexArray:
        total = np.zeros(s.shape, dtype=np.complex128)
        for weight, low, high in zip(np.diff(self.levels), self.values[:-1], self.values[1:], strict=True):
            piece: Distribution = Uniform(low=low, high=high) if high > low else Deterministic(value=low)
            total += weight * piece.transform(s)
        return total

    def sample(self, rng: np.random.Generator, size: int) -> FloatArray:
        return self.quantile(rng.random(size))


def empirical(values: FloatArray) -> Empirical:
    """A sample as a distribution: 100 even steps and a finer tail."""
    levels = np.unique(np.concatenate([np.linspace(0, 1, 101), [0.992, 0.995, 0.998, 0.999, 0.9995]]))
    found = np.maximum.accumulate(np.maximum(np.quantile(values, levels), 0.0))
    return Empirical(levels=tuple(float(f"{p:.6g}") for p in levels), values=tuple(float(f"{v:.8g}") for v in found))


def poisson_mix(values: FloatArray, means: FloatArray) -> FloatArray:
    """Sum over k of Poisson(k; mean) values[k], for each mean; values beyond the last are taken as the last.

    `values` has shape (steps,) or (steps, m); the result (means,) or (means, m). Weights outside twelve standard
    deviations of the mean are left out (below 1e-16 in total).
    """
    out = np.empty((len(means), *values.shape[1:]))
    last = len(values) - 1
    for i, mean in enumerate(np.asarray(means, dtype=np.float64)):
        reach = 12 * math.sqrt(mean) + 25
        ks = np.arange(max(0, int(mean - reach)), int(mean + reach) + 1)
        weights = poisson_weights(ks, float(mean))
        out[i] = weights @ values[np.minimum(ks, last)]
    return out


def poisson_weights(ks: NDArray[np.int64], mean: float) -> FloatArray:
    """Poisson probabilities on a contiguous range that holds all but a negligible part, made to sum to one."""
    if mean == 0:
        return np.asarray(ks == 0, dtype=np.float64)
    steps = np.log(mean) - np.log(np.maximum(ks[1:], 1))
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    weights = np.exp(logs - logs.max())
    return np.asarray(weights / weights.sum())


FAMILIES: dict[str, type[Distribution]] = {
    "exponential": Exponential,
    "erlang": Erlang,
    "gamma": Gamma,
    "uniform": Uniform,
    "deterministic": Deterministic,
    "lognormal": Lognormal,
    "weibull": Weibull,
    "loglogistic": Loglogistic,
    "shifted": Shifted,
    "hypererlang": HyperErlang,
    "phasetype": PhaseType,
    "empirical": Empirical,
}
"""The names that net files use; arguments may be given in the order of the fields or by name."""

NAMES: dict[type[Distribution], str] = {family: name for name, family in FAMILIES.items()}


def make_distribution(name: str, args: Sequence[object], kwargs: dict[str, object]) -> Distribution:
    """The distribution that `name(*args, **kwargs)` stands for; a `scale` is taken where a rate is expected."""
    family = FAMILIES.get(name)
    if family is None:
        raise ModelError(f"unknown distribution {name!r}; known are {', '.join(FAMILIES)}")
    names = [f.name for f in fields(family)]  # type: ignore[arg-type]
    if len(args) > len(names):
        raise ModelError(f"{name} takes {len(names)} values ({', '.join(names)}), not {len(args)}")
    values = dict(zip(names, args, strict=False)) | kwargs
    if "scale" in values and "rate" in names:
        scale = values.pop("scale")
        if not isinstance(scale, int | float) or scale <= 0:
            raise ModelError(f"{name}: the scale must be above 0, not {scale}")
        values["rate"] = 1 / scale
    if set(values) != set(names):
        raise ModelError(f"{name} takes {', '.join(names)}; given were {', '.join(values) or 'none'}")
    for key, value in values.items():
        wanted: type | tuple[type, ...] = (int, float)
        if family is Shifted and key == "base":
            wanted = Distribution
        elif family in (HyperErlang, PhaseType, Empirical):
            wanted = tuple
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise ModelError(f"{name}: {key} cannot be {value!r}")
    return family(**values)
