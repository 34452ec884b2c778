"""Every weighting, method, harmonizer and framework at least once, paired.

Each pair must stay finite, be traced once, keep the form of its state, and resume; of
each framework one pair must run under scan, and another (whose weights look at the
whole batch) give on eight devices what it gives on one.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from toys import batch, batchnorm_net, forms, relaxed, trees_close

import jax_unlearn as ju
from jax_unlearn import harmonize, membership, methods, objectives, weights

CLASSES, WIDTH, SIZE, STEPS, SAMPLES = 3, 4, 8, 5, 100


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Dense(WIDTH, use_bias=False)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        return nn.Dense(CLASSES)(nn.relu(x))


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(4, WIDTH, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(WIDTH, momentum=0.9, rngs=rngs)
        self.last = nnx.Linear(WIDTH, CLASSES, rngs=rngs)

    def __call__(self, x, *, train):
        x = self.norm(self.first(x), use_running_average=not train)
        return self.last(nnx.relu(x))


class EquinoxNet(eqx.Module):
    first: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    last: eqx.nn.Linear

    def __init__(self, key):
        k1, k2 = jax.random.split(key)
        self.first = eqx.nn.Linear(4, WIDTH, use_bias=False, key=k1)
        self.norm = eqx.nn.BatchNorm(WIDTH, "batch", mode="batch", momentum=0.9)
        self.last = eqx.nn.Linear(WIDTH, CLASSES, key=k2)

    def __call__(self, x, state):
        with jax.numpy_dtype_promotion("standard"):  # equinox: float ** int
            x, state = self.norm(self.first(x), state)
        return self.last(jnp.maximum(x, jnp.zeros_like(x))), state


def haiku_net(x, is_training):
    x = hk.Linear(WIDTH, with_bias=False)(x)
    with jax.numpy_dtype_promotion("standard"):  # haiku: float ** int
        x = hk.BatchNorm(True, True, decay_rate=0.9)(x, is_training)
    return hk.Linear(CLASSES)(jax.nn.relu(x))


FRAMEWORKS = {
    "linen": lambda: ju.from_linen(LinenNet()),
    "nnx": lambda: ju.from_nnx(NnxNet),
    "equinox": lambda: ju.from_equinox(EquinoxNet),
    "haiku": lambda: ju.from_haiku(hk.transform_with_state(haiku_net)),
    "plain": lambda: batchnorm_net(CLASSES, WIDTH),
}


@functools.cache
def variables(framework):
    """Return a model with its parameters and state."""
    model = FRAMEWORKS[framework]()
    return model, *jax.jit(model.init)(jax.random.key(0), jnp.zeros((2, 4)))


@functools.cache
def batches():
    """Return steps with forget, retain and reference samples, one masked."""
    mask = np.arange(SIZE) != 2
    return [
        ju.UnlearnBatch(
            batch(t, SIZE, first_index=SIZE * t, mask=mask),
            batch(t + 50, SIZE, first_index=40),
            batch(t + 90, SIZE),
        )
        for t in range(STEPS)
    ]


def momentum():
    return optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.1, momentum=0.9))


def mask_of(model, params, state):
    loss_fn = objectives.descent(model)._replace(train=False)
    gradient = ju.gradients.mean_gradient(loss_fn)
    grads = gradient(params, state, [batches()[0].forget], jax.random.key(0))
    return ju.masks.gradient_saliency(grads, keep=0.5)


def salun(model, params, state, **options):
    mask = mask_of(model, params, state)
    return methods.salun(model, momentum(), mask=mask, num_classes=CLASSES, **options)


def distilled(model, params, state, **options):
    other = jax.tree.map(lambda p: -p, params)
    return methods.assemble(
        model,
        optax.sgd(0.1),
        forget=objectives.distill(model, other, state, temperature=2.0),
        retain=objectives.distill(model, params, state),
        **options,
    )


def ltu(model, params, state, **options):
    attacks = (membership.logistic(), membership.softmax_mlp(hidden=(4,)))
    learned = {attack.name: attack.init(jax.random.key(0), 3) for attack in attacks}
    learned = jax.tree.map(lambda leaf: leaf + 0.5, learned)  # no score is 0
    return methods.ltu(
        model,
        momentum(),
        num_classes=CLASSES,
        queries=2,
        attacks=attacks,
        attack_params=learned,
        model_state="sequential",
        **options,
    )


COUNTS = np.array([10, 5, 1])
STATS = weights.ClassStats(
    jnp.full(CLASSES, 0.4), jnp.full(CLASSES, 0.2), jnp.full(CLASSES, 9.0)
)
TABLE = jnp.linspace(0.1, 2.0, SAMPLES)
TARGETS = jnp.tile(jnp.array([[0.5, 0.3, 0.2]]), (SAMPLES, 1))


class Pair(NamedTuple):
    framework: str
    make: Callable
    options: dict
    check: str = ""  # "scan" or "devices"


def relabel(optimizer, **fixed):
    return lambda model, params, state, **options: methods.random_label(
        model, optimizer, num_classes=CLASSES, **fixed, **options
    )


PAIRS = {
    "linen, random labels, loreun, one-way": Pair(
        "linen",
        relabel(momentum()),
        dict(
            weighting=weights.loreun(temperature=0.5),
            harmonizer=harmonize.one_way(),
        ),
        "devices",
    ),
    "linen, transport merged, falw every 2": Pair(
        "linen",
        lambda model, params, state, **options: methods.endpoint_transport(
            model, momentum(), targets=TARGETS, forward="merged", **options
        ),
        dict(weighting=weights.falw(COUNTS, estimator=weights.every(2))),
        "scan",
    ),
    "nnx, salun, falw exact, one-way per leaf": Pair(
        "nnx",
        salun,
        dict(
            weighting=weights.falw(COUNTS),
            harmonizer=harmonize.one_way(per_leaf=True),
        ),
        "devices",
    ),
    "nnx, ascent frozen, loreun static": Pair(
        "nnx",
        lambda model, params, state, **options: methods.gradient_ascent(
            model, optax.sgd(0.01), model_state="frozen", **options
        ),
        dict(weighting=weights.loreun_static(TABLE, temperature=1.0, relative=True)),
        "scan",
    ),
    "equinox, neggrad+, sfron, two-way": Pair(
        "equinox",
        lambda model, params, state, **options: methods.neggrad_plus(
            model, momentum(), alpha=0.9, **options
        ),
        dict(weighting=weights.sfron(0.5), harmonizer=harmonize.two_way()),
        "scan",
    ),
    "equinox, salun merged, loreun x falw anchored": Pair(
        "equinox",
        functools.partial(salun, forward="merged"),
        dict(
            weighting=weights.chain(
                weights.loreun(temperature=1.0),
                weights.falw(COUNTS, estimator=weights.anchored(STATS)),
            )
        ),
        "devices",
    ),
    "haiku, random labels redrawn, falw streaming, forget first": Pair(
        "haiku",
        relabel(relaxed(optax.adam(0.01)), redraw=True, model_state="retain"),
        dict(
            weighting=weights.falw(
                COUNTS, estimator=weights.streaming(decay=0.5), shrinkage=2.0
            ),
            harmonizer=harmonize.one_way("forget"),
        ),
        "devices",
    ),
    "haiku, l1-sparse": Pair(
        "haiku",
        lambda model, params, state: methods.l1_sparse(
            model, momentum(), penalty=1e-3, steps=4
        ),
        {},
        "scan",
    ),
    "plain, salun-soft, scheduled and clipped loreun, add": Pair(
        "plain",
        lambda model, params, state, **options: methods.salun_soft(
            model, momentum(), threshold=1e-4, num_classes=CLASSES, **options
        ),
        dict(
            weighting=weights.schedule(
                weights.clip(weights.loreun(temperature=0.3), 0.2, 3.0),
                optax.linear_schedule(0.0, 1.0, 3),
            ),
            harmonizer=harmonize.add(0.5, 1.0),
        ),
        "scan",
    ),
    "plain, distilled, margin x el2n, two-way per leaf": Pair(
        "plain",
        distilled,
        dict(
            weighting=weights.chain(
                weights.margin(temperature=2.0), weights.el2n(temperature=1.0)
            ),
            harmonizer=harmonize.two_way(per_leaf=True),
        ),
        "devices",
    ),
    "linen, ltu with batch statistics, falw exact": Pair(
        "linen",
        ltu,
        dict(weighting=weights.falw(COUNTS), harmonizer=harmonize.two_way()),
        "devices",
    ),
    "linen, meta-unlearning by own objectives, loreun": Pair(
        "linen",
        lambda model, params, state, **options: methods.meta_unlearn(
            model,
            momentum(),
            relabel=objectives.random_label(model, num_classes=CLASSES),
            remember=objectives.descent(model),
            audits=(objectives.ascent(model), objectives.transport(model, TARGETS)),
            queries=2,
            **options,
        ),
        dict(weighting=weights.loreun(temperature=1.0)),
    ),
    "plain, scrub, loreun, one-way": Pair(
        "plain",
        lambda model, params, state, **options: methods.scrub(
            model,
            momentum(),
            teacher_params=params,
            teacher_state=state,
            **options,
        ),
        dict(weighting=weights.loreun(temperature=1.0), harmonizer=harmonize.one_way()),
    ),
    "plain, DELETE, loreun": Pair(
        "plain",
        lambda model, params, state, **options: methods.delete(
            model, momentum(), teacher_params=params, teacher_state=state, **options
        ),
        dict(weighting=weights.loreun(temperature=1.0)),
    ),
    "plain, AMUN, loreun static": Pair(
        "plain",
        lambda model, params, state, **options: methods.amun(
            model,
            momentum(),
            labels=jnp.arange(SAMPLES, dtype=jnp.int32) % CLASSES,
            **options,
        ),
        dict(weighting=weights.loreun_static(TABLE, temperature=1.0)),
    ),
    "plain, FCS, margin": Pair(
        "plain",
        lambda model, params, state, **options: methods.fcs(
            model,
            momentum(),
            flatten_optimizer=momentum(),
            contrast_optimizer=momentum(),
            **options,
        ),
        dict(weighting=weights.margin(temperature=1.0)),
    ),
    "plain, LoTUS, el2n": Pair(
        "plain",
        lambda model, params, state, **options: methods.lotus(
            model,
            momentum(),
            teacher_params=params,
            teacher_state=state,
            members=batches()[0].forget._replace(mask=None),
            target=0.3,
            every=2,
            **options,
        ),
        dict(weighting=weights.el2n(temperature=1.0)),
    ),
    "plain, ReGUn, margin, bargain": Pair(
        "plain",
        lambda model, params, state, **options: methods.regun(
            model, momentum(), references=TARGETS[:CLASSES], **options
        ),
        dict(weighting=weights.margin(temperature=1.0), harmonizer=harmonize.bargain()),
    ),
    "linen, OrthoGrad, loreun": Pair(
        "linen",
        lambda model, params, state, **options: methods.orthograd(
            model, momentum(), **options
        ),
        dict(weighting=weights.loreun(temperature=1.0)),
    ),
    "linen, certified": Pair(
        "linen",
        lambda model, params, state: methods.certified(
            model,
            momentum(),
            sigma=0.01,
            phase=methods.NoisySteps(3, 1.0, 1.0, 0.1, 0.5),
            fresh_state=state,
        ),
        {},
    ),
    "plain, bad teacher merged, el2n": Pair(
        "plain",
        lambda model, params, state, **options: methods.bad_teacher(
            model,
            momentum(),
            teacher_params=params,
            teacher_state=state,
            incompetent_params=jax.tree.map(lambda p: -p, params),
            incompetent_state=state,
            forward="merged",
            **options,
        ),
        dict(weighting=weights.el2n(temperature=1.0)),
    ),
    "plain, sfron frozen, margin": Pair(
        "plain",
        lambda model, params, state, **options: methods.sfron(
            model,
            momentum(),
            mask=mask_of(model, params, state),
            steps=STEPS,
            forget_rate=0.01,
            forget_every=2,
            model_state="frozen",
            **options,
        ),
        dict(weighting=weights.margin(temperature=1.0)),
    ),
    "plain, boundary shrink, loreun static": Pair(
        "plain",
        lambda model, params, state, **options: methods.boundary_shrink(
            model,
            momentum(),
            labels=jnp.arange(SAMPLES, dtype=jnp.int32) % CLASSES,
            **options,
        ),
        dict(weighting=weights.loreun_static(TABLE, temperature=1.0)),
    ),
    "plain, boundary expand masked, sfron": Pair(
        "plain",
        lambda model, params, state, **options: methods.boundary_expand(
            model,
            model,  # the logits stand for features
            ju.masks.masked(momentum(), mask_of(model, params, state)),
            head_optimizer=momentum(),
            num_classes=CLASSES,
            width=CLASSES,
            **options,
        ),
        dict(weighting=weights.sfron(0.5)),
    ),
    "plain, amnesiac relabelled, falw exact": Pair(
        "plain",
        lambda model, params, state, **options: methods.amnesiac_relabel(
            model, momentum(), num_classes=CLASSES, **options
        ),
        dict(weighting=weights.falw(COUNTS)),
    ),
    "plain, reset transport, loreun": Pair(
        "plain",
        lambda model, params, state, **options: methods.reset_transport(
            model, momentum(), targets=TARGETS, **options
        ),
        dict(weighting=weights.loreun(temperature=0.5)),
    ),
    "plain, unsir": Pair(
        "plain",
        lambda model, params, state: methods.unsir(model, momentum()),
        {},
    ),
    "plain, finetune": Pair(
        "plain",
        lambda model, params, state: methods.finetune(model, momentum()),
        {},
    ),
}
KEY = jax.random.key(5)


class Looped(NamedTuple):
    alg: ju.Unlearner
    start: ju.UnlearnState
    states: list
    infos: list
    traces: list


@functools.cache
def looped(name):
    """Return a pair's unlearner and its states step by step, traces counted."""
    pair = PAIRS[name]
    model, params, state = variables(pair.framework)
    plain = pair.make(model, params, state, **pair.options)
    traces = []

    def step(state, batches, key):
        traces.append(1)
        return plain.step(state, batches, key)

    alg = ju.Unlearner(plain.init, step)
    states, infos = [], []

    def keep(done, state, info):
        states.append(jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), state))
        infos.append(info)

    start = alg.init(params, state)
    ju.run(alg, start, batches(), KEY, callback=keep, scan=1)
    # resumed from a state that a step made, not from init
    resumed = ju.run(alg, states[1], batches()[2:], KEY, scan=1)
    count = len(traces)
    trees_close(resumed, states[-1], rtol=0, atol=0)
    return Looped(alg, start, states, infos, count)


def checked(kind):
    return [name for name, pair in PAIRS.items() if pair.check == kind]


def finite(tree):
    return all(
        bool(jnp.all(jnp.isfinite(leaf)))
        for leaf in jax.tree.leaves(tree)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    )


@pytest.mark.parametrize("name", PAIRS)
def test_finite_moving_traced_once_and_resumable(name):
    pair = looped(name)
    assert pair.traces == 1
    assert len(pair.states) == STEPS
    for state in pair.states:
        assert finite(state)
        assert forms(state) == forms(pair.start)
    assert finite(pair.infos)
    assert pair.states[-1].step == STEPS
    first, last = (jax.tree.leaves(s.params) for s in (pair.start, pair.states[-1]))
    assert any(bool(jnp.any(a != b)) for a, b in zip(first, last, strict=True))
    for info in pair.infos:
        if info.weights is not None:
            assert info.weights.shape == (SIZE,)
            assert info.weights[2] == 0  # the masked sample
            assert bool(jnp.all(info.weights >= 0))


@pytest.mark.parametrize("name", checked("scan"))
def test_scan_is_the_loop(name):
    pair = looped(name)
    # other programs: rounding, amplified by a few steps
    chunked = ju.run(pair.alg, pair.start, batches(), KEY, scan=4)
    trees_close(chunked, pair.states[-1], rtol=1e-4, atol=1e-5)


def test_scan_steps_is_the_loop():
    pair = looped(next(iter(PAIRS)))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches())
    state, infos = jax.jit(lambda state: ju.scan_steps(pair.alg, state, stacked, KEY))(
        pair.start
    )
    trees_close(state, pair.states[-1], rtol=1e-4, atol=1e-5)
    several = jax.tree.map(lambda *leaves: jnp.stack(leaves), *pair.infos)
    trees_close(infos, several, rtol=1e-4, atol=1e-5)


def sharded():
    mesh = Mesh(np.array(jax.devices()), ("data",))
    return (
        NamedSharding(mesh, PartitionSpec()),
        NamedSharding(mesh, PartitionSpec("data")),
    )


@pytest.mark.parametrize("name", checked("devices"))
def test_eight_devices_are_one(name):
    pair = looped(name)
    replicated, split = sharded()
    assert len(split.device_set) == 8
    state = jax.device_put(pair.start, replicated)
    spread = jax.device_put(batches()[:2], split)
    state = ju.run(pair.alg, state, spread, KEY, scan=1)
    for leaf in jax.tree.leaves(state.params):
        assert len(leaf.sharding.device_set) == 8
        assert leaf.sharding.is_fully_replicated
    # sums over devices in another order
    trees_close(state, pair.states[1], rtol=1e-4, atol=1e-5)


def test_the_eight_devices_did_share_the_work():
    replicated, split = sharded()
    pair = looped(next(iter(PAIRS)))
    lowered = jax.jit(pair.alg.step).lower(
        jax.device_put(pair.start, replicated),
        jax.device_put(batches()[0], split),
        KEY,
    )
    program = lowered.compile().as_text()
    assert "all-reduce" in program
    # nowhere a whole batch of inputs: each device has one of the eight samples
    assert f"f32[{SIZE},4]" not in program


def test_the_matrix_covers_what_the_packages_export():
    for kind in ("scan", "devices"):
        assert {PAIRS[name].framework for name in checked(kind)} == set(FRAMEWORKS)
    text = Path(__file__).read_text()
    for package, left_out in (
        (
            methods,
            {
                "assemble",
                "class_matched_error",
                "l1_penalty",
                "partial_reset",
                "rewind",
                "sfron_strength",
                "unsir_noise",
                "off_span",
                *("Guarantee", "guarantee_of", "noise_scale", "noisy_steps"),
                *("renyi_of", "renyi_rate", "memorised_parts", "rum"),
                # siss, erasediff: of diffusion
                *("siss", "subtract", "lotus_temperature", "erasediff", "constrained"),
                *("auto", "shrinkage", "pdu", "multiplier"),  # pdu: of texts
                *("insensitive", "reinitialised", "slowed", "transposed_kernels"),
            },
        ),
        (
            weights,
            {
                "ClassStats",
                "Estimator",
                "Softmin",
                "by_score",
                "by_table",
                "class_balance",
                "class_stats",
                "confidence",
                "exact",
                "falw_weights",
                "gradient_norms",
                "loreun_weights",
                "sfron_weights",
                "shrink",
                "softmin_weights",
                # of texts: test_language_objectives.py
                *("by_length", "loreun_tokens", "npo", "npo_weights"),
                *("satimp", "simnpo", "wga", "TokenWeight"),
                "stateless",
                "uniform",
            },
        ),
    ):
        functions = {
            name
            for name, value in vars(package).items()
            if callable(value) and not name.startswith("_")
        }
        for name in functions - left_out:
            assert f"{name}(" in text, f"{package.__name__}.{name}"
