"""The command that searches the settings of a method, and those of the demo."""

import functools
from pathlib import Path

from jax_unlearn.cli.console import open_console, say
from jax_unlearn.cli.sources import DataSource, Source, refuse_existing
from jax_unlearn.data import digits, write_atomic
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Plan, Unlearning
from jax_unlearn.lab.store import load_model, origin_of


def tune(
    source: DataSource,
    setting: Unlearning,
    checkpoint: Path | None = None,
    kind: str = "random",
    fraction: float | None = None,
    gamma: float = 1.0,
    seeds: tuple[int, ...] = (100, 101),
    rounds: int = 1,
    folder: Path | None = None,
    out: Path = Path("settings.json"),
    overwrite: bool = False,
) -> None:
    """Search the settings of a method on your data, by the distance from Retrain.

    On each seed a model is trained as the checkpoint's was, one without a request
    drawn for it, and each trial unlearns that request; no trial sees the model of
    the checkpoint. Tried are the values that the method and its weighting name of
    options that you leave alone, then two more around the best. Without a
    checkpoint: the settings of the demo, on seeds that it does not use.

    Args:
      source: the data the model was trained on.
      setting: what all trials share.
      checkpoint: of `jax-unlearn train`.
      kind: of the requests: "random", "class", "long_tailed", "near" or "far".
      fraction: share to forget; default 0.1 (the whole class, for "class").
      gamma: imbalance of "long_tailed".
      seeds: of the models and the requests, two or more.
      rounds: how often two values around the best are tried.
      folder: keeps models and trials, so that the same command goes on there.
      out: file to write: every trial, and the settings chosen.
      overwrite: replace the file if it exists.
    """
    from jax_unlearn.recipes.digits import DEMO_DIGITS
    from jax_unlearn.recipes.search import grid_of, search, text_of

    refuse_existing(out, overwrite=overwrite)
    show = functools.partial(say, open_console())
    if checkpoint is None:
        if source != Source() or setting != Unlearning.of():
            raise InputError(
                "checkpoint=None searches the settings of the demo, which brings "
                "data and methods; give --checkpoint MODEL for your own"
            )
        found = DEMO_DIGITS.study.search(digits(), show)
    else:
        dataset = source.load_for(checkpoint)
        stored = load_model(checkpoint, dataset, modality=setting.modality)
        origin = origin_of(stored)
        if origin is None:
            raise InputError(
                f"checkpoint={checkpoint} does not say how it was trained; give "
                "one of `jax-unlearn train`"
            )
        share = (1.0 if kind == "class" else 0.1) if fraction is None else fraction
        plan = Plan(
            title=f"Settings of {setting.card.label} on {dataset.name}",
            kind=kind,
            fraction=share,
            gamma=gamma,
            unseen=len(stored.unseen) or 0.1,
            training=origin.training,
            methods={},
            seeds=seeds,
        )
        grids = {setting.card.label: grid_of(setting)}
        found = search(plan, dataset, grids, show, rounds=rounds, folder=folder)
        for label, chosen in found["settings"].items():
            show(f"best of {found['trials']}: {label}, {chosen}")
    write_atomic(out, text_of(found), overwrite=overwrite)
    print(f"wrote {out}")
