"""EraseDiff: several steps in float64, and a class that ends as another noise."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import relaxed

import jax_unlearn as ju
from jax_unlearn import diffusion
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Unlearning
from jax_unlearn.types import Batch, Model, UnlearnBatch

KEY = jax.random.key(2)
PARAMS = {"a": jnp.float32(0.7), "b": jnp.array([0.5, -1.0], jnp.float32)}


def apply(params, model_state, inputs, *, train, key=None):
    """A linear network: a·x + b_c."""
    x, _, condition = inputs
    return params["a"] * x + params["b"][condition].reshape(-1, 1, 1, 1), model_state


MODEL = Model(lambda key, inputs: (PARAMS, ()), apply)


def batch(n, seed, label):
    rng = np.random.default_rng(seed)
    images = jnp.float32(rng.uniform(-1, 1, (n, 2, 2, 1)))
    return Batch(images, jnp.full(n, label, jnp.int32), jnp.arange(n))


def gradient(at, part, key, process, *, uniform):
    """The gradient of one loss in float64, from its description."""
    noise_key, _, uniform_key, _ = jax.random.split(key, 4)
    drawn = diffusion.noised(
        process._replace(prediction_type="epsilon"), part, noise_key
    )
    noise = np.float64(drawn.target)
    if uniform:
        noise = np.float64(jax.random.uniform(uniform_key, noise.shape))
    level = np.float64(process.alphas_cumprod)[np.asarray(drawn.inputs[1])]
    signal, spread = (np.sqrt(v).reshape(-1, 1, 1, 1) for v in (level, 1 - level))
    image, labels = np.float64(part.inputs), np.asarray(part.labels)
    x = signal * image + spread * noise
    v = process.prediction_type == "v_prediction"
    wanted = signal * noise - spread * image if v else noise
    error = at["a"] * x + at["b"][labels].reshape(-1, 1, 1, 1) - wanted
    upstream = 2 * error / error.size
    found = {"a": (upstream * x).sum(), "b": np.zeros(2)}
    np.add.at(found["b"], labels, upstream.sum((1, 2, 3)))
    return found


@pytest.mark.parametrize(
    ("kind", "options"),
    [("epsilon", {}), ("v_prediction", {"margin": 0.6}), ("epsilon", {"margin": 0.0})],
)
def test_steps_in_float64(kind, options):
    process = diffusion.from_betas(np.linspace(1e-2, 0.3, 20), prediction_type=kind)
    rate, momentum, decay, clip = 0.05, 0.9, 0.1, 0.5
    optimizer = optax.chain(
        optax.clip_by_global_norm(clip),
        optax.add_decayed_weights(decay),
        optax.sgd(rate, momentum),
    )
    alg = ju.methods.erasediff(MODEL, optimizer, process=process, **options)
    forget, retain = batch(4, 1, 1), batch(8, 2, 0)
    start = {name: np.float64(value) for name, value in PARAMS.items()}
    at, moved = dict(start), {name: 0 * value for name, value in start.items()}
    state, step, prices = alg.init(PARAMS, ()), jax.jit(alg.step), []
    for number in range(6):
        key = jax.random.fold_in(KEY, number)
        keys = jax.random.split(key)
        g_f = gradient(at, forget, keys[0], process, uniform=True)
        g_r = gradient(at, retain, keys[1], process, uniform=False)
        flat = [np.concatenate([np.ravel(g[n]) for n in at]) for g in (g_f, g_r)]
        cos = flat[0] @ flat[1] / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1])
        price = max(0.0, options["margin"] - cos) if options else 0.1
        prices.append(price)
        size = np.linalg.norm(flat[1] + price * flat[0])
        for name in at:
            g = (g_r[name] + price * g_f[name]) * min(1, clip / size)
            moved[name] = momentum * moved[name] + g + decay * at[name]
            at[name] = at[name] - rate * moved[name]
        state, _ = step(state, UnlearnBatch(forget, retain), key)
    assert min(prices) > 0 or options["margin"] == 0
    way = max(np.abs(at[name] - start[name]).max() for name in at)
    for name, value in at.items():
        error = np.abs(np.float64(state.params[name]) - value).max()
        assert error <= 2e-6 * way, (name, error / way)


def test_the_class_is_denoised_to_the_mean_of_the_other_noise_and_others_are_not():
    process = diffusion.from_betas([0.5])
    told = {"process": process, "strength": 1.0}
    alg = ju.methods.erasediff(MODEL, relaxed(optax.adam(0.02)), **told)
    forget, retain = batch(64, 1, 1), batch(64, 2, 0)
    state, step = alg.init(PARAMS, ()), jax.jit(alg.step)
    for number in range(200):
        key = jax.random.fold_in(KEY, number)
        state, info = step(state, UnlearnBatch(forget, retain), key)
    # a = (Cov(x, ε) + Cov(x, u))/(Var x + Var x') of the joined losses, b by class
    told = [float(v) for v in jax.tree.leaves(state.params)[1]]
    assert float(state.params["a"]) == pytest.approx(0.875, abs=0.12)
    assert told[0] == pytest.approx(0.0, abs=0.12)
    assert told[1] == pytest.approx(0.5 - 0.875 * 0.5**1.5, abs=0.12)  # E u − a·E x
    assert float(info.forget_loss) < 0.2  # 0.139 in the mean; before 1.7


def test_the_gradients_are_joined_in_one_way_alone():
    told = {"modality": "diffusion", "method": "erasediff", "margin": 0.1}
    assert Unlearning.of(**told).options.margin == 0.1
    for other in ({"harmonizer": "one_way"}, {"dual": True}):
        with pytest.raises(InputError, match="margin=0.1 says how .* leave one of"):
            Unlearning.of(**told, **other)
    with pytest.raises(InputError, match=r"strength=-1"):
        ju.methods.erasediff(MODEL, optax.sgd(1.0), process=None, strength=-1.0)  # type: ignore
