"""SFRon: steps against float64 numpy, masks and momentum, off steps, forgetting."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_behaviour import FORGET as WHICH_FORGET
from test_behaviour import MODEL, RETAIN, accuracy, loss, original, part, unlearn
from toys import (
    batch,
    batchnorm_net,
    close,
    forms,
    next_statistics,
    softmax64,
    trees_close,
)

import jax_unlearn as ju
from jax_unlearn.errors import InputError
from jax_unlearn.lab.modality import adam
from jax_unlearn.methods.sfron import sfron, sfron_strength
from jax_unlearn.methods.step import annealed

CLASSES, SIZE, STEPS = 3, 6, 12
LINEAR = ju.from_stateless(lambda key, x: None, lambda w, x: x @ w)
W = jax.random.normal(jax.random.key(3), (4, CLASSES))
KEY = jax.random.key(1)
FORGET = batch(0, SIZE, mask=np.array([1, 1, 0, 1, 1, 0], bool))
RETAIN_BATCH = batch(1, 9, first_index=SIZE, mask=np.arange(9) < 7)
BOTH = ju.UnlearnBatch(FORGET, RETAIN_BATCH)
MASK = jnp.asarray(np.random.default_rng(0).random(W.shape) < 0.6)
MOMENTUM, DECAY, RATE = 0.9, 0.05, 0.1


def retaining():
    return optax.chain(
        optax.add_decayed_weights(DECAY), optax.sgd(RATE, momentum=MOMENTUM)
    )


def make(optimizer=None, **options):
    default = dict(mask=MASK, steps=STEPS, forget_rate=0.02, forget_every=2)
    optimizer = retaining() if optimizer is None else optimizer
    return sfron(LINEAR, optimizer, **(default | options))


def gradient64(w, samples, power=0.0):
    """Return (1/n) Σ w_i ∇CE_i with w_i ∝ ℓ_i^−power, the weights and the losses."""
    x, y = np.asarray(samples.inputs, np.float64), np.asarray(samples.labels)
    mask = np.asarray(samples.mask)
    probs = softmax64(x @ w)
    losses = -np.log(probs[np.arange(len(y)), y])
    weights = mask * losses**-power
    weights *= mask.sum() / weights.sum()
    error = (probs - np.eye(CLASSES)[y]) * (weights / mask.sum())[:, None]
    return x.T @ error, weights, losses


def walk64(clip, steps, *, peak=25.0, rate=0.02, every=2):
    """Return the parameters after each step, and how large each ascent was."""
    w, velocity = np.asarray(W, np.float64), 0.0
    path, norms = [], []
    for t in range(steps):
        if t % every == 0:
            strength = peak * (1 + np.cos(np.pi * t / STEPS)) / 2
            ascent = strength * np.asarray(MASK) * gradient64(w, FORGET, 0.5)[0]
            norms.append(np.linalg.norm(ascent))
            w = w + rate * ascent * min(1.0, clip / norms[-1])
        velocity = MOMENTUM * velocity + gradient64(w, RETAIN_BATCH)[0] + DECAY * w
        w = w - RATE * velocity
        path.append(w)
    return path, norms


def test_strength():
    got = sfron_strength(jnp.arange(14), steps=STEPS, peak=4.0)
    t = np.minimum(np.arange(14), STEPS)
    close(got, 2 * (1 + np.cos(np.pi * t / STEPS)), scale=4)
    assert got[0] == 4
    np.testing.assert_allclose(got[6], 2, rtol=1e-6)
    assert got[12] == got[13] == 0  # it does not rise again
    assert got.dtype == jnp.float32


@pytest.mark.parametrize("clip", [100.0, 3.0])
def test_steps_in_float64(clip):
    path, norms = walk64(clip, 3)
    assert (max(norms) > clip) == (clip == 3.0)  # clipped, and not
    alg = make(clip=clip)
    state, step = alg.init(W, ()), jax.jit(alg.step)
    start = np.asarray(W, np.float64)
    for t, expected in enumerate(path):
        before = np.asarray(state.params, np.float64)
        state, info = step(state, BOTH, KEY)
        close(state.params, expected, scale=20)
        moved = np.linalg.norm(np.asarray(state.params, np.float64) - before)
        np.testing.assert_allclose(info.update_norm, moved, rtol=1e-4)
        assert info.conflict == 0
        if t == 0:
            _, weights, losses = gradient64(start, FORGET, 0.5)
            close(info.weights, weights, scale=5)
            close(info.task_losses, losses, scale=5)
            kept = np.asarray(FORGET.mask)
            close(info.forget_loss, -losses[kept].mean(), scale=5)
            np.testing.assert_array_equal(info.index, [0, 1, -1, 3, 4, -1])
    assert state.step == 3


def published64(steps, *, every, clip, rate, decay, moments):
    """Walk as the published classes do: one PyTorch optimizer for both kinds of step.

    With moments it is Adam, as of the diffusion models; else SGD with momentum, decay.
    """
    w, update = np.asarray(W, np.float64), 0
    first, second, velocity = np.zeros(w.shape), np.zeros(w.shape), np.zeros(w.shape)

    def optimize(w, grad, rate):
        nonlocal first, second, velocity, update
        update += 1
        grad = grad + decay * w
        if not moments:
            velocity = grad if update == 1 else MOMENTUM * velocity + grad
            return w - rate * velocity
        first = 0.9 * first + 0.1 * grad
        second = 0.999 * second + 0.001 * grad**2
        scale = np.sqrt(second / (1 - 0.999**update)) + 1e-8
        return w - rate * first / (1 - 0.9**update) / scale

    path = []
    for t in range(steps):
        falling = (1 + np.cos(np.pi * t / STEPS)) / 2
        now = rate if moments else rate * falling
        if t % every == 0:
            grad = -25.0 * falling * gradient64(w, FORGET, 0.5)[0]
            grad = grad * np.asarray(MASK)
            grad = grad * min(1.0, clip / (np.linalg.norm(grad) + 1e-6))
            w = optimize(w, grad, now)
        w = optimize(w, gradient64(w, RETAIN_BATCH)[0], now)
        path.append(w)
    return path


def follow(alg, tolerance, **told):
    """Check every step of a method; return the last parameters, and how far they are.

    The tolerance is relative to the movement of the parameters.
    """
    state, step = alg.init(W, ()), jax.jit(alg.step)
    for expected in published64(STEPS, **told):
        state, _ = step(state, BOTH, KEY)
        moved = np.linalg.norm(expected - np.asarray(W, np.float64))
        far = np.linalg.norm(np.asarray(state.params, np.float64) - expected)
        assert far < tolerance * moved
    return expected, moved


def falling_sgd(form):
    rates = optax.cosine_decay_schedule(RATE, STEPS)

    def at(step):
        return rates(jnp.float32(step))

    decayed = optax.add_decayed_weights(DECAY)
    if form == "injected":
        sgd = optax.inject_hyperparams(optax.sgd)(at, momentum=MOMENTUM)
        return optax.chain(decayed, sgd)
    return optax.chain(decayed, optax.sgd(at, momentum=MOMENTUM))


@pytest.mark.parametrize("clip", [100.0, 3.0])
@pytest.mark.parametrize("form", ["schedule", "injected"])
def test_the_published_classifier_in_float64(clip, form):
    alg = sfron(
        LINEAR, falling_sgd(form), mask=MASK, steps=STEPS, clip=clip, forget_every=3
    )
    told = dict(every=3, clip=clip, rate=RATE, decay=DECAY, moments=False)
    expected, moved = follow(alg, 2e-5, **told)
    # it is not the plain ascent at the same rate: ten times as far by momentum
    plain = make(falling_sgd(form), clip=clip, forget_every=3, forget_rate=RATE)
    other = ju.run(plain, plain.init(W, ()), [BOTH] * STEPS, KEY, scan=1)
    assert np.linalg.norm(np.asarray(other.params) - expected) > 0.1 * moved


def test_the_published_diffusion_step_in_float64():
    optimizer = optax.chain(adam(), optax.scale_by_learning_rate(1e-2))
    alg = sfron(LINEAR, optimizer, mask=MASK, steps=STEPS, clip=1.0, forget_every=1)
    told = dict(every=1, clip=1.0, rate=1e-2, decay=0.0, moments=True)
    follow(alg, 1e-4, **told)


def test_an_optimizer_for_each_kind_of_step_in_float64():
    """DualOptim over SFRon: AdamW ascends, SGD descends, both along the cosine."""
    separate = {"forget_every": 2, "harmonizer": ju.harmonize.separate}
    rates = optax.cosine_decay_schedule(1.0, STEPS)
    decay, rate = optax.add_decayed_weights(0.05), optax.scale_by_learning_rate(0.02)
    pair = ju.optimizers.dual(optax.chain(adam(), decay, rate), retaining())
    told = {"mask": MASK, "steps": STEPS, "clip": 3.0, **separate}
    alg = sfron(LINEAR, annealed(pair, rates), **told)
    state, step = alg.init(W, ()), jax.jit(alg.step)
    w, first, second, velocity, count = np.asarray(W, np.float64), 0.0, 0.0, 0.0, 0
    for t in range(STEPS):
        falling = (1 + np.cos(np.pi * t / STEPS)) / 2
        if t % 2 == 0:
            grad = -25.0 * falling * gradient64(w, FORGET, 0.5)[0] * np.asarray(MASK)
            grad = grad * min(1.0, 3.0 / np.linalg.norm(grad))
            count += 1
            first = 0.9 * first + 0.1 * grad
            second = 0.999 * second + 0.001 * grad**2
            size = np.sqrt(second / (1 - 0.999**count)) + 1e-8
            w = w - 0.02 * falling * (first / (1 - 0.9**count) / size + 0.05 * w)
        grad = gradient64(w, RETAIN_BATCH)[0] + DECAY * w
        velocity = MOMENTUM * velocity + grad
        w = w - RATE * falling * velocity
        state, _ = step(state, BOTH, KEY)
        moved = np.linalg.norm(w - np.asarray(W, np.float64))
        far = np.linalg.norm(np.asarray(state.params, np.float64) - w)
        assert far < 1e-4 * moved
    for harmonizer, rate in ((ju.harmonize.add(), None), (ju.harmonize.separate, 0.1)):
        with pytest.raises(InputError, match="one gradient at a time"):
            make(pair, harmonizer=harmonizer, forget_rate=rate)


def test_what_the_optimizer_freezes_stays():
    optimizer = optax.chain(retaining(), optax.set_to_zero())
    alg = sfron(LINEAR, optimizer, mask=MASK, steps=STEPS)
    state, info = jax.jit(alg.step)(alg.init(W, ()), BOTH, KEY)
    np.testing.assert_array_equal(state.params, W)
    assert info.update_norm == 0


def test_the_retain_loss_is_that_of_the_moved_parameters():
    ascent = make(optax.set_to_zero(), clip=3.0)
    climbed, info = jax.jit(ascent.step)(ascent.init(W, ()), BOTH, KEY)

    def mean(w):
        losses = gradient64(np.asarray(w, np.float64), RETAIN_BATCH)[2]
        return losses[np.asarray(RETAIN_BATCH.mask)].mean()

    close(info.retain_loss, mean(climbed.params), scale=5)
    assert abs(mean(climbed.params) - mean(W)) > 0.01


def test_masked_weights_never_move_in_the_ascent():
    # retain steps that remember and decay, but move nothing: what the authors' code
    # let through the mask
    optimizer = optax.chain(retaining(), optax.set_to_zero())
    alg = make(optimizer)
    state, step = alg.init(W, ()), jax.jit(alg.step)
    for _ in range(4):
        state, _ = step(state, BOTH, KEY)
    np.testing.assert_array_equal(np.asarray(state.params != W), MASK)
    # nothing marked: fine-tuning, and no 0/0 in the clip
    none = make(mask=jnp.zeros_like(MASK))
    plain = ju.methods.finetune(LINEAR, retaining())
    fine, _ = jax.jit(none.step)(none.init(W, ()), BOTH, KEY)
    tuned, _ = jax.jit(plain.step)(plain.init(W, ()), BOTH, KEY)
    trees_close(fine.params, tuned.params)


def test_off_steps_are_fine_tuning_and_say_so():
    alg, plain = make(forget_every=5), ju.methods.finetune(LINEAR, retaining())
    state = alg.init(W, ())._replace(step=jnp.int32(3))
    state, info = jax.jit(alg.step)(state, BOTH, KEY)
    tuned, other = jax.jit(plain.step)(plain.init(W, ()), BOTH, KEY)
    trees_close(state.params, tuned.params)
    trees_close(state.opt_state, tuned.opt_state)
    np.testing.assert_array_equal(info.weights, np.zeros(SIZE))
    np.testing.assert_array_equal(info.task_losses, np.zeros(SIZE))
    np.testing.assert_array_equal(info.index, np.full(SIZE, -1))
    assert info.forget_loss == 0
    np.testing.assert_allclose(info.update_norm, other.update_norm, rtol=1e-5)


def test_one_trace_and_a_schedule_that_forgets_every_k_steps():
    traces = []
    alg = make(forget_every=3)

    def step(state, samples, key):
        traces.append(1)
        return alg.step(state, samples, key)

    counted = ju.Unlearner(alg.init, step)
    start = alg.init(W, ())
    end = ju.run(counted, start, [BOTH] * 6, KEY, scan=1)
    assert len(traces) == 1
    assert forms(end) == forms(start)
    sparse = [BOTH if t % 3 == 0 else BOTH._replace(forget=None) for t in range(6)]
    trees_close(ju.run(alg, start, sparse, KEY, scan=1), end)
    always = make(forget_every=1)  # without a branch, as of the card
    trees_close(ju.run(always, start, sparse, KEY, scan=1), end)
    half = ju.run(alg, start, [BOTH] * 2, KEY, scan=2)
    resumed = ju.run(alg, half, [BOTH] * 4, KEY, scan=2)
    trees_close(resumed, end, rtol=1e-5, atol=1e-6)
    # a forget batch of a step between is not looked at
    wrong = BOTH._replace(forget=batch(9, SIZE, mask=np.ones(SIZE, bool)))
    mixed = [BOTH if t % 3 == 0 else wrong for t in range(6)]
    trees_close(ju.run(alg, start, mixed, KEY, scan=1), end)


def test_off_steps_do_not_run_the_forget_pass():
    passes = []

    def apply(w, x):
        if x.shape[0] == SIZE:
            jax.debug.callback(lambda: passes.append(1))
        return x @ w

    model = ju.from_stateless(lambda key, x: None, apply)
    alg = sfron(model, optax.sgd(0.1), mask=MASK, steps=12, forget_rate=0.1)
    state, step = alg.init(W, ()), jax.jit(alg.step)
    for _ in range(6):  # climbs at 0 and 5
        state, _ = step(state, BOTH, KEY)
    jax.block_until_ready(state)
    jax.effects_barrier()
    assert len(passes) == 2


def test_the_step_of_one_serves_the_state_of_another():
    algs = [make(), make(mask=~MASK, forget_rate=0.3)]
    states = [alg.init(W, ()) for alg in algs]
    assert forms(states[0]) == forms(states[1])
    own, _ = jax.jit(algs[1].step)(states[1], BOTH, KEY)
    step = jax.jit(algs[0].step)
    lent, _ = step(states[1], BOTH, KEY)
    trees_close(lent, own)
    first, _ = step(states[0], BOTH, KEY)
    assert step._cache_size() == 1
    assert np.abs(first.params - own.params).max() > 1e-2


def test_several_rates_at_once():
    def final(rate):
        alg = make(forget_rate=rate, clip=3.0)
        batches = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), BOTH)
        return ju.scan_steps(alg, alg.init(W, ()), batches, KEY)[0].params

    rates = jnp.array([0.0, 0.02, 0.1])
    several = jax.jit(jax.vmap(final))(rates)
    for rate, got in zip(rates, several, strict=True):
        expected = walk64(3.0, 3, rate=float(rate))[0][-1]
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    # states of different steps: some climb, some do not
    alg = make(clip=3.0)
    states = [alg.init(W, ())._replace(step=jnp.int32(t)) for t in (0, 1)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    both, info = jax.jit(jax.vmap(alg.step, in_axes=(0, None, None)))(
        stacked, BOTH, KEY
    )
    climbed = walk64(3.0, 1)[0][0]
    w = np.asarray(W, np.float64)
    still = w - RATE * (gradient64(w, RETAIN_BATCH)[0] + DECAY * w)
    close(both.params, np.stack([climbed, still]), scale=20)
    assert (np.asarray(info.weights).sum(1) > 0).tolist() == [True, False]


def test_batch_statistics():
    net = batchnorm_net(CLASSES)
    params, start = jax.jit(net.init)(KEY, FORGET.inputs)
    mask = jax.tree.map(lambda p: jnp.zeros(p.shape, bool), params)  # stay in place
    once = next_statistics(start, params, RETAIN_BATCH.inputs)
    first = next_statistics(start, params, FORGET.inputs)
    twice = next_statistics(first, params, RETAIN_BATCH.inputs)
    for mode, expected in (
        ("sequential", twice),
        ("retain", once),
        ("frozen", start),
    ):
        alg = sfron(
            net,
            optax.sgd(0.1),
            mask=mask,
            steps=5,
            forget_rate=0.1,
            model_state=mode,
        )
        state, _ = jax.jit(alg.step)(alg.init(params, start), BOTH, KEY)
        for name, leaf in expected.items():
            np.testing.assert_allclose(state.model_state[name], leaf, rtol=1e-5)


def test_low_precision_keeps_its_dtype():
    alg = make(optax.sgd(0.1))
    narrow = jax.tree.map(
        lambda x: x.astype(jnp.bfloat16) if x.dtype == jnp.float32 else x, BOTH
    )
    start = alg.init(W.astype(jnp.bfloat16), ())
    state, _ = jax.jit(alg.step)(start, narrow, KEY)
    assert forms(state) == forms(start)
    assert state.params.dtype == jnp.bfloat16
    w = np.asarray(W, np.float64)
    ascent = 25 * np.asarray(MASK) * gradient64(w, FORGET, 0.5)[0]
    w = w + 0.02 * ascent * min(1.0, 7 / np.linalg.norm(ascent))
    w = w - 0.1 * gradient64(w, RETAIN_BATCH)[0]
    got = state.params.astype(jnp.float32)
    np.testing.assert_allclose(got, w, atol=3e-2, rtol=3e-2)  # 8 bits of mantissa


def test_init_copies_and_donation_spares_the_caller():
    params, mask = jnp.array(W, copy=True), jnp.array(MASK, copy=True)
    rate = jnp.float32(0.1)
    alg = make(mask=mask, forget_rate=rate)
    state = alg.init(params, ())
    jax.block_until_ready(jax.jit(alg.step, donate_argnums=0)(state, BOTH, KEY))
    for mine in (params, mask, rate):
        assert not mine.is_deleted()


@functools.cache
def fisher_mask():
    """Return F_f/F_r ≥ 1 of squared gradients of batches of 30."""
    gradient = ju.gradients.mean_gradient(ju.objectives.descent(MODEL))

    def fisher(samples):
        size = len(samples.labels) // 30
        squares = []
        for i in range(size):
            rows = jax.tree.map(lambda x, i=i: x[30 * i : 30 * i + 30], samples)
            squares.append(
                jax.tree.map(jnp.square, gradient(original(), (), [rows], KEY))
            )
        return jax.tree.map(lambda *leaves: sum(leaves) / size, *squares)

    return ju.masks.fisher_ratio(fisher(part(WHICH_FORGET)), fisher(part(RETAIN)))


def test_it_forgets_what_fine_tuning_keeps():
    mask = fisher_mask()
    marked = sum(int(leaf.sum()) for leaf in jax.tree.leaves(mask))
    assert 0 < marked < sum(leaf.size for leaf in jax.tree.leaves(mask))
    alg = sfron(MODEL, optax.sgd(0.1), mask=mask, steps=200, forget_rate=0.2)
    params = unlearn(alg, 200)
    tuned = unlearn(ju.methods.finetune(MODEL, optax.sgd(0.1)), 200)
    forget, retain = part(WHICH_FORGET), part(RETAIN)
    assert loss(params, forget) > 2 * loss(tuned, forget)
    assert loss(params, forget) > 2 * loss(original(), forget)
    assert accuracy(params, retain) > 0.97
    assert loss(params, retain) < loss(original(), retain)


def test_mistakes():
    for options, message in (
        ({"steps": 0}, "steps=0"),
        ({"forget_every": 0}, "forget_every=0"),
        ({"forget_rate": -0.1}, "forget_rate=-0.1"),
        ({"peak": -1.0}, "peak=-1"),
        ({"clip": 0.0}, "clip=0.0"),
        ({"model_state": "none"}, "model_state='none'"),
    ):
        with pytest.raises(InputError, match=message):
            make(**options)
    with pytest.raises(ValueError, match="structure or shapes"):
        make(mask=jnp.ones(3, bool)).init(W, ())
    alg = make()
    with pytest.raises(InputError, match="retain batch each step"):
        alg.step(alg.init(W, ()), ju.UnlearnBatch(FORGET), KEY)
