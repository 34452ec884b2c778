"""The command that serves forget requests one after another, and keeps the ledger."""

from pathlib import Path
from typing import Annotated

import tyro

from jax_unlearn.cli.commands import blamed, forget_ids
from jax_unlearn.cli.console import Reporter, open_console
from jax_unlearn.cli.sources import DataSource
from jax_unlearn.errors import check_seed
from jax_unlearn.lab import Unlearning
from jax_unlearn.lab.chain import LEDGER
from jax_unlearn.lab.chain import chain as serve
from jax_unlearn.lab.ledger import read
from jax_unlearn.lab.models import load_model, origin_of
from jax_unlearn.lab.networks import build
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.unfinished import SECONDS


def chain(
    source: DataSource,
    unlearning: Annotated[Unlearning, tyro.conf.arg(name="")],
    checkpoint: Path,
    requests: tuple[Path, ...],
    out: Path = Path("chain"),
    seed: int = 0,
    save_every: float = SECONDS,
) -> None:
    """Serve forget requests one after another on one model; write a ledger of them.

    Give the command again to go on where it was killed, or with more requests after
    those that were served. OUT/request-N is the model after the N-th.

    Args:
      source: the data the model was trained on.
      unlearning: how each request is served.
      checkpoint: of `jax-unlearn train`.
      requests: files of ids, one a request, in order: .csv, .json or .npy, as for
        `jax-unlearn unlearn`.
      out: folder of the ledger and the models.
      seed: of the first request; each later one has the next.
      save_every: least seconds between two saves to go on from; 0 saves every step.
    """
    check_seed(seed)
    dataset = source.load()
    stored = load_model(checkpoint, dataset)
    asked = [forget_ids(path, dataset, stored) for path in requests]
    console = open_console()
    features = build(stored.network, features=True)
    preparer = Preparer(stored.model, dataset, features)
    with (
        Reporter(console, len(asked)) as progress,
        blamed(unlearning.method, unlearning.learning_rate, checkpoint),
    ):
        served = serve(
            preparer,
            stored.network,
            unlearning,
            stored.trained,
            stored.ids,
            asked,
            stored.unseen,
            folder=out,
            seed=seed,
            origin=origin_of(stored),
            progress=progress,
            save_every=save_every,
        )
        seconds = [done.seconds["run"] for done in served]
    for entry, spent in zip(read(out / LEDGER), seconds, strict=True):
        print(
            f"request {entry['number']}: forgot {entry['forgotten']}, {entry['left']} "
            f"left, in {spent:.1f} s; model {entry['after'][:12]}"
        )
    print(f"ledger {out / LEDGER}; the last model is {out / f'request-{len(asked)}'}")
