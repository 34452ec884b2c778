"""The studies behind the papers' tables: which data, which requests, which methods.

Fashion-MNIST at 14 x 14 and a subset of CIFAR-10 with a small ResNet are for a CPU; the
papers' own sizes are for an accelerator: CIFAR-10 with ResNet-18 and VGG-16, CIFAR-100
with ResNet-18, Tiny-ImageNet with VGG-16. A part is one request: random, a class,
long-tailed at several γ, near or far. Parts without a search of their own take the
settings of the part they vary.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jax_unlearn.data import Dataset, shrink, subset
from jax_unlearn.lab import Training
from jax_unlearn.recipes.compared import (
    BASES,
    FIELD,
    TRANSPORT,
    WITH_FALW,
    WITH_LOREUN,
    weighted,
)
from jax_unlearn.recipes.inputs import read_file, study_named
from jax_unlearn.recipes.search import Final


class Part(NamedTuple):
    """One request, and what is asked of it.

    Attributes:
      title: what its table is called.
      kind, fraction, gamma: of the request, as in `Plan`.
      methods: labels of its rows.
      settings: the part whose search its settings come from.
      headline: whether it has all seeds of the study, or the first three.
      seeds: its own, which no choice has seen; it then also has transport with
        `ranking="reference"`, which was thought of after a look at the other seeds.
    """

    title: str
    kind: str
    fraction: float
    gamma: float
    methods: tuple[str, ...]
    settings: str
    headline: bool = False
    seeds: tuple[int, ...] = ()


class Study(NamedTuple):
    """One size of the study.

    Attributes:
      title: of its tables.
      train, test: samples taken of the data set; 0 takes all.
      shrink: how many times smaller the images are made.
      unseen: of the training samples, held out of all training.
      training: how original and Retrain are trained.
      parts: by name, the first one first.
      seeds: of the tables.
      search_seeds: of all trials of a search.
      rounds: of a search after its grid, two trials each.
      final: a second look at the best trials, if there is one.
    """

    title: str
    train: int
    test: int
    shrink: int
    unseen: int
    training: Training
    parts: Mapping[str, Part]
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    search_seeds: tuple[int, ...] = (100, 101)
    rounds: int = 2
    final: Final | None = None


_TWO_FALW = ("RL + FaLW (every 8)", "RL + FaLW (anchored)")
_TAIL = ("FT", "RL", "SalUn", *WITH_FALW, *TRANSPORT)
_FEW = (
    *("FT", "RL", "SalUn", "LTU", *_TWO_FALW, *TRANSPORT),
    *(weighted(base, "dynamic") for base in ("RL", "SalUn")),
)
_FRESH = ("FT", "RL", "SalUn", "NegGrad+", "Transport, no decay")


def _gammas(
    methods: Sequence[str],
    *gammas: float,
    fraction: float = 0.1,
) -> dict[str, Part]:
    """Return the long-tailed parts, all with the settings of the first γ."""
    return {
        f"gamma-{gamma:g}": Part(
            f"long-tailed {100 * fraction:g} %, γ = {gamma:g}",
            "long_tailed",
            fraction,
            gamma,
            tuple(methods),
            f"gamma-{gammas[0]:g}",
            headline=gamma == gammas[0],
        )
        for gamma in gammas
    }


def _fresh(part: Part, methods: Sequence[str]) -> Part:
    """Return a part on seeds of its own."""
    return part._replace(
        title=f"{part.title}, fresh seeds",
        methods=tuple(methods),
        headline=False,
        seeds=(10, 11, 12, 13, 14),
    )


_RANDOM10 = Part(
    "10 % at random",
    "random",
    0.1,
    1.0,
    (*FIELD, "LTU", *WITH_LOREUN, *_TWO_FALW, *TRANSPORT),
    "random10",
    headline=True,
)
_NEAR = _RANDOM10._replace(
    title="a near forget set", kind="near", methods=_FEW, headline=False
)
_FAR = _NEAR._replace(title="a far forget set", kind="far")
_ALL = {
    "random10": _RANDOM10,
    **_gammas(_TAIL, 1, 0, 0.5, 1.5, 2),
    "random50": _RANDOM10._replace(
        title="50 % at random", fraction=0.5, settings="random50", headline=False
    ),
    "class": Part(
        "a class",
        "class",
        1.0,
        1.0,
        ("FT", "l1-sparse", "NegGrad+", "SSD", *BASES, *WITH_LOREUN),
        "class",
    ),
    "near": _NEAR,
    "far": _FAR,
}

_SMALL = Training(network="resnet8", width=8, epochs=25, learning_rate=0.1)
_LARGE = Training(
    network="resnet18",
    epochs=182,
    batch_size=256,
    learning_rate=0.1,
    augment="flip_crop",
    dtype="bfloat16",
)
_VGG = dataclasses.replace(_LARGE, network="vgg16")


def _full(title: str, training: Training, parts: Mapping[str, Part]) -> Study:
    """Return a study of all samples, a tenth of them unseen; few seeds, so finals."""
    final = Final(3, (102, 103))
    return Study(title, 0, 0, 1, 5000, training, parts, (0, 1, 2), final=final)


STUDIES = {
    "fashion": Study(
        "Fashion-MNIST subset, 14 x 14",
        train=5000,
        test=2000,
        shrink=2,
        unseen=1000,
        training=_SMALL,
        parts={
            **_ALL,
            "fresh-random10": _fresh(_RANDOM10, _FRESH),
            "fresh-gamma-1": _fresh(_ALL["gamma-1"], _TAIL),
            "fresh-near": _fresh(_NEAR, _FRESH),
            "fresh-far": _fresh(_FAR, _FRESH),
        },
    ),
    "cifar10": Study(
        "CIFAR-10 subset",
        train=4000,
        test=2000,
        shrink=1,
        unseen=1000,
        training=_SMALL,
        parts={
            "random10": _RANDOM10,
            **_gammas(("FT", "RL", "SalUn", *_TWO_FALW, *TRANSPORT), 1),
            "fresh-random10": _fresh(
                _RANDOM10, [label for label in _FRESH if label != "NegGrad+"]
            ),
            # the same seeds: what another machine's rounding makes of a table
            "again-random10": _RANDOM10._replace(
                title="10 % at random, on another machine", methods=_FEW
            ),
        },
        rounds=1,
    ),
    "cifar10-full": _full("CIFAR-10, ResNet-18", _LARGE, _ALL),
    "cifar10-vgg": _full("CIFAR-10, VGG-16", _VGG, _gammas(_TAIL, 1, 0, 0.5, 1.5, 2)),
    "cifar100-full": _full(
        "CIFAR-100, ResNet-18",
        _LARGE,
        _gammas(_TAIL, 1, 0, 0.25, 1 / 3, 0.5, 1.5, 2, fraction=0.3),
    ),
    "tiny-imagenet-full": _full(
        "Tiny-ImageNet, VGG-16",
        _VGG,
        _gammas(_TAIL, 0.5, fraction=0.4),
    )._replace(unseen=10000),
}


def load(name: str, data: Path | None) -> Dataset:
    """Return the data of a study, subset and size of images as it says.

    Args:
      name: of the study.
      data: .npz file of the data set.

    Raises:
      InputError: no such study, no file.
    """
    study = study_named(name, STUDIES)
    dataset = read_file(data, study.title)
    if study.train:
        dataset = subset(dataset, train=study.train, test=study.test)
    return shrink(dataset, study.shrink)
