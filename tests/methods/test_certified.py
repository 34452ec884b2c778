"""Certified noisy fine-tuning: the statement, the noise, the steps in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import norm
from test_behaviour import FORGET, MODEL, RETAIN, accuracy, confidence, original, part
from toys import batch, batchnorm_net, softmax64, three_digits, trees_close

import jax_unlearn as ju
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Request, Training, Unlearning
from jax_unlearn.lab.job import Trained, checked, execute
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.subject import subject_of
from jax_unlearn.methods import (
    NoisySteps,
    certified,
    guarantee_of,
    noise_scale,
    noisy_steps,
    renyi_of,
    renyi_rate,
)
from jax_unlearn.types import Aux

LINEAR = ju.from_stateless(lambda key, x: None, lambda w, x: x @ w["k"] + w["b"][None])
START = {
    "k": 3 * jax.random.normal(jax.random.key(3), (4, 3)),
    "b": jnp.array([0.1, 0.2, -0.1]),
}
KEY = jax.random.key(1)
STEP = ju.UnlearnBatch(retain=batch(1, 9, mask=np.arange(9) < 7))
PHASE = NoisySteps(4, model_clip=2.0, gradient_clip=0.3, rate=0.2, decay=0.5)


def exact_delta(epsilon, renyi):
    """Return δ(ε) of two Gaussians with D_α = α·ρ (Balle and Wang): the least there is.

    Neither Rényi divergences nor orders come in.
    """
    mu = math.sqrt(2 * renyi)
    high = norm.cdf(mu / 2 - epsilon / mu)
    return high - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)


@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-9])
@pytest.mark.parametrize("renyi", [1e-3, 0.03, 0.5, 8.0])
def test_the_conversion_against_two_other_computations(renyi, delta):
    found = guarantee_of(renyi, delta)
    assert exact_delta(found.epsilon, renyi) <= delta  # true
    assert exact_delta(0.75 * found.epsilon, renyi) > delta  # and not much too large

    def epsilon(log):
        a = 1 + math.exp(log)
        return a * renyi + math.log((a - 1) / a) - math.log(delta * a) / (a - 1)

    best = minimize_scalar(epsilon, bounds=(-9, 16), method="bounded")
    assert found.epsilon == pytest.approx(best.fun, rel=1e-4)
    assert found.epsilon == pytest.approx(epsilon(math.log(found.order - 1)), rel=1e-9)
    simple = renyi + 2 * math.sqrt(renyi * math.log(1 / delta))
    assert found.epsilon <= simple  # of concentrated privacy, known to be looser
    assert renyi_of(found.epsilon, delta) == pytest.approx(renyi, rel=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.5, 4.0])
def test_the_divergence_is_that_of_the_worst_case(decay):
    """Gradients that lead apart give two Gaussians: nothing smaller would be true."""
    phase = NoisySteps(6, model_clip=400.0, gradient_clip=3.0, rate=0.1, decay=decay)
    sigma, keep = 1.7, 1 - 0.1 * decay
    mean, variance = 400.0, 0.0
    for _ in range(6):
        mean, variance = keep * mean + 0.3, keep**2 * variance + sigma**2
    exact = (2 * mean) ** 2 / (2 * variance)
    assert renyi_rate(sigma, phase) == pytest.approx(exact, rel=1e-12)
    assert noise_scale(exact, phase) == pytest.approx(sigma, rel=1e-12)

    def away(params, state, samples, key):  # steeper than the clip
        losses = -5.0 * jnp.abs(params) * jnp.ones(samples.labels.shape)
        return losses, Aux(losses, losses, state)

    alg = certified(
        LINEAR, optax.sgd(1.0), sigma=sigma, phase=phase, fresh_state=(), retain=away
    )

    @jax.jit
    def ends(start, keys):
        def one(key):
            steps = jax.tree.map(lambda leaf: jnp.stack([leaf] * 6), STEP)
            return ju.scan_steps(alg, alg.init(start, ()), steps, key)[0].params

        return jax.vmap(one)(keys)

    keys = jax.random.split(KEY, 3000)
    up, down = (np.asarray(ends(jnp.float32(s), keys)) for s in (900.0, -900.0))
    np.testing.assert_allclose((up.mean() - down.mean()) / 2, mean, rtol=5e-3)
    np.testing.assert_allclose([up.var(), down.var()], variance, rtol=0.1)


def test_the_noise_is_fresh_in_every_step_and_leaf_and_of_the_stated_size():
    big = {"a": jnp.zeros((60, 70)), "b": jnp.zeros(4200), "c": jnp.zeros((3, 1400))}

    def flat(params, state, samples, key):
        losses = jnp.zeros(samples.labels.shape) * params["b"][0]
        return losses, Aux(losses, losses, state)

    phase = NoisySteps(3, model_clip=1.0, gradient_clip=1.0, rate=0.1)
    sigma = noise_scale(renyi_of(1.0, 1e-5), phase)
    told = {"sigma": sigma, "phase": phase, "fresh_state": (), "retain": flat}
    alg = certified(LINEAR, optax.sgd(1.0), **told)
    states = [jax.tree.map(np.asarray, alg.init(big, ()).params)]

    def keep(step, state, info):
        states.append(jax.tree.map(np.array, state.params))

    ju.run(alg, alg.init(big, ()), [STEP] * 5, KEY, callback=keep, scan=1)
    noises = [
        jax.tree.map(lambda new, old: (new - old).ravel(), *pair)
        for pair in zip(states[1:], states, strict=False)
    ]
    rows = np.stack([noise[k] for noise in noises[:3] for k in "abc"])
    np.testing.assert_allclose(rows.std(axis=1), sigma, rtol=0.05)
    assert np.abs(rows.mean(axis=1)).max() < 0.06 * sigma
    between = np.corrcoef(rows) - np.eye(9)  # of steps, of leaves, of both
    assert np.abs(between).max() < 0.06
    assert all(not leaf.any() for noise in noises[3:] for leaf in noise.values())
    other = ju.run(alg, alg.init(big, ()), [STEP], jax.random.key(2), scan=1)
    again = np.ravel(other.params["b"])
    assert abs(np.corrcoef(again, rows[1])[0, 1]) < 0.06  # of another run


def gradient64(w, samples):
    x, y = np.asarray(samples.inputs, np.float64), np.asarray(samples.labels)
    mask = np.asarray(samples.mask)
    error = (softmax64(x @ w["k"] + w["b"]) - np.eye(3)[y])[mask] / mask.sum()
    return {"k": x[mask].T @ error, "b": error.sum(0)}


def clipped64(tree, largest):
    size = math.sqrt(sum((leaf**2).sum() for leaf in tree.values()))
    return {k: leaf * min(1.0, largest / size) for k, leaf in tree.items()}


@pytest.mark.parametrize("centred", [False, True])
def test_the_published_steps_in_float64(centred):
    """Without its noise; the noise is tested apart."""
    optimizer = optax.chain(
        optax.add_decayed_weights(0.05), optax.sgd(0.1, momentum=0.9)
    )
    centre = jax.tree.map(lambda leaf: 0.1 * jnp.ones_like(leaf), START)
    zero = {k: np.full(v.shape, 0.1 * centred) for k, v in START.items()}
    told = {"sigma": 0.0, "phase": PHASE, "fresh_state": ()}
    alg = certified(LINEAR, optimizer, centre=centre if centred else None, **told)
    state, step = alg.init(START, ()), jax.jit(alg.step)
    w = clipped64({k: np.float64(v) - zero[k] for k, v in START.items()}, 2.0)
    w = {k: leaf + zero[k] for k, leaf in w.items()}
    begin, velocity = dict(w), {k: np.zeros_like(v) for k, v in w.items()}
    for number in range(9):
        grads = gradient64(w, STEP.retain)
        if number < 4:
            size = math.sqrt(sum((g**2).sum() for g in grads.values()))
            assert (size > 0.3) or number > 1  # it is clipped
            grads = clipped64(grads, 0.3)
            w = {k: w[k] - 0.2 * (grads[k] + 0.5 * (w[k] - zero[k])) for k in w}
        else:
            for k in w:
                velocity[k] = 0.9 * velocity[k] + grads[k] + 0.05 * w[k]
                w[k] = w[k] - 0.1 * velocity[k]
        state, _ = step(state, STEP, KEY)
        for k in w:
            moved = np.linalg.norm(w[k] - begin[k])
            far = np.linalg.norm(np.float64(state.params[k]) - w[k])
            assert far < 2e-5 * moved


def test_batch_statistics_are_fresh_and_rest_while_there_is_noise():
    model = batchnorm_net()
    params, fresh = model.init(KEY, STEP.retain.inputs)
    told = {"sigma": 0.1, "phase": PHASE, "fresh_state": fresh}
    alg = certified(model, optax.sgd(0.1, momentum=0.9), **told)
    state = alg.init(params, jax.tree.map(lambda leaf: leaf + 5, fresh))
    step = jax.jit(alg.step)
    for number in range(6):
        trees_close(state.model_state, fresh) if number < 5 else None
        before = state
        state, _ = step(state, STEP, KEY)
        if number < 4:
            trees_close(state.opt_state, before.opt_state)
    assert float(jnp.abs(state.model_state["mean"] - fresh["mean"]).max()) > 1e-3


def test_a_harmonizer_is_of_the_steps_without_noise_alone():
    def run(optimizer, harmonizer):
        told = {"sigma": 0.1, "phase": PHASE, "fresh_state": ()}
        alg = certified(LINEAR, optimizer, harmonizer=harmonizer, **told)
        state, states = alg.init(START, ()), []
        step = jax.jit(alg.step)
        for number in range(6):
            state, _ = step(state, STEP, jax.random.fold_in(KEY, number))
            states.append(state.params)
        return states

    plain = run(optax.sgd(0.1), None)
    halved = run(optax.sgd(0.2), ju.harmonize.add(1.0, 0.5))
    two = ju.optimizers.dual(optax.sgd(1.0), optax.sgd(0.1))
    for states in (halved, run(two, ju.harmonize.separate)):
        for own, other in zip(states, plain, strict=True):
            trees_close(own, other)


def test_no_branch_of_a_step_holds_a_gradient():
    """XLA's gradients of convolutions are slow in a branch, on CPUs."""
    told = {"sigma": 0.1, "phase": PHASE, "fresh_state": ()}
    alg = certified(LINEAR, optax.sgd(0.1), **told)
    found = jax.make_jaxpr(alg.step)(alg.init(START, ()), STEP, KEY)
    branches = [e for e in found.jaxpr.eqns if e.primitive.name == "cond"]
    assert "dot_general" in str(found)
    assert branches
    assert not any("dot_general" in str(branch) for branch in branches)


def test_it_forgets_and_learns_the_retain_set_again():
    phase = NoisySteps(14, model_clip=1.0, gradient_clip=5.0, rate=0.001, decay=500.0)
    sigma = noise_scale(renyi_of(1.0, 1e-5), phase)
    told = {"sigma": sigma, "phase": phase, "fresh_state": ()}
    alg = certified(MODEL, optax.sgd(0.5, momentum=0.9), **told)
    steps = [ju.UnlearnBatch(retain=part(RETAIN))] * 80
    noisy = ju.run(alg, alg.init(original(), ()), steps[:14], KEY, scan=14).params
    flat = [
        np.concatenate([np.ravel(x) for x in jax.tree.leaves(p)])
        for p in (noisy, original())
    ]
    assert abs(np.corrcoef(*flat)[0, 1]) < 0.3
    state = ju.run(alg, alg.init(original(), ()), steps, KEY, scan=40)
    assert accuracy(state.params, part(RETAIN)) > 0.9
    before = confidence(original(), part(FORGET)).mean()
    assert confidence(state.params, part(FORGET)).mean() < before - 0.1


DATA = three_digits(90, 30)
IDS = np.arange(len(DATA.train.labels))
REQUEST = Request(IDS[:20], IDS[20:80], IDS[80:])


def test_a_setting_states_what_its_run_does():
    subject = subject_of(Training(network="linear"), DATA)
    params, at = jax.jit(subject.model.init)(KEY, subject.examples.inputs[:2])
    original = Trained(jax.tree.map(lambda p: p + 1.0, params), at, {})
    values = {"epsilon": 2.0, "delta": 1e-4, "noise_steps": 5, "batch_size": 10}
    setting = Unlearning.of(method="certified", epochs=2, **values)
    job = Preparer(subject)(setting, REQUEST, original, seed=0)
    found = job.details["certificate"]
    assert found["epsilon"] <= 2.0 + 1e-9
    assert exact_delta(found["epsilon"], found["renyi"]) <= 1e-4
    assert found["epsilon"] == pytest.approx(2.0, rel=1e-3)
    assert (found["noisy_steps"], found["plain_steps"]) == (5, 7)
    phase = NoisySteps(5, 1.0, 5.0, 0.001, 500.0)
    assert renyi_rate(found["sigma"], phase) == pytest.approx(found["renyi"])
    assert "(ε = 2, δ = 0.0001)" in found["says"][0]
    assert setting.told()["guarantee"] == "(ε = 2, δ = 0.0001) of the parameters"
    assert setting.told()["noise_steps"] == 5
    (unlearner, schedule), at = checked(job), job.start
    assert at is not None
    start = unlearner.init(*at)
    assert optax.tree.norm(start.params) == pytest.approx(1.0, rel=1e-5)
    assert all(batch.forget is None for batch in schedule)
    ends = [execute(job, original[:2], jax.random.key(s)).params for s in (0, 1)]
    assert optax.tree.norm(optax.tree.sub(*ends)) > 0.01
    for values, words in (
        ({"trainable": "k"}, "what does not move"),
        ({"salient": True}, "the mask is made of the forget set"),
        ({"guard_utility": 50.0}, "the certificate is void"),
        ({"delta": 1.0}, "delta=1"),
        ({"epsilon": 0.0}, "epsilon=0.0"),
        ({"noise_decay": 2000.0}, "give a decay below 1000"),
        ({"dual": True}, "no two gradients"),
    ):
        with pytest.raises(InputError, match=words):
            Unlearning.of(method="certified", **values)
    short = Unlearning.of(method="certified", epochs=1, batch_size=10)
    with pytest.raises(InputError, match="6 in all.*--epochs"):
        Preparer(subject)(short, REQUEST, original, seed=0)


def test_mistakes_and_lengths():
    usual = {"model_clip": 1.0, "gradient_clip": 5.0, "rate": 0.001}
    assert noisy_steps(**usual) == 200
    assert noisy_steps(**usual, decay=500.0) == math.ceil(math.log(200) / 0.5)
    for changes in ({"steps": 0}, {"model_clip": -1.0}, {"decay": 20.0}):
        with pytest.raises(InputError):
            renyi_rate(1.0, PHASE._replace(**changes))
    for renyi, delta in ((0.0, 1e-5), (1.0, 0.0), (1.0, 1.0)):
        with pytest.raises(InputError):
            guarantee_of(renyi, delta)
    alg = certified(LINEAR, optax.sgd(1.0), sigma=1.0, phase=PHASE, fresh_state=())
    forget = ju.UnlearnBatch(STEP.retain)
    with pytest.raises(InputError, match=r"ju\.data\.retain_only"):
        alg.step(alg.init(START, ()), forget, KEY)
