"""LoReUn, SFRon and the shared softmin against float64 numpy and their invariants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads
from toys import close

import jax_unlearn as ju
from jax_unlearn.errors import InputError
from jax_unlearn.weights import loreun_weights, sfron_weights
from jax_unlearn.weights.loreun import softmin_weights

SIZE = 8
WEIGH = jax.jit(loreun_weights, static_argnames=("normalize", "relative"))


def loreun64(losses, temperature, where=None, normalize="mean_one", relative=False):
    losses = np.asarray(losses, np.float64)
    where = np.ones(losses.shape, bool) if where is None else np.asarray(where)
    if relative:
        temperature = temperature * losses[where].std()
    raw = np.where(where, np.exp(-losses / temperature), 0)
    return raw if normalize == "none" else where.sum() * raw / raw.sum()


def draw(seed, size=SIZE):
    rng = np.random.default_rng(seed)
    return rng.exponential(1.0, size).astype(np.float32), rng.random(size) < 0.6


@pytest.mark.parametrize("normalize", ["mean_one", "none"])
@pytest.mark.parametrize("relative", [False, True])
def test_equals_float64(normalize, relative):
    for seed in range(10):
        losses, where = draw(seed)
        for temperature in (0.5, 1.0, 10.0):
            options = dict(normalize=normalize, relative=relative)
            got = WEIGH(jnp.asarray(losses), temperature=temperature, **options)
            # the exponent ℓ/τ (up to 14 here) carries its rounding into the weight
            close(got, loreun64(losses, temperature, **options), scale=3)
            got = WEIGH(
                jnp.asarray(losses), temperature=temperature, where=where, **options
            )
            close(got, loreun64(losses, temperature, where, **options), scale=3)


def test_constants_by_hand():
    losses = jnp.log(jnp.array([1.0, 2.0, 4.0]))
    close(WEIGH(losses, temperature=1.0), [12 / 7, 6 / 7, 3 / 7])
    close(WEIGH(losses, temperature=1.0, normalize="none"), [1, 1 / 2, 1 / 4])
    close(WEIGH(losses, temperature=0.5), [48 / 21, 12 / 21, 3 / 21])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(0, 2.0**120, width=32), min_size=SIZE, max_size=SIZE),
    st.lists(st.booleans(), min_size=SIZE, max_size=SIZE),
    st.floats(2.0**-20, 2.0**20, width=32),
)
def test_never_over_or_underflows_and_presses_on_small_losses(
    losses, mask, temperature
):
    losses, mask = np.float32(losses), np.array(mask)
    weights = np.asarray(WEIGH(losses, temperature=temperature, where=mask))
    assert np.all(np.isfinite(weights))
    assert np.all(weights >= 0)
    assert not weights[~mask].any()
    counted, order = weights[mask], np.argsort(losses[mask], kind="stable")
    np.testing.assert_allclose(counted.sum(), mask.sum(), rtol=1e-5)
    assert np.all(np.diff(counted[order]) <= 0)  # smaller loss, more weight
    raw = np.asarray(WEIGH(losses, temperature=temperature, normalize="none"))
    assert np.all((raw >= 0) & (raw <= 1))


def test_smaller_loss_gets_strictly_more_weight():
    weights = WEIGH(jnp.array([0.001, 0.01, 0.1, 1.0]), temperature=0.05)
    assert np.all(np.diff(weights) < 0)
    assert weights[0] > 1 > weights[-1]


def test_tiny_temperature_picks_the_smallest_and_huge_is_uniform():
    losses = jnp.array([3.0, 1.0, 2.0, 1e30])
    close(WEIGH(losses, temperature=1e-6), [0, 4, 0, 0])
    close(WEIGH(losses[:3], temperature=1e9), [1, 1, 1])
    close(WEIGH(jnp.full(3, 1e37), temperature=1e-3), [1, 1, 1])


def test_masked_losses_are_not_looked_at():
    where = jnp.array([True, True, False])
    for other in (0.0, 1e30, jnp.nan, jnp.inf):
        losses = jnp.array([0.0, 1.0, other])
        got = WEIGH(losses, temperature=1.0, where=where, relative=True)
        close(got, loreun64([0.0, 1.0, 0.0], 1.0, where, relative=True))
    close(WEIGH(jnp.ones(2), temperature=1.0, where=jnp.zeros(2, bool)), [0, 0])


def test_relative_is_free_of_scale_and_equal_losses_are_uniform():
    losses, _ = draw(3)
    one = WEIGH(jnp.asarray(losses), temperature=0.7, relative=True)
    other = WEIGH(jnp.asarray(losses * 2.0**-9), temperature=0.7, relative=True)
    np.testing.assert_allclose(one, other, rtol=1e-5)
    close(WEIGH(jnp.full(4, 0.3), temperature=0.7, relative=True), np.ones(4))
    # what it is for: overfitted losses, nearly uniform at τ = 1
    small = jnp.array([1e-3, 5e-3, 1e-2, 5e-2])
    assert np.ptp(WEIGH(small, temperature=1.0)) < 0.05
    assert np.ptp(WEIGH(small, temperature=1.0, relative=True)) > 1


def test_vmapped_is_batched_and_jit_is_eager():
    losses = jnp.stack([jnp.asarray(draw(seed)[0]) for seed in range(3)])
    rows = [loreun_weights(row, temperature=0.5) for row in losses]
    vmapped = jax.jit(jax.vmap(lambda row: loreun_weights(row, temperature=0.5)))
    np.testing.assert_allclose(vmapped(losses), jnp.stack(rows), rtol=1e-6)
    temperatures = jnp.array([0.5, 1.0, 2.0])
    several = jax.vmap(lambda t: loreun_weights(losses[0], temperature=t))(temperatures)
    close(several[2], loreun64(losses[0], 2.0))


def test_low_precision_losses_give_float32_weights():
    losses = jnp.array([0.5, 1.0, 2.0], jnp.bfloat16)
    weights = WEIGH(losses, temperature=1.0)
    assert weights.dtype == jnp.float32
    close(weights, loreun64([0.5, 1, 2], 1.0))


def test_derivatives_to_order_two():
    losses, _ = draw(1)
    # the library never differentiates weights; learning τ does
    function = jax.jit(lambda s, t: softmin_weights(s, temperature=t))
    arguments = jnp.asarray(losses), jnp.float32(0.8)
    check_grads(function, arguments, order=2, modes=["rev"], atol=3e-2, rtol=3e-2)


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan")])
def test_impossible_temperature(temperature):
    for make in (
        lambda: loreun_weights(jnp.ones(2), temperature=temperature),
        lambda: ju.weights.loreun(temperature=temperature),
        lambda: ju.weights.loreun_static(jnp.ones(2), temperature=temperature),
        lambda: ju.weights.by_score(lambda s: s.losses, temperature=temperature),
    ):
        with pytest.raises(InputError, match=f"temperature={temperature}"):
            make()


def test_shapes_are_checked():
    with pytest.raises(AssertionError, match="shape"):
        loreun_weights(jnp.ones(3), temperature=1.0, where=jnp.array([True]))


def test_unknown_normalize():
    with pytest.raises(InputError, match="normalize='sum'"):
        loreun_weights(jnp.ones(2), temperature=1.0, normalize="sum")


def sample(losses, index=None, mask=None):
    labels = jnp.zeros(losses.shape, jnp.int32)
    return ju.Sample(jnp.asarray(losses), None, labels, index, mask)


def update(weighting, *arguments):
    return jax.jit(weighting.update)(*arguments)


@pytest.mark.parametrize(
    "options", [{}, {"normalize": "none"}, {"relative": True}], ids=str
)
def test_static_equals_dynamic_when_the_losses_are_equal(options):
    losses, mask = draw(4)
    index = jnp.array([30, 2, 17, 5, 8, 0, 21, 11], jnp.int32)
    table = jnp.full(40, 99.0).at[index].set(losses)
    dynamic = ju.weights.loreun(temperature=0.5, **options)
    static = ju.weights.loreun_static(table, temperature=0.5, **options)
    first, _ = update(dynamic, sample(losses, index, jnp.asarray(mask)), dynamic.init())
    second, state = update(
        static, sample(jnp.zeros(SIZE), index, jnp.asarray(mask)), static.init()
    )
    np.testing.assert_allclose(first, second, rtol=1e-6)
    np.testing.assert_array_equal(state, table)


def test_static_needs_ids():
    static = ju.weights.loreun_static(jnp.ones(3), temperature=1.0)
    with pytest.raises(InputError, match=r"batch\.index=None"):
        static.update(sample(jnp.ones(2)), static.init())


def test_sfron_equals_float64():
    for seed in range(5):
        losses, where = draw(seed)
        for power in (0.0, 0.5, 2.0):
            raw = np.where(where, losses.astype(np.float64) ** -power, 0)
            got = sfron_weights(jnp.asarray(losses), power=power, where=where)
            np.testing.assert_allclose(
                got, where.sum() * raw / raw.sum(), rtol=5e-6, atol=1e-7
            )
    close(sfron_weights(jnp.array([1.0, 4.0, 16.0]), power=0.5), [12 / 7, 6 / 7, 3 / 7])


def test_sfron_counts_zero_losses_as_the_floor():
    got = sfron_weights(jnp.array([0.0, 1e-8, 1.0]), power=0.5)
    np.testing.assert_allclose(got[0], got[1])
    assert np.all(np.isfinite(got))
    np.testing.assert_allclose(np.sum(got), 3, rtol=1e-6)
    weighting = ju.weights.sfron(0.5)
    losses, mask = draw(6)
    weights, _ = update(weighting, sample(losses, None, mask), weighting.init())
    expected = sfron_weights(jnp.asarray(losses), power=0.5, where=mask)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    with pytest.raises(InputError, match="power=-1"):
        ju.weights.sfron(-1)


def test_softmin_is_one_value():
    assert ju.weights.Softmin(0.5) == ju.weights.Softmin(0.5, "mean_one", False)
    losses, where = draw(2)
    softmin = ju.weights.Softmin(0.5, normalize="none", relative=True)
    sample = ju.Sample(jnp.asarray(losses), None, None, jnp.arange(SIZE), where)
    weightings = (
        ju.weights.loreun(temperature=0.5, normalize="none", relative=True),
        ju.weights.loreun_static(
            losses, temperature=0.5, normalize="none", relative=True
        ),
        ju.weights.by_score(
            lambda s: s.losses, temperature=0.5, normalize="none", relative=True
        ),
    )
    for weighting in weightings:
        got, _ = weighting.update(sample, weighting.init())
        np.testing.assert_array_equal(got, softmin(jnp.asarray(losses), where))
    with pytest.raises(InputError, match="normalize='sum'"):
        ju.weights.el2n(temperature=1.0, normalize="sum")
