"""What a mechanism with Gaussian noise gives away: Rényi differential privacy, and (ε, δ) from it.

A mechanism adds noise of standard deviation σ to a sum to which whoever is to be protected contributes at
most 1 (so σ is a multiple of the sensitivity). `rdp` is its Rényi divergence between neighbouring inputs,
by order α; those of mechanisms that run one after the other add up, also when each one chooses its input by
the results of those before.

Sources: Mironov 2017, "Rényi Differential Privacy"; Mironov, Talwar, Zhang 2019, "Rényi Differential Privacy
of the Sampled Gaussian Mechanism", section 3; Balle et al. 2020, "Hypothesis Testing Interpretations and
Rényi Differential Privacy", Theorem 21.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

ORDERS = (
    *(1 + tenth / 10 for tenth in range(1, 100)),
    *map(float, range(11, 64)),
    *(80.0, 96.0, 128.0, 192.0, 256.0, 512.0, 1024.0),
)
"""The α at which a divergence is known; ε is the best that one of them gives."""

LAST_TERM = -24.0  # natural logarithm of the first term that is left out; the sum is at least 1
REMEMBERED = 64  # mechanisms; a trainer asks for its own in every round, and with samples it takes 50 ms
FAR = 20.0  # from here on erfc is taken from its asymptotic series, whose error is below 1e-9


def rdp(noise: float, rate: float = 1.0, times: int = 1) -> dict[float, float]:
    """The divergence, by order, of `times` runs, each on a Poisson sample of the contributors.

    `noise` is σ, `rate` the probability with which each contributor is in a sample; all of them are at 1.
    """
    if not noise > 0 or not 0 <= rate <= 1 or times < 0:
        raise ValueError(f"no mechanism: noise {noise}, sampling rate {rate}, {times} times")
    return {order: times * once for order, once in zip(ORDERS, _divergences(rate, noise), strict=True)}


def epsilon(divergences: Mapping[float, float], delta: float) -> float:
    """The least ε with which a mechanism with these divergences is (ε, `delta`)-private."""
    if not 0 < delta < 1:
        raise ValueError(f"delta {delta} is not between 0 and 1")
    found = min(
        divergence + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)
        for order, divergence in divergences.items()
    )
    return max(0.0, found) if any(divergences.values()) else 0.0


@lru_cache(maxsize=REMEMBERED)
def _divergences(rate: float, noise: float) -> tuple[float, ...]:
    return tuple(_divergence(rate, noise, order) for order in ORDERS)


def _divergence(rate: float, noise: float, order: float) -> float:
    """Of one run. Mironov 2017, Corollary 3; with samples, section 3.3 of Mironov et al. 2019."""
    if rate == 0:
        return 0.0
    if rate == 1:
        return order / (2 * noise * noise)
    whole = order == int(order)
    moment = _whole_moment(rate, noise, int(order)) if whole else _moment(rate, noise, order)
    return max(0.0, moment / (order - 1))


def _whole_moment(rate: float, noise: float, order: int) -> float:
    """log E[(1 - q + q·exp((2z - 1) / 2σ²))^α] for z of N(0, σ²), by the binomial theorem."""
    return _log_sum(
        [
            (1, _log_binomial(order, k) + _log_share(rate, order, k) + (k * k - k) / (2 * noise * noise))
            for k in range(order + 1)
        ]
    )


def _moment(rate: float, noise: float, order: float) -> float:
    """The same for any α: a binomial series on each side of the point where both parts are equal.

    Its tail falls and alternates, so half of the last term brings it closer by orders of magnitude.
    """
    middle = noise * noise * math.log(1 / rate - 1) + 0.5
    spread = math.sqrt(2) * noise
    terms: list[tuple[int, float]] = []
    k = 0
    while True:
        rest = order - k
        sign, size = _signed_log_binomial(order, k)
        left = (
            _log_share(rate, order, k)
            + (k * k - k) / (2 * noise * noise)
            + _log_half_erfc((k - middle) / spread)
        )
        right = (
            _log_share(rate, order, rest)
            + (rest * rest - rest) / (2 * noise * noise)
            + _log_half_erfc((middle - rest) / spread)
        )
        if k > order + 1 and size + max(left, right) < LAST_TERM:
            half = size - math.log(2)
            return _log_sum([*terms, (sign, half + left), (sign, half + right)])
        terms += [(sign, size + left), (sign, size + right)]
        k += 1


def _log_share(rate: float, order: float, k: float) -> float:
    """log(q^k · (1 - q)^(α - k))."""
    return k * math.log(rate) + (order - k) * math.log1p(-rate)


def _log_binomial(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _signed_log_binomial(order: float, k: int) -> tuple[int, float]:
    """(sign, log of the size) of the binomial coefficient of α over k, α being no whole number."""
    below = math.ceil(k - order - 1)  # factors α - i, i < k, that are negative
    size = math.lgamma(order + 1) - math.lgamma(k + 1) - math.lgamma(order - k + 1)
    return (-1 if below > 0 and below % 2 else 1), size


def _log_half_erfc(x: float) -> float:
    """log(erfc(x) / 2). Abramowitz and Stegun 7.1.23 for large x, where erfc leaves the range of a float."""
    if x < FAR:
        return math.log(math.erfc(x) / 2)
    square = 2 * x * x
    series = -1 / square + 3 / square**2 - 15 / square**3 + 105 / square**4
    return -x * x - math.log(2 * x * math.sqrt(math.pi)) + math.log1p(series)


def _log_sum(terms: list[tuple[int, float]]) -> float:
    """The logarithm of a sum of (sign, logarithm of the size)."""
    largest = max(size for _, size in terms)
    return largest + math.log(math.fsum(sign * math.exp(size - largest) for sign, size in terms))
