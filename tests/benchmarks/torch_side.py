"""The PyTorch contestants: networks, the straightforward step and the best one.

The networks have the attribute names of `jax_unlearn.zoo`, so that weights can be
carried over by name. A step is one of RL, SalUn, RL + LoReUn and RL + FaLW over a batch
whose first half is to be forgotten: one pass, one mean over all samples.
"""

import math

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]

RATE, MOMENTUM, TEMPERATURE, TAU = 0.01, 0.9, 1.0, 0.15
STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))  # VGG-16


class ConvNorm(nn.Module):
    """Convolution, BatchNorm and perhaps ReLU."""

    def __init__(self, inner, outer, *, kernel=3, stride=1, bias=False, relu=True):
        super().__init__()
        self.conv = nn.Conv2d(
            inner, outer, kernel, stride=stride, padding=kernel // 2, bias=bias
        )
        self.norm = nn.BatchNorm2d(outer)
        self.relu = relu

    def forward(self, x):
        x = self.norm(self.conv(x))
        return F.relu(x, inplace=True) if self.relu else x


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, inner, outer, stride):
        super().__init__()
        self.block1 = ConvNorm(inner, outer, stride=stride)
        self.block2 = ConvNorm(outer, outer, relu=False)
        self.shortcut = None
        if stride != 1 or inner != outer:
            self.shortcut = ConvNorm(inner, outer, kernel=1, stride=stride, relu=False)

    def forward(self, x):
        y = self.block2(self.block1(x))
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nn.Module):
    """The network of `jax_unlearn.zoo.ResNet`."""

    def __init__(self, num_classes, width=64, stage_sizes=(2, 2, 2, 2), in_channels=3):
        super().__init__()
        self.stem = ConvNorm(in_channels, width)
        self.names, inner = [], width
        for stage, size in enumerate(stage_sizes):
            for index in range(size):
                outer = width * 2**stage
                self.names.append(f"stage{stage + 1}_block{index + 1}")
                stride = 2 if stage > 0 and index == 0 else 1
                setattr(self, self.names[-1], Block(inner, outer, stride))
                inner = outer
        self.head = nn.Linear(inner, num_classes)

    def forward(self, x):
        x = self.stem(x)
        for name in self.names:
            x = getattr(self, name)(x)
        return self.head(x.mean((2, 3)))


class VGG16(nn.Module):
    """The network of `jax_unlearn.zoo.VGG16`."""

    def __init__(self, num_classes, width=64, in_channels=3):
        super().__init__()
        self.stages, inner = [], in_channels
        for stage, (size, outer) in enumerate(STAGES):
            self.stages.append([])
            for index in range(size):
                name = f"stage{stage + 1}_conv{index + 1}"
                layer = ConvNorm(inner, outer * width // 64, bias=True)
                setattr(self, name, layer)
                self.stages[-1].append(name)
                inner = outer * width // 64
        self.head = nn.Linear(inner, num_classes)

    def forward(self, x):
        for stage in self.stages:
            for name in stage:
                x = getattr(self, name)(x)
            x = F.max_pool2d(x, 2)
        return self.head(x.mean((2, 3)))


class SmallCNN(nn.Module):
    """The network of `jax_unlearn.zoo.SmallCNN`."""

    def __init__(self, num_classes, width=16, in_channels=1):
        super().__init__()
        self.block1 = ConvNorm(in_channels, width)
        self.block2 = ConvNorm(width, 2 * width, stride=2)
        self.block3 = ConvNorm(2 * width, 4 * width, stride=2)
        self.head = nn.Linear(4 * width, num_classes)

    def forward(self, x):
        x = self.block3(self.block2(self.block1(x)))
        return self.head(x.mean((2, 3)))


def load(net, params):
    """Give a network the parameters of its twin, nested dicts of arrays by name."""
    with torch.no_grad():
        for path, value in _flat(params):
            find(net, path).copy_(torch.from_numpy(layout(path, value).copy()))
    return net


def find(net, path):
    """Return the parameter of a path of the twin."""
    *modules, leaf = path
    name = "weight" if leaf in ("kernel", "scale") else leaf
    for part in modules:
        net = getattr(net, part)
    return getattr(net, name)


def layout(path, value):
    """Return an array of the twin in PyTorch's order of axes."""
    value = np.asarray(value)
    if path[-1] != "kernel":
        return value
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T


def _flat(tree, path=()):
    if not isinstance(tree, dict):
        return [(path, tree)]
    return [leaf for name in tree for leaf in _flat(tree[name], (*path, name))]


def changes(net, params):
    """Return the difference from the parameters of the twin, as one long vector."""
    net = getattr(net, "_orig_mod", net)
    pairs = [(find(net, path), layout(path, value)) for path, value in _flat(params)]
    new = [p.detach().cpu().numpy().ravel() for p, _ in pairs]
    return np.concatenate(new) - np.concatenate([old.ravel() for _, old in pairs])


class Straightforward:
    """A step as public repositories write it."""

    compiled = channels_last = False

    def __init__(self, net, method, problem, *, device="cpu", mask=None):
        self.net, self.method, self.problem = net.to(device).train(), method, problem
        self.device = device
        self.mask = mask and {
            id(find(net, path)): torch.from_numpy(layout(path, value).copy()).to(device)
            for path, value in _flat(mask)
        }
        self.optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=MOMENTUM)
        self.relabelled = torch.from_numpy(problem.relabelled).long().to(device)
        self.unseen = None

    def __call__(self, x, labels, ids):
        half = len(labels) // 2
        target = torch.cat([self.relabelled[ids[:half]], labels[half:]])
        moments = self.moments() if self.method == "RL + FaLW" else None
        outputs = self.net(x)
        if self.method in ("RL", "SalUn"):
            loss = nn.CrossEntropyLoss()(outputs, target)
        else:
            losses = F.cross_entropy(outputs, target, reduction="none")
            weights = torch.ones_like(losses)
            weights[:half] = self.weights(outputs[:half], labels[:half], moments)
            loss = (weights * losses).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.apply_mask()
        self.optimizer.step()
        return loss.item()

    def apply_mask(self):
        if self.mask is None:
            return
        for parameter in self.net.parameters():
            if parameter.grad is not None:
                parameter.grad *= self.mask[id(parameter)]

    def weights(self, outputs, labels, moments):
        outputs = outputs.detach()
        if self.method == "RL + LoReUn":
            losses = F.cross_entropy(outputs, labels, reduction="none")
            return len(labels) * torch.softmax(-losses / TEMPERATURE, 0)
        confidence = torch.softmax(outputs, 1).gather(1, labels[:, None])[:, 0]
        mean, std, count = moments
        z = (confidence - mean[labels]) / std[labels]
        balance = self.balance()[labels]
        strength = torch.tanh(z.abs()) ** (1 / balance)
        weights = 1 + torch.sign(z) * strength
        return torch.where(count[labels] > 0, weights, torch.ones_like(weights))

    def balance(self):
        counts = torch.from_numpy(np.asarray(self.problem.counts)).to(self.device)
        ratio = counts.sum() / (len(counts) * counts.clamp(min=1))
        return torch.where(counts > 0, ratio**TAU, torch.ones_like(ratio))

    def moments(self):
        """Go over the unseen set batch by batch, then class by class."""
        if self.unseen is None:
            images, labels = self.problem.unseen
            x = self.tensor(images)
            y = torch.from_numpy(labels).long().to(self.device)
            data = torch.utils.data.TensorDataset(x, y)
            self.unseen = torch.utils.data.DataLoader(data, batch_size=len(labels))
        self.net.eval()
        confidences, classes = [], []
        with torch.no_grad():
            for x, y in self.unseen:
                probs = torch.softmax(self.net(x), 1)
                confidences.append(probs.gather(1, y[:, None])[:, 0])
                classes.append(y)
        self.net.train()
        confidence, label = torch.cat(confidences), torch.cat(classes)
        size = len(self.problem.counts)
        mean, std = torch.zeros(size), torch.full((size,), 1e-8)
        count = torch.zeros(size)
        for k in range(size):
            own = confidence[label == k]
            count[k] = len(own)
            if len(own):
                mean[k] = own.mean()
                std[k] = max(own.std(unbiased=False).item(), 1e-8)
        return mean.to(self.device), std.to(self.device), count.to(self.device)

    def tensor(self, images):
        """Return normalised floating images NHWC as this step wants them."""
        x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
        form = torch.channels_last if self.channels_last else torch.contiguous_format
        return x.contiguous(memory_format=form).to(self.device)


class Best(Straightforward):
    """The same step with what makes PyTorch faster.

    Channels last, compiled if asked to, one fused update, masks by one call, moments
    without a loop over classes, nothing read back but at the end.
    """

    channels_last = True

    def __init__(self, net, method, problem, *, device="cpu", mask=None, compiled):
        net = net.to(memory_format=torch.channels_last)
        super().__init__(net, method, problem, device=device, mask=mask)
        self.optimizer = torch.optim.SGD(
            net.parameters(), lr=RATE, momentum=MOMENTUM, fused=True
        )
        if self.mask is not None:
            self.mask = [self.mask[id(p)].float() for p in net.parameters()]
        self.compiled = compiled
        self.known_balance = super().balance()
        if compiled:
            self.net = torch.compile(net)

    def __call__(self, x, labels, ids):
        half = len(labels) // 2
        target = torch.cat([self.relabelled[ids[:half]], labels[half:]])
        moments = self.moments() if self.method == "RL + FaLW" else None
        outputs = self.net(x)
        if self.method in ("RL", "SalUn"):
            loss = F.cross_entropy(outputs, target)
        else:
            losses = F.cross_entropy(outputs, target, reduction="none")
            with torch.no_grad():
                weights = self.weights(outputs[:half], labels[:half], moments)
            loss = (torch.dot(weights, losses[:half]) + losses[half:].sum()) / len(
                losses
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.apply_mask()
        self.optimizer.step()
        return loss.detach()

    def apply_mask(self):
        if self.mask is not None:
            torch._foreach_mul_([p.grad for p in self.net.parameters()], self.mask)

    def balance(self):
        return self.known_balance

    def moments(self):
        if self.unseen is None:
            images, labels = self.problem.unseen
            y = torch.from_numpy(labels).long().to(self.device)
            self.unseen = self.tensor(images), y
        x, y = self.unseen
        size = len(self.problem.counts)
        self.net.eval()
        with torch.inference_mode():
            probs = torch.softmax(self.net(x), 1).gather(1, y[:, None])[:, 0]
            zeros = torch.zeros(size, device=self.device)
            count = zeros.index_add(0, y, torch.ones_like(probs))
            share = count.clamp(min=1)
            mean = zeros.index_add(0, y, probs) / share
            variance = zeros.index_add(0, y, (probs - mean[y]) ** 2) / share
        self.net.train()
        return mean, variance.sqrt().clamp(min=1e-8), count


class Photos(torch.utils.data.Dataset):
    """Samples one by one, transformed as is usual: crop, flip, scale, normalise."""

    def __init__(self, images, labels, mean, std):
        self.images, self.labels = images, labels
        self.mean = torch.tensor(mean)[:, None, None]
        self.std = torch.tensor(std)[:, None, None]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        image = np.pad(self.images[index], ((4, 4), (4, 4), (0, 0)))
        top, left = (int(v) for v in torch.randint(0, 9, (2,)))
        size = self.images.shape[1]
        image = image[top : top + size, left : left + size]
        if torch.rand(1) < 0.5:
            image = image[:, ::-1]
        x = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        x = (x.float().div(255) - self.mean) / self.std
        return x, int(self.labels[index]), index


def loader(problem, batches, *, workers=0):
    """Return the usual DataLoader over given batches of ids."""
    data = Photos(problem.images, problem.labels, problem.mean, problem.std)
    return torch.utils.data.DataLoader(
        data,
        batch_sampler=batches,
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
    )


class Tensors:
    """Batches cut from tensors, transformed all at once: the fast way."""

    def __init__(self, problem, *, device="cpu"):
        images = torch.from_numpy(problem.images).to(device)
        self.images = images.permute(0, 3, 1, 2).contiguous()
        self.labels = torch.from_numpy(problem.labels).long().to(device)
        shape = (1, -1, 1, 1)
        self.mean = torch.tensor(problem.mean, device=device).view(shape) * 255
        self.scale = 1 / (torch.tensor(problem.std, device=device).view(shape) * 255)
        self.device = device

    def __call__(self, ids):
        ids = torch.as_tensor(ids, device=self.device)
        size, side = len(ids), self.images.shape[-1]
        x = F.pad(self.images[ids], (4, 4, 4, 4))
        places = torch.arange(side, device=self.device)
        corner = torch.randint(0, 9, (2, size, 1), device=self.device)
        columns = torch.where(
            torch.rand(size, 1, device=self.device) < 0.5, places, side - 1 - places
        )
        rows, columns = corner[0] + places, corner[1] + columns
        batch = torch.arange(size, device=self.device)[:, None, None]
        x = x.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None]]
        x = x.permute(0, 3, 1, 2).float()  # channels last in memory
        return (x - self.mean) * self.scale, self.labels[ids], ids


def operations(net, shape):
    """Return the operations of convolutions and products of a forward pass."""
    from torch.utils.flop_counter import FlopCounterMode  # pyright: ignore[reportMissingImports]

    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        net(torch.zeros(shape))
    return counter.get_total_flops()


def parameters(net):
    """Return the number of parameters."""
    return sum(math.prod(p.shape) for p in net.parameters())


NETWORKS = {"ResNet-18": ResNet, "VGG-16": VGG16}
