"""One step of an unlearner against float64 numpy, on a linear and a BatchNorm net."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import (
    MOMENTUM,
    batch,
    batchnorm_net,
    close,
    forms,
    next_statistics,
    softmax64,
    trees_close,
)

import jax_unlearn as ju
from jax_unlearn import methods, objectives
from jax_unlearn.errors import InputError

CLASSES, SIZE = 3, 6
LINEAR = ju.from_stateless(
    lambda key, x: jax.random.normal(key, (x.shape[-1], CLASSES)), lambda w, x: x @ w
)
W = jax.random.normal(jax.random.key(3), (4, CLASSES))
KEY = jax.random.key(1)
FORGET = batch(0, SIZE, mask=np.array([1, 1, 0, 1, 1, 0], bool))
RETAIN = batch(1, 9, first_index=SIZE, mask=np.arange(9) < 7)
BOTH = ju.UnlearnBatch(FORGET, RETAIN)
SGD = optax.sgd(1.0)  # the update is minus the gradient


def one_step(alg, batches=BOTH, params=W, model_state=()):
    state = alg.init(params, model_state)
    return jax.jit(alg.step)(state, batches, KEY)


def linear64(samples, labels=None):
    """Return per-sample losses [B] and gradients [B, 4, K] of softmax regression."""
    x = np.asarray(samples.inputs, np.float64)
    labels = np.asarray(samples.labels) if labels is None else labels
    probs = softmax64(x @ np.asarray(W, np.float64))
    error = probs - np.eye(CLASSES)[labels]
    losses = -np.log(probs[np.arange(len(labels)), labels])
    return losses, x[:, :, None] * error[:, None, :]


def mean64(samples, weights=None, labels=None):
    mask = np.asarray(samples.mask)
    weights = mask if weights is None else weights * mask
    gradients = linear64(samples, labels)[1]
    return np.tensordot(weights, gradients, 1) / mask.sum()


def loreun64(temperature):
    mask, losses = np.asarray(FORGET.mask), linear64(FORGET)[0]
    raw = mask * np.exp(-losses / temperature)
    return mask.sum() * raw / raw.sum()


def moved(state):
    return np.asarray(W, np.float64) - np.asarray(state.params, np.float64)


def test_finetune_step():
    state, info = one_step(methods.finetune(LINEAR, SGD))
    close(moved(state), mean64(RETAIN), scale=3)
    mask = np.asarray(RETAIN.mask)
    close(info.retain_loss, linear64(RETAIN)[0][mask].mean(), scale=3)
    assert info.forget_loss == 0
    assert info.weights is None
    assert info.index is None
    assert info.task_losses is None
    assert state.step == 1


def test_gradient_ascent_step_with_weights():
    alg = methods.gradient_ascent(
        LINEAR, SGD, weighting=ju.weights.loreun(temperature=0.5)
    )
    state, info = one_step(alg)
    weights = loreun64(0.5)
    close(moved(state), -mean64(FORGET, weights), scale=3)
    close(info.weights, weights, scale=5)
    losses, mask = linear64(FORGET)[0], np.asarray(FORGET.mask)
    close(info.task_losses, losses, scale=3)
    close(info.forget_loss, -losses[mask].mean(), scale=3)  # unweighted
    np.testing.assert_array_equal(info.index, [0, 1, -1, 3, 4, -1])  # −1: padding
    np.testing.assert_allclose(info.update_norm, np.linalg.norm(moved(state)), 1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_neggrad_plus_step(alpha):
    state, info = one_step(methods.neggrad_plus(LINEAR, SGD, alpha=alpha))
    expected = alpha * mean64(RETAIN) - (1 - alpha) * mean64(FORGET)
    close(moved(state), expected, scale=3)
    forget, retain = -mean64(FORGET).ravel(), mean64(RETAIN).ravel()
    cosine = forget @ retain / np.linalg.norm(forget) / np.linalg.norm(retain)
    close(info.conflict, cosine, scale=3)


def random_labels():
    """Return the fixed random labels of the forget batch."""
    objective = objectives.random_label(LINEAR, num_classes=CLASSES)
    losses, aux = jax.jit(objective.__call__)(W, (), FORGET, KEY)
    table = -np.log(softmax64(aux.outputs))
    return np.abs(table - np.asarray(losses)[:, None]).argmin(1)


def test_random_label_step_separate_and_merged():
    weighting = ju.weights.loreun(temperature=0.5)
    forget = mean64(FORGET, loreun64(0.5), random_labels())
    options = dict(num_classes=CLASSES, weighting=weighting)
    state, info = one_step(methods.random_label(LINEAR, SGD, **options))
    close(moved(state), forget + mean64(RETAIN), scale=3)
    merged, other = one_step(
        methods.random_label(LINEAR, SGD, forward="merged", **options)
    )
    n_f, n_r = 4, 7  # counted samples: one mean over all of them
    expected = (n_f * forget + n_r * mean64(RETAIN)) / (n_f + n_r)
    close(moved(merged), expected, scale=3)
    for name in ("forget_loss", "retain_loss", "weights", "task_losses"):
        np.testing.assert_allclose(
            getattr(info, name), getattr(other, name), rtol=1e-5, err_msg=name
        )


def test_transport_step():
    rng = np.random.default_rng(5)
    targets = softmax64(rng.normal(size=(SIZE, CLASSES)))
    alg = methods.endpoint_transport(LINEAR, SGD, targets=jnp.float32(targets))
    state, _ = one_step(alg)
    x = np.asarray(FORGET.inputs, np.float64)
    error = softmax64(x @ np.asarray(W, np.float64)) - targets
    mask = np.asarray(FORGET.mask)
    forget = np.einsum("bi,bk->ik", x[mask], error[mask]) / mask.sum()
    close(moved(state), forget + mean64(RETAIN), scale=3)


def test_l1_sparse_step_and_fade():
    alg = methods.l1_sparse(LINEAR, SGD, penalty=0.5, steps=4)
    state = alg.init(W, ())
    zero = RETAIN._replace(mask=jnp.zeros(9, bool))  # no data: the penalty alone
    step = jax.jit(alg.step)
    for gamma in (0.5, 0.375, 0.25, 0.125, 0.0, 0.0):
        before = state.params
        state, _ = step(state, ju.UnlearnBatch(retain=zero), KEY)
        close(before - state.params, gamma * np.sign(before))


def test_harmonizer_joins_the_two_gradients():
    forget, retain = -mean64(FORGET).ravel(), mean64(RETAIN).ravel()
    # turn the forget gradient against the retain gradient by hand
    alg = methods.assemble(
        LINEAR,
        SGD,
        forget=objectives.ascent(LINEAR),
        retain=objectives.ascent(LINEAR),
        harmonizer=ju.harmonize.one_way(),
    )
    same = ju.UnlearnBatch(FORGET, FORGET)
    state, info = one_step(alg, same)
    close(moved(state).ravel(), 2 * forget, scale=3)  # no conflict with itself
    np.testing.assert_allclose(info.conflict, 1, rtol=1e-5)
    opposed = methods.assemble(
        LINEAR,
        SGD,
        forget=objectives.ascent(LINEAR),
        retain=objectives.descent(LINEAR),
        harmonizer=ju.harmonize.one_way(),
    )
    state, info = one_step(opposed, same)  # exactly opposed: only retain is left
    close(moved(state).ravel(), -forget, scale=3)
    np.testing.assert_allclose(info.conflict, -1, rtol=1e-5)
    state, info = one_step(opposed)
    dot = forget @ retain
    if dot < 0:
        forget = forget - dot / (retain @ retain) * retain
    close(moved(state).ravel(), forget + retain, scale=5)


def test_neggrad_plus_harmonizes_the_scaled_gradients():
    seen = []

    def spy(g_forget, g_retain):
        seen.append((g_forget, g_retain))
        return g_retain

    alg = methods.neggrad_plus(LINEAR, SGD, alpha=0.75, harmonizer=spy)

    def given(state):
        alg.step(state, BOTH, KEY)
        return seen.pop()

    g_forget, g_retain = jax.jit(given)(alg.init(W, ()))
    close(g_forget, -0.25 * mean64(FORGET), scale=3)
    close(g_retain, 0.75 * mean64(RETAIN), scale=3)


@pytest.mark.parametrize("present", ["forget", "retain"])
def test_phases_use_the_batch_they_get(present):
    alg = methods.random_label(LINEAR, SGD, num_classes=CLASSES)
    only = ju.UnlearnBatch(**{present: getattr(BOTH, present)})
    state, info = one_step(alg, only)
    forget = mean64(FORGET, None, random_labels())
    close(moved(state), forget if present == "forget" else mean64(RETAIN), scale=3)
    assert info.conflict == 0
    assert (info.weights is None) == (present == "retain")
    with pytest.raises(InputError, match="no batch for any of its losses"):
        alg.step(alg.init(W, ()), ju.UnlearnBatch(), KEY)


def test_nobody_counts_nobody_moves():
    nobody = ju.UnlearnBatch(
        FORGET._replace(mask=jnp.zeros(SIZE, bool)),
        RETAIN._replace(mask=jnp.zeros(9, bool)),
    )
    for forward in ("separate", "merged"):
        alg = methods.random_label(LINEAR, SGD, num_classes=CLASSES, forward=forward)
        state, info = one_step(alg, nobody)
        np.testing.assert_array_equal(state.params, W)
        assert info.forget_loss == info.retain_loss == 0


# --- BatchNorm -----------------------------------------------------------------------

NET = batchnorm_net(CLASSES)
PARAMS, STATE = jax.jit(NET.init)(jax.random.key(0), jnp.zeros((1, 4)))
STATE = {"mean": STATE["mean"] + 0.25, "var": STATE["var"] + 0.5}
PLAIN = ju.UnlearnBatch(batch(0, SIZE), batch(1, 9, first_index=SIZE))


def forward64(inputs, statistics):
    """Return the logits of `batchnorm_net` normalised with the given statistics."""
    wide = {name: np.asarray(p, np.float64) for name, p in PARAMS.items()}
    hidden = np.asarray(inputs, np.float64) @ wide["w"]
    normal = (hidden - statistics["mean"]) / np.sqrt(statistics["var"] + 1e-3)
    return np.maximum(normal * wide["scale"], 0) @ wide["v"]


def batch_statistics(inputs):
    hidden = np.asarray(inputs, np.float64) @ np.asarray(PARAMS["w"], np.float64)
    return {"mean": hidden.mean(0), "var": hidden.var(0)}


def loss64(samples, statistics):
    probs = softmax64(forward64(samples.inputs, statistics))
    return -np.log(probs[np.arange(len(probs)), samples.labels]).mean()


def bn_step(**options):
    alg = methods.assemble(
        NET,
        SGD,
        forget=objectives.ascent(NET),
        retain=objectives.descent(NET),
        **options,
    )
    return one_step(alg, PLAIN, PARAMS, STATE)


def check_statistics(state, expected):
    for name, value in expected.items():
        close(state.model_state[name], value, scale=3)


def test_sequential_updates_forget_then_retain():
    state, info = bn_step(model_state="sequential")
    first = next_statistics(STATE, PARAMS, PLAIN.forget.inputs)
    check_statistics(state, next_statistics(first, PARAMS, PLAIN.retain.inputs))
    for part, loss in (
        (PLAIN.forget, -info.forget_loss),
        (PLAIN.retain, info.retain_loss),
    ):
        close(loss, loss64(part, batch_statistics(part.inputs)), scale=3)


def test_retain_updates_with_retain_only():
    state, info = bn_step(model_state="retain")
    check_statistics(state, next_statistics(STATE, PARAMS, PLAIN.retain.inputs))
    close(
        -info.forget_loss,
        loss64(PLAIN.forget, batch_statistics(PLAIN.forget.inputs)),
        scale=3,
    )
    forget_only = ju.UnlearnBatch(PLAIN.forget)
    alg = methods.gradient_ascent(NET, SGD, model_state="retain")
    state, _ = one_step(alg, forget_only, PARAMS, STATE)
    trees_close(state.model_state, STATE, rtol=0, atol=0)


def test_frozen_is_eval_mode_and_changes_nothing():
    state, info = bn_step(model_state="frozen")
    trees_close(state.model_state, STATE, rtol=0, atol=0)
    wide = {name: np.asarray(s, np.float64) for name, s in STATE.items()}
    close(-info.forget_loss, loss64(PLAIN.forget, wide), scale=3)
    close(info.retain_loss, loss64(PLAIN.retain, wide), scale=3)


def test_merged_normalises_both_together():
    state, info = bn_step(forward="merged")
    inputs = np.concatenate([PLAIN.forget.inputs, PLAIN.retain.inputs])
    check_statistics(state, next_statistics(STATE, PARAMS, inputs))
    joint = batch_statistics(inputs)
    close(-info.forget_loss, loss64(PLAIN.forget, joint), scale=3)
    close(info.retain_loss, loss64(PLAIN.retain, joint), scale=3)
    frozen, info = bn_step(forward="merged", model_state="frozen")
    trees_close(frozen.model_state, STATE, rtol=0, atol=0)
    wide = {name: np.asarray(s, np.float64) for name, s in STATE.items()}
    close(-info.forget_loss, loss64(PLAIN.forget, wide), scale=3)


def test_batchnorm_gradients_equal_autodiff_of_the_whole_objective():
    def separate(params):
        def loss(samples, sign):
            outputs, _ = NET.apply(params, STATE, samples.inputs, train=True)
            return sign * jnp.mean(ju.losses.cross_entropy(outputs, samples.labels))

        return loss(PLAIN.forget, -1.0) + loss(PLAIN.retain, 1.0)

    def merged(params):
        inputs = jnp.concatenate([PLAIN.forget.inputs, PLAIN.retain.inputs])
        labels = jnp.concatenate([PLAIN.forget.labels, PLAIN.retain.labels])
        outputs, _ = NET.apply(params, STATE, inputs, train=True)
        sign = jnp.where(jnp.arange(15) < SIZE, -1.0, 1.0)
        return jnp.mean(sign * ju.losses.cross_entropy(outputs, labels))

    for forward, objective in (("separate", separate), ("merged", merged)):
        state, _ = bn_step(forward=forward)
        expected = jax.jit(jax.grad(objective))(PARAMS)
        got = jax.tree.map(lambda old, new: old - new, PARAMS, state.params)
        trees_close(got, expected, rtol=1e-5, atol=2e-6)
    assert MOMENTUM == 0.9


def test_falw_reads_the_reference_in_eval_mode_with_the_current_state():
    reference = batch(2, 12)
    alg = methods.random_label(
        NET,
        SGD,
        num_classes=CLASSES,
        weighting=ju.weights.falw(jnp.array([2, 2, 2]), tau=0.0),
    )
    _, info = one_step(alg, PLAIN._replace(reference=reference), PARAMS, STATE)
    wide = {name: np.asarray(s, np.float64) for name, s in STATE.items()}
    probs = softmax64(forward64(reference.inputs, wide))
    probs = probs[np.arange(12), reference.labels]
    own = softmax64(
        forward64(PLAIN.forget.inputs, batch_statistics(PLAIN.forget.inputs))
    )
    for i, k in enumerate(np.asarray(PLAIN.forget.labels)):
        peers = probs[np.asarray(reference.labels) == k]
        assert len(peers) > 1
        z = (own[i, k] - peers.mean()) / peers.std()
        np.testing.assert_allclose(info.weights[i], 1 + np.tanh(z), atol=2e-5)


# --- contracts -----------------------------------------------------------------------


def test_bad_options():
    ascent, descent = objectives.ascent(LINEAR), objectives.descent(LINEAR)

    def plain(params, model_state, samples, key):
        return descent(params, model_state, samples, key)

    for options, message in (
        ({}, "forget=None, retain=None"),
        ({"forget": ascent, "model_state": "none"}, "model_state='none'"),
        ({"forget": ascent, "forward": "joint"}, "forward='joint'"),
        ({"forget": ascent, "forward": "merged"}, "needs forget and retain"),
        (
            {"forget": ascent, "retain": plain, "forward": "merged"},
            "needs forget and retain",
        ),
        (
            {
                "forget": ascent,
                "retain": descent,
                "forward": "merged",
                "harmonizer": ju.harmonize.add(),
            },
            "no two to join",
        ),
        (
            {
                "forget": ascent,
                "retain": descent,
                "forward": "merged",
                "model_state": "retain",
            },
            "model_state='retain' forbids",
        ),
    ):
        with pytest.raises(InputError, match=message):
            methods.assemble(LINEAR, SGD, **options)
    with pytest.raises(InputError, match="alpha=1.5"):
        methods.neggrad_plus(LINEAR, SGD, alpha=1.5)
    with pytest.raises(InputError, match="penalty=-1"):
        methods.l1_sparse(LINEAR, SGD, penalty=-1, steps=3)
    with pytest.raises(InputError, match="steps=0"):
        methods.l1_sparse(LINEAR, SGD, steps=0)


def test_any_loss_function_will_do():
    def squares(params, model_state, samples, key):
        losses = jnp.sum(jnp.square(samples.inputs @ params), axis=-1)
        return losses, ju.Aux(None, losses, model_state)

    alg = methods.assemble(
        LINEAR, SGD, forget=squares, weighting=ju.weights.loreun(temperature=1.0)
    )
    state, info = one_step(alg)
    x, w = np.asarray(FORGET.inputs, np.float64), np.asarray(W, np.float64)
    weights = np.asarray(info.weights, np.float64)
    expected = 2 * np.einsum("b,bi,bk->ik", weights, x, x @ w) / 4
    close(moved(state), expected, scale=10)


def test_frozen_holds_for_any_loss_function():
    descent = objectives.descent(NET)  # in train mode, hidden in a plain function

    def loss_fn(params, model_state, samples, key):
        return descent(params, model_state, samples, key)

    for model_state in ("frozen", "sequential"):
        alg = methods.assemble(NET, SGD, retain=loss_fn, model_state=model_state)
        state, _ = one_step(alg, PLAIN, PARAMS, STATE)
        kept = bool(jnp.all(state.model_state["mean"] == STATE["mean"]))
        assert kept == (model_state == "frozen")


def test_init_copies_and_donation_spares_the_caller():
    table = jnp.full((SIZE, CLASSES), 1 / 3)
    mask = jnp.ones((4, CLASSES), bool)
    scores = jnp.zeros(SIZE)
    params = jnp.array(W, copy=True)
    alg = methods.endpoint_transport(
        LINEAR,
        ju.masks.masked(SGD, mask),
        targets=table,
        weighting=ju.weights.loreun_static(scores, temperature=1.0),
    )
    state = alg.init(params, ())
    held = {id(leaf) for leaf in jax.tree.leaves(state)}
    assert len(held) == len(jax.tree.leaves(state))
    step = jax.jit(alg.step, donate_argnums=0)
    for leaf in jax.tree.leaves(step(state, BOTH, KEY)[0]):
        leaf.block_until_ready()
    for mine in (table, mask, scores, params):
        assert not mine.is_deleted()
    again, _ = step(alg.init(params, ()), BOTH, KEY)
    assert again.step == 1


def test_the_step_of_one_unlearner_serves_the_state_of_another():
    rng = np.random.default_rng(0)
    algs = [
        methods.endpoint_transport(
            LINEAR,
            SGD,
            targets=jnp.float32(softmax64(rng.normal(size=(SIZE, CLASSES)))),
            weighting=ju.weights.loreun_static(
                jnp.float32(rng.random(SIZE)), temperature=0.2
            ),
        )
        for _ in range(2)
    ]
    states = [alg.init(W, ()) for alg in algs]
    assert forms(states[0]) == forms(states[1])
    own, _ = jax.jit(algs[1].step)(states[1], BOTH, KEY)
    lent, _ = jax.jit(algs[0].step)(states[1], BOTH, KEY)
    trees_close(lent, own)
    first, _ = jax.jit(algs[0].step)(states[0], BOTH, KEY)
    assert np.abs(first.params - own.params).max() > 1e-3


def test_hyper_parameters_may_be_traced():
    batches = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), BOTH)

    def final(temperature, alpha, rate):
        alg = methods.neggrad_plus(
            LINEAR,
            optax.sgd(rate),
            alpha=alpha,
            weighting=ju.weights.loreun(temperature=temperature),
        )
        state, _ = ju.scan_steps(alg, alg.init(W, ()), batches, KEY)
        return state.params

    def sparse(penalty):
        alg = methods.l1_sparse(LINEAR, SGD, penalty=penalty, steps=3)
        return ju.scan_steps(alg, alg.init(W, ()), batches, KEY)[0].params

    settings = jnp.array([[0.2, 0.5, 0.1], [1.0, 0.9, 0.05]])
    several = jax.jit(jax.vmap(final))(*settings.T)
    for got, setting in zip(several, settings, strict=True):
        trees_close(got, final(*map(float, setting)), rtol=1e-5, atol=1e-6)
    penalties = jnp.array([0.0, 0.3])
    fades = jax.jit(jax.vmap(sparse))(penalties)
    for got, penalty in zip(fades, penalties, strict=True):
        trees_close(got, sparse(float(penalty)), rtol=1e-5, atol=1e-6)


def test_low_precision_parameters_keep_their_dtype():
    half = W.astype(jnp.bfloat16)
    narrow = jax.tree.map(
        lambda x: x.astype(jnp.bfloat16) if x.dtype == jnp.float32 else x, BOTH
    )
    alg = methods.random_label(
        LINEAR,
        optax.sgd(0.1),
        num_classes=CLASSES,
        weighting=ju.weights.loreun(temperature=1.0),
        harmonizer=ju.harmonize.one_way(),
    )
    start = alg.init(half, ())
    state, info = jax.jit(alg.step)(start, narrow, KEY)
    assert forms(state) == forms(start)
    assert state.params.dtype == jnp.bfloat16
    assert info.weights.dtype == info.forget_loss.dtype == jnp.float32
    full, _ = jax.jit(alg.step)(alg.init(W, ()), BOTH, KEY)
    # eight bits of mantissa: 1 % of parameters of size two
    np.testing.assert_allclose(
        state.params.astype(jnp.float32), full.params, atol=2e-2, rtol=1e-2
    )
