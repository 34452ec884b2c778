"""The networks: sizes, types, initial values, modes, and that they learn."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

import jax_unlearn as ju
from jax_unlearn import zoo
from jax_unlearn.adapters import from_nnx
from jax_unlearn.errors import InputError
from jax_unlearn.zoo import layers

# Sizes that are no powers of two: XLA unrolls, slowly, small loops that are.
SMALL = {
    "cnn": (lambda rngs, **kw: zoo.SmallCNN(10, width=6, rngs=rngs, **kw), (9, 9, 1)),
    "cnn_plain": (
        lambda rngs, **kw: zoo.SmallCNN(10, width=6, batch_norm=False, rngs=rngs, **kw),
        (9, 9, 1),
    ),
    "mlp": (
        lambda rngs, **kw: zoo.MLP(10, in_features=81, hidden=(16, 9), rngs=rngs, **kw),
        (9, 9, 1),
    ),
    "resnet": (
        lambda rngs, **kw: zoo.ResNet(10, stage_sizes=(1, 1), width=6, rngs=rngs, **kw),
        (9, 9, 3),
    ),
    "vgg": (lambda rngs, **kw: zoo.VGG16(10, width=3, rngs=rngs, **kw), (33, 33, 3)),
    "vgg_hidden": (
        lambda rngs, **kw: zoo.VGG16(
            10, width=3, hidden=(9, 7), pool=2, rngs=rngs, **kw
        ),
        (33, 33, 3),
    ),
    "bottleneck": (
        lambda rngs, **kw: zoo.ResNet(
            10, stage_sizes=(1, 1), width=6, bottleneck=True, rngs=rngs, **kw
        ),
        (9, 9, 3),
    ),
    "vit": (
        lambda rngs, **kw: zoo.ViT(
            10, image_size=(9, 6), patch_size=3, width=12, depth=2, rngs=rngs, **kw
        ),
        (9, 6, 3),
    ),
}


@functools.cache
def built(name, dtype=jnp.float32):
    make, shape = SMALL[name]
    model = from_nnx(lambda rngs: make(rngs, dtype=dtype))
    rng = np.random.default_rng(0)

    def fill(path, leaf):  # as init does, without its seconds of compilation
        if path[-1].key in ("kernel", "class_token", "positions"):
            std = math.sqrt(2 / (math.prod(leaf.shape[:-2]) * leaf.shape[-1]))
            return jnp.asarray(rng.normal(0, std, leaf.shape), leaf.dtype)
        value = 1 if path[-1].key in ("scale", "var") else 0
        return jnp.asarray(np.full(leaf.shape, value), leaf.dtype)

    params, state = jax.tree_util.tree_map_with_path(
        fill, jax.eval_shape(model.init, jax.random.key(0), None)
    )
    x = jnp.asarray(rng.normal(size=(5, *shape)), jnp.float32)
    return model, params, state, x


def shapes(make, x_shape=(1, 32, 32, 3)):
    """Return (logits, params, state) of a network without computing anything."""
    model = from_nnx(make)
    x = jax.ShapeDtypeStruct(x_shape, jnp.float32)
    params, state = jax.eval_shape(model.init, jax.random.key(0), x)
    apply = functools.partial(model.apply, train=False)
    return jax.eval_shape(apply, params, state, x)[0], params, state


def count(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def resnet20():
    """Return parameters of ResNet-20 with option B, layer by layer."""
    total = 3 * 16 * 9 + 2 * 16
    for inner, outer in ((16, 16), (16, 32), (32, 64)):
        total += 9 * inner * outer + 5 * 9 * outer * outer + 6 * 2 * outer
        total += inner * outer + 2 * outer if inner != outer else 0
    return total + 64 * 10 + 10


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda rngs: zoo.ResNet18(10, rngs=rngs), 11_173_962),
        (lambda rngs: zoo.ResNet18(1000, stem="imagenet", rngs=rngs), 11_689_512),
        (lambda rngs: zoo.ResNet34(10, rngs=rngs), 21_282_122),
        (lambda rngs: zoo.ResNet50(10, rngs=rngs), 23_520_842),
        (lambda rngs: zoo.ViTTiny(10, rngs=rngs), 5_362_762),
        (lambda rngs: zoo.VGG16(10, rngs=rngs), 14_728_266),
        (
            lambda rngs: zoo.ResNet(10, stage_sizes=(3, 3, 3), width=16, rngs=rngs),
            resnet20(),
        ),
        (
            lambda rngs: zoo.SmallCNN(10, width=2, in_channels=3, rngs=rngs),
            9 * (3 * 2 + 2 * 4 + 4 * 8) + 2 * (2 + 4 + 8) + 8 * 10 + 10,
        ),
        (
            lambda rngs: zoo.MLP(5, in_features=3072, hidden=(7,), rngs=rngs),
            3072 * 7 + 7 + 7 * 5 + 5,
        ),
    ],
    ids=[
        "resnet18",
        "resnet18-imagenet",
        "resnet34",
        "resnet50",
        "vit-tiny",
        "vgg16",
        "resnet20",
        "cnn",
        "mlp",
    ],
)
def test_parameter_counts(make, expected):
    logits, params, state = shapes(make)
    assert count(params) == expected
    assert logits.shape == (1, *params["head"]["bias"].shape)
    names = {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    scales = [leaf for name, leaf in names.items() if name.endswith("['scale']")]
    # LayerNorm keeps no statistics
    assert count(state) == (0 if "positions" in params else 2 * count(scales))


@settings(max_examples=6, deadline=None)
@given(
    batch=st.integers(1, 3),
    height=st.integers(4, 33),
    width=st.integers(4, 33),
    classes=st.integers(1, 7),
)
def test_any_image_size(batch, height, width, classes):
    x = jax.ShapeDtypeStruct((batch, height, width, 1), jnp.float32)

    def logits(x, make):
        return make(nnx.Rngs(0))(x, train=True)

    for make in (
        lambda rngs: zoo.SmallCNN(classes, width=2, rngs=rngs),
        lambda rngs: zoo.ResNet(
            classes, stage_sizes=(1, 1), width=2, in_channels=1, rngs=rngs
        ),
    ):
        out = jax.eval_shape(functools.partial(logits, make=make), x)
        assert out.shape == (batch, classes)
        assert out.dtype == jnp.float32


def assert_all_changed(before, after):
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert (np.asarray(old) != np.asarray(new)).any()


@pytest.mark.parametrize(
    "name", ["cnn", "cnn_plain", "mlp", "resnet", "bottleneck", "vit"]
)
def test_steps_use_every_layer_in_one_trace(name):
    model, params, state, x = built(name)
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(1)
    def step(params, state):
        def loss(params):
            logits, new_state = model.apply(params, state, x, train=True)
            return jnp.mean(jnp.square(logits - 1.0)), new_state

        return jax.grad(loss, has_aux=True)(params)

    grads, after = step(params, state)
    again, after2 = step(params, after)
    chex.assert_tree_all_finite((grads, again, after2))
    chex.assert_trees_all_equal_shapes_and_dtypes(after2, state)
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.any(grad), path
    assert_all_changed(state, after)
    assert bool(jax.tree.leaves(state)) == (name not in ("mlp", "cnn_plain", "vit"))


@pytest.mark.parametrize("name", ["vgg", "vgg_hidden"])
def test_vgg_in_train_mode(name):
    model, params, state, x = built(name)
    apply = jax.jit(model.apply, static_argnames="train")
    logits, after = apply(params, state, x, train=True)
    assert logits.std(0).min() > 0  # the samples reach the head
    assert_all_changed(state, after)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, after)


@pytest.mark.parametrize("name", ["cnn", "mlp", "resnet", "bottleneck", "vit"])
def test_bfloat16(name):
    model, params, state, x = built(name, jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, state))} == {
        jnp.dtype(jnp.float32)
    }
    apply = jax.jit(model.apply, static_argnames="train")
    logits, after = apply(params, state, x, train=True)
    assert logits.dtype == jnp.float32
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)

    exact, *_ = built(name)
    wanted, _ = jax.jit(exact.apply, static_argnames="train")(
        params, state, x, train=True
    )
    logits, wanted = np.asarray(logits), np.asarray(wanted)
    difference = np.linalg.norm(logits - wanted) / np.linalg.norm(wanted)
    assert 0 < difference < 0.05  # another arithmetic, nearly the same values


def test_features_precede_the_head():
    @jax.jit
    def outputs(x):
        module = zoo.MLP(10, in_features=9, hidden=(7, 5), rngs=nnx.Rngs(1))
        head = module.head.kernel[...], module.head.bias[...]
        return module.features(x, train=False), module(x, train=False), head

    x = jax.random.normal(jax.random.key(2), (3, 3, 3, 1))
    features, logits, (kernel, bias) = outputs(x)
    assert features.shape == (3, 5)
    assert (features >= 0).all()
    np.testing.assert_allclose(logits, features @ kernel + bias[None], rtol=1e-5)


def test_bfloat16_reaches_the_convolutions():
    def inner(x):
        block = zoo.BasicBlock(3, 3, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
        return block(x, train=True)

    x = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.bfloat16)
    assert jax.eval_shape(inner, x).dtype == jnp.bfloat16


def test_initial_values():
    block = jax.jit(
        lambda: nnx.to_pure_dict(
            nnx.state(layers.ConvNorm(32, 64, rngs=nnx.Rngs(0)), nnx.Param)
        )
    )()
    kernel = np.asarray(block["conv"]["kernel"])
    assert kernel.shape == (3, 3, 32, 64)
    np.testing.assert_allclose(kernel.std(), math.sqrt(2 / (9 * 64)), rtol=0.03)
    np.testing.assert_allclose(kernel.mean(), 0, atol=2e-3)
    usual = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")
    key = jax.random.key(3)
    both = jax.jit(
        lambda: [make(key, (3, 3, 2, 5)) for make in (layers.kaiming, usual)]
    )
    np.testing.assert_allclose(*both(), rtol=1e-5)
    assert "bias" not in block["conv"]
    np.testing.assert_array_equal(block["norm"]["scale"], np.ones(64))
    head = layers.classifier(64, 100, rngs=nnx.Rngs(0))
    largest = np.abs(np.asarray(head.kernel[...])).max()
    np.testing.assert_allclose(largest, 1 / 8, rtol=0.01)
    np.testing.assert_array_equal(head.bias[...], np.zeros(100))


def test_basic_block_adds_the_shortcut():
    block = zoo.BasicBlock(2, 2, rngs=nnx.Rngs(0))
    assert block.shortcut is None
    block.block2.norm.scale[...] = jnp.zeros(2)
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 2))
    found = nnx.jit(lambda block, x: block(x, train=False))(block, x)
    np.testing.assert_array_equal(found, np.maximum(x, 0))


def test_conv_norm_matches_numpy():
    layer = layers.ConvNorm(2, 3, kernel=1, stride=2, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (4, 5, 5, 2))
    out = nnx.jit(lambda layer, x: layer(x, train=True))(layer, x)
    kernel = np.asarray(layer.conv.kernel[...], np.float64)[0, 0]
    y = np.asarray(x, np.float64)[:, ::2, ::2] @ kernel
    mean, var = y.mean((0, 1, 2)), y.var((0, 1, 2))
    expected = np.maximum((y - mean) / np.sqrt(var + 1e-5), 0)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.norm.mean[...], 0.1 * mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(layer.norm.var[...], 0.9 + 0.1 * var, rtol=1e-4)


def test_small_cnn_learns():
    """Horizontal against vertical bars: a mean of pixels cannot tell them."""
    rng = np.random.default_rng(0)
    labels = np.arange(33, dtype=np.int32) % 2
    rows = (np.arange(9)[None] + rng.integers(0, 2, (33, 1))) % 2
    across = np.broadcast_to(rows[:, :, None], (33, 9, 9))
    x = np.where((labels == 0)[:, None, None], across, across.transpose(0, 2, 1))
    x = jnp.asarray((x + 0.3 * rng.normal(size=x.shape))[..., None], jnp.float32)
    model = from_nnx(lambda rngs: zoo.SmallCNN(2, width=6, rngs=rngs))
    params, state = jax.jit(model.init)(jax.random.key(1), x)
    optimizer = optax.sgd(0.1, momentum=0.9)

    @jax.jit
    def step(params, state, opt_state):
        def loss(params):
            logits, after = model.apply(params, state, x, train=True)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean(), after

        (value, after), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), after, opt_state, value

    opt_state = optimizer.init(params)
    values = []
    for _ in range(40):
        params, state, opt_state, value = step(params, state, opt_state)
        values.append(float(value))
    assert values[0] > 0.4  # log 2 = 0.69 is a guess
    assert values[-1] < 0.05


def vit(rngs, **options):
    return zoo.ViT(2, **{"image_size": 8, "width": 12, "depth": 1} | options, rngs=rngs)


@pytest.mark.parametrize("name", ["vgg_hidden", "bottleneck", "vit"])
def test_one_step_of_unlearning(name):
    """By logits, and by the features of boundary expand."""
    model, params, state, x = built(name)
    featured = from_nnx(lambda rngs: SMALL[name][0](rngs), method="features")
    width = jax.eval_shape(
        functools.partial(featured.apply, train=False), params, state, x
    )[0].shape[1]
    assert params["head"]["kernel"].shape == (width, 10)
    part = ju.Batch(x, jnp.arange(5) % 10, jnp.arange(5))
    batch = ju.UnlearnBatch(forget=part, retain=part, reference=part)
    optimizer = optax.sgd(0.1)
    told = dict(head_optimizer=optimizer, num_classes=10, width=width)
    method = ju.methods.boundary_expand(model, featured, optimizer, **told)
    before = method.init(params, state)
    after, info = jax.jit(method.step)(before, batch, jax.random.key(0))
    chex.assert_tree_all_finite((after.params, info))
    pairs = jax.tree.map(lambda a, b: (a != b).any(), before.params, after.params)
    assert np.mean(jax.tree.leaves(pairs)) > 0.8  # ReLU may stop some


def apply_to(make, x):
    return jax.eval_shape(lambda x: make(nnx.Rngs(0))(x, train=False), x)


@pytest.mark.parametrize(
    ("make", "x", "message"),
    [
        (lambda r: zoo.SmallCNN(2, rngs=r), (2, 8, 8, 3), r"\[B, H, W, 1\]"),
        (lambda r: zoo.SmallCNN(2, rngs=r), (8, 8, 1), r"x.shape=\(8, 8, 1\)"),
        (lambda r: zoo.SmallCNN(0, rngs=r), (2, 8, 8, 1), "num_classes=0"),
        (lambda r: zoo.VGG16(2, width=1, rngs=r), (2, 16, 64, 3), "at least 32"),
        (lambda r: zoo.MLP(2, in_features=9, rngs=r), (2, 2, 2), "in_features=4"),
        (lambda r: zoo.ResNet18(2, stem="cifr", rngs=r), (2, 8, 8, 3), "'cifar'"),
        (lambda r: zoo.ResNet(2, stage_sizes=(), rngs=r), (2, 8, 8, 3), "stage_sizes"),
        (lambda r: zoo.Bottleneck(4, 6, rngs=r), (2, 8, 8, 4), "out_features=6"),
        (lambda r: zoo.VGG16(2, pool=0, rngs=r), (2, 32, 32, 3), "pool=0"),
        (lambda r: zoo.VGG16(2, dropout=1.0, rngs=r), (2, 32, 32, 3), "dropout=1.0"),
        (lambda r: vit(r, image_size=9), (2, 9, 9, 3), "patch_size=4 must divide"),
        (lambda r: vit(r, patch_size=0), (2, 8, 8, 3), "patch_size=0"),
        (lambda r: vit(r, heads=5), (2, 8, 8, 3), "heads=5 must divide width=12"),
        (lambda r: vit(r, drop_path=2), (2, 8, 8, 3), "drop_path=2"),
        (lambda r: vit(r), (2, 8, 12, 3), r"build the ViT with image_size=\(8, 12\)"),
    ],
)
def test_user_mistakes(make, x, message):
    with pytest.raises(InputError, match=message):
        apply_to(make, jax.ShapeDtypeStruct(x, jnp.float32))


def test_integer_images_are_refused():
    with pytest.raises(InputError, match="uint8"):
        apply_to(
            lambda r: zoo.SmallCNN(2, rngs=r),
            jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.uint8),
        )
