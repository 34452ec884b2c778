"""Weights of PyTorch: the same logits, there and back, and what does not fit."""

import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import jax_unlearn as ju
from jax_unlearn import zoo
from jax_unlearn.drivers.parameters import MismatchError
from jax_unlearn.errors import InputError
from jax_unlearn.zoo import torch_names, weights

FILE = Path(__file__).parent / "torch_references.npz"
LARGE = {"stem": "imagenet"}
VIT = {"width": 12, "depth": 2}
# what `make_torch_references.py` made: the network here, and whose names it has
SMALL = {
    "basic_imagenet": (zoo.ResNet, dict(stage_sizes=(2, 1, 1, 1), width=3, **LARGE)),
    "basic_cifar": (zoo.ResNet, dict(stage_sizes=(1, 2, 1, 1), width=3)),
    "bottleneck_imagenet": (
        zoo.ResNet,
        dict(stage_sizes=(2, 1, 1, 1), width=2, bottleneck=True, **LARGE),
    ),
    "bottleneck_cifar": (
        zoo.ResNet,
        dict(stage_sizes=(1, 2, 1, 1), width=2, bottleneck=True),
    ),
    "vgg_linear": (zoo.VGG16, dict(width=2)),
    "vgg_torchvision": (zoo.VGG16, dict(width=2, hidden=(8, 6), pool=7)),
    "vgg_timm": (zoo.VGG16, dict(width=2, hidden=(8, 6), pool=7)),
    "vit_timm": (zoo.ViT, dict(image_size=(12, 16), heads=3, **VIT)),
    "vit_torchvision": (
        zoo.ViT,
        dict(image_size=16, patch_size=8, heads=2, hidden=20, **VIT),
    ),
}
SQUARE = {"image_size": 224, "patch_size": 16}
THREE = {"hidden": (4096, 4096), "pool": 7}
FULL = {
    "resnet18": (zoo.ResNet18, LARGE, 11_689_512),
    "resnet34": (zoo.ResNet34, LARGE, 21_797_672),
    "resnet50": (zoo.ResNet50, LARGE, 25_557_032),
    "vgg16_bn": (zoo.VGG16, THREE, 138_365_992),
    "vit_b_16": (zoo.ViTBase, SQUARE, 86_567_656),
    "vit_tiny_patch16_224": (zoo.ViTTiny, SQUARE, 5_717_416),
    "deit_tiny_patch16_224": (zoo.ViTTiny, SQUARE, 5_717_416),
    "vit_small_patch16_224": (zoo.ViTSmall, SQUARE, 22_050_664),
    "vit_base_patch16_224": (zoo.ViTBase, SQUARE, 86_567_656),
}


@functools.cache
def stored():
    with np.load(FILE) as file:
        return dict(file)


def parsed(lines):
    """Return shapes by name of lines "name shape"."""
    pairs = (str(line).split(" ") for line in lines)
    return {name: tuple(map(int, filter(None, s.split(",")))) for name, s in pairs}


@functools.cache
def reference(name):
    """Return a small network's state dict, images and logits, as PyTorch has them."""
    file, state, start = stored(), {}, 0
    values = file[f"{name}:values"].astype(np.float32)
    for key, shape in parsed(file[f"{name}:names"]).items():
        size = math.prod(shape) if shape else 0  # counters of batches have none
        state[key] = (
            values[start : start + size].reshape(shape) if size else np.int64(0)
        )
        start += size
    height, width = file[f"{name}:sides"]
    count = np.arange(2 * 3 * height * width, dtype=np.uint64)
    pixels = (count * 2654435761 % 2**32 >> 16) / 2**14 - 2
    images = pixels.reshape(2, 3, height, width).astype(np.float32)
    return state, images, file[f"{name}:logits"]


@functools.cache  # building nnx modules takes as long as all else here
def made(make, classes=5, **options):
    """Return the model of a network, and its abstract variables."""
    model = ju.from_nnx(lambda rngs: make(classes, rngs=rngs, **options))
    return model, jax.eval_shape(model.init, jax.random.key(0), None)


def converted(name, change=lambda state: state, **more):
    """Return model and variables of a reference, its state dict changed before."""
    make, options = SMALL[name]
    model, like = made(make, **{**options, **more})
    return model, zoo.from_torch(change(reference(name)[0]), *like)


@pytest.mark.parametrize("name", SMALL)
def test_logits_are_those_of_pytorch(name):
    model, variables = converted(name)
    _, images, logits = reference(name)
    assert np.abs(logits).max() > 0.1
    assert np.ptp(logits, axis=0).max() > 0.01  # of the image, not of the biases alone
    apply = jax.jit(functools.partial(model.apply, train=False))
    found = apply(*variables, jnp.asarray(images.transpose(0, 2, 3, 1)))[0]
    np.testing.assert_allclose(found, logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_there_and_back_changes_no_bit(name):
    _, variables = converted(name)
    library = name.partition("_")[2]
    names = library if library in ("timm", "torchvision") else None
    back, given = zoo.to_torch(*variables, names=names), reference(name)[0]
    assert back.keys() == given.keys()
    for key, array in back.items():
        assert array.flags.c_contiguous
        assert array.dtype == given[key].dtype
        np.testing.assert_array_equal(array, given[key], strict=True)


RENAMED = {
    "a ResNet for CIFAR": (
        "basic_cifar",
        {"downsample": "shortcut", "fc.": "linear."},
    ),
    "its head alone": ("bottleneck_cifar", {"fc.": "linear."}),
    "its shortcuts alone": ("bottleneck_imagenet", {"downsample": "shortcut"}),
    "a VGG with fc": ("vgg_linear", {"classifier.": "fc."}),
    "a VGG whose head is a list": ("vgg_linear", {"classifier.": "classifier.0."}),
    "a VGG with dropout first": (
        "vgg_torchvision",
        {"classifier.0.": "classifier.1.", "classifier.3.": "classifier.4."},
    ),
    "an older ViT of torchvision": (
        "vit_torchvision",
        {"mlp.0.": "mlp.linear_1.", "mlp.3.": "mlp.linear_2."},
    ),
}


@pytest.mark.parametrize("case", RENAMED)
def test_other_names_of_the_same_parts(case):
    name, words = RENAMED[case]

    def change(state):
        for old, new in words.items():
            assert any(old in key for key in state)
            state = {key.replace(old, new): value for key, value in state.items()}
        return {f"module.net.{key}": value for key, value in state.items()}

    _, found = converted(name, change)
    jax.tree.map(np.testing.assert_array_equal, found, converted(name)[1])


@pytest.mark.parametrize("key", [k for k in stored() if k.startswith("full:")])
def test_names_and_shapes_of_the_published_networks(key):
    library, name = key.removeprefix("full:").split(".")
    make, options, count = FULL[name]
    _, (params, state) = made(make, 1000, **options)
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == count
    form = next(f for f in torch_names.forms_of(params) if f.library == library)
    leaves = torch_names.leaves_of(form.module, params, state)
    wanted = parsed(stored()[key])
    counters = [n for n in wanted if n.endswith(weights.COUNTER)]
    assert len(counters) == sum(leaf.name.endswith("running_var") for leaf in leaves)
    for counter in counters:
        del wanted[counter]
    assert {leaf.name: leaf.shape for leaf in leaves} == wanted


def own(make, *args, **options):
    """Return the variables of a small network with drawn values."""
    _, like = made(make, *args, **options)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), like)


@pytest.mark.parametrize(
    ("make", "options", "name", "shape"),
    [
        (zoo.SmallCNN, {"width": 2}, "block3.norm.running_var", (8,)),
        (zoo.SmallCNN, {"width": 2}, "block2.conv.weight", (4, 2, 3, 3)),
        (zoo.MLP, {"in_features": 9, "hidden": (7,)}, "hidden1.weight", (7, 9)),
    ],
)
def test_networks_of_our_own_keep_their_names(make, options, name, shape):
    variables = own(make, **options)
    arrays = zoo.to_torch(*variables)
    assert arrays[name].shape == shape
    back = zoo.from_torch(arrays, *made(make, **options)[1])
    jax.tree.map(np.testing.assert_array_equal, back, variables)


class Tensor:
    """As PyTorch's: NumPy may not read it while it is part of a graph."""

    def __init__(self, array):
        self.array = array

    def detach(self):
        return self

    def cpu(self):
        return self.array


def test_tensors_and_half_precision_are_read():
    _, found = converted("vit_timm")
    for kind in (np.float16, ml_dtypes.bfloat16):
        lower = {k: v.astype(kind) for k, v in reference("vit_timm")[0].items()}
        given = {k: Tensor(v) for k, v in lower.items()}
        _, other = converted("vit_timm", lambda _, given=given: given)
        assert {leaf.dtype for leaf in jax.tree.leaves(other)} == {np.dtype("float32")}
        wanted = zoo.from_torch(
            {k: v.astype(np.float32) for k, v in lower.items()},
            *made(SMALL["vit_timm"][0], **SMALL["vit_timm"][1])[1],
        )
        jax.tree.map(np.testing.assert_array_equal, other, wanted)
    jax.tree.map(np.testing.assert_array_equal, found, converted("vit_timm")[1])


def test_types_that_would_lose_digits_are_refused():
    def change(state):
        return {**state, "pos_embed": np.asarray(state["pos_embed"], np.float64)}

    with pytest.raises(InputError, match=r"pos_embed is float64.*v\.astype\('float32'"):
        converted("vit_timm", change)


def test_what_does_not_fit_is_listed():
    def change(state):
        state = dict(state)
        state["layer1.0.conv_1.weight"] = state.pop("layer1.0.conv1.weight")
        state["layer2.0.bn1.bias"] = np.zeros(5, np.float32)
        del state["bn1.weight"]
        return {**state, "epoch": np.int64(3)}

    with pytest.raises(MismatchError) as refused:
        converted("basic_cifar", change)
    told = str(refused.value)
    assert told == (
        "layer2.0.bn1.bias is [5], the network takes [6]; "
        "missing: layer1.0.conv1.weight (near layer1.0.conv_1.weight), bn1.weight; "
        "unexpected: layer1.0.conv_1.weight (near layer1.0.conv1.weight), epoch; "
        "give the weights of this very network"
    )
    assert refused.value.lines[1] == (
        "missing layer1.0.conv1.weight [3, 3, 3, 3]; nearest: layer1.0.conv_1.weight "
        "[3, 3, 3, 3]"
    )
    assert len(refused.value.lines) == 5


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        (
            "basic_cifar",
            {"classes": 7},
            r"^fc.weight is \[5, 24\], the network takes \[7, 24\] \(a head for 5 "
            r"classes: build the network for as many, or give fc.weight and fc.bias "
            r"for 7\), fc.bias is",
        ),
        ("basic_cifar", LARGE, r"conv1.weight is .* \(build it with stem='cifar'\)"),
        ("basic_imagenet", {"stem": "cifar"}, "build it with stem='imagenet'"),
        ("vit_timm", {"image_size": 8}, "build the ViT for 12 patches, or see ju.zoo"),
        ("vgg_torchvision", {"pool": 6}, r"classifier.0.weight is \[8, 784\]"),
        ("vgg_torchvision", {"hidden": ()}, "unexpected: classifier"),
        ("basic_cifar", {"stage_sizes": (2,) * 4}, "missing: layer1.1.conv1.weight"),
        ("basic_cifar", {"bottleneck": True}, "and [0-9]+ more"),
    ],
)
def test_another_network(name, more, message):
    with pytest.raises(MismatchError, match=message):
        converted(name, **more)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {"model": state}, r"arrays\['model'\] holds arrays by name"),
        (lambda state: {**state, "who": "me"}, r"arrays\['who'\] is no array"),
        (lambda state: {}, "missing: "),
    ],
)
def test_no_state_dict(change, message):
    with pytest.raises(InputError, match=message):
        converted("vit_timm", change)


def test_networks_without_names_are_refused():
    _, (params, state) = made(zoo.WhitenedCNN)
    with pytest.raises(InputError, match="no names of PyTorch are known"):
        zoo.to_torch(params, state)
    with pytest.raises(InputError, match="no names of PyTorch are known"):
        zoo.from_torch({}, {"w": jnp.zeros(2)}, {})
    variables = own(zoo.ViT, **SMALL["vit_timm"][1])
    with pytest.raises(InputError, match="names='cifar': this network has the names"):
        zoo.to_torch(*variables, names="cifar")
    many = jax.tree.map(lambda leaf: np.stack([leaf] * 3), variables)
    with pytest.raises(InputError, match="the parameters of one model"):
        zoo.to_torch(*many)


@pytest.mark.parametrize("grid", [(4, 6), (2, 3)])
def test_positions_are_resampled_as_by_timm(grid):
    found = zoo.resampled_positions(stored()["positions"], grid)
    wanted = stored()[f"positions:{grid[0]},{grid[1]}"]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_resampled_positions_fit_a_network_of_another_size():
    state, _, _ = reference("vit_torchvision")
    place = "encoder.pos_embedding"
    other = {**state, place: zoo.resampled_positions(state[place], (3, 3))}
    model, variables = converted("vit_torchvision", lambda _: other, image_size=24)
    x = jnp.ones((2, 24, 24, 3))
    assert model.apply(*variables, x, train=False)[0].shape == (2, 5)
    with pytest.raises(InputError, match=r"positions.shape=\(1, 6, 2\) must be"):
        zoo.resampled_positions(np.ones((1, 6, 2)), (2, 2))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "vit_b_16", "vgg16_bn"])
def test_networks_of_torchvision_at_full_size(name):
    models = pytest.importorskip("torchvision").models
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    network, images = models.get_model(name), torch.randn(2, 3, 224, 224)
    scales = (0.3, 0.6) if name == "resnet50" else (0.9, 1.3)  # blocks add up
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, *scales)
            torch.nn.init.normal_(module.running_mean, std=0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    for module in network.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=module.in_features**-0.5)
    with torch.no_grad():
        logits = network.eval()(images).numpy()
    make, options, _ = FULL[name]
    model, like = made(make, 1000, **options)
    variables = zoo.from_torch(network.state_dict(), *like)
    x = jnp.asarray(images.numpy().transpose(0, 2, 3, 1))
    found, _ = model.apply(*variables, x, train=False)
    assert 0.1 < logits.std() < 10
    np.testing.assert_allclose(found, logits, atol=1e-4)
