"""Memory switches: the same result, less memory, on every method."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import apart, batch, batchnorm_net, forms, mlp, trees_close

import jax_unlearn as ju

KEY = jax.random.key(3)
CLASSES = 3
SWITCHES = {
    "microbatched": lambda model: ju.memory.microbatched(model, 4),
    "rematerialised": ju.memory.rematerialised,
    "nothing kept": lambda model: ju.memory.rematerialised(model, policy=None),
    "both": lambda model: ju.memory.microbatched(ju.memory.rematerialised(model), 4),
}


def stats():
    return ju.weights.ClassStats(
        jnp.full(CLASSES, 0.4), jnp.full(CLASSES, 0.2), jnp.full(CLASSES, 9, jnp.int32)
    )


def falw():
    return ju.weights.falw(jnp.array([3, 6, 4]), estimator=ju.weights.anchored(stats()))


METHODS = {
    "RL + LoReUn": lambda model: ju.methods.random_label(
        model,
        optax.sgd(0.5),
        num_classes=CLASSES,
        weighting=ju.weights.loreun(temperature=0.5),
    ),
    "RL + FaLW, merged": lambda model: ju.methods.random_label(
        model,
        optax.sgd(0.5),
        num_classes=CLASSES,
        weighting=falw(),
        forward="merged",
    ),
    "GA, harmonized": lambda model: ju.methods.neggrad_plus(
        model, optax.sgd(0.5), alpha=0.7, harmonizer=ju.harmonize.one_way()
    ),
}


def steps(model, method, params, model_state=()):
    """Return the state after three steps on odd-sized, partly masked batches."""
    alg = METHODS[method](model)
    mask = np.arange(13) < 11
    batches = [
        ju.UnlearnBatch(batch(t, 13, mask=mask), batch(50 + t, 9)) for t in range(3)
    ]
    return ju.run(alg, alg.init(params, model_state), batches, KEY)


@functools.cache
def begun(width=16):
    """Return a network and its parameters."""
    model = mlp(width)
    return model, model.init(KEY, jnp.zeros((2, 4)))[0]


@functools.cache
def unswitched(method):
    """Return the state after the steps of the plain network."""
    model, params = begun()
    return steps(model, method, params)


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("method", METHODS)
def test_a_switch_changes_no_result(switch, method):
    model, params = begun()
    expected = unswitched(method)
    found = steps(SWITCHES[switch](model), method, params)
    trees_close(found, expected, rtol=2e-5, atol=2e-6)
    assert apart(expected.params, params) > 0.05


def test_weights_are_normalised_over_the_whole_batch():
    """Parts of 2 samples with weights of mean 1 each would give another gradient."""
    model = ju.from_stateless(lambda key, x: jnp.zeros(()), lambda w, x: w * x)
    inputs = jnp.array([[4.0, 0.0], [0.1, 0.0], [3.0, 0.0], [0.5, 0.0]])
    forget = ju.Batch(inputs, jnp.zeros(4, jnp.int32))
    weighting = ju.weights.loreun(temperature=0.5)

    def step(model):
        alg = ju.methods.gradient_ascent(model, optax.sgd(1.0), weighting=weighting)
        state = alg.init(jnp.float32(1.0), ())
        return jax.jit(alg.step)(state, ju.UnlearnBatch(forget), KEY)

    (whole, seen), (parted, seen_parted) = (
        step(model),
        step(ju.memory.microbatched(model, 2)),
    )
    np.testing.assert_allclose(seen_parted.weights, seen.weights, rtol=1e-6)
    np.testing.assert_allclose(parted.params, whole.params, rtol=1e-6)
    losses = np.logaddexp(0.0, -np.asarray(inputs[:, 0], np.float64))
    weights = np.exp(-losses / 0.5)
    weights /= weights.mean()
    slopes = -np.asarray(inputs[:, 0]) / (1 + np.exp(np.asarray(inputs[:, 0])))
    np.testing.assert_allclose(whole.params, 1 + np.mean(weights * slopes), rtol=1e-5)
    pairs = weights.reshape(2, 2)  # samples 0, 2 and 1, 3 would be the parts
    apart = (pairs.T / pairs.T.mean(axis=1, keepdims=True)).T.ravel()
    assert abs(np.mean((weights - apart) * slopes)) > 0.005


PICK = ju.from_stateless(
    lambda key, x: jnp.zeros(()), lambda w, x: {"a": x["u"] + w, "b": x["v"] * 2}
)


@functools.partial(jax.jit, static_argnames=("size", "train"))
def in_parts(w, inputs, *, size, train):
    """Return the outputs of a network in parts; a program a size of batch and part."""
    return ju.memory.microbatched(PICK, size).apply(w, (), inputs, train=train)


# of one part, whole parts, a short last one; parts of one sample, and larger than all
SIZES = ((1, 1), (6, 6), (12, 4), (17, 5), (7, 1), (3, 20))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    sizes=st.sampled_from(SIZES),
    train=st.booleans(),
    w=st.floats(-9, 9, width=32),
    seed=st.integers(0, 99),
)
def test_outputs_come_back_in_order(sizes, train, w, seed):
    total, size = sizes
    rng = np.random.default_rng(seed)
    inputs = {
        "u": rng.normal(size=total).astype(np.float32),
        "v": rng.normal(size=(total, 2, 1)).astype(np.float32),
    }
    found, state = in_parts(np.float32(w), inputs, size=size, train=train)
    expected = {"a": inputs["u"] + np.float32(w), "b": 2 * inputs["v"]}
    trees_close(found, expected)
    assert state == ()


@pytest.mark.parametrize("switch", SWITCHES)
def test_second_derivatives_pass_through(switch):
    """LTU differentiates through an inner step."""
    model, params = begun(5)
    trees_close(
        ahead(SWITCHES[switch](model), params), looked_ahead(), rtol=2e-5, atol=1e-6
    )


def ahead(model, params):
    """Return the gradient of a loss after an inner step."""
    support, query = batch(0, 9), batch(1, 10)

    def loss(part):
        def of(params):
            logits, _ = model.apply(params, (), part.inputs, train=True)
            return jnp.mean(ju.losses.cross_entropy(logits, part.labels))

        return of

    def lookahead(params):
        inner = jax.grad(loss(support))(params)
        moved = jax.tree.map(lambda p, g: p - 0.5 * g, params, inner)
        return loss(query)(moved)

    return jax.jit(jax.grad(lookahead))(params)


@functools.cache
def looked_ahead():
    """Return the gradient of the plain network."""
    return ahead(*begun(5))


def bytes_held(model, params, inputs):
    """Return the temporary memory of a compiled gradient."""

    @jax.jit
    def grad(params, inputs):
        def total(params):
            return jnp.sum(model.apply(params, (), inputs, train=True)[0] ** 2)

        return jax.grad(total)(params)

    return grad.lower(params, inputs).compile().memory_analysis().temp_size_in_bytes


def deep(layers=12, width=32):
    def apply(params, inputs):
        for layer in range(layers):
            inputs = jnp.tanh(jnp.sin(jnp.cos(inputs @ params[layer])))
        return inputs

    return ju.from_stateless(lambda key, x: jnp.zeros(()), apply), jnp.zeros(
        (layers, width, width)
    )


def test_a_part_holds_the_memory_of_a_part():
    model, params = deep()
    inputs = jnp.zeros((512, 32))
    whole = bytes_held(model, params, inputs)
    parted = bytes_held(ju.memory.microbatched(model, 64), params, inputs)
    assert parted < 0.4 * whole


def test_less_is_kept_for_the_backward_pass():
    """Counted on the pullback: XLA on CPUs merges the second computation away."""
    model, params = deep()
    inputs = jnp.zeros((512, 32))

    def kept(model):
        def forward(params):
            return model.apply(params, (), inputs, train=True)[0]

        _, pullback = jax.vjp(forward, params)
        return sum(leaf.nbytes for leaf in jax.tree.leaves(pullback))

    whole = kept(model)
    assert kept(ju.memory.rematerialised(model)) < 0.5 * whole
    nothing = kept(ju.memory.rematerialised(model, policy=None))
    assert nothing <= params.nbytes + inputs.nbytes < 0.2 * whole


def test_statistics_of_a_part_are_refused_and_frozen_ones_are_not():
    model = batchnorm_net()
    params, state = model.init(KEY, jnp.zeros((2, 4)))
    parted = ju.memory.microbatched(model, 4)
    with pytest.raises(
        ju.InputError, match=r"size=4 .* freeze it \(model_state='frozen'"
    ):
        parted.apply(params, state, jnp.zeros((8, 4)), train=True)

    def step(model):
        alg = ju.methods.random_label(
            model, optax.sgd(0.5), num_classes=CLASSES, model_state="frozen"
        )
        both = ju.UnlearnBatch(batch(0, 10), batch(1, 10))
        return ju.run(alg, alg.init(params, state), [both], KEY)

    trees_close(step(parted), step(model), rtol=2e-5, atol=2e-6)


def test_rematerialised_statistics_are_those_of_the_batch():
    model = batchnorm_net()
    params, state = model.init(KEY, jnp.zeros((2, 4)))
    inputs = batch(0, 8).inputs

    def outputs(model):
        return jax.jit(lambda: model.apply(params, state, inputs, train=True))()

    for policy in (ju.memory.keep_products, None):
        anew = ju.memory.rematerialised(model, policy=policy)
        trees_close(outputs(anew), outputs(model))


def test_parts_draw_their_own_random_numbers():
    def apply(params, model_state, inputs, *, train, key=None):
        return inputs + jax.random.normal(key, inputs.shape), model_state

    model = ju.memory.microbatched(ju.Model(lambda key, x: ((), ()), apply), 2)
    outputs, _ = model.apply((), (), jnp.zeros(6), train=True, key=KEY)
    assert len(np.unique(np.asarray(outputs))) == 6


@pytest.mark.parametrize("network", ["mlp", "zoo"])
def test_bfloat16_changes_a_step_by_its_rounding(network):
    if network == "mlp":
        model, inputs = mlp(), jnp.zeros((2, 4))
        half = ju.memory.cast(model)
        one = batch(0, 16)
    else:
        make = ju.from_nnx(
            lambda rngs: ju.zoo.SmallCNN(CLASSES, width=4, in_channels=3, rngs=rngs)
        )
        model, inputs = make, jnp.zeros((2, 8, 8, 3))
        half = ju.memory.cast(model)
        one = batch(0, 16)._replace(inputs=jax.random.normal(KEY, (16, 8, 8, 3)) * 0.5)
    params, state = jax.jit(model.init)(KEY, inputs)

    def step(model):
        alg = ju.methods.random_label(model, optax.sgd(1.0), num_classes=CLASSES)
        return ju.run(alg, alg.init(params, state), [ju.UnlearnBatch(one, one)], KEY)

    exact, rounded = step(model), step(half)
    assert forms(rounded) == forms(exact)
    moved = apart(exact.params, params)
    assert 0 < apart(rounded.params, exact.params) / moved < 0.03


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (lambda model: ju.memory.microbatched(model, 0), "size=0"),
        (lambda model: ju.memory.cast(model, jnp.int32), "int32"),
    ],
)
def test_wrong_switches(make, value):
    with pytest.raises(ju.InputError, match=value):
        make(mlp())
