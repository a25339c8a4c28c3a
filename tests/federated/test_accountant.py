from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.accountant import ORDERS, epsilon, rdp

# Computed with opacus 1.6.0: opacus.accountants.analysis.rdp, at our orders
EPSILONS = [  # sampling rate, noise, times, delta, epsilon
    (1.0, 2.0, 1, 1e-05, 2.1657156590294435),
    (1.0, 10.0, 100, 1e-06, 5.2215396311544175),
    (1.0, 0.5, 3, 1e-05, 21.44485232771325),
    (0.01, 1.1, 1000, 1e-05, 1.7117700912203435),
    (0.004, 0.7, 500, 1e-05, 2.5398410384078303),
    (0.1, 2.0, 300, 1e-06, 5.082050619302883),
    (0.5, 4.0, 100, 1e-05, 6.350179544185608),
    (0.7, 1.0, 20, 0.001, 17.62675533978743),
    (0.02, 20.0, 10000, 1e-05, 0.37592341733432366),
    (0.01, 0.4, 100, 1e-05, 14.807727477611834),
    (0.9, 30.0, 5000, 1e-07, 13.48332820944567),
]
DIVERGENCES = [  # sampling rate, noise, order, divergence of one run
    (0.01, 1.0, 1.5, 0.00012725374351154145),
    (0.01, 1.0, 2.0, 0.00017181342207453428),
    (0.01, 1.0, 4.3, 0.0003939962837974971),
    (0.01, 1.0, 8.0, 0.0008936439076060279),
    (0.01, 1.0, 10.9, 0.3876114113003885),
    (0.01, 1.0, 32.0, 11.246275937048072),
    (0.2, 0.8, 1.5, 0.08363001601719416),
    (0.2, 0.8, 2.0, 0.14048283662384337),
    (0.2, 0.8, 4.3, 1.2998140122763928),
    (0.2, 0.8, 8.0, 4.4107237342743355),
    (0.2, 0.8, 10.9, 6.743618444533256),
    (0.2, 0.8, 32.0, 23.338644735551892),
    (0.6, 3.0, 1.5, 0.030665558293421102),
    (0.6, 3.0, 2.0, 0.04143639589425813),
    (0.6, 3.0, 4.3, 0.09483938134341753),
    (0.6, 3.0, 8.0, 0.1956610678445903),
    (0.6, 3.0, 10.9, 0.2890604576372468),
    (0.6, 3.0, 32.0, 1.2730959799897386),
]


@pytest.mark.parametrize(("rate", "noise", "times", "delta", "expected"), EPSILONS)
def test_epsilon_is_that_of_opacus(
    rate: float, noise: float, times: int, delta: float, expected: float
) -> None:
    assert epsilon(rdp(noise, rate, times), delta) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize(("rate", "noise", "order", "expected"), DIVERGENCES)
def test_the_divergence_at_an_order_is_that_of_opacus(
    rate: float, noise: float, order: float, expected: float
) -> None:
    assert rdp(noise, rate)[order] == pytest.approx(expected, rel=1e-5)


def exact_delta(spread: float, found: float) -> float:
    """The δ of a Gaussian mechanism at ε, σ = 1/`spread`. Balle, Wang 2018, Theorem 8."""

    def below(value: float) -> float:
        return math.erfc(-value / math.sqrt(2)) / 2

    near, far = spread / 2 - found / spread, -spread / 2 - found / spread
    return below(near) - math.exp(found) * below(far)


@given(noise=st.floats(0.5, 50), times=st.integers(1, 1000), delta=st.sampled_from([1e-3, 1e-5, 1e-7]))
def test_epsilon_holds_and_is_near_the_least_that_does(noise: float, times: int, delta: float) -> None:
    spread = math.sqrt(times) / noise  # n times the noise σ are once the noise σ/√n
    found = epsilon(rdp(noise, times=times), delta)
    if found > 500:  # e^ε leaves the range where the exact δ can be computed
        return
    assert exact_delta(spread, found) <= delta
    assert exact_delta(spread, found * 0.75 - 0.02) > delta


@settings(max_examples=20)
@given(
    rate=st.floats(0.001, 0.999),
    noise=st.floats(0.5, 20),
    times=st.integers(1, 100),
    order=st.integers(2, 60),
)
def test_a_sample_gives_away_less_than_all_and_more_runs_more(
    rate: float, noise: float, times: int, order: int
) -> None:
    sampled, whole = rdp(noise, rate, times), rdp(noise, 1.0, times)
    assert 0 <= sampled[float(order)] <= whole[float(order)] * (1 + 1e-12)
    assert epsilon(sampled, 1e-5) <= epsilon(rdp(noise, rate, times + 1), 1e-5)


@settings(max_examples=20)
@given(rate=st.floats(0.01, 0.99), noise=st.floats(0.6, 5))
def test_the_divergence_grows_with_the_order_over_whole_and_broken_ones(rate: float, noise: float) -> None:
    found = list(rdp(noise, rate).values())
    assert all(low <= high * (1 + 1e-6) + 1e-9 for low, high in pairwise(found))


def test_who_is_never_sampled_or_never_runs_gives_nothing_away() -> None:
    assert set(rdp(1.0, 0.0, 100).values()) == {0.0} == set(rdp(1.0, 1.0, 0).values())
    assert epsilon(rdp(1.0, times=0), 1e-5) == 0.0
    assert epsilon(rdp(1e6), 0.5) == 0.0
    assert list(rdp(1.0)) == list(ORDERS)


@pytest.mark.parametrize(
    ("noise", "rate", "times"), [(0.0, 1.0, 1), (1.0, 1.5, 1), (1.0, -0.1, 1), (1, 1, -1)]
)
def test_what_is_no_mechanism_is_refused(noise: float, rate: float, times: int) -> None:
    with pytest.raises(ValueError, match="no mechanism"):
        rdp(noise, rate, times)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1.0])
def test_a_delta_is_a_probability(delta: float) -> None:
    with pytest.raises(ValueError, match="not between 0 and 1"):
        epsilon(rdp(1.0), delta)
