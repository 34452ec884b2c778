"""SISS: its losses and several steps in float64, and one image that is forgotten."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import relaxed

import jax_unlearn as ju
from jax_unlearn import diffusion, objectives
from jax_unlearn.errors import InputError
from jax_unlearn.types import Batch, Model, UnlearnBatch

NULL = 2
KEY = jax.random.key(3)
PROCESS = diffusion.from_betas(np.linspace(1e-2, 0.3, 20))
V_PROCESS = PROCESS._replace(prediction_type="v_prediction")
PARAMS = {"a": jnp.float32(0.7), "b": jnp.array([0.5, -1.0, 0.2], jnp.float32)}


def apply(params, model_state, inputs, *, train, key=None):
    """A linear network: a·x + b_c."""
    x, _, condition = inputs
    return params["a"] * x + params["b"][condition].reshape(-1, 1, 1, 1), model_state


MODEL = Model(lambda key, inputs: (PARAMS, ()), apply)


def batch(n, seed, *, near=1.0):
    """Images so near each other that those of one condition share their noised ones."""
    rng = np.random.default_rng(seed)
    images = near * rng.uniform(-1, 1, (n, 2, 2, 1))
    labels = rng.integers(0, 2, n)
    return Batch(jnp.float32(images), jnp.int32(labels), jnp.arange(n))


def drawn(key, size, drop):
    """The draws of a pass: timesteps, noise, who is taken, who drops its condition."""
    keys = jax.random.split(key, 4)
    blank = Batch(jnp.zeros((size, 2, 2, 1)), jnp.zeros(size, jnp.int32))
    seen = diffusion.noised(PROCESS, blank, keys[0])
    mixed = np.asarray(jax.random.uniform(keys[1], (size,)))
    dropped = np.asarray(jax.random.bernoulli(keys[2], drop, (size,)))
    return np.asarray(seen.inputs[1]), np.float64(seen.target), mixed, dropped


def published(params, forget, retain, draws, *, process, mixture):
    """SISS in float64, from its description: both losses and their gradients."""
    times, noise, mixed, dropped = draws
    alpha = np.asarray(process.alphas_cumprod, np.float64)[times]
    gamma, sigma = (np.sqrt(v).reshape(-1, 1, 1, 1) for v in (alpha, 1 - alpha))
    x, own = np.asarray(retain.inputs, np.float64), np.asarray(retain.labels)
    row = np.arange(len(x)) % len(forget.labels)
    a = np.asarray(forget.inputs, np.float64)[row]
    others = np.asarray(forget.labels)[row]
    own, others = np.where(dropped, NULL, own), np.where(dropped, NULL, others)
    taken = mixed < mixture
    x_t = np.where(taken.reshape(-1, 1, 1, 1), gamma * a, gamma * x) + sigma * noise
    condition = np.where(taken, others, own)

    def distance(image):
        return ((x_t - gamma * image) ** 2 / (2 * sigma**2)).sum((1, 2, 3))

    with np.errstate(over="ignore"):
        ratio = np.exp(distance(x) - distance(a))
        w_x = 1 / ((1 - mixture) + mixture * ratio)
        w_a = 1 / ((1 - mixture) / ratio + mixture)
    apart = own != others
    w_x = np.where(apart, np.where(taken, 0, 1 / (1 - mixture)), w_x)
    w_a = np.where(apart, np.where(taken, 1 / mixture, 0), w_a)
    by_class = params["b"][condition].reshape(-1, 1, 1, 1)
    prediction = params["a"] * x_t + by_class

    def loss(image, weight):
        own_noise = (x_t - gamma * image) / sigma
        v = process.prediction_type == "v_prediction"
        wanted = gamma * own_noise - sigma * image if v else own_noise
        error = prediction - wanted
        value = (weight * (error**2).mean((1, 2, 3))).mean()
        upstream = 2 * error * weight.reshape(-1, 1, 1, 1) / error.size
        grad = {"a": (upstream * x_t).sum(), "b": np.zeros(3)}
        np.add.at(grad["b"], condition, upstream.sum((1, 2, 3)))
        return value, grad

    return loss(a, w_a), loss(x, w_x), (w_x, w_a)


def double(params):
    return {name: np.asarray(value, np.float64) for name, value in params.items()}


@pytest.mark.parametrize("process", [PROCESS, V_PROCESS], ids=["epsilon", "v"])
@pytest.mark.parametrize(("mixture", "drop"), [(0.5, 0.0), (0.3, 0.4)])
def test_losses_and_gradients_are_those_of_the_paper(process, mixture, drop):
    forget, retain = batch(3, 1, near=0.4), batch(64, 2, near=0.4)
    told = {"mixture": mixture, "drop": drop, "null": NULL}
    losses = objectives.pairs(MODEL, process, **told)

    @jax.jit
    def means(params):
        found = losses(params, (), forget, retain, KEY)
        return jnp.mean(found.forget), jnp.mean(found.retain)

    grads = jax.jit(jax.jacrev(means))(PARAMS)
    draws = drawn(KEY, 64, drop)
    given = double(PARAMS), forget, retain, draws
    *expected, weights = published(*given, process=process, mixture=mixture)
    for value, grad, (value64, grad64) in zip(
        means(PARAMS), grads, expected, strict=True
    ):
        assert abs(float(value) - value64) < 2e-5 * abs(value64)
        for name in grad64:
            size = np.abs(grad64[name]).max()
            np.testing.assert_allclose(grad[name], grad64[name], atol=3e-5 * size)
    shared = [(w > 0.01) & (w < 0.99 / m) for w, m in zip(weights, (1, 1), strict=True)]
    assert shared[0].any()  # and not only weights that are one or the other


@pytest.mark.parametrize(("strength", "norm"), [(0.1, None), (0.5, None), (0.1, 0.05)])
def test_steps_are_those_of_the_paper(strength, norm):
    forget, retain = batch(1, 1, near=0.4), batch(16, 2, near=0.4)
    rate, clip = 0.05, 0.5
    optimizer = relaxed(optax.chain(optax.clip_by_global_norm(clip), optax.adam(rate)))
    told = {"strength": strength, "norm": norm}
    alg = ju.methods.siss(MODEL, optimizer, process=PROCESS, **told)
    state, step = alg.init(PARAMS, ()), jax.jit(alg.step)
    at = double(PARAMS)
    first, second = ({n: 0 * v for n, v in at.items()} for _ in range(2))
    for number in range(1, 6):
        key = jax.random.fold_in(KEY, number)
        state, info = step(state, UnlearnBatch(forget, retain), key)
        (low, g_a), (high, g_x), _ = published(
            at, forget, retain, drawn(key, 16, 0.0), process=PROCESS, mixture=0.5
        )
        sizes = [np.sqrt(sum((v**2).sum() for v in g.values())) for g in (g_a, g_x)]
        factor = (strength * sizes[1] if norm is None else norm) / sizes[0]
        grad = {name: g_x[name] - factor * g_a[name] for name in at}
        size = np.sqrt(sum((v**2).sum() for v in grad.values()))
        for name, value in grad.items():
            g = value * min(1, clip / size)
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.999 * second[name] + 0.001 * g**2
            moment = first[name] / (1 - 0.9**number)
            spread = np.sqrt(second[name] / (1 - 0.999**number))
            at[name] = at[name] - rate * moment / (spread + 1e-8)
        np.testing.assert_allclose(info.forget_loss, low, rtol=1e-4)
        np.testing.assert_allclose(info.retain_loss, high, rtol=1e-4)
    for name, value in at.items():
        way = np.abs(value - double(PARAMS)[name]).max()
        error = np.abs(np.float64(state.params[name]) - value).max()
        assert error < 1e-4 * way, (name, error / way)


def test_means_over_the_mixture_are_those_of_all_retain_and_all_forget_images():
    forget, retain = batch(2, 4, near=0.3), batch(4000, 5, near=0.3)
    by_hand = []
    for part in (forget, retain):
        rows = np.arange(4000) % len(part.labels)
        many = jax.tree.map(lambda leaf, rows=rows: leaf[rows], part)
        found, _ = objectives.denoise(MODEL, PROCESS)(PARAMS, (), many, KEY)
        by_hand.append(float(found.mean()))
    for mixture in (0.2, 0.5):
        losses = objectives.pairs(MODEL, PROCESS, mixture=mixture)
        found = losses(PARAMS, (), forget, retain, jax.random.key(9))
        means = float(found.forget.mean()), float(found.retain.mean())
        np.testing.assert_allclose(means, by_hand, rtol=0.1)


def test_padding_is_nobody():
    forget, retain = batch(3, 1), batch(8, 2)
    losses = objectives.pairs(MODEL, PROCESS)
    masked = forget._replace(mask=jnp.array([False, True, False]))
    other = jax.tree.map(lambda leaf: leaf[1:2], forget)
    found = losses(PARAMS, (), masked, retain, KEY)
    alone = losses(PARAMS, (), other, retain, KEY)
    np.testing.assert_allclose(found.forget, alone.forget, rtol=1e-6)
    nobody = forget._replace(mask=jnp.zeros(3, bool))
    assert not np.asarray(losses(PARAMS, (), nobody, retain, KEY).forget).any()


def table(params, model_state, inputs, *, train, key=None):
    """The best ε̂ where the data are the images that it holds: it has memorised them."""
    x, times, _ = inputs
    level = PROCESS.alphas_cumprod[times].reshape(-1, 1, 1, 1)
    signal, spread = jnp.sqrt(level), jnp.sqrt(1 - level)
    away = x[:, None] - signal[:, None] * params["images"][None]
    fits = -(away**2).sum((2, 3, 4)) / (2 * spread.reshape(-1, 1) ** 2)
    share = jax.nn.softmax(fits + params["logits"][None], axis=1)
    image = jnp.einsum("bk,k...->b...", share, params["images"])
    return (x - signal * image) / spread, model_state


@functools.cache
def memorised():
    rng = np.random.default_rng(0)
    images = jnp.float32(rng.uniform(-1, 1, (5, 3, 3, 1)))
    return {"images": images, "logits": jnp.zeros(5, jnp.float32)}


def forgotten(**options):
    params = memorised()
    images, labels = params["images"], jnp.zeros(5, jnp.int32)
    forget = Batch(images[:1], labels[:1], jnp.arange(1))
    retain = Batch(jnp.tile(images[1:], (8, 1, 1, 1)), jnp.tile(labels[1:], 8))
    model = Model(lambda key, inputs: (params, ()), table)
    optimizer = relaxed(optax.adam(0.02))
    alg = ju.methods.siss(model, optimizer, process=PROCESS, **options)
    state = alg.init(params, ())
    steps = [UnlearnBatch(forget, retain)] * 150
    state = ju.run(alg, state, steps, jax.random.key(1), scan=50)

    def errors(of, part):
        told = {"process": PROCESS, "draws": 20}
        samples = jax.tree.map(np.asarray, part._replace(index=None))
        found = diffusion.denoising_errors(model, of, (), samples, KEY, **told)
        return float(found.errors.mean())

    models = params, state.params
    return [[errors(of, part) for of in models] for part in (forget, retain)]


def test_one_image_is_forgotten_and_the_others_are_kept():
    (before, after), (kept_before, kept_after) = forgotten()
    assert after > before + 0.2  # it does not know it any more
    assert kept_after < kept_before + 0.05
    (_, fine_tuned), _ = forgotten(strength=0.0)
    assert after > fine_tuned + 0.1  # more than by training on the others alone


def siss(**options):
    return ju.methods.siss(MODEL, optax.sgd(0.1), process=PROCESS, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: objectives.pairs(MODEL, PROCESS, mixture=1.0), "mixture=1.0 must lie"),
        (lambda: objectives.pairs(MODEL, PROCESS, mixture=0.0), "mixture=0.0 must lie"),
        (lambda: objectives.pairs(MODEL, PROCESS, drop=0.1), "needs the null cond"),
        (lambda: siss(strength=-1.0), "strength=-1.0"),
        (lambda: siss(norm=0.0), "norm=0.0 must be positive"),
        (lambda: alone(UnlearnBatch(batch(2, 0))), "reads a forget and a retain batch"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


def alone(step):
    return siss().step(siss().init(PARAMS, ()), step, KEY)
