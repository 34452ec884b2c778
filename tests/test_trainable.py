"""A frozen part, integers and frozen statistics: no method touches or holds them."""

import functools

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from toys import batch, relaxed

import jax_unlearn as ju
from jax_unlearn import membership, methods, objectives, oneshot
from jax_unlearn.errors import InputError
from jax_unlearn.methods.accountant import NoisySteps

CLASSES, KEY = 3, jax.random.key(0)
FORGET, RETAIN, UNSEEN = (batch(n, 8, first_index=8 * n) for n in range(3))
STEP = ju.UnlearnBatch(FORGET, RETAIN, UNSEEN)
SAMPLES = 24


class Net(nn.Module):
    """A body, BatchNorm frozen by its constructor and not, a head, a counter."""

    features: bool = False

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(6, name="body")(x)
        x = nn.BatchNorm(use_running_average=True, name="fixed")(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x)
        self.param("count", lambda key: jnp.int32(2**30 + 1))
        hidden = nn.tanh(x)
        logits = nn.Dense(CLASSES, name="head")(hidden)
        return hidden if self.features else logits


WHICH = "head|norm|count"
MODEL = ju.from_linen(Net(), trainable=WHICH)
FEATURES = ju.from_linen(Net(features=True), trainable=WHICH)
LOSS = objectives.descent(MODEL)._replace(train=False)


def _noise(params, state, inputs, *, train, key=None):
    logits, state = MODEL.apply(params, state, inputs[0], train=train, key=key)
    return jnp.resize(logits, inputs[0].shape), state


DENOISER = MODEL._replace(apply=_noise)


@functools.cache
def original():
    """Return the whole variables and the divided ones."""
    params, state = ju.from_linen(Net()).init(KEY, FORGET.inputs)
    moved = jax.tree.map(lambda leaf: leaf + 0.25 if leaf.ndim else leaf, state)
    return (params, moved), ju.variables_of(
        {"params": params, **moved}, trainable=WHICH
    )


def pointers(model_state):
    return [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(model_state[0])]


def assert_kept(params, model_state, *, moves=True):
    """Check what is frozen by bits and by place, integers, statistics."""
    (whole, statistics), (part, state) = original()
    assert jax.tree.structure((params, model_state)) == (
        jax.tree.structure((part, state))
    )
    assert pointers(model_state) == pointers(state)
    found, after = ju.whole_variables(params, model_state)
    assert jax.tree.structure(found) == jax.tree.structure(whole)
    for name in ("body", "fixed", "count"):
        jax.tree.map(np.testing.assert_array_equal, found[name], whole[name])
    assert found["count"].dtype == jnp.int32
    fixed = [tree["batch_stats"]["fixed"] for tree in (after, statistics)]
    jax.tree.map(np.testing.assert_array_equal, *fixed)
    assert bool((found["head"]["kernel"] != whole["head"]["kernel"]).any()) == moves
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def momentum():
    return optax.chain(optax.add_decayed_weights(1e-2), optax.sgd(0.1, momentum=0.9))


@functools.cache
def fisher(which):
    part, state = original()[1]
    batches = {"forget": [FORGET], "all": [FORGET, RETAIN]}[which]
    return oneshot.fisher_information(LOSS)(part, state, batches, KEY)


@functools.cache
def saliency():
    part, state = original()[1]
    gradients = ju.gradients.mean_gradient(LOSS)(part, state, [FORGET], KEY)
    return ju.masks.gradient_saliency(gradients, keep=0.5)


def attacked():
    attacks = membership.logistic(), membership.softmax_mlp(hidden=(4,))
    learned = {a.name: a.init(KEY, CLASSES) for a in attacks}
    learned = jax.tree.map(lambda leaf: leaf + 0.5, learned)
    return {"queries": 2, "attacks": attacks, "attack_params": learned}


def teachers():
    part, state = original()[1]
    return {"teacher_params": part, "teacher_state": state}


TABLE = jnp.arange(SAMPLES, dtype=jnp.int32) % CLASSES
TARGETS = jnp.tile(jnp.array([[0.5, 0.3, 0.2]]), (SAMPLES, 1))
TOLD = {"num_classes": CLASSES}

METHODS = {
    "finetune": lambda: methods.finetune(MODEL, momentum()),
    "finetune, adamw": lambda: methods.finetune(MODEL, relaxed(optax.adamw(0.1))),
    "finetune, average": lambda: methods.finetune(
        MODEL, optax.chain(momentum(), ju.diffusion.ema_params(0.9))
    ),
    "gradient_ascent": lambda: methods.gradient_ascent(MODEL, momentum()),
    "orthograd": lambda: methods.orthograd(MODEL, momentum()),
    "certified": lambda: methods.certified(
        MODEL,
        momentum(),
        sigma=0.1,
        phase=NoisySteps(2, model_clip=50.0, gradient_clip=0.3, rate=0.2, decay=0.5),
        fresh_state=original()[1][1],
    ),
    "neggrad_plus": lambda: methods.neggrad_plus(MODEL, momentum()),
    "l1_sparse": lambda: methods.l1_sparse(MODEL, momentum(), penalty=0.1, steps=4),
    "random_label": lambda: methods.random_label(MODEL, momentum(), **TOLD),
    "random_label, merged, falw": lambda: methods.random_label(
        MODEL,
        momentum(),
        forward="merged",
        weighting=ju.weights.falw(np.array([3, 3, 2])),
        **TOLD,
    ),
    "random_label, one-way, retain": lambda: methods.random_label(
        MODEL,
        momentum(),
        harmonizer=ju.harmonize.one_way(per_leaf=True),
        model_state="retain",
        **TOLD,
    ),
    "salun": lambda: methods.salun(MODEL, momentum(), mask=saliency(), **TOLD),
    "salun_soft": lambda: methods.salun_soft(MODEL, momentum(), threshold=1e-4, **TOLD),
    "amnesiac_relabel": lambda: methods.amnesiac_relabel(MODEL, momentum(), **TOLD),
    "endpoint_transport": lambda: methods.endpoint_transport(
        MODEL, momentum(), targets=TARGETS
    ),
    "reset_transport": lambda: methods.reset_transport(
        MODEL, momentum(), targets=TARGETS
    ),
    "boundary_shrink": lambda: methods.boundary_shrink(MODEL, momentum(), labels=TABLE),
    "boundary_expand": lambda: methods.boundary_expand(
        MODEL, FEATURES, momentum(), head_optimizer=optax.sgd(0.1), width=6, **TOLD
    ),
    "sfron": lambda: methods.sfron(
        MODEL,
        momentum(),
        mask=ju.masks.fisher_ratio(fisher("forget"), fisher("all")),
        steps=4,
        forget_every=2,
    ),
    "scrub": lambda: methods.scrub(MODEL, momentum(), **teachers()),
    "bad_teacher": lambda: methods.bad_teacher(
        MODEL,
        momentum(),
        incompetent_params=original()[1][0],
        incompetent_state=original()[1][1],
        **teachers(),
    ),
    "delete": lambda: methods.delete(MODEL, momentum(), **teachers()),
    "regun": lambda: methods.regun(
        MODEL, momentum(), references=jnp.full((CLASSES, CLASSES), 1 / 3)
    ),
    "amun": lambda: methods.amun(MODEL, momentum(), labels=TABLE),
    "fcs": lambda: methods.fcs(
        MODEL,
        momentum(),
        flatten_optimizer=momentum(),
        contrast_optimizer=momentum(),
    ),
    "lotus": lambda: methods.lotus(
        MODEL,
        momentum(),
        members=FORGET._replace(mask=None),
        target=0.0,
        every=2,
        **teachers(),
    ),
    "siss": lambda: methods.siss(DENOISER, momentum(), process=ju.diffusion.cosine(9)),
    "erasediff": lambda: methods.erasediff(
        DENOISER, momentum(), process=ju.diffusion.cosine(9)
    ),
    "unsir": lambda: methods.unsir(MODEL, momentum()),
    "pdu": lambda: methods.pdu(
        MODEL,
        momentum(),
        forget=ju.objectives.ascent(MODEL),
        retain=ju.objectives.descent(MODEL),
    ),
    "ltu": lambda: methods.ltu(MODEL, momentum(), **TOLD, **attacked()),
    "ltu, sequential": lambda: methods.ltu(
        MODEL, momentum(), model_state="sequential", **TOLD, **attacked()
    ),
}


def test_every_method_is_tried():
    tried = {name.split(",")[0] for name in METHODS}
    factories = {
        name
        for name, value in vars(methods).items()
        if callable(value) and name in methods.__dict__ and name.islower()
    }
    functions = {"assemble", "l1_penalty", "partial_reset", "unsir_noise", "rewind"}
    functions |= {"lotus_temperature", "off_span", "memorised_parts", "rum"}
    functions |= {"guarantee_of", "noise_scale", "noisy_steps", "renyi_of"}
    functions |= {"renyi_rate", "subtract", "auto", "multiplier", "shrinkage"}
    functions |= {"constrained"}
    functions |= {"class_matched_error", "meta_unlearn", "sfron_strength"}
    functions |= {"insensitive", "reinitialised", "slowed", "transposed_kernels"}
    assert factories - functions <= tried, factories - functions - tried


@pytest.mark.parametrize("name", METHODS)
def test_no_method_touches_what_is_frozen(name):
    alg, (part, state) = METHODS[name](), original()[1]
    start = alg.init(part, state)
    assert pointers(start.model_state) == pointers(state)
    after = ju.run(alg, start, [STEP] * 2, KEY)
    assert_kept(after.params, after.model_state)
    moved = jax.tree.leaves(after.opt_state)
    assert 24 not in {leaf.size for leaf in moved}  # no moments of the body
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((part, state)))


def test_no_one_shot_function_touches_what_is_frozen():
    part, state = original()[1]
    sets = {"forget": [FORGET], "retain": [RETAIN], "key": KEY}
    alg = methods.finetune(MODEL, optax.sgd(0.1))
    log = oneshot.UpdateLog(start := alg.init(part, state), [STEP] * 2)
    ju.run(alg, start, [STEP] * 2, KEY, callback=log)
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), FORGET, RETAIN)
    path_of = functools.partial(oneshot.gradient_path, LOSS, rates=[0.1] * 4)
    trained, path = path_of(part, both, model_state=state)
    replay = oneshot.deltagrad(LOSS, burn_in=2)
    fresh = MODEL.init(jax.random.key(7), FORGET.inputs)[0]
    some = methods.insensitive(fisher("forget"), share=0.5)
    made = {
        "fisher": oneshot.fisher_noise(part, fisher("all"), KEY),
        "ssd": oneshot.ssd(part, fisher("all"), fisher("forget"), alpha=0.5),
        "influence": oneshot.influence(LOSS, part, state, **sets),
        "exact": oneshot.influence(LOSS, part, state, form="exact", **sets),
        "amnesiac": oneshot.amnesiac(part, log.updates, [True, False]),
        "deltagrad": replay(trained, path, both, [1], model_state=state)[0],
        "reset": methods.partial_reset(part, fresh),
        "kernels": methods.reinitialised(part, some, KEY),
    }
    for after in made.values():
        assert_kept(after, state)


@pytest.mark.parametrize("scan", [1, 2])
def test_drivers_hold_what_is_frozen_once(scan):
    alg, (part, state) = METHODS["finetune"](), original()[1]
    seen = []

    def callback(done, state, info):
        seen.append(pointers(state.model_state))

    start = alg.init(part, state)
    told = {"callback": callback, "scan": scan}
    after = ju.run(alg, start, [STEP] * 4, KEY, **told)
    assert_kept(after.params, after.model_state)
    assert set(map(tuple, seen)) == {tuple(pointers(state))}
    stacked = ju.stack([STEP] * 4)
    scanned, _ = jax.jit(functools.partial(ju.scan_steps, alg))(start, stacked, KEY)
    np.testing.assert_allclose(
        scanned.params["head"]["kernel"], after.params["head"]["kernel"], rtol=1e-4
    )


def test_programs_neither_grow_with_a_frozen_body_nor_differentiate_it():
    def program(width):
        def apply(params, x):
            hidden = x
            for layer in params["body"]:
                hidden = jnp.tanh(hidden @ layer)
            return hidden[:, :4] @ params["head"]

        whole = ju.from_stateless(lambda key, x: None, apply)
        body = [jnp.ones((4, width)), jnp.ones((width, width))]
        params = {"body": body, "head": jnp.ones((4, CLASSES))}
        model, params, state = ju.trainable(whole, params, (), "head")
        alg = methods.finetune(model, optax.sgd(0.1))
        start = alg.init(params, state)
        lowered = jax.jit(alg.step).lower(start, STEP, KEY)
        text = lowered.as_text()
        assert text.count("dot_general") == 4  # three forward, one back: the head's
        loss = objectives.descent(model)._replace(train=False)
        gradient = jax.jit(jax.grad(lambda p: loss(p, state, FORGET, KEY)[0].sum()))
        assert len(jax.tree.leaves(gradient(params))) == 1
        return len(text)

    assert program(512) < program(64) + 500


def test_influence_and_fisher_bake_nothing_in():
    part, state = original()[1]
    from jax_unlearn.oneshot.influence import _jacobian

    along, back = _jacobian(LOSS, part, state)
    for function in (along, back):
        assert len(jax.tree.leaves(function.args)) == len(
            jax.tree.leaves((part, state))
        )


def test_series_resume_beside_the_same_frozen_part_alone(tmp_path):
    alg, (part, state) = METHODS["finetune"](), original()[1]
    start = alg.init(part, state)
    series = ju.Series(tmp_path / "run", {"seed": 0}, seconds=0)
    ju.run(alg, start, [STEP] * 2, KEY, callback=series.callback)
    found = ju.Series(tmp_path / "run", {"seed": 0}).latest(alg.init(part, state))
    assert pointers(found.model_state) == pointers(state)
    resumed = ju.run(alg, found, [STEP] * 2, KEY)
    whole = ju.run(alg, start, [STEP] * 4, KEY)
    jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)
    assert_kept(resumed.params, resumed.model_state)

    other = jax.tree.map(lambda leaf: leaf + 1, state.frozen)
    changed = alg.init(part, state._replace(frozen=other))
    with pytest.raises(InputError, match="with other frozen parameters"):
        ju.Series(tmp_path / "run", {"seed": 0}).latest(changed)


def test_guards_ensembles_checkpoints_and_programs_of_ones_own(tmp_path):
    alg, (part, state) = METHODS["finetune"](), original()[1]
    start = alg.init(part, state)
    guard = ju.guards.finite_guard(roll_back=start, every=1)
    after = ju.run(alg, start, [STEP] * 2, KEY, callback=guard)
    assert pointers(guard.good.model_state) == pointers(state)
    guard.restore(guard.arrays())
    assert_kept(guard.good.params, guard.good.model_state)

    ju.checkpoint.save(tmp_path / "model", (after.params, after.model_state), {})
    loaded = ju.checkpoint.load(tmp_path / "model", (part, state))
    jax.tree.map(np.testing.assert_array_equal, loaded[0], after.params)
    jax.tree.map(np.testing.assert_array_equal, loaded[1], after.model_state)

    states = ju.stack([start] * 2)
    keys = jax.random.split(KEY, 2)
    many = ju.run_ensemble(alg, states, [[STEP] * 2] * 2, keys, how="vmap")
    for leaf in jax.tree.leaves(states):
        assert not leaf.is_deleted()
    for each in ju.unstack((many.params, many.model_state)):
        jax.tree.map(np.testing.assert_array_equal, each[1].frozen, state.frozen)
        assert (each[0]["head"]["kernel"] != part["head"]["kernel"]).any()


def test_precision_and_parts_of_batches_keep_what_is_frozen():
    part, state = original()[1]
    low = ju.memory.cast(MODEL)
    with jax.numpy_dtype_promotion("standard"):  # linen: bfloat16 - float32
        outputs, after = low.apply(part, state, FORGET.inputs, train=True)
    assert pointers(after) == pointers(state)
    plain = MODEL.apply(part, state, FORGET.inputs, train=True)[0]
    assert 0 < np.abs(outputs - plain).max() < 0.1
    params = {"body": jnp.eye(4), "head": jnp.ones((4, 3))}
    stateless = ju.from_stateless(
        lambda key, x: None, lambda p, x: x @ p["body"] @ p["head"]
    )
    model, params, state = ju.trainable(stateless, params, (), "head")
    small = ju.memory.microbatched(model, 2)
    after = small.apply(params, state, FORGET.inputs, train=True)[1]
    assert pointers(after) == pointers(state)


# Which leaves: filters


PARAMS = {
    "body": {"kernel": jnp.ones((2, 2)), "bias": jnp.zeros(2)},
    "head": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)},
}
CHOICES = {
    "pattern": "head",
    "function of the path": lambda path: path.startswith("head/"),
    "function of path and leaf": lambda path, leaf: leaf.shape[-1] == 3,
    "bools": jax.tree.map(lambda leaf: leaf.shape[-1] == 3, PARAMS),
    "bools of NumPy": {"body": np.False_, "head": np.True_},
    "prefix": {"body": False, "head": {"kernel": True, "bias": True}},
}


@pytest.mark.parametrize("which", CHOICES.values(), ids=CHOICES)
def test_leaves_are_chosen_by(which):
    def apply(params, x):
        return x @ params["body"]["kernel"] @ params["head"]["kernel"]

    plain = ju.from_stateless(lambda key, x: PARAMS, apply)
    model, params, state = ju.trainable(plain, PARAMS, (), which)
    assert params["body"] == {"kernel": None, "bias": None}
    assert params["head"] == PARAMS["head"]
    assert state.frozen.tree["body"]["kernel"] is PARAMS["body"]["kernel"]
    assert ju.whole_variables(params, state) == (PARAMS, ())
    outputs, after = model.apply(params, state, jnp.ones((1, 2)), train=False)
    np.testing.assert_array_equal(outputs, apply(PARAMS, jnp.ones((1, 2))))
    assert after == state


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("haed", r"'haed' leaves none of the 4 parameters.*'head/"),
        ("hea(d", "no regular expression"),
        (lambda path: False, "leaves none of the 4"),
        ({"body": True}, "no tree of bools like the parameters"),
        ({"body": 1.0, "head": True}, "has 1.0 for 'body/bias'"),
    ],
)
def test_choices_that_cannot_be_are_refused(which, message):
    plain = ju.from_stateless(lambda key, x: PARAMS, lambda p, x: x)
    with pytest.raises(InputError, match=message):
        ju.trainable(plain, PARAMS, (), which)


def test_whole_parameters_for_a_model_in_part_are_refused():
    (whole, statistics), (part, state) = original()
    for wrong in [(whole, statistics), (whole, state), (part, statistics)]:
        with pytest.raises(InputError, match="its parameters are not divided"):
            MODEL.apply(*wrong, FORGET.inputs, train=False)


class Low(nnx.Module):
    """A layer with a low-rank part, which alone is trained."""

    def __init__(self, rngs):
        self.body = nnx.Linear(4, 6, rngs=rngs)
        self.head = nnx.LoRALinear(6, CLASSES, lora_rank=2, rngs=rngs)

    def __call__(self, x):
        return self.head(jnp.tanh(self.body(x)))


@pytest.mark.parametrize(
    ("which", "count"),
    [(nnx.LoRAParam, 2), (nnx.PathContains("head"), 4), ("lora", 2), ("bias$", 2)],
)
def test_nnx_filters_choose_variables(which, count):
    network = Low(nnx.Rngs(0))
    params, state = ju.variables_of(network, trainable=which)
    assert len(jax.tree.leaves(params)) == count
    for make in (Low, network):
        model = ju.from_nnx(make, trainable=which)
        alg = methods.finetune(model, optax.sgd(0.1))
        after = ju.run(alg, alg.init(params, state), [STEP], KEY)
        whole, rest = ju.whole_variables(after.params, after.model_state)
        same = jax.tree.map(np.array_equal, whole, ju.variables_of(network)[0])
        assert sum(not equal for equal in jax.tree.leaves(same)) <= count
        nnx.update(Low(nnx.Rngs(1)), whole, rest)


def test_equinox_modules_are_divided():
    network = eqx.nn.MLP(4, CLASSES, 5, 1, key=KEY)
    model = ju.from_equinox(network, trainable=r"layers/1")
    params, state = ju.variables_of(network, trainable=r"layers/1")
    alg = methods.finetune(model, momentum())
    after = ju.run(alg, alg.init(params, state), [STEP] * 2, KEY)
    whole, _ = ju.whole_variables(after.params, after.model_state)
    assert whole.layers[0].weight is network.layers[0].weight
    assert (whole.layers[1].weight != network.layers[1].weight).any()
