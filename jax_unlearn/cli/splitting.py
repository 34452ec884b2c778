"""The command that divides the training samples: drawn, listed, or searched."""

import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from jax_unlearn import data
from jax_unlearn._validate import at_least
from jax_unlearn.cli.console import Reporter, open_console, say
from jax_unlearn.cli.habits import asked_options
from jax_unlearn.cli.sources import DataSource, refuse_existing
from jax_unlearn.data.checks import check_real
from jax_unlearn.data.splits import WORST
from jax_unlearn.errors import InputError, check_seed
from jax_unlearn.lab.requests import (
    drawn_split,
    listed,
    listed_split,
    set_aside,
    split_within,
)
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.store import load_model, origin_of
from jax_unlearn.lab.worst import ROUNDS, Searched, cost, worst_request

__all__ = ["imbalance", "searched", "split"]

Drawn = Annotated[str, tyro.conf.arg(metavar="{random,class,long_tailed,worst,hard}")]


def split(
    source: DataSource,
    out: Path = Path("split.json"),
    ids: Path | None = None,
    kind: Drawn = "random",
    fraction: float | None = None,
    gamma: float | None = None,
    classes: tuple[int, ...] | None = None,
    unseen_fraction: float | None = None,
    seed: int = 0,
    original: Path | None = None,
    unlearn: str | None = None,
    rounds: int | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Divide the training samples into forget, retain and unseen; write a manifest.

    Example: `jax-unlearn split --dataset digits --kind class --classes 3`

    Args:
      source: The data.
      out: path of the manifest that is written.
      ids: file that lists the samples to forget, instead of a random draw (.csv, .json,
        .jsonl, .txt, .npy or .parquet). It lists positions, or with --key-column keys.
      kind: how the samples are chosen: "random", "class" or "long_tailed"; or, with
        --original, those that unlearning is worst at: "worst" (smallest loss after
        unlearning), "hard" (smallest loss compared with models that never saw them).
      fraction: share of the training samples to forget. Default: 0.1; for "class", all
        samples of the classes.
      gamma: imbalance between the classes, for "long_tailed". Default: 1.
      classes: numbers of the classes to forget, for "class".
      unseen_fraction: share of the samples that is held out of all training. Default:
        0.1; with --original, the samples that it held out.
      seed: seed of the random draws.
      original: classifier whose hardest samples are searched, for "worst" and "hard".
      unlearn: method, with its default settings, that unlearns in the search. Default:
        two epochs of sign-SGD on the samples that stay.
      rounds: number of rounds of the search; each unlearns once. Default: 10. A search
        that was stopped goes on, and so does one with more rounds; its state is stored
        beside the manifest.
      overwrite: replace the manifest if it exists.
    """
    check_seed(seed)
    law = imbalance(gamma, "ids" if ids is not None else kind)
    dataset = source.load() if original is None else source.load_for(original)
    how = {"kind": kind, "fraction": fraction, "classes": classes}
    share = 0.1 if unseen_fraction is None else unseen_fraction
    held: dict[str, Any] = {"fraction": share, "seed": seed}
    told = {"original": original, "unlearn": unlearn, "rounds": rounds}
    if kind in WORST and ids is None:
        told |= {"classes": classes, "unseen_fraction": unseen_fraction}
        share = 0.1 if fraction is None else fraction
        parts, unseen = searched(dataset, out, kind, share, seed, overwrite, **told)
    elif any(value is not None for value in told.values()):
        raise InputError(
            f"kind={kind!r} with original={original}, unlearn={unlearn}, "
            f"rounds={rounds}: these search a request of --kind worst or hard; give "
            "that, or leave them out"
        )
    elif ids is None:
        trained, unseen = set_aside(dataset.train.labels, share, seed)
        parts = drawn_split(dataset, trained, seed=seed, gamma=law, **how)
    elif how != {"kind": "random", "fraction": None, "classes": None}:
        raise InputError(
            f"ids={ids} says who is forgotten; leave out --kind, --fraction and "
            "--classes"
        )
    else:
        parts, unseen = listed_split(dataset, listed(ids, dataset, source.keys), **held)
    parts = parts._replace(manifest={**parts.manifest, **asked_options()})
    data.save_manifest(out, parts, unseen=unseen, overwrite=overwrite)
    print(
        f"{dataset.name}: forget {len(parts.forget)}, retain {len(parts.retain)}, "
        f"unseen {len(unseen)}; forget by class {parts.manifest['forget_counts']}; "
        f"wrote {out}"
    )
    sizes = {"forget": parts.forget, "retain": parts.retain, "unseen": unseen}
    by_class = {"forget_counts": parts.manifest["forget_counts"]}
    sizes = {name: len(part) for name, part in sizes.items()}
    return {"out": str(out), "samples": sizes, **by_class}


def imbalance(gamma: float | None, kind: str) -> float:
    """Return the imbalance of a long-tailed draw; refuse one of any other request."""
    if gamma is not None and kind != "long_tailed":
        raise InputError(
            f"gamma={gamma:g} is the imbalance of kind='long_tailed', and this request "
            f"is of {kind!r}; give --kind long_tailed, or leave --gamma out"
        )
    return 1.0 if gamma is None else gamma


def searched(
    dataset: data.Dataset,
    out: Path,
    kind: str,
    fraction: float,
    seed: int,
    overwrite: bool,
    *,
    original: Path | None,
    unlearn: str | None,
    rounds: int | None,
    classes: Any,
    unseen_fraction: float | None,
) -> tuple[data.Split, np.ndarray]:
    """Return the split of the worst request to a model, and what it held out."""
    if original is None:
        raise InputError(
            f"kind={kind!r} is searched by unlearning a model; give it: --original "
            "MODEL, of `jax-unlearn train` or `import`"
        )
    if classes is not None or unseen_fraction is not None:
        name = "classes" if classes is not None else "unseen_fraction"
        raise InputError(
            f"kind={kind!r} takes samples of any class that {original} was trained on, "
            f"and its held-out ones; leave --{name.replace('_', '-')} out"
        )
    check_real("fraction", fraction, "the part to forget, such as 0.1")
    rounds = ROUNDS if rounds is None else rounds
    at_least("rounds", rounds, 1, "try 10")
    refuse_existing(out, overwrite=overwrite)
    setting = None if unlearn is None else Unlearning.of(method=unlearn)
    stored = load_model(original, dataset)
    subject = stored.subject(dataset)
    given = Searched(subject, stored.trained, stored.ids, stored.unseen, None)
    given = given._replace(origin=origin_of(stored))
    count = round(fraction * len(stored.ids))
    console = open_console()
    say(console, f"searching the {kind} request: {cost(kind, rounds, setting)}")
    path = out.with_name(f"{out.name}.search.npz")
    how: dict[str, Any] = {"kind": kind, "rounds": rounds, "setting": setting}
    how |= {"seed": seed, "path": path}
    with Reporter(console, 1 + (kind == "hard")) as progress:
        ids, note = worst_request(given, count, progress=progress, **how)
    left = note["left"]
    beside = " less that of models that never saw them" if kind == "hard" else ""
    say(
        console,
        f"mean loss{beside} after unlearning: {left[0]:.3f} of a random request, "
        f"{min(left, default=math.nan):.3f} of the worst of {len(left)}",
    )
    split = split_within(dataset, stored.ids, ids, kind=kind)
    manifest = {**split.manifest, "fraction": float(fraction), "seed": seed}
    return split._replace(manifest={**manifest, "search": note}), stored.unseen
