"""FCS: its three kinds of steps against float64 numpy, its rounds, and what it does."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_behaviour import FORGET, MODEL, RETAIN, accuracy, confidence, original, part
from toys import batch, batchnorm_net, close, next_statistics, softmax64, three_digits

import jax_unlearn as ju
from jax_unlearn.data import Examples, fcs_schedule
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Request, Training, Unlearning
from jax_unlearn.lab.job import Trained, execute
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.subject import subject_of

LINEAR = ju.from_stateless(lambda key, x: None, lambda w, x: x @ w)
W = jax.random.normal(jax.random.key(3), (4, 3))
KEY = jax.random.key(1)
FIRST = batch(0, 6, mask=np.array([1, 1, 0, 1, 1, 0], bool))
REST = batch(1, 9, first_index=6, mask=np.arange(9) < 7)
X, Z = (np.asarray(b.inputs, np.float64)[b.mask] for b in (FIRST, REST))
KINDS = {
    "flatten": ju.UnlearnBatch(FIRST),
    "contrast": ju.UnlearnBatch(FIRST, REST),
    "repair": ju.UnlearnBatch(retain=REST),
}
RATES = {"flatten": 0.3, "contrast": 0.2, "repair": 0.1}
DECAY, MOMENTUM, T = 0.05, 0.9, 1.15


def made(model=LINEAR, **options):
    sgd = {name: optax.sgd(rate, momentum=MOMENTUM) for name, rate in RATES.items()}
    decayed = optax.chain(optax.add_decayed_weights(DECAY), sgd["repair"])
    told = {f"{name}_optimizer": sgd[name] for name in ("flatten", "contrast")}
    return ju.methods.fcs(model, decayed, **told, **options)


def gradient64(kind, w):
    """Return the gradient of a kind of step, and its loss."""
    if kind == "flatten":
        p = softmax64(X @ w)
        return X.T @ (p - 1 / 3) / len(X), -np.log(3 * p).mean()
    if kind == "repair":
        p, y = softmax64(Z @ w), np.asarray(REST.labels)[np.asarray(REST.mask)]
        loss = -np.log(p[np.arange(len(y)), y]).mean()
        return Z.T @ (p - np.eye(3)[y]) / len(Z) + DECAY * w, loss
    retain = Z @ w  # held fixed
    p = softmax64(X @ w @ retain.T / T)
    errors = (p - 1 / len(Z)) / len(X)  # of the similarities
    return X.T @ (errors @ retain / T), -np.log(p).mean()


def test_steps_in_float64():
    """Each kind of step has a momentum of its own; decay is the repair's."""
    alg = made()
    state, step = alg.init(W, ()), jax.jit(alg.step)
    w, velocity = np.asarray(W, np.float64), dict.fromkeys(KINDS, 0.0)
    order = ["flatten", "flatten", *["contrast", "repair", "repair"] * 2, "contrast"]
    for kind in order:
        gradient, loss = gradient64(kind, w)
        velocity[kind] = MOMENTUM * velocity[kind] + gradient
        state, info = step(state, KINDS[kind], KEY)
        w = w - RATES[kind] * velocity[kind]
        told = info.retain_loss if kind == "repair" else info.forget_loss
        close(told, loss, scale=20)
    moved = np.linalg.norm(w - np.asarray(W, np.float64))
    assert np.linalg.norm(np.asarray(state.params) - w) < 2e-6 * moved
    assert int(state.step) == len(order)


@pytest.mark.parametrize("mode", ["sequential", "retain", "frozen"])
def test_a_contrast_takes_statistics_of_both_passes(mode):
    model, (first, rest) = batchnorm_net(), (batch(0, 6), batch(1, 9))
    params, state = model.init(KEY, first.inputs)
    alg = made(model, model_state=mode)
    step = jax.jit(alg.step)
    after, _ = step(alg.init(params, state), ju.UnlearnBatch(first, rest), KEY)
    expected = state
    for samples in {"sequential": (first, rest), "retain": (rest,)}.get(mode, ()):
        expected = next_statistics(expected, params, samples.inputs)
    for name, leaf in expected.items():
        close(after.model_state[name], leaf, scale=5)


def test_rounds_are_the_published_ones():
    examples = Examples(np.zeros((30, 1), np.float32), np.zeros(30, np.int32))
    forget, retain = np.arange(7), np.arange(7, 30)
    schedule, ends = fcs_schedule(
        examples, forget, retain, batch_size=4, epochs=3, seed=2
    )
    steps = [("f" if s.forget else "") + ("r" if s.retain else "") for s in schedule]
    assert steps == ["f"] * 2 + (["fr"] * 2 + ["r"] * 6) * 3
    assert ends == (10, 18, 26)

    def ids(part, steps):
        parts = [getattr(schedule[step], part) for step in steps]
        return sorted(int(i) for b in parts for i in b.index[b.mask])

    assert ids("forget", range(2)) == forget.tolist()
    for start in (2, 10, 18):
        assert ids("forget", range(start, start + 2)) == forget.tolist()
        assert ids("retain", range(start + 2, start + 8)) == retain.tolist()
    assert ids("retain", (2, 3)) != ids("retain", (10, 11))
    few = fcs_schedule(examples, retain, forget, batch_size=4, epochs=1).schedule
    assert len(few) == 6 + 2 + 2  # the contrast ends where the retain set does


def test_fcs_forgets_and_repairs():
    forget, retain = part(FORGET), part(RETAIN)
    sgd = {"flatten_optimizer": optax.sgd(0.3), "contrast_optimizer": optax.sgd(0.02)}
    alg = ju.methods.fcs(MODEL, optax.sgd(0.3), **sgd)
    flat, pair, own = (
        ju.UnlearnBatch(forget),
        ju.UnlearnBatch(forget, retain),
        ju.UnlearnBatch(retain=retain),
    )

    def run(batches):
        return ju.run(alg, alg.init(original(), ()), batches, KEY, scan=1).params

    flattened = run([flat] * 10)
    before, after = (confidence(p, forget).mean() for p in (original(), flattened))
    assert after < 0.75 * before
    whole = run([flat] * 10 + [pair, own, own, own, own] * 8)
    plain = run([flat] * 10 + [own, own, own, own] * 8)
    assert accuracy(whole, retain) > 0.95
    # contrast rounds keep what training on the retain set would bring back
    told = [confidence(p, forget).mean() for p in (whole, plain)]
    assert told[0] < told[1] - 0.01
    assert told[0] < 0.9 * before


def test_mistakes():
    with pytest.raises(InputError, match="temperature=0.0 .* published: 1.15"):
        ju.objectives.contrast(X, Z, temperature=0.0)
    alg = made()
    with pytest.raises(InputError, match="fcs_schedule"):
        alg.step(alg.init(W, ()), ju.UnlearnBatch(), KEY)


DATA = three_digits(90, 30)
IDS = np.arange(len(DATA.train.labels))
REQUEST = Request(IDS[:20], IDS[20:80], IDS[80:])


def test_the_job_has_rates_of_its_own():
    training = Training(network="small_cnn", width=4, epochs=1, batch_size=20)
    subject = subject_of(training, DATA)
    two = subject.examples.inputs[:2]
    trained = Trained(*jax.jit(subject.model.init)(jax.random.key(0), two), {})
    told = {"epochs": 2, "batch_size": 10, "momentum": 0.0, "weight_decay": 0.1}
    setting = Unlearning.of(method="fcs", contrast_rate=0.5, **told)
    job = Preparer(subject)(setting, REQUEST, trained, seed=0, origin=None)
    assert len(job.schedule) == 2 + 2 * (2 + 6)
    state = job.unlearner.init(*trained[:2])
    rates = {
        name: float(leaf)
        for name, own in state.opt_state._asdict().items()
        for path, leaf in jax.tree_util.tree_leaves_with_path(own)
        if "learning_rate" in jax.tree_util.keystr(path)
    }
    close(jnp.array([rates[n] for n in KINDS]), [0.05, 0.005, 0.01])
    found = execute(job, trained[:2], KEY)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found.params))
    with pytest.raises(InputError, match="steps=3"):
        Unlearning.of(method="fcs", steps=3)
