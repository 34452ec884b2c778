"""What the tests of LTU share: batches, and the objectives written out by hand."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from toys import batch, mlp, softmax64

import jax_unlearn as ju
from jax_unlearn import membership
from jax_unlearn.membership import AttackParams, Dense, Gaussians

CLASSES, SIZE, COUNT, RATE = 3, 7, 2, 0.5  # COUNT queries of 4 samples
MODEL = mlp(width=6, classes=CLASSES)
ATTACKS = (
    membership.logistic(),
    membership.softmax_mlp(hidden=(4,)),
    membership.gaussian_ratio(),
)
PAIR = (membership.logistic(), membership.gaussian_ratio())
ORDERS = np.array(list(itertools.permutations(range(3))), np.int32)
KEY = jax.random.key(1)
SGD = optax.sgd(1.0, momentum=0.0)  # its state holds the gradient, to the bit


@functools.cache
def learned(seed):
    """Return parameters of the attacks that differ in all that can be learned."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    def positive(*shape):
        return 0.5 + normal(*shape) ** 2

    def dense(inputs, outputs):
        return Dense(normal(inputs, outputs), normal(outputs))

    nets = (
        (dense(3, 1),),
        (dense(3, 4), dense(4, 1)),
        Gaussians(normal(1), positive(1), normal(1), positive(1)),
    )
    return {
        attack.name: AttackParams(normal(size), positive(size), net)
        for attack, net, size in zip(ATTACKS, nets, (3, 3, 1), strict=True)
    }


def given_weights():
    """Return a weighting whose weights are its state: one program serves them all."""

    def update(sample, state, *, reference=None):
        del sample, reference
        return state, state

    return ju.Weighting(lambda: jnp.ones(SIZE), update)


def make(**options):
    options = {
        "num_classes": CLASSES,
        "queries": COUNT,
        "attacks": ATTACKS,
        "attack_params": learned(0),
        "inner": optax.sgd(RATE),
        "weighting": given_weights(),
        "optimizer": SGD,
        "model": MODEL,
        **options,
    }
    return ju.methods.ltu(options.pop("model"), options.pop("optimizer"), **options)


def seeing(join=None, **options):
    """Return an unlearner and its compiled step, which also returns (g_f, g_r).

    With `join=None` the harmonizer that looks at them belongs to another unlearner in
    the same program, so that the first one has the default.
    """
    traces = []

    @jax.jit
    def step(state, batches, key, rate):
        traces.append(1)
        assert len(traces) == 1  # one program serves all its tests
        chosen, seen = {"inner": optax.sgd(rate), **options}, []

        def look(g_forget, g_retain):
            seen.append((g_forget, g_retain))
            return g_retain if join is None else join(g_forget, g_retain)

        result = make(harmonizer=look, **chosen).step(state, batches, key)
        if join is None:
            result = make(**chosen).step(state, batches, key)
        return *result, *seen[0]

    def with_rate(state, batches, key, rate=RATE):
        return step(state, batches, key, jnp.float32(rate))

    return make(**options), with_rate


@functools.cache
def default():
    return seeing()


def params_of(seed, scale=1.0):
    params, _ = MODEL.init(jax.random.key(seed), jnp.zeros((1, 4)))
    return jax.tree.map(lambda leaf: scale * (leaf + 0.1), params)


def drawn(seed, *, forget=(2,), retain=(7,)):
    """Return a forget batch of 7 and two queries of 4; the named rows are padding."""
    return ju.UnlearnBatch(
        batch(seed, SIZE, first_index=10, mask=~np.isin(np.arange(SIZE), forget)),
        batch(seed + 1000, 8, first_index=20, mask=~np.isin(np.arange(8), retain)),
    )


PARAMS, BOTH = params_of(0), drawn(0)


# --- the objectives, written out -----------------------------------------------------


def double(tree):
    """Return the tree in numpy, with float32 leaves as float64."""

    def wide(leaf):
        return np.asarray(leaf, np.float64 if leaf.dtype == jnp.float32 else None)

    return jax.tree.map(wide, tree)


def log_probs(params, samples):
    hidden = jnp.tanh(samples.inputs @ params["w"] + params["b"][None])
    return jax.nn.log_softmax(hidden @ params["v"])


def of_class(table, labels):
    return jnp.take_along_axis(table, labels[:, None], axis=1)[:, 0]


def scores(attack_params, table, labels):
    """Return how surely each attack takes each sample for a member, `[3, B]`."""
    own = of_class(table, labels)
    rest = jnp.where(
        jnp.arange(CLASSES, dtype=jnp.int32)[None] == labels[:, None], -jnp.inf, table
    )
    logistic, sorting, ratio = (
        (attack_params[attack.name], features)
        for attack, features in zip(
            ATTACKS,
            (
                jnp.stack([-own, jnp.exp(own), own - rest.max(axis=1)], axis=1),
                -jnp.sort(-jnp.exp(table), axis=1),
                (own - jnp.log(jnp.exp(rest).sum(axis=1)))[:, None],
            ),
            strict=True,
        )
    )

    def normal(params, x):
        return (x - params.mean[None]) / params.std[None]

    def dense(layer, x):
        return x @ layer.weight + layer.bias[None]

    def log_density(mean, var, x):
        return -((x - mean[None]) ** 2) / (2 * var[None]) - jnp.log(var[None]) / 2

    hidden = dense(sorting[0].net[0], normal(*sorting))
    hidden = hidden / (1 + jnp.exp(-hidden))
    z, g = normal(*ratio), ratio[0].net
    return jnp.stack(
        [
            dense(logistic[0].net[0], normal(*logistic))[:, 0],
            dense(sorting[0].net[1], hidden)[:, 0],
            (
                log_density(g.member_mean, g.member_var, z)
                - log_density(g.nonmember_mean, g.nonmember_var, z)
            )[:, 0],
        ]
    )


def mean(values, where):
    total = jnp.sum(jnp.where(where, values, 0.0))
    return total / jnp.maximum(jnp.sum(where.astype(total.dtype)), 1.0)


@jax.jit
def written_out(params, attack_params, targets, weights, batches, rate):
    """Return (g_f for each of the orders, g_r, the query losses), in float64."""
    forget, retain = batches.forget, batches.retain
    part = jnp.arange(SIZE) % 3

    def total(support, queries):
        def objective(params):
            slope = jax.grad(support)(params)
            virtual = jax.tree.map(lambda p, s: p - rate * s, params, slope)
            losses = jnp.stack(queries(virtual))
            return support(params) + jnp.sum(losses), losses

        return jax.grad(objective, has_aux=True)

    def relabelled(params):
        losses = -of_class(log_probs(params, forget), targets)
        return mean(weights * losses, forget.mask)

    def retained(params):
        losses = -of_class(log_probs(params, retain), retain.labels)
        first = jnp.arange(8) < 4
        return [mean(losses, retain.mask & half) for half in (first, ~first)]

    def given_away(order):
        def losses(params):  # each sample's by the attack whose turn its part is
            said = scores(attack_params, log_probs(params, forget), forget.labels)
            return jnp.log(1 + jnp.exp(said[order[part], jnp.arange(SIZE)]))

        def support(params):
            return mean(losses(params), forget.mask & (part == 0))

        def queries(params):
            own = losses(params)
            return [mean(own, forget.mask & (part == number)) for number in (1, 2)]

        return total(support, queries)(params)[0]

    return jax.vmap(given_away)(ORDERS), *total(relabelled, retained)(params)


@jax.jit
def random_label_losses(logits, samples, seed):
    objective = ju.objectives.random_label(MODEL, num_classes=CLASSES, seed=seed)
    return objective.output_loss(logits, samples, KEY, objective.data)[0]


def fixed_labels(samples, seed=0):
    """Return the random labels: those of which the losses tell."""
    logits = np.tile(np.arange(3, dtype=np.float32), (len(samples.labels), 1))
    losses = random_label_losses(logits, samples, np.int32(seed))
    table = -np.log(softmax64(logits))
    found = np.abs(table - np.asarray(losses)[:, None]).argmin(1)
    assert np.all(found != np.asarray(samples.labels))
    return found.astype(np.int32)


def expected(
    batches=BOTH, params=PARAMS, *, weights=None, lent=None, seed=0, rate=RATE
):
    """Return (g_f for each order `[6, n]`, g_r `[n]`, query losses)."""
    weights = np.ones(SIZE) if weights is None else np.asarray(weights, np.float64)
    labels = fixed_labels(batches.forget, seed)
    with jax.enable_x64(True):
        g_forget, g_retain, losses = written_out(
            double(params),
            double(learned(0) if lent is None else lent),
            labels,
            weights,
            double(batches._replace(reference=None)),
            np.float64(rate),
        )
    g_forget, g_retain, losses = double((g_forget, g_retain, losses))
    each = [jax.tree.map(lambda leaf, n=n: leaf[n], g_forget) for n in range(6)]
    return np.stack([flat(tree) for tree in each]), flat(g_retain), losses


def flat(tree):
    return np.concatenate(
        [np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)]
    )


def unflat(values):
    """Return the parameters of these values, as `flat` has them."""
    leaves, structure = jax.tree.flatten(PARAMS)
    parts = np.split(values, np.cumsum([leaf.size for leaf in leaves])[:-1])
    shaped = [v.reshape(leaf.shape) for v, leaf in zip(parts, leaves, strict=True)]
    return structure.unflatten(shaped)


def distance(actual, wanted):
    """Return the relative distance of a gradient from a reference that is not 0."""
    size = np.linalg.norm(wanted, axis=-1)
    assert np.all(size > 1e-2)
    return np.linalg.norm(flat(actual) - wanted, axis=-1) / size


def order_of(g_forget, wanted):
    """Return which of the orders of the attacks made this gradient: only one can."""
    found = distance(g_forget, wanted)
    assert np.sum(found < 1e-5) == 1
    assert np.sum(found < 1e-3) == 1
    return ORDERS[found.argmin()]


@functools.partial(jax.jit, static_argnames=("model", "train"))
def mean_loss(params, state, inputs, labels, *, model, train):
    outputs, _ = model.apply(params, state, inputs, train=train)
    return -jnp.mean(of_class(jax.nn.log_softmax(outputs), labels))


def losses_of(model, state, batches, train):
    """Return the support loss and the sum of the two query losses, as functions."""
    labels = fixed_labels(batches.forget)
    loss = functools.partial(mean_loss, model=model, train=train)

    def support(params):
        return loss(params, state, batches.forget.inputs, labels)

    def queries(params):
        inputs, labels = (
            jnp.split(leaf, 2)
            for leaf in (batches.retain.inputs, batches.retain.labels)
        )
        return sum(
            loss(params, state, *query) for query in zip(inputs, labels, strict=True)
        )

    return support, queries


def check_losses(info, support, queries, params, virtual):
    np.testing.assert_allclose(info.forget_loss, support(params), rtol=1e-5)
    np.testing.assert_allclose(info.retain_loss, queries(virtual) / 2, rtol=1e-5)


def moved(support, params, *, rate, steps):
    for _ in range(steps):
        slope = jax.jit(jax.grad(support))(params)
        params = jax.tree.map(lambda p, s: p - rate * s, params, slope)
    return params
