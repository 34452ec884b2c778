"""Modes found or named, layers frozen by constructors, modules that are trained."""

import functools

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

import jax_unlearn as ju
from jax_unlearn.errors import InputError

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (8, 4))


def stirs(model, params=None, state=None, x=X):
    """Return whether statistics, and whether outputs, change with train mode."""
    if params is None:
        params, state = model.init(KEY, x)
    before, _ = model.apply(params, state, x, train=False)
    after, new = model.apply(params, state, x, train=True, key=KEY)
    pairs = zip(*map(jax.tree.leaves, (state, new)), strict=True)
    return any(bool((a != b).any()) for a, b in pairs), bool((before != after).any())


def linen_net(flag, inverted, kind="argument", default=None):
    """Return a linen network with BatchNorm and Dropout and a mode of this name."""

    def forward(self, x, value):
        evaluates = value if inverted else not value
        x = nn.BatchNorm(use_running_average=evaluates, momentum=0.9)(nn.Dense(5)(x))
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=evaluates)(x))

    space = {"forward": forward, "nn": nn}
    if kind == "field":
        source = f"def call(self, x):\n    return forward(self, x, self.{flag})"
        extra = {"__annotations__": {flag: bool}, flag: inverted}
    else:
        given = flag if default is None else f"{flag}={default}"
        source = f"def call(self, x, {given}):\n    return forward(self, x, {flag})"
        extra = {}
    exec(source, space)  # a network for each name
    return type("Net", (nn.Module,), {"__call__": nn.compact(space["call"]), **extra})()


FLAGS = {
    "train": False,
    "training": False,
    "is_training": False,
    "deterministic": True,
    "use_running_average": True,
    "inference": True,
}


@pytest.mark.parametrize("kind", ["argument", "default", "field"])
@pytest.mark.parametrize("flag", FLAGS)
def test_linen_modes_are_found_by_name(flag, kind):
    default = str(FLAGS[flag]) if kind == "default" else None
    net = linen_net(flag, FLAGS[flag], kind, default)
    assert stirs(ju.from_linen(net)) == (True, True)


@pytest.mark.parametrize(
    ("flag", "inverted", "told"),
    [
        ("fitting", False, "fitting"),
        ("evaluate", True, "not evaluate"),
        ("deterministic", True, "deterministic"),
        ("training", True, "not training"),  # named for what it is not
    ],
)
@pytest.mark.parametrize("kind", ["argument", "field"])
def test_linen_modes_can_be_named(flag, inverted, told, kind):
    net = linen_net(flag, inverted, kind)
    assert stirs(ju.from_linen(net, train_argument=told)) == (True, True)


@pytest.mark.parametrize("kind", ["default", "field"])
def test_linen_that_would_never_train_is_refused_with_a_remedy_that_works(kind):
    net = linen_net("evaluate", True, kind, "True")
    model = ju.from_linen(net)
    params, state = model.init(KEY, X)
    model.apply(params, state, X, train=False)
    with pytest.raises(InputError, match="would never train.*train_argument='eval"):
        model.apply(params, state, X, train=True, key=KEY)
    alg = ju.methods.finetune(model, optax.sgd(0.1))
    batch = ju.Batch(X, jnp.zeros(8, jnp.int32))
    with pytest.raises(InputError, match="not evaluate"):
        ju.run(alg, alg.init(params, state), [ju.UnlearnBatch(retain=batch)], KEY)
    named = ju.from_linen(net, train_argument="not evaluate")
    assert stirs(named, params, state) == (True, True)
    fixed = ju.from_linen(net, train_argument="")
    assert stirs(fixed, params, state) == (False, False)


def test_wrong_names_and_hidden_arguments_are_refused():
    net = linen_net("train", False)
    with pytest.raises(InputError, match=r"train_argument='trian'.*\(x, train\)"):
        ju.from_linen(net, train_argument="trian").init(KEY, X)

    class Hidden(nn.Module):
        @nn.compact
        def __call__(self, x, **options):
            return nn.Dropout(0.5, deterministic=not options["train"])(x)

    with pytest.raises(InputError, match="name it, such as train_argument='train'"):
        ju.from_linen(Hidden())
    assert stirs(ju.from_linen(Hidden(), train_argument="train")) == (False, True)


def test_linen_that_trains_in_evaluation_is_refused():
    class Always(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.BatchNorm(use_running_average=False)(x)

    model = ju.from_linen(Always())
    params, state = model.init(KEY, X)
    with pytest.raises(InputError, match="'BatchNorm_0' takes the statistics"):
        model.apply(params, state, X, train=False)


def test_linen_streams_and_collections_of_any_name():
    class Streams(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            calls = self.variable("counters", "calls", lambda: jnp.int32(0))
            scale = self.variable("constants", "scale", lambda: jnp.float32(2))
            if train and not self.is_initializing():
                calls.value = calls.value + 1
            x = nn.Dropout(0.5, rng_collection="noise", deterministic=not train)(x)
            x = nn.Dropout(0.5, deterministic=not train)(x)
            return x * scale.value

    model = ju.from_linen(Streams())
    params, state = model.init(KEY, X)
    assert sorted(state) == ["constants", "counters"]
    first, state = model.apply(params, state, X, train=True, key=KEY)
    other, state = model.apply(params, state, X, train=True, key=jax.random.key(5))
    assert int(state["counters"]["calls"]) == 2
    assert (first != other).any()
    kept = np.mean(np.asarray(first) != 0)
    assert 0.1 < kept < 0.45  # two layers of a half, not the same
    told = ju.from_linen(Streams(), rngs=("dropout", "noise"))
    assert stirs(told) == (True, True)
    with pytest.raises(InputError, match="key=None"):
        model.apply(params, state, X, train=True)


# Frozen by the constructor


class FrozenLinen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=True, momentum=0.5)(nn.Dense(5)(x))
        return nn.Dense(3)(x)


class FrozenLinenHalf(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=True, momentum=0.5)(nn.Dense(5)(x))
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=not train)(x))


class FrozenNnx(nnx.Module):
    def __init__(self, rngs, *, frozen=True, rate=0.0):
        self.first = nnx.Linear(4, 5, rngs=rngs)
        self.norm = nnx.BatchNorm(5, use_running_average=frozen, rngs=rngs)
        self.dropout = nnx.Dropout(rate, rngs=rngs)
        self.last = nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, x):
        return self.last(self.dropout(self.norm(self.first(x))))


class FrozenEquinox(eqx.Module):
    norm: eqx.nn.BatchNorm

    def __init__(self, key, *, frozen=True):
        del key
        self.norm = eqx.nn.BatchNorm(4, "batch", mode="batch", inference=frozen)

    def __call__(self, x, state):
        with jax.numpy_dtype_promotion("standard"):  # equinox: float ** int
            return self.norm(x, state)


FROZEN = {
    "linen": lambda: ju.from_linen(FrozenLinen()),
    "linen, dropout": lambda: ju.from_linen(FrozenLinenHalf()),
    "linen layer": lambda: ju.from_linen(nn.BatchNorm(use_running_average=True)),
    "nnx": lambda: ju.from_nnx(FrozenNnx),
    "nnx, dropout": lambda: ju.from_nnx(functools.partial(FrozenNnx, rate=0.5)),
    "nnx module": lambda: ju.from_nnx(FrozenNnx(nnx.Rngs(0), rate=0.5)),
    "equinox": lambda: ju.from_equinox(FrozenEquinox),
}


@pytest.mark.parametrize("name", FROZEN)
def test_batchnorm_frozen_by_its_constructor_stays_frozen(name):
    model = FROZEN[name]()
    if name == "nnx module":
        variables = ju.variables_of(FrozenNnx(nnx.Rngs(0), rate=0.5))
    else:
        variables = model.init(KEY, X)
    moves, differs = stirs(model, *variables)
    assert not moves
    assert differs == ("dropout" in name or name == "nnx module")


def test_the_same_layers_unfrozen_move():
    thawed = functools.partial(FrozenNnx, frozen=False)
    assert stirs(ju.from_nnx(thawed))[0]
    assert stirs(ju.from_equinox(lambda key: FrozenEquinox(key, frozen=False)))[0]
    assert stirs(ju.from_linen(linen_net("train", False)))[0]


# nnx and equinox: what may be given, and what is said of the rest


def test_nnx_takes_a_class_a_partial_a_function_and_a_module():
    made = {
        "class": FrozenNnx,
        "partial": functools.partial(FrozenNnx, rate=0.0),
        "function": lambda r: FrozenNnx(r),
        "keyword": lambda *, rngs: FrozenNnx(rngs),
    }
    expected = ju.from_nnx(FrozenNnx).init(KEY, None)
    for make in made.values():
        found = ju.from_nnx(make).init(KEY, None)
        assert jax.tree.all(jax.tree.map(np.array_equal, found, expected))
    network = FrozenNnx(nnx.Rngs(0), frozen=False)
    model, (params, state) = ju.from_nnx(network), ju.variables_of(network)
    outputs, _ = model.apply(params, state, X, train=False)
    network.eval()
    np.testing.assert_allclose(outputs, network(X), rtol=1e-6)
    with pytest.raises(InputError, match=r"draws no new ones.*ju.variables_of"):
        model.init(KEY, X)


def test_a_module_in_eval_mode_is_refused_and_the_remedy_works():
    network = FrozenNnx(nnx.Rngs(0), frozen=False, rate=0.5)
    network.eval()
    with pytest.raises(InputError, match="all BatchNorm and Dropout layers"):
        ju.from_nnx(network)
    network.train()
    assert stirs(ju.from_nnx(network), *ju.variables_of(network)) == (True, True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: None, "takes no rngs: give a function of rngs"),
        (nnx.Linear, "Linear takes in_features, out_features.*lambda rngs: Linear"),
        (lambda rngs: 3, "makes a int, which is no nnx module"),
        (nn.Dense(3), "give it to from_linen"),
        (3, "make=3 makes no module"),
    ],
)
def test_nnx_says_what_to_give(make, message):
    with pytest.raises(InputError, match=message):
        ju.from_nnx(make).init(KEY, None)


class UnknownNnx(FrozenNnx):
    def __init__(self, rngs):
        super().__init__(rngs, frozen=False)

    def __call__(self, x, fit=False):
        return self.norm(self.first(x), use_running_average=not fit)


def test_nnx_that_would_never_train_is_refused_with_a_remedy_that_works():
    model = ju.from_nnx(UnknownNnx)
    params, state = model.init(KEY, X)
    with pytest.raises(InputError, match="UnknownNnx would never train.*'fit'"):
        model.apply(params, state, X, train=True)
    named = ju.from_nnx(UnknownNnx, train_argument="fit")
    assert stirs(named, params, state)[0]


def test_nnx_layers_without_an_argument_are_switched_beside_one_that_has():
    class Mixed(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.BatchNorm(4, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x, train):
            return self.dropout(self.norm(x, use_running_average=not train))

    assert stirs(ju.from_nnx(Mixed)) == (True, True)  # evaluation needs no key


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (FrozenLinen, "is a class: give a module, FrozenLinen"),
        (nnx.Linear(1, 1, rngs=nnx.Rngs(0)), "Linear is one of nnx: give it to from_n"),
        (3, "type int is no flax.linen module"),
    ],
)
def test_linen_says_what_to_give(module, message):
    with pytest.raises(InputError, match=message):
        ju.from_linen(module)


def test_equinox_takes_modules_and_says_what_to_give():
    network = eqx.nn.MLP(4, 3, 5, 1, key=KEY)
    model, (params, state) = ju.from_equinox(network), ju.variables_of(network)
    outputs, _ = model.apply(params, state, X, train=True)
    np.testing.assert_allclose(outputs, jax.vmap(network)(X), rtol=1e-6)
    with pytest.raises(InputError, match="draws no new ones"):
        model.init(KEY, X)
    pair = eqx.nn.make_with_state(functools.partial(FrozenEquinox, frozen=False))(KEY)
    assert stirs(ju.from_equinox(pair[0]), *ju.variables_of(pair))[0]
    with pytest.raises(InputError, match=r"has state: give both"):
        ju.variables_of(pair[0])
    with pytest.raises(InputError, match="all BatchNorm and Dropout"):
        ju.from_equinox(eqx.nn.inference_mode(pair[0]))
    with pytest.raises(InputError, match="'MLP' cannot be made of a key alone"):
        ju.from_equinox(eqx.nn.MLP).init(KEY, X)
    with pytest.raises(InputError, match="returns a int"):
        ju.from_equinox(lambda key: 3).init(KEY, X)


def test_haiku_that_would_never_train_is_refused_with_a_remedy_that_works():
    def forward(x, fit=True):
        with jax.numpy_dtype_promotion("standard"):  # haiku: float ** int
            return hk.BatchNorm(True, True, decay_rate=0.9)(x, fit)

    def idle(x, evaluate=True):
        return forward(x, not evaluate or hk.running_init())

    told = {"train_argument": "not evaluate"}
    model = ju.from_haiku(hk.transform_with_state(idle))
    params, state = model.init(KEY, X)
    with pytest.raises(InputError, match="haiku function would never.*'evaluate'"):
        model.apply(params, state, X, train=True)
    named = ju.from_haiku(hk.transform_with_state(idle), **told)
    assert stirs(named, params, state)[0]


# The variables of what was trained


def test_variables_of_everything_that_was_trained():
    net = linen_net("train", False)
    variables = net.init({"params": KEY, "dropout": KEY}, X, train=False)
    model = ju.from_linen(net)
    expected = variables["params"], {"batch_stats": variables["batch_stats"]}

    class WithStatistics(TrainState):
        batch_stats: dict

    state = WithStatistics.create(
        apply_fn=net.apply, tx=optax.sgd(0.1), **dict(variables)
    )
    for trained in (variables, state, net.bind(variables)):
        found = ju.variables_of(trained)
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        assert jax.tree.all(jax.tree.map(np.array_equal, found, expected))
        assert stirs(model, *found) == (True, True)
    assert ju.variables_of((expected[0], {})) == (expected[0], {})


@pytest.mark.parametrize(
    ("trained", "message"),
    [
        (FrozenLinen(), "FrozenLinen holds no variables: give those"),
        ({"kernel": 1}, r"a dict of \['kernel'\] is no trained network"),
        (None, "a NoneType is no trained network"),
    ],
)
def test_what_holds_no_variables_is_named(trained, message):
    with pytest.raises(InputError, match=message):
        ju.variables_of(trained)
