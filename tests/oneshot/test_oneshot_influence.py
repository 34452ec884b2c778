"""WoodFisher: the exact inverse in float64, and what the public recursion is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oneshot_made import (
    EVAL,
    KEY,
    accuracy,
    forget,
    loss,
    original,
    pieces,
    retain,
    rows,
)
from toys import batch, batchnorm_net

import jax_unlearn as ju
from jax_unlearn.oneshot.influence import influence, woodfisher


def problem(seed, count, size):
    rng = np.random.default_rng(seed)
    return rng.normal(size=size), rng.normal(size=(count, size)) * 1.5


def dense(v, gradients, damping):
    """Return F^-1 v by an inverse."""
    count, size = gradients.shape
    fisher = damping * np.eye(size) + gradients.T @ gradients / count
    return np.linalg.inv(fisher) @ v


def sherman_morrison(v, gradients, damping):
    """Add the gradients one by one, with o made anew from each: the right recursion."""
    count = len(gradients)
    inverse = np.eye(len(v)) / damping
    k = v / damping
    for g in gradients:
        o = inverse @ g
        k = k - (k @ g) / (count + o @ g) * o
        inverse = inverse - np.outer(o, o) / (count + o @ g)
    return k


def public(v, gradients, damping, count=None):
    """Keep one o along itself, started at the first gradient: the public recursion.

    Its loop over an index from 0 ends after that which is the first above the count.
    """
    gradients = gradients if count is None else gradients[: count + 2]
    count = len(gradients) if count is None else count
    k, o = v / damping, gradients[0] / damping
    for g in gradients[1:]:
        below = count + o @ g
        k = k - (k @ g) / below * o
        o = o - (o @ g) / below * o
    return k


@pytest.mark.parametrize(("count", "size"), [(12, 5), (5, 12)])
@pytest.mark.parametrize("damping", [1.0, 0.05])
def test_exact_is_the_inverse(count, size, damping):
    v, gradients = problem(count, count, size)
    got = woodfisher(
        jnp.float32(v), jnp.float32(gradients), damping=damping, form="exact"
    )
    expected = dense(v, gradients, damping)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * scale)
    recursion = sherman_morrison(v, gradients, damping)
    np.testing.assert_allclose(recursion, expected, rtol=1e-9)


@pytest.mark.parametrize("damping", [1.0, 0.5])
def test_published_is_the_public_recursion_and_not_the_inverse(damping):
    v, gradients = problem(0, 12, 5)
    told = {"damping": damping, "form": "recursion"}
    got = woodfisher(jnp.float32(v), jnp.float32(gradients), **told)
    expected = public(v, gradients, damping)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    # it moved v along the first gradient and nowhere else
    change = got - v / damping
    along = change @ gradients[0] / (gradients[0] @ gradients[0])
    np.testing.assert_allclose(change, along * gradients[0], atol=1e-5)
    assert abs(along) > 0.01
    truth = dense(v, gradients, damping)
    assert np.linalg.norm(got - truth) > 0.3 * np.linalg.norm(truth)


@pytest.mark.parametrize("there", [300, 1000, 1500])
def test_published_divides_by_a_thousand_and_stops_two_after_it(there):
    v, gradients = problem(3, there, 6)
    got = woodfisher(jnp.float32(v), jnp.float32(gradients))
    expected = public(v, gradients, 1.0, count=1000)
    way = np.abs(expected - v).max()
    assert np.abs(np.float64(got) - expected).max() < 1e-4 * way
    # by what is there it is another step, and more are not read
    other = woodfisher(jnp.float32(v), jnp.float32(gradients), form="recursion")
    assert (np.abs(other - got).max() > 1e-2 * way) == (there != 1000)
    more = woodfisher(jnp.float32(v), jnp.float32(gradients[:1002]))
    np.testing.assert_array_equal(got, more)


def test_published_misses_one_gradient_where_all_are_parallel():
    v, gradient = problem(1, 1, 4)
    parallel = np.repeat(gradient, 50, axis=0)
    got = woodfisher(jnp.float32(v), jnp.float32(parallel), form="recursion")
    # there the recursion is right, but for the first gradient
    fisher = np.eye(4) + gradient.T @ gradient * 49 / 50
    np.testing.assert_allclose(got, np.linalg.solve(fisher, v), rtol=1e-4, atol=1e-6)


def test_edges_of_woodfisher():
    v = jnp.array([1.0, 2.0])
    for form in ("published", "recursion", "exact"):
        none = woodfisher(v, jnp.zeros((0, 2)), damping=2.0, form=form)
        assert none.tolist() == [0.5, 1.0]
        zeros = jax.jit(lambda g, form=form: woodfisher(v, g, form=form))(
            jnp.zeros((3, 2))
        )
        assert zeros.tolist() == [1.0, 2.0]
    opposite = jnp.array([[2.0, 0.0], [-1.0, 0.0]])  # n + o·g = 2 - 2
    assert woodfisher(v, opposite, form="recursion").tolist() == [1.0, 2.0]
    assert woodfisher(v, opposite, samples=2).tolist() == [1.0, 2.0]
    with pytest.raises(ju.InputError, match="did you mean 'exact'"):
        woodfisher(v, opposite, form="exakt")
    with pytest.raises(ju.InputError, match="damping=0"):
        woodfisher(v, opposite, damping=0)
    with pytest.raises(ValueError, match=r"v.shape=\(2,\)"):
        woodfisher(v, opposite.T[:, :1])


NET = batchnorm_net()
NET_LOSS = ju.objectives.descent(NET)._replace(train=False)
FORGET, RETAIN = jax.tree.map(np.asarray, (batch(1, 5), batch(2, 11, first_index=5)))
PARAMS, STATE = NET.init(jax.random.key(0), RETAIN.inputs)


def flat(tree):
    return np.concatenate([np.float64(leaf).ravel() for leaf in jax.tree.leaves(tree)])


@functools.cache
def single_gradients():
    """Return the gradients of all forget and retain samples, [5, P] and [11, P]."""
    both = jax.tree.map(lambda *parts: np.concatenate(parts), FORGET, RETAIN)
    jacobian = jax.jit(jax.jacrev(lambda p: NET_LOSS(p, STATE, both, KEY)[0]))(PARAMS)
    rows = [np.float64(leaf).reshape(16, -1) for leaf in jax.tree.leaves(jacobian)]
    gradients = np.concatenate(rows, axis=1)
    return gradients[:5], gradients[5:]


@pytest.mark.parametrize(
    ("form", "used"),
    [
        *(("published", 7), ("published", 100)),
        *(("recursion", 7), ("exact", 7), ("exact", 100)),
    ],
)
def test_influence_takes_the_step_of_the_dense_algebra(form, used):
    lost, kept = single_gradients()
    v = (lost.sum(0) - 5 / 11 * kept.sum(0)) / 16
    if form == "published":
        step = public(v, kept, 0.5, count=used)
    else:
        step = {"recursion": public, "exact": dense}[form](v, kept[:used], 0.5)
    got = influence(
        NET_LOSS,
        PARAMS,
        STATE,
        forget=pieces(FORGET, 4),
        retain=pieces(RETAIN, 4),
        key=KEY,
        alpha=3.0,
        samples=used,
        damping=0.5,
        form=form,
        tolerance=1e-5,
    )
    np.testing.assert_allclose(flat(got) - flat(PARAMS), 3 * step, rtol=2e-3, atol=2e-5)
    assert np.abs(3 * step).max() > 0.1


def test_no_influence_no_step_and_low_precision():
    def loss_fn(w, state, samples, key):
        return (w * samples.inputs).astype(jnp.float32), None

    samples = [ju.Batch(jnp.array([2.0], jnp.bfloat16), jnp.zeros(1, jnp.int32))]
    other = [ju.Batch(jnp.array([1.0], jnp.bfloat16), jnp.zeros(1, jnp.int32))]
    w = jnp.bfloat16(1.0)
    for form in ("published", "recursion", "exact"):
        options = dict(key=KEY, form=form)
        same = influence(loss_fn, w, (), forget=samples, retain=samples, **options)
        assert same == w
        got = influence(loss_fn, w, (), forget=samples, retain=other, **options)
        assert got.dtype == jnp.bfloat16
        # v = (2 - 1)/2; F = 1 + 1; one gradient is none to the public recursion
        assert got == {"exact": 1.25}.get(form, 1.5)


def test_mistakes():
    sets = dict(forget=[FORGET], retain=[RETAIN], key=KEY)
    train = NET_LOSS._replace(train=True)
    with pytest.raises(ju.InputError, match="train=True"):
        influence(train, PARAMS, STATE, **sets)
    with pytest.raises(ju.InputError, match="unknown form 'dense'"):
        influence(NET_LOSS, PARAMS, STATE, form="dense", **sets)
    with pytest.raises(ju.InputError, match="damping=-1"):
        influence(NET_LOSS, PARAMS, STATE, damping=-1.0, **sets)
    with pytest.raises(ju.InputError, match="samples=0"):
        influence(NET_LOSS, PARAMS, STATE, samples=0, **sets)
    nobody = RETAIN._replace(mask=np.zeros(11, bool))
    with pytest.raises(ju.InputError, match="hold 5 and 0 samples"):
        influence(NET_LOSS, PARAMS, STATE, **(sets | dict(retain=[nobody])))
    with pytest.raises(ju.InputError, match="iterations=1 left a residual"):
        influence(NET_LOSS, PARAMS, STATE, form="exact", iterations=1, **sets)


@pytest.mark.parametrize("form", ["published", "recursion", "exact"])
def test_it_forgets_the_class_and_keeps_the_others(form):
    params = original()
    shuffled = rows(retain(), np.random.default_rng(0).permutation(160))
    after = influence(
        EVAL,
        params,
        (),
        forget=pieces(forget(), 40),
        retain=pieces(shuffled, 40),
        key=KEY,
        alpha=10.0,
        form=form,
    )
    assert accuracy(params, forget()) > 0.9
    assert accuracy(after, forget()) < 0.3
    assert loss(after, forget()) > 10 * loss(params, forget())
    assert accuracy(after, retain()) > 0.95
