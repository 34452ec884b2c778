"""The contract of `Model`, for the same small network in every framework."""

import functools
from typing import Any

import chex
import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jax_unlearn import adapters
from jax_unlearn.errors import InputError

WIDTH, CLASSES, BATCH = 5, 3, 6


class LinenNet(nn.Module):
    rate: float

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Conv(WIDTH, (3, 3))(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        x = jnp.mean(nn.relu(x), axis=(1, 2))
        x = nn.Dropout(self.rate, deterministic=not train)(x)
        return nn.Dense(CLASSES)(x)


class NnxNet(nnx.Module):
    def __init__(self, rate, rngs):
        self.conv = nnx.Conv(1, WIDTH, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(WIDTH, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(rate, rngs=rngs)
        self.dense = nnx.Linear(WIDTH, CLASSES, rngs=rngs)

    def __call__(self, x, *, train):
        x = self.norm(self.conv(x), use_running_average=not train)
        x = self.dropout(jnp.mean(nnx.relu(x), axis=(1, 2)), deterministic=not train)
        return self.dense(x)


class EquinoxNet(eqx.Module):
    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout
    dense: eqx.nn.Linear
    activation: Any

    def __init__(self, rate, key):
        k1, k2 = jax.random.split(key)
        self.conv = eqx.nn.Conv2d(1, WIDTH, 3, padding=1, key=k1)
        self.norm = eqx.nn.BatchNorm(WIDTH, "batch", mode="batch", momentum=0.9)
        self.dropout = eqx.nn.Dropout(rate)
        self.dense = eqx.nn.Linear(WIDTH, CLASSES, key=k2)
        self.activation = lambda x: jnp.maximum(x, jnp.zeros_like(x))

    def __call__(self, x, state, *, key=None):
        x = self.conv(jnp.moveaxis(x, -1, 0))
        with jax.numpy_dtype_promotion("standard"):  # equinox: float ** int
            x, state = self.norm(x, state)
        x = jnp.mean(self.activation(x), axis=(1, 2))
        return self.dense(self.dropout(x, key=key)), state


def haiku_net(rate):
    def net(x, is_training):
        x = hk.Conv2D(WIDTH, 3)(x)
        with jax.numpy_dtype_promotion("standard"):  # haiku: float ** int
            x = hk.BatchNorm(True, True, decay_rate=0.9)(x, is_training)
        x = jnp.mean(jax.nn.relu(x), axis=(1, 2))
        if is_training and rate > 0:
            # not hk.dropout, which multiplies bool by float: strict promotion forbids
            keep = jax.random.bernoulli(hk.next_rng_key(), 1 - rate, x.shape)
            x = jnp.where(keep, x / (1 - rate), jnp.zeros_like(x))
        return hk.Linear(CLASSES)(x)

    return hk.transform_with_state(net)


BUILD = {
    "linen": lambda rate: adapters.from_linen(LinenNet(rate)),
    "nnx": lambda rate: adapters.from_nnx(lambda rngs: NnxNet(rate, rngs)),
    "equinox": lambda rate: adapters.from_equinox(lambda key: EquinoxNet(rate, key)),
    "haiku": lambda rate: adapters.from_haiku(haiku_net(rate)),
}


@functools.cache
def images():
    drawn = np.random.default_rng(7).normal(size=(BATCH, 5, 5, 1))
    return jnp.asarray(drawn, jnp.float32)


@functools.cache
def built(name, rate=0.5):
    if rate != 0.5:  # the same parameters
        return BUILD[name](rate), *built(name)[1:]
    model = BUILD[name](rate)
    params, state = jax.jit(model.init)(jax.random.key(0), images())
    return model, params, state


@functools.cache
def compiled(name, rate=0.5):
    return jax.jit(built(name, rate)[0].apply, static_argnames="train")


@pytest.fixture(params=sorted(BUILD))
def name(request):
    return request.param


def assert_strong(tree):
    for leaf in jax.tree.leaves(tree):
        assert isinstance(leaf, jax.Array)
        assert not leaf.weak_type


def test_init_and_both_modes(name):
    _, params, state = built(name)
    assert_strong((params, state))
    # of other images: haiku's averages begin as those of the images given to init
    out, after = compiled(name)(
        params, state, 2 * images(), train=True, key=jax.random.key(1)
    )
    assert out.shape == (BATCH, CLASSES)
    assert out.dtype == jnp.float32
    assert_strong(after)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, after)
    moved = jax.tree.map(lambda a, b: (np.asarray(a) != b).any(), state, after)
    assert all(jax.tree.leaves(moved))

    @jax.jit
    def evaluate(x, key):
        out, kept = built(name)[0].apply(params, after, x, train=False, key=key)
        assert kept is after
        return out

    out = evaluate(images(), jax.random.key(2))
    chex.assert_tree_all_finite(out)
    np.testing.assert_array_equal(evaluate(images(), jax.random.key(3)), out)
    # the other samples of the batch do not matter: no batch statistics
    others = evaluate(images().at[3:].mul(5.0), jax.random.key(2))
    np.testing.assert_array_equal(others[:3], out[:3])
    assert (others[3:] != out[3:]).any()


def test_compiled_step_is_traced_once(name):
    model, params, state = built(name)
    labels = jnp.arange(BATCH, dtype=jnp.int32) % CLASSES
    optimizer = optax.sgd(0.1, momentum=0.9)

    def loss(params, state, key):
        logits, state = model.apply(params, state, images(), train=True, key=key)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), state

    def step(carry, key):
        params, state, opt_state = carry
        grads, state = jax.grad(loss, has_aux=True)(params, state, key)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        return (params, state, opt_state), optax.tree.norm(grads)

    chex.clear_trace_counter()
    compiled_step = jax.jit(chex.assert_max_traces(step, 1))
    carry = start = (params, state, optimizer.init(params))
    keys = jax.random.split(jax.random.key(2), 3)
    for key in keys:
        carry, norm = compiled_step(carry, key)
        assert 0 < norm < np.inf
    chex.assert_trees_all_equal_shapes_and_dtypes(carry, start)
    assert_strong(carry)

    jax.eval_shape(functools.partial(jax.lax.scan, step), start, keys)


def test_dropout_follows_the_key(name):
    _, params, state = built(name)
    same_rows = jnp.broadcast_to(images()[:1], images().shape)

    def outputs(seed):
        key = jax.random.key(seed)
        return compiled(name)(params, state, same_rows, train=True, key=key)[0]

    first = outputs(0)
    np.testing.assert_array_equal(first, outputs(0))
    assert (first != outputs(1)).any()
    assert len(np.unique(np.asarray(first), axis=0)) > 1  # a mask for each sample


def test_dropout_without_key_is_an_error(name):
    _, params, state = built(name)
    with pytest.raises(InputError, match="key=None"):
        compiled(name)(params, state, images(), train=True)


def test_no_key_is_needed_without_dropout(name):
    _, params, state = built(name, 0.0)
    out, _ = compiled(name, 0.0)(params, state, images(), train=True)
    chex.assert_tree_all_finite(out)


def weights(name, params):
    """Return kernel [3, 3, 1, W], bias, scale, offset, dense [W, K], bias."""
    if name == "linen":
        c, n, d = params["Conv_0"], params["BatchNorm_0"], params["Dense_0"]
    elif name == "nnx":
        c, n, d = params["conv"], params["norm"], params["dense"]
    elif name == "haiku":
        c, n, d = params["conv2_d"], params["batch_norm"], params["linear"]
        flat = n["scale"].reshape(-1), n["offset"].reshape(-1)
        return c["w"], c["b"], *flat, d["w"], d["b"]
    else:
        kernel = jnp.transpose(params.conv.weight, (2, 3, 1, 0))
        norm, dense = params.norm, params.dense
        bias = params.conv.bias.reshape(-1)
        return kernel, bias, norm.weight, norm.bias, dense.weight.T, dense.bias
    return c["kernel"], c["bias"], n["scale"], n["bias"], d["kernel"], d["bias"]


def reference(values, x, statistics=None):
    """Return logits and batch (mean, variance) in float64."""
    kernel, bias, scale, offset, dense, dense_bias = (
        np.asarray(v, np.float64) for v in values
    )
    height, width = x.shape[1:3]
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = np.zeros((*x.shape[:3], kernel.shape[-1])) + bias
    for i in range(3):
        for j in range(3):
            y += padded[:, i : i + height, j : j + width] @ kernel[i, j]
    batch = y.mean((0, 1, 2)), y.var((0, 1, 2))
    mean, var = batch if statistics is None else statistics
    y = np.maximum((y - mean) / np.sqrt(var + 1e-5) * scale + offset, 0)
    return y.mean((1, 2)) @ dense + dense_bias, batch


def test_batch_norm_matches_numpy(name):
    _, params, state = built(name, 0.0)
    rng = np.random.default_rng(5)
    params = jax.tree.map(  # weights other than ones and zeros everywhere
        lambda leaf: jnp.asarray(leaf + rng.normal(0, 0.3, leaf.shape), leaf.dtype),
        jax.device_get(params),
    )
    out, after = compiled(name, 0.0)(params, state, images(), train=True)
    expected, (mean, var) = reference(weights(name, params), images())
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)

    running = {  # after one step: flax starts from (0, 1), the others debias
        "linen": (0.1 * mean, 0.9 + 0.1 * var),
        "nnx": (0.1 * mean, 0.9 + 0.1 * var),
        "haiku": (mean, var),
        "equinox": (mean, 9 + var),  # (0.9 * 1 + 0.1 * var) / (1 - 0.9)
    }[name]
    out, _ = compiled(name, 0.0)(params, after, images(), train=False)
    expected, _ = reference(weights(name, params), images(), running)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


def test_ensembles_are_vmapped(name):
    _, params, state = built(name, 0.0)
    one = params, state
    two = jax.tree.map(lambda leaf: 2 * np.asarray(leaf), one)
    outputs = functools.partial(compiled(name, 0.0), inputs=images(), train=False)
    stacked = jax.tree.map(lambda a, b: np.stack([a, b]), one, two)
    both = jax.vmap(lambda p, s: outputs(p, s)[0])(*stacked)
    np.testing.assert_allclose(both[0], outputs(*one)[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(both[1], outputs(*two)[0], rtol=1e-5, atol=1e-6)


def test_first_call_inside_a_trace_leaks_nothing(name):
    model, (_, params, state) = BUILD[name](0.5), built(name)

    def outputs(key):
        return model.apply(params, state, images(), train=True, key=key)[0]

    keys = jax.random.split(jax.random.key(0))
    with jax.checking_leaks():
        assert jax.eval_shape(outputs, keys[0]).shape == (BATCH, CLASSES)
        assert jax.eval_shape(jax.vmap(outputs), keys).shape == (2, BATCH, CLASSES)


# --- what is particular to one framework ---------------------------------------------


def test_stateless():
    model = adapters.from_stateless(
        lambda key, x: {"w": jnp.full(x.shape[1:], 2.0)}, lambda p, x: x @ p["w"]
    )
    x = jnp.ones((2, 3))
    params, state = model.init(jax.random.key(0), x)
    assert_strong(params)  # jnp.full alone is weakly typed
    assert state == ()
    out, state = model.apply(params, state, x, train=True, key=jax.random.key(0))
    np.testing.assert_array_equal(out, [6.0, 6.0])
    assert state == ()


def test_linen_init_is_that_of_the_module():
    key, x = jax.random.key(3), jnp.ones((2, 3))
    params, state = adapters.from_linen(nn.Dense(2)).init(key, x)
    chex.assert_trees_all_equal({"params": params, **state}, nn.Dense(2).init(key, x))


class SowingNet(nn.Module):
    @nn.compact
    def __call__(self, x, deterministic):
        boxed = nn.with_partitioning(nn.initializers.ones, ("data", None))
        x = nn.Dense(2, kernel_init=boxed)(x)
        self.sow("intermediates", "features", x)
        noise = jax.random.normal(self.make_rng("noise"), x.shape)
        return x if deterministic else x + noise


def test_linen_boxes_sow_and_stream_names():
    model = adapters.from_linen(SowingNet(), rngs=("noise",))
    x = jnp.ones((2, 3))
    params, state = model.init(jax.random.key(0), x)
    assert isinstance(params["Dense_0"]["kernel"], jax.Array)
    assert state == {}
    key = jax.random.key(1)
    out, state = model.apply(params, state, x, train=False, key=key)
    np.testing.assert_array_equal(out, np.full((2, 2), 3.0))
    noisy, state = model.apply(params, state, x, train=True, key=key)
    assert (noisy != out).all()
    assert state == {}


def test_state_of_another_structure_is_refused():
    model, params, state = built("linen", 0.0)
    grown = {**state, "extra": {"x": jnp.zeros(())}}
    _, after = model.apply(params, grown, images(), train=True)
    chex.assert_trees_all_equal_structs(after, grown)

    class Growing(nn.Module):
        @nn.compact
        def __call__(self, x):
            self.sow("losses", "norm", jnp.sum(x))
            return x

    model = adapters.from_linen(Growing())
    params, state = model.init(jax.random.key(0), jnp.ones((2, 3)))
    with pytest.raises(InputError, match="model_state"):
        model.apply(params, state, jnp.ones((2, 3)), train=True)


def test_nnx_init_is_that_of_the_module_and_goes_back():
    model = built("nnx")[0]
    module = NnxNet(0.5, nnx.Rngs(3))
    params, state = model.init(jax.random.key(3), None)
    chex.assert_trees_all_equal((params, state), adapters.nnx_variables(module))
    assert type(params) is dict
    assert sorted(params) == ["conv", "dense", "norm"]

    doubled = jax.tree.map(lambda leaf: 2 * leaf, params)
    nnx.update(module, doubled, state)
    np.testing.assert_array_equal(module.conv.kernel[...], doubled["conv"]["kernel"])
    out, _ = compiled("nnx")(doubled, state, images(), train=False)
    expected = nnx.jit(lambda m, x: m(x, train=False))(module, images())
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


class ModeNet(nnx.Module):
    """No mode argument: switched by train() and eval()."""

    def __init__(self, rngs):
        self.layers = nnx.List(
            [nnx.Linear(3, 3, rngs=rngs), nnx.BatchNorm(3, rngs=rngs)]
        )

    def __call__(self, x):
        x = self.layers[1](self.layers[0](x))
        self.features = nnx.Intermediate(x)
        return x


def test_nnx_modes_lists_and_new_variables():
    model = adapters.from_nnx(ModeNet)
    x = jax.random.normal(jax.random.key(0), (4, 3))
    params, state = model.init(jax.random.key(0), x)
    out, after = model.apply(params, state, x, train=True)
    np.testing.assert_allclose(out.mean(0), np.zeros(3), atol=1e-6)
    chex.assert_trees_all_equal_structs(state, after)
    assert (after["layers"][1]["mean"] != 0).all()
    out, _ = model.apply(params, state, x, train=False)
    assert (jnp.abs(out.mean(0)) > 1e-3).any()

    def text_keys(tree):  # as a checkpoint without a target restores them
        if not isinstance(tree, dict):
            return tree
        return {str(k): text_keys(v) for k, v in tree.items()}

    _, restored = model.apply(text_keys(params), text_keys(state), x, train=True)
    chex.assert_trees_all_equal(restored, text_keys(after))


def test_nnx_rngs_of_the_call():
    class CallNet(nnx.Module):
        def __init__(self, rngs):
            self.dropout = nnx.Dropout(0.5)

        def __call__(self, x, *, train, rngs):
            return self.dropout(x, deterministic=not train, rngs=rngs)

    model = adapters.from_nnx(CallNet)
    x = jnp.ones((4, 64))
    out, _ = model.apply({}, {}, x, train=True, key=jax.random.key(0))
    assert set(np.unique(np.asarray(out))) == {0.0, 2.0}
    out, _ = model.apply({}, {}, x, train=False)
    np.testing.assert_array_equal(out, x)


def test_nnx_streams_differ_within_a_module():
    class Twice(nnx.Module):
        def __init__(self, rngs):
            self.a = nnx.Dropout(0.5, rngs=rngs)
            self.b = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return jnp.stack([self.a(x), self.b(x)], axis=1)

    model = adapters.from_nnx(Twice)
    out, _ = model.apply({}, {}, jnp.ones((4, 64)), train=True, key=jax.random.key(0))
    assert (out[:, 0] != out[:, 1]).any()


class TwoMethods(nnx.Module):
    """Its methods are told the mode, and get rngs, by different names."""

    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(3, momentum=0.5, rngs=rngs)
        self.dropout = nnx.Dropout(0.5)
        self.dense = nnx.Linear(3, 2, rngs=rngs)

    def features(self, x, *, deterministic):
        return self.norm(x, use_running_average=deterministic)

    def noisy(self, x, *, train, rngs):
        return self.dropout(x, deterministic=not train, rngs=rngs)

    def __call__(self, x, *, train):
        return self.dense(self.features(x, deterministic=not train))


def test_nnx_methods_share_parameters_and_state():
    whole = adapters.from_nnx(TwoMethods)
    features = adapters.from_nnx(TwoMethods, method="features")
    x = jax.random.normal(jax.random.key(0), (4, 3))
    params, state = features.init(jax.random.key(1), x)
    chex.assert_trees_all_equal((params, state), whole.init(jax.random.key(1), x))
    for train in (True, False):
        logits, after = whole.apply(params, state, x, train=train)
        inner, same = features.apply(params, state, x, train=train)
        dense = params["dense"]
        expected = inner @ dense["kernel"] + dense["bias"][None]
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
        chex.assert_trees_all_equal(after, same)
        is_moved = bool((same["norm"]["mean"] != 0).all())
        assert is_moved == train
    assert (jnp.abs(inner - x) < 1e-4).all()  # statistics 0 and 1


def test_nnx_mode_and_rngs_are_those_of_the_method():
    noisy = adapters.from_nnx(TwoMethods, method="noisy")
    x = jnp.ones((4, 64))
    params, state = noisy.init(jax.random.key(1), x)
    out, _ = noisy.apply(params, state, x, train=True, key=jax.random.key(0))
    assert set(np.unique(np.asarray(out))) == {0.0, 2.0}
    out, _ = noisy.apply(params, state, x, train=False)
    np.testing.assert_array_equal(out, x)


@pytest.mark.parametrize("method", ["feature", "norms", "__len__"])
def test_nnx_names_an_unknown_method_and_the_class(method):
    model = adapters.from_nnx(TwoMethods, method=method)
    message = f"method='{method}': TwoMethods has no such method"
    with pytest.raises(InputError, match=message):
        model.init(jax.random.key(0), None)
    params, state = adapters.from_nnx(TwoMethods).init(jax.random.key(0), None)
    with pytest.raises(InputError, match=message):
        model.apply(params, state, jnp.ones((4, 3)), train=False)


class LinenMethods(nn.Module):
    """Methods of linen, told the mode by different names."""

    def setup(self):
        self.norm, self.dense = nn.BatchNorm(momentum=0.5), nn.Dense(2)

    def features(self, x, deterministic):
        return self.norm(x, use_running_average=deterministic)

    def __call__(self, x, train):
        return self.dense(self.features(x, not train))


def test_linen_methods_share_parameters_and_state():
    whole = adapters.from_linen(LinenMethods())
    features = adapters.from_linen(LinenMethods(), method="features")
    x = jax.random.normal(jax.random.key(0), (4, 3))
    params, state = features.init(jax.random.key(1), x)
    chex.assert_trees_all_equal((params, state), whole.init(jax.random.key(1), x))
    for train in (True, False):
        logits, after = whole.apply(params, state, x, train=train)
        inner, same = features.apply(params, state, x, train=train)
        expected = inner @ params["dense"]["kernel"]
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
        chex.assert_trees_all_equal(after, same)
    with pytest.raises(InputError, match="LinenMethods has no such method"):
        adapters.from_linen(LinenMethods(), method="feature")


def test_nnx_module_that_cannot_be_called_is_named():
    class Silent(nnx.Module):
        def __init__(self, rngs):
            self.scale = nnx.Param(jnp.ones(3))

    with pytest.raises(InputError, match="method='__call__': Silent has no"):
        adapters.from_nnx(Silent).init(jax.random.key(0), None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: {k: v for k, v in p.items() if k != "conv"}, "params lacks 'conv/"),
        (lambda p: {**p, "conv9": {"bias": jnp.zeros(1)}}, "has an unknown 'conv9/"),
    ],
)
def test_nnx_names_wrong_parameters(change, message):
    model, params, state = built("nnx")
    with pytest.raises(InputError, match=message):
        model.apply(change(params), state, images(), train=False)


class NormNet(eqx.Module):
    norm: eqx.nn.BatchNorm

    def __call__(self, x, state):
        with jax.numpy_dtype_promotion("standard"):  # equinox: float ** int
            return self.norm(x, state)


def test_equinox_state_stays_valid_and_module_comes_back():
    def make(key):
        return NormNet(eqx.nn.BatchNorm(3, "rows", mode="batch", momentum=0.9))

    model = adapters.from_equinox(make, axis_name="rows")
    module, bare = eqx.nn.make_with_state(make)(jax.random.key(0))
    params, state = adapters.equinox_variables(module, bare)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)
    first, _ = model.apply(params, state, x, train=True)
    second, _ = model.apply(params, state, x, train=True)  # not State(~old~)
    np.testing.assert_array_equal(first, second)

    combined = eqx.nn.inference_mode(eqx.combine(params, module))
    expected, _ = combined(x[0], state["state"])
    out, _ = model.apply(params, state, x, train=False)
    np.testing.assert_allclose(out[0], expected, rtol=1e-5, atol=1e-6)


def test_equinox_parameters_of_two_inits_fit_together():
    model = BUILD["equinox"](0.5)  # its activation is another lambda in every make
    first, _ = jax.eval_shape(model.init, jax.random.key(0), None)
    second, _ = jax.eval_shape(lambda key: model.init(key, None), jax.random.key(1))
    assert jax.tree.structure(first) == jax.tree.structure(second)


class BatchedNet(eqx.Module):
    scale: jax.Array
    table: jax.Array

    def __call__(self, x, *, inference):
        taken = x[:, self.table] * self.scale
        return taken if inference else taken - taken.mean(0, keepdims=True)


def test_equinox_batched_integer_arrays_and_mode_argument():
    model = adapters.from_equinox(
        lambda key: BatchedNet(jnp.asarray(2.0), jnp.array([2, 0])), batched=True
    )
    x = jnp.arange(6.0).reshape(2, 3)
    params, state = model.init(jax.random.key(0), x)
    assert [leaf.dtype for leaf in jax.tree.leaves(params)] == [jnp.float32]
    assert [leaf.dtype for leaf in jax.tree.leaves(state)] == [jnp.int32]
    out, _ = model.apply(params, state, x, train=False)
    np.testing.assert_array_equal(out, [[4.0, 0.0], [10.0, 6.0]])
    out, after = model.apply(params, state, x, train=True)
    np.testing.assert_array_equal(out, [[-3.0, -3.0], [3.0, 3.0]])
    chex.assert_trees_all_equal(after, state)


def test_equinox_state_without_argument_is_refused():
    class Silent(eqx.Module):
        norm: eqx.nn.BatchNorm

        def __call__(self, x):
            return x

    model = adapters.from_equinox(
        lambda key: Silent(eqx.nn.BatchNorm(2, "batch", mode="batch"))
    )
    with pytest.raises(InputError, match="module=Silent"):
        model.init(jax.random.key(0), None)


def test_haiku_without_state_and_raw_functions():
    model = adapters.from_haiku(hk.transform(lambda x: hk.Linear(2)(x)))
    x = jnp.ones((2, 3))
    params, state = model.init(jax.random.key(0), x)
    assert state == {}
    out, state = model.apply(params, state, x, train=True)
    np.testing.assert_allclose(out, x @ params["linear"]["w"], rtol=1e-6)
    assert state == {}
    with pytest.raises(InputError, match="must come from hk"):
        adapters.from_haiku(lambda x: x)
