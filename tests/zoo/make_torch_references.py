"""Make `torch_references.npz`: small networks of torchvision and timm, with logits.

Not part of the tests, which read the file: needs `pip install torch torchvision timm`.
The networks are of the libraries' own classes at small sizes, so that names, order of
layers and arithmetic are theirs; of those at full size the file has names and shapes.
Seed 0 draws the values, BatchNorm's running moments too; all are exact in half
precision, in which the file keeps them. Made with torch 2.13, torchvision 0.28, timm
1.0.31.

    python tests/zoo/make_torch_references.py
"""

from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
from timm.layers import resample_abs_pos_embed
from timm.models.vgg import ConvMlp
from torch import nn
from torchvision.models import resnet, vgg

FILE = Path(__file__).parent / "torch_references.npz"
CLASSES = 5
VGG = [*(2, 2, "M", 4, 4, "M", 8, 8, 8, "M", 16, 16, 16, "M", 16, 16, 16, "M")]
FULL = {
    "torchvision": ("resnet18", "resnet34", "resnet50", "vgg16_bn", "vit_b_16"),
    "timm": (
        *("resnet18", "resnet34", "resnet50", "vgg16_bn", "vit_tiny_patch16_224"),
        *("vit_small_patch16_224", "vit_base_patch16_224", "deit_tiny_patch16_224"),
    ),
}


class SmallResNet(resnet.ResNet):
    """A ResNet of torchvision with few channels."""

    def __init__(self, block, sizes, width, *, cifar=False):
        nn.Module.__init__(self)
        self._norm_layer, self.inplanes, self.dilation = nn.BatchNorm2d, width, 1
        self.groups, self.base_width = 1, 64
        kernel, stride, padding = (3, 1, 1) if cifar else (7, 2, 3)
        self.conv1 = nn.Conv2d(3, width, kernel, stride, padding, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(width), nn.ReLU()
        self.maxpool = nn.Identity() if cifar else nn.MaxPool2d(3, 2, 1)
        for stage, size in enumerate(sizes):
            channels, stride = width * 2**stage, 2 if stage else 1
            layer = self._make_layer(block, channels, size, stride=stride)
            setattr(self, f"layer{stage + 1}", layer)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(self.inplanes, CLASSES)


def small_vgg(pool, head):
    """Return a VGG-16 of torchvision with few channels and a small head."""
    network = vgg.VGG(vgg.make_layers(VGG, batch_norm=True), init_weights=False)
    network.avgpool, network.classifier = nn.AdaptiveAvgPool2d(pool), head
    return network


def timm_vgg():
    """Return a VGG-16 of timm with few channels and a small head."""
    kind = timm.models.vgg.VGG
    network = kind(VGG, num_classes=CLASSES, norm_layer=nn.BatchNorm2d)
    network.pre_logits = ConvMlp(16, 6, 7, mlp_ratio=1.4)
    network.head.fc = nn.Linear(6, CLASSES)
    return network


def small():
    """Return the small networks by name, with the sides of their images."""
    basic, bottleneck = resnet.BasicBlock, resnet.Bottleneck
    three = nn.Sequential(
        *(nn.Linear(16 * 49, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 6), nn.ReLU()),
        *(nn.Dropout(), nn.Linear(6, CLASSES)),
    )
    sizes = {"patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3}
    vit = timm.models.VisionTransformer(img_size=(12, 16), num_classes=5, **sizes)
    sizes = {"patch_size": 8, "num_layers": 2, "num_heads": 2}
    sizes |= {"hidden_dim": 12, "mlp_dim": 20, "num_classes": CLASSES}
    other = torchvision.models.VisionTransformer(image_size=16, **sizes)
    return {
        "basic_imagenet": (SmallResNet(basic, (2, 1, 1, 1), 3), (37, 50)),
        "basic_cifar": (SmallResNet(basic, (1, 2, 1, 1), 3, cifar=True), (14, 14)),
        "bottleneck_imagenet": (SmallResNet(bottleneck, (2, 1, 1, 1), 2), (48, 48)),
        "bottleneck_cifar": (
            SmallResNet(bottleneck, (1, 2, 1, 1), 2, cifar=True),
            (15, 13),
        ),
        "vgg_linear": (small_vgg(1, nn.Linear(16, CLASSES)), (67, 33)),
        "vgg_torchvision": (small_vgg(7, three), (100, 300)),
        "vgg_timm": (timm_vgg(), (100, 64)),
        "vit_timm": (vit, (12, 16)),
        "vit_torchvision": (other, (16, 16)),
    }


def draw(network, generator):
    """Fill a network with values of half precision that its logits depend on."""
    for name, value in network.state_dict().items():
        if not value.is_floating_point():
            continue
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith("running_var"):
            noise = 0.5 + torch.rand(value.shape, generator=generator)
        elif value.ndim == 1:
            scales = name.endswith("weight")
            mean = 1.05 if name.startswith("features") else 0.7
            noise = mean + 0.2 * noise if scales else 0.2 * noise
        elif value.ndim > 1 and "pos" not in name and "token" not in name:
            noise = noise / (value[0].numel() / 2) ** 0.5
        value.copy_(noise.half())
    return network.eval()


def images(height, width):
    """Return two images `f32[2, 3, H, W]`; the test makes the same."""
    count = np.arange(2 * 3 * height * width, dtype=np.uint64)
    pixels = (count * 2654435761 % 2**32 >> 16) / 2**14 - 2
    return pixels.reshape(2, 3, height, width).astype(np.float32)


def names_of(state):
    """Return "name shape" of each array of a state dict."""
    return np.array([f"{k} {','.join(map(str, v.shape))}" for k, v in state.items()])


def full(library, name):
    """Return names and shapes of a published network."""
    with torch.device("meta"):
        make = timm.create_model if library == "timm" else torchvision.models.get_model
        return names_of(make(name).state_dict())


def main():
    """Write the file."""
    generator, made = torch.Generator().manual_seed(0), {}
    for name, (network, sides) in small().items():
        draw(network, generator)
        with torch.no_grad():
            logits = network(torch.from_numpy(images(*sides))).numpy()
        print(f"{name}: logits of std {logits.std():.2f}")
        state = network.state_dict()
        floats = [value.flatten() for value in state.values() if value.ndim]
        made[f"{name}:values"] = torch.cat(floats).half().numpy()
        made[f"{name}:names"] = names_of(state)
        made[f"{name}:sides"], made[f"{name}:logits"] = np.array(sides), logits
    positions = torch.randn((1, 17, 3), generator=generator)
    made["positions"] = positions.numpy()
    for grid in ((4, 6), (2, 3)):
        other = resample_abs_pos_embed(positions, list(grid)).numpy()
        made[f"positions:{grid[0]},{grid[1]}"] = other
    for library, names in FULL.items():
        for name in names:
            made[f"full:{library}.{name}"] = full(library, name)
    np.savez_compressed(FILE, **made)
    print(f"{FILE.name}: {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
