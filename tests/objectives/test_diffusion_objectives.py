"""Objectives of diffusion models against a linear model worked out by hand."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads
from toys import trees_close

import jax_unlearn as ju
from jax_unlearn import diffusion, objectives
from jax_unlearn.errors import InputError
from jax_unlearn.lab.modalities.diffusion.settings import Denoising
from jax_unlearn.types import Batch, Model, UnlearnBatch

K, NULL = 3, 3
KEY = jax.random.key(5)
PROCESS = diffusion.cosine(20)


def apply(params, state, inputs, *, train, key=None):
    """Bring your own: ε̂ = a·x + b_c + d·t."""
    x, times, condition = inputs
    shape = (-1, 1, 1, 1)
    by_class = params["b"][condition].reshape(shape)
    by_time = params["d"] * times.astype(jnp.float32).reshape(shape)
    return params["a"] * x + by_class + by_time, state


MODEL = Model(lambda key, inputs: (PARAMS, ()), apply)
PARAMS = {
    "a": jnp.float32(0.7),
    "b": jnp.array([0.5, -1.0, 2.0, 0.1], jnp.float32),
    "d": jnp.float32(0.01),
}


def strict(params, state, inputs, *, train, key=None):
    """As `apply`, of classes that it knows."""
    x, times, condition = inputs
    known = jnp.where(condition < K, 0.0, jnp.nan).reshape(-1, 1, 1, 1)
    return apply(params, state, (x, times, condition), train=train)[0] + known, state


MODEL_OF_CLASSES = MODEL._replace(apply=strict)


def batch(n=6, seed=0):
    rng = np.random.default_rng(seed)
    return Batch(
        jnp.asarray(rng.uniform(-1, 1, (n, 2, 2, 1)), jnp.float32),
        jnp.asarray(rng.integers(0, K, n), jnp.int32),
        jnp.asarray(np.arange(n), jnp.int32),
    )


def predicted(params, x, times, condition):
    shape = (-1, 1, 1, 1)
    return (
        float(params["a"]) * x
        + np.asarray(params["b"])[condition].reshape(shape)
        + float(params["d"]) * times.reshape(shape)
    )


@functools.partial(jax.jit, static_argnames="draws")
def drawn(data, draws):
    return diffusion.noised(PROCESS, data, jax.random.split(KEY, 4)[0], draws=draws)


def evaluate(objective, data, params=PARAMS):
    """The losses of an objective and the rest, from one program."""
    return jax.jit(objective.__call__)(params, (), data, KEY)


def seen_by(data, draws=1):
    """The noise that an objective draws, in the order of its samples."""
    seen = drawn(data, draws)
    x, times, condition = (np.asarray(v) for v in seen.inputs)
    return x, times, condition, np.asarray(seen.target)


def mean_square(values, draws=1):
    flat = (values**2).reshape(values.shape[0], -1).mean(axis=1)
    return flat.reshape(draws, -1).mean(axis=0)


def test_denoise_is_the_mean_squared_error_over_pixels_and_draws():
    for draws in (1, 4):
        objective = objectives.denoise(MODEL, PROCESS, draws=draws)
        losses, aux = evaluate(objective, batch())
        x, times, condition, noise = seen_by(batch(), draws)
        expected = mean_square(predicted(PARAMS, x, times, condition) - noise, draws)
        np.testing.assert_allclose(losses, expected, rtol=1e-5)
        np.testing.assert_allclose(aux.task_losses, expected, rtol=1e-5)


def test_ascent_is_its_negative():
    up = evaluate(objectives.denoise_ascent(MODEL, PROCESS), batch())
    down = evaluate(objectives.denoise(MODEL, PROCESS), batch())
    np.testing.assert_array_equal(up[0], -down[0])
    np.testing.assert_array_equal(up[1].task_losses, down[1].task_losses)


def make(kind, teacher=None):
    teacher = PARAMS if teacher is None else teacher
    return {
        "next": lambda: objectives.relabel_condition(
            MODEL, PROCESS, replace=diffusion.next_class(K)
        ),
        "frozen": lambda: objectives.relabel_condition(
            MODEL, PROCESS, replace=diffusion.anchor(1), teacher=(teacher, ())
        ),
        "esd": lambda: objectives.negative_guidance(
            MODEL, PROCESS, teacher=(teacher, ()), null=NULL, strength=1.5
        ),
    }[kind]()


@pytest.mark.parametrize("kind", ["next", "frozen", "esd"])
def test_targets_are_those_of_the_papers_and_held_fixed(kind):
    teacher = jax.tree.map(
        lambda leaf: jnp.asarray(np.asarray(leaf) + np.float32(0.3)), PARAMS
    )
    objective = make(kind, teacher)

    @jax.jit
    def both(params):
        (losses, aux), pullback = jax.vjp(
            lambda p: objective(p, (), batch(), KEY), params
        )
        zeros = jax.tree.map(jnp.zeros_like, aux)
        return losses, aux, pullback((jnp.ones_like(losses), zeros))[0]

    losses, aux, grads = both(PARAMS)
    x, times, condition, noise = seen_by(batch())
    own = predicted(PARAMS, x, times, condition)
    if kind == "next":
        wanted = predicted(PARAMS, x, times, (condition + 1) % K)
    elif kind == "frozen":
        wanted = predicted(teacher, x, times, np.ones_like(condition))
    else:
        bare = predicted(teacher, x, times, np.full_like(condition, NULL))
        wanted = bare - 1.5 * (predicted(teacher, x, times, condition) - bare)
    np.testing.assert_allclose(losses, mean_square(own - wanted), rtol=1e-4)
    np.testing.assert_allclose(aux.task_losses, mean_square(own - noise), rtol=1e-5)
    # d/da Σ_i mean (ε̂ − target)² with the target a constant
    expected = (2 * (own - wanted) * x).reshape(len(x), -1).mean(axis=1).sum()
    assert float(grads["a"]) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def published_step(kind, params, seen, alpha):
    """The gradient of SalUn's code for DDPM, float64: a mean of pixels and α of sums.

    Its forget loss is torch's MSELoss between the predictions under c and, held fixed,
    under c + 1; its retain loss the sum of ‖ε − ε̂‖² over the pixels of an image. ESD
    holds fixed what the original predicts without c, less η times what c adds to it.
    """
    forget, retain = seen
    grads = {name: np.zeros_like(value) for name, value in params.items()}

    def add(x, times, condition, upstream):
        grads["a"] += (upstream * x).sum()
        grads["d"] += (upstream * times.reshape(-1, 1, 1, 1)).sum()
        np.add.at(grads["b"], condition, upstream.sum((1, 2, 3)))

    def output(x, times, condition, at=params):
        shape = (-1, 1, 1, 1)
        by_class = at["b"][condition].reshape(shape)
        return at["a"] * x + by_class + at["d"] * times.reshape(shape)

    x, times, condition, _ = forget
    if kind == "next":
        wanted = output(x, times, (condition + 1) % K)
    else:
        start = {name: np.asarray(value, np.float64) for name, value in PARAMS.items()}
        bare = output(x, times, np.full_like(condition, NULL), start)
        wanted = bare - 1.5 * (output(x, times, condition, start) - bare)
    apart = output(x, times, condition) - wanted
    add(x, times, condition, 2 * apart / apart.size)
    x, times, condition, noise = retain
    apart = output(x, times, condition) - noise
    add(x, times, condition, alpha * 2 * apart / len(apart))
    return grads


@pytest.mark.parametrize("kind", ["next", "esd"])
def test_steps_of_salun_with_a_retain_weight_of_sums_and_of_esd_in_float64(kind):
    shape, alpha, rate, momentum, decay = (2, 2, 1), 0.05, 0.02, 0.9, 0.1
    told = Denoising(retain_strength=alpha, retain_unit="sum").factors(shape)
    alg = ju.methods.assemble(
        MODEL,
        optax.chain(optax.add_decayed_weights(decay), optax.sgd(rate, momentum)),
        forget=make(kind),
        retain=objectives.denoise(MODEL, PROCESS),
        harmonizer=ju.harmonize.add(**told),
    )
    forget, retain = batch(5, seed=1), batch(6, seed=2)
    at = {name: np.asarray(value, np.float64) for name, value in PARAMS.items()}
    moved = {name: np.zeros_like(value) for name, value in at.items()}
    state, step = alg.init(PARAMS, ()), jax.jit(alg.step)
    for number in range(4):
        key = jax.random.fold_in(KEY, number)
        drawn = []
        for part, own in zip((forget, retain), jax.random.split(key), strict=True):
            noise_key = jax.random.split(own, 4)[0]
            seen = diffusion.noised(PROCESS, part, noise_key)
            drawn.append([*map(np.asarray, seen.inputs), np.asarray(seen.target)])
        grads = published_step(kind, at, drawn, alpha)
        moved = {n: momentum * moved[n] + grads[n] + decay * at[n] for n in at}
        at = {name: at[name] - rate * moved[name] for name in at}
        state, _ = step(state, UnlearnBatch(forget, retain), key)
    for name, value in at.items():
        way = np.abs(value - np.asarray(PARAMS[name], np.float64)).max()
        error = np.abs(np.asarray(state.params[name], np.float64) - value).max()
        assert error <= 1e-5 * way, (name, error / way)


def test_the_published_weight_of_sums_is_three_of_means():
    published = Denoising(retain_strength=1e-3, retain_unit="sum")
    assert published.factors((32, 32, 3)) == {"forget": 1.0, "retain": 3.072}
    assert Denoising(retain_strength=3.072).factors((8, 8, 1))["retain"] == 3.072
    with pytest.raises(InputError, match="retain_unit 'pixels'; known: mean, sum"):
        Denoising(retain_unit="pixels")  # type: ignore


def test_gradients_agree_with_finite_differences():
    objective, data = objectives.denoise(MODEL, PROCESS, draws=2), batch(2)
    check_grads(
        jax.jit(lambda p: jnp.sum(objective(p, (), data, KEY)[0])),
        (PARAMS,),
        order=2,
        modes=["rev"],
        rtol=2e-2,
        atol=2e-2,
    )


def test_scaled_task_losses_are_over_the_mean_of_their_bin():
    scale = jnp.array([4.0, 0.5])
    plain = evaluate(objectives.denoise(MODEL, PROCESS), batch())
    binned = evaluate(objectives.denoise(MODEL, PROCESS, scale=scale), batch())
    _, times, _, _ = seen_by(batch())
    np.testing.assert_array_equal(binned[0], plain[0])
    expected = np.asarray(plain[0]) / np.asarray(scale)[times * 2 // 20]
    np.testing.assert_allclose(binned[1].task_losses, expected, rtol=1e-6)


def test_dropping_reaches_the_null_condition_in_training_alone():
    objective = objectives.denoise(MODEL, PROCESS, drop=0.5, null=NULL)
    data = batch(64)
    losses, _ = evaluate(objective, data)
    x, times, condition, noise = seen_by(data)
    own = mean_square(predicted(PARAMS, x, times, condition) - noise)
    bare = mean_square(
        predicted(PARAMS, x, times, np.full_like(condition, NULL)) - noise
    )
    is_own = np.isclose(losses, own, rtol=1e-4)
    assert (is_own | np.isclose(losses, bare, rtol=1e-4)).all()
    assert 0.3 < is_own.mean() < 0.7


WEIGHTINGS = {
    "uniform": ju.weights.uniform(),
    "loreun": ju.weights.loreun(temperature=0.5),
    "static": ju.weights.loreun_static(jnp.arange(6.0), temperature=2.0),
    "sfron": ju.weights.sfron(0.5),
    "falw": ju.weights.falw(jnp.array([2, 2, 2])),
    "chained": ju.weights.clip(
        ju.weights.chain(ju.weights.loreun(temperature=1.0), ju.weights.sfron()), 0, 2
    ),
}


def assembled(weighting="uniform", kind="next", **options):
    return ju.methods.assemble(
        MODEL,
        options.pop("optimizer", optax.sgd(0.01)),
        forget=make(kind),
        retain=objectives.denoise(MODEL, PROCESS, drop=0.1, null=NULL),
        weighting=WEIGHTINGS[weighting],
        **options,
    )


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_every_weighting_acts_in_one_trace_and_resumes(weighting):
    alg = assembled(weighting)
    batches = [
        UnlearnBatch(batch(seed=s), batch(seed=s + 9), batch(seed=s + 19))
        for s in range(4)
    ]
    chex.clear_trace_counter()
    alg = ju.Unlearner(alg.init, chex.assert_max_traces(alg.step, 1))
    seen = []

    def watch(done, state, info):
        seen.append(np.asarray(info.weights))
        assert np.isfinite(float(info.forget_loss) + float(info.retain_loss))

    state = ju.run(alg, alg.init(PARAMS, ()), batches, KEY, callback=watch, scan=1)
    assert len(seen) == 4
    assert (np.ptp(seen[-1]) > 1e-3) == (weighting != "uniform")
    half = ju.run(alg, alg.init(PARAMS, ()), batches[:2], KEY)
    resumed = ju.run(alg, half, batches[2:], KEY)
    trees_close(resumed.params, state.params, rtol=1e-5, atol=1e-6)
    assert float(state.params["a"]) != float(PARAMS["a"])


def test_loreun_weighs_the_gradients_of_single_samples():
    alg = assembled("loreun", optimizer=optax.sgd(1.0))
    forget = batch(4)
    state = alg.init(PARAMS, ())
    new, info = jax.jit(alg.step)(state, UnlearnBatch(forget), KEY)
    key = jax.random.split(KEY)[0]
    objective = make("next")

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def one(params, i):
        losses, aux = objective(params, (), forget, key)
        return losses[i], aux.task_losses

    found = [one(PARAMS, i) for i in range(4)]
    grads = [each for _, each in found]
    task = np.asarray(found[0][0][1], np.float64)
    weights = 4 * np.exp(-task / 0.5) / np.exp(-task / 0.5).sum()
    np.testing.assert_allclose(info.weights, weights, rtol=1e-4)
    expected = jax.tree.map(
        lambda *leaves: np.float32(
            sum(w * np.asarray(g) for w, g in zip(weights, leaves, strict=True)) / 4
        ),
        *grads,
    )
    moved = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), PARAMS, new.params)
    trees_close(moved, expected, rtol=1e-3, atol=1e-5)


class Shift(nn.Module):
    """ε̂ = a·x + b_c: a linen module that knows nothing of the library."""

    @nn.compact
    def __call__(self, inputs):
        x, times, condition = inputs
        del times
        scale = self.param("a", nn.initializers.ones, ())
        shift = nn.Embed(K + 1, 1)(condition)
        return scale * x + shift[:, None, None]


def test_a_linen_denoiser_forgets_a_condition():
    model = ju.from_linen(Shift())
    data = batch(12)
    forget = data._replace(labels=jnp.zeros(12, jnp.int32))
    retain = data._replace(labels=1 + data.labels % 2)
    inputs = data.inputs, jnp.zeros(12, jnp.int32), forget.labels
    params, state = jax.jit(model.init)(KEY, inputs)
    objective = objectives.relabel_condition(
        model, PROCESS, replace=diffusion.anchor(1)
    )
    alg = ju.methods.assemble(
        model,
        optax.sgd(0.3),
        forget=objective,
        retain=objectives.denoise(model, PROCESS),
        weighting=ju.weights.loreun(temperature=1.0),
    )
    batches = [UnlearnBatch(forget, retain)] * 60
    made = ju.run(alg, alg.init(params, state), batches, KEY).params

    @jax.jit
    def apart(params):  # what is said of the forgotten condition and of its anchor
        said, other = (
            model.apply(params, state, (*inputs[:2], c), train=False)[0]
            for c in (forget.labels, jnp.ones(12, jnp.int32))
        )
        return jnp.abs(said - other).max()

    assert apart(made) < 0.1 * apart(params)


@pytest.mark.parametrize("wrong", [-1, K])
def test_a_label_that_a_table_of_conditions_lacks_is_named(wrong):
    replace = diffusion.by_label(jnp.array([1, 2, 0]))
    objective = objectives.relabel_condition(MODEL_OF_CLASSES, PROCESS, replace=replace)
    images = batch().inputs
    labels = jnp.zeros(6, jnp.int32).at[2].set(wrong)
    pair = Batch((images, jnp.zeros(6, jnp.int32)), labels)
    losses, _ = objective(PARAMS, (), pair, KEY)
    assert np.isnan(losses).tolist() == [i == 2 for i in range(6)]
    masked = pair._replace(mask=jnp.arange(6) != 2)
    assert np.isfinite(objective(PARAMS, (), masked, KEY)[0]).all()


@pytest.mark.parametrize("harmonizer", [ju.harmonize.one_way, ju.harmonize.two_way])
def test_masks_and_harmonizers_act(harmonizer):
    mask = {"a": jnp.array(False), "b": jnp.ones(4, bool), "d": jnp.array(True)}
    alg = assembled(
        optimizer=ju.masks.masked(optax.adam(0.01, eps_root=1e-8), mask),
        harmonizer=harmonizer(),
    )
    with jax.numpy_dtype_promotion("standard"):
        state, info = jax.jit(alg.step)(
            alg.init(PARAMS, ()), UnlearnBatch(batch(), batch(seed=1)), KEY
        )
    assert float(state.params["a"]) == float(PARAMS["a"])
    assert (np.asarray(state.params["b"]) != np.asarray(PARAMS["b"])).any()
    assert -1 <= float(info.conflict) <= 1


def test_sfron_climbs_on_denoising_errors():
    alg = ju.methods.sfron(
        MODEL,
        optax.sgd(0.0),
        mask=jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), PARAMS),
        steps=10,
        forget_rate=0.05,
        forget_every=1,
        forget=objectives.denoise_ascent(MODEL, PROCESS),
        retain=objectives.denoise(MODEL, PROCESS),
    )
    error = objectives.denoise(MODEL, PROCESS, draws=20)
    data, before = batch(), alg.init(PARAMS, ())
    state, _ = jax.jit(alg.step)(before, UnlearnBatch(data, data), KEY)
    measured = jax.jit(lambda params: error(params, (), data, KEY)[0].mean())
    assert measured(state.params) > measured(PARAMS)


def ltu(**options):
    """LTU by two attacks on denoising errors, and how good the first of them is."""
    attacks = [
        a._replace(features=objectives.denoising_features)
        for a in (ju.membership.logistic(), ju.membership.gaussian_ratio())
    ]
    rng = np.random.default_rng(0)
    labels = jnp.zeros(64, jnp.int32)
    errors = [jnp.asarray(rng.gamma(k, 0.1, (64, 2)), jnp.float32) for k in (4.0, 8.0)]
    inside, outside = (ju.membership.Observed(e, labels) for e in errors)
    learned, infos = ju.membership.train_attacks(attacks, inside, outside, KEY)
    alg = ju.methods.meta_unlearn(
        MODEL,
        optax.sgd(0.01),
        relabel=make("next"),
        remember=objectives.denoise(MODEL, PROCESS),
        audits=[
            objectives.denoising_nonmember(MODEL, PROCESS, a, learned[a.name], draws=2)
            for a in attacks
        ],
        queries=2,
        **options,
    )
    return alg, float(infos["logistic"].auc)


@pytest.mark.parametrize(("seed", "conflicts"), [(0, False), (1, True), (4, True)])
def test_ltu_gives_up_what_conflicts_with_remembering(seed, conflicts):
    data, key = UnlearnBatch(batch(6, seed), batch(8, seed + 5)), KEY

    def moved(**options):
        alg, _ = ltu(**options)
        return jax.jit(alg.step)(alg.init(PARAMS, ()), data, key)

    usual, info = moved()
    one_way, _ = moved(harmonizer=ju.harmonize.one_way())
    summed, _ = moved(harmonizer=ju.harmonize.add())
    alone, _ = moved(harmonizer=lambda g_forget, g_retain: g_retain)
    trees_close(usual.params, one_way.params)
    changes = [
        np.concatenate([np.ravel(s.params[n] - PARAMS[n]) for n in PARAMS])
        for s in (usual, summed, alone)
    ]
    harmonized, plain, retain = (np.asarray(c, np.float64) for c in changes)
    # never less far along the retain gradient than by that alone
    assert harmonized @ retain >= (1 - 1e-5) * (retain @ retain)
    assert conflicts == (float(info.conflict) < 0)
    assert conflicts == (plain @ retain < retain @ retain)
    assert conflicts == (np.abs(harmonized - plain).max() > 1e-7)


def test_ltu_meets_attacks_on_denoising_errors():
    alg, auc = ltu()
    assert auc > 0.8
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(alg.step, 1))
    state = alg.init(PARAMS, ())
    for s in range(3):
        data = UnlearnBatch(batch(6, s), batch(8, s + 5))
        state, info = step(state, data, jax.random.fold_in(KEY, s))
        assert np.isfinite(float(info.forget_loss) + float(info.update_norm))
    assert float(info.update_norm) > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: objectives.denoise(MODEL, PROCESS, drop=1.0), "drop=1.0 must lie"),
        (lambda: objectives.denoise(MODEL, PROCESS, drop=0.1), "needs the null"),
        (
            lambda: objectives.negative_guidance(
                MODEL, PROCESS, teacher=(PARAMS, ()), null=NULL, strength=-1.0
            ),
            "strength=-1.0 must not be negative",
        ),
        (lambda: assembled(forward="merged"), "forward='merged' needs the model's own"),
        (
            lambda: objectives.denoise(MODEL, PROCESS, draws=21)(
                PARAMS, (), batch(), KEY
            ),
            "draws=21 must lie between 1 and num_train_timesteps=20",
        ),
        (
            lambda: ju.methods.meta_unlearn(
                MODEL,
                optax.sgd(0.1),
                relabel=make("next"),
                remember=make("next"),
                audits=[],
                queries=1,
            ),
            "0 audits: give 2 or more",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
