"""Auto: the λ that a budget suggests, and the one that attempts within it find."""

import jax.numpy as jnp
import numpy as np
import pytest

from jax_unlearn.errors import InputError
from jax_unlearn.methods.auto import MARGIN, RETAINED, TOP, Auto, auto, shrinkage


def test_less_time_and_more_memory_keep_more_of_the_original():
    found = [shrinkage(budget) for budget in (0.01, 0.1, 0.2, 0.4, 1.0)]
    assert found == sorted(found, reverse=True)
    assert found[0] == TOP
    assert found[-1] == 0.0
    assert shrinkage(0.1) - shrinkage(0.2) == pytest.approx(0.22)
    assert shrinkage(0.2, gap=0.13) - shrinkage(0.2) == pytest.approx(0.2)
    for bad in (0.0, 1.5, float("nan")):
        with pytest.raises(InputError, match="budget"):
            shrinkage(bad)
    with pytest.raises(InputError, match="gap"):
        shrinkage(0.2, gap=float("nan"))


class Training:
    """Trains nothing: what is kept of the original decides what it is good for."""

    def __init__(self, needed: float, retained: float = 0.0):
        self.needed, self.retained, self.shares = needed, retained, []

    def __call__(self, params, share):
        self.shares.append(share)
        return float(params["w"][0])

    def accuracy(self, made):
        enough = made >= self.needed - 1e-6
        return (0.9, 0.0) if enough else (0.9 - 2 * MARGIN, self.retained)


PARAMS = {"w": jnp.ones(3)}, {"w": jnp.zeros(3)}


def test_one_attempt_takes_the_whole_budget_and_looks_at_nothing():
    train = Training(0.5)
    found = auto(*PARAMS, train, budget=0.2)
    assert (found.shrink, found.share) == (shrinkage(0.2), 0.2)
    assert train.shares == [0.2]
    assert found.interval is None
    assert found.tried == ()
    assert found.made == pytest.approx(found.shrink)
    assert auto(*PARAMS, train, budget=0.2, first=0.7).shrink == 0.7


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("budget", [0.05, 0.2, 0.4])
def test_it_starts_as_partial_reset_does_in_float64(budget, tied):
    """λ θ_o + κ θ_fresh, λ = .22 log₂(⅔ / b) + 2 · .05 in [0, .9]; κ = 1.

    Tied: κ = 1 − λ, and λ in [0, .75].
    """
    draws = np.random.default_rng(0)
    old, fresh = draws.normal(size=(2, 5))
    begun = []
    auto(
        {"w": jnp.asarray(old, jnp.float32)},
        {"w": jnp.asarray(fresh, jnp.float32)},
        lambda params, share: begun.append((params["w"], share)),
        budget=budget,
        first=shrinkage(budget, gap=0.05, tied=tied),
        perturb=None if tied else 1.0,
    )
    shrink = np.clip(0.22 * np.log2(2 / 3 / budget) + 0.1, 0, 0.75 if tied else 0.9)
    ((params, share),) = begun
    assert share == budget
    perturb = 1 - shrink if tied else 1.0
    np.testing.assert_allclose(params, shrink * old + perturb * fresh, rtol=2e-5)


@pytest.mark.parametrize("attempts", [2, 3, 6])
@pytest.mark.parametrize("needed", [0.0, 0.3, 0.62, 0.9])
def test_attempts_share_the_budget_and_end_at_the_smallest_that_loses_nothing(
    needed, attempts
):
    train = Training(needed)
    told = {"budget": 0.3, "accuracy": train.accuracy, "attempts": attempts}
    found = auto(*PARAMS, train, **told)
    assert len(train.shares) == len(found.tried) <= attempts
    assert sum(train.shares) <= 0.3 + 1e-9
    low, high = found.interval
    assert low < needed <= high == found.shrink or needed == low == 0.0
    assert found.made == pytest.approx(found.shrink)
    if attempts == 6:
        assert high - low < 0.2
    good = [one.shrink for one in found.tried if one.accuracy == 0.9]
    assert found.shrink == min(good)


def test_what_was_retained_counts_too():
    train = Training(0.5)
    train.accuracy = lambda made: (0.9, 0.0 if made > 0.5 else -2 * RETAINED)
    told = {"budget": 0.3, "accuracy": train.accuracy, "attempts": 5}
    assert auto(*PARAMS, train, **told).shrink > 0.5


def test_bad_numbers_are_refused():
    with pytest.raises(InputError, match="attempts=0"):
        auto(*PARAMS, Training(0.5), budget=0.2, attempts=0)
    with pytest.raises(InputError, match="attempts"):
        Auto(attempts=0)
    with pytest.raises(InputError, match="share"):
        Auto(share=0.0)
    assert Auto().costs(10) == {"share": 0.3}
    assert np.isclose(Auto(share=0.2).costs(10)["share"], 0.2)
