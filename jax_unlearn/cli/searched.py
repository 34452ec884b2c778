"""The split that is searched, not drawn: the worst request to a classifier."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from jax_unlearn import data
from jax_unlearn._validate import at_least
from jax_unlearn.cli.console import Reporter, open_console, say
from jax_unlearn.cli.sources import refuse_existing
from jax_unlearn.data.checks import check_real
from jax_unlearn.errors import InputError
from jax_unlearn.lab.requests import split_within
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.store import load_model, origin_of
from jax_unlearn.lab.worst import ROUNDS, Searched, cost, worst_request


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
            f"kind={kind!r} takes the samples that {original} was trained on, of any "
            f"class, and holds out what it did; leave --{name.replace('_', '-')} out"
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
