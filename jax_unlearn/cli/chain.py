"""The command that serves one request after another."""

from pathlib import Path
from typing import Any

from jax_unlearn.cli.console import Reporter, open_console
from jax_unlearn.cli.sources import DataSource, reading_of
from jax_unlearn.errors import check_seed
from jax_unlearn.lab import chain as chains
from jax_unlearn.lab import ledger, store
from jax_unlearn.lab.job import blamed
from jax_unlearn.lab.requests import requested
from jax_unlearn.lab.settings import Unlearning

__all__ = ["chain"]


def chain(
    source: DataSource,
    setting: Unlearning,
    checkpoint: Path,
    requests: tuple[str, ...],
    out: Path = Path("chain"),
    seed: int = 0,
    save_every: float = store.SECONDS,
) -> dict[str, Any]:
    """Serve forget requests one after another on one model; write a ledger of them.

    Give the command again to go on where it was killed, or with more requests after
    those that were served. OUT/request-N is the model after the N-th.

    Args:
      source: the data the model was trained on.
      setting: how each request is served.
      checkpoint: of `jax-unlearn train`.
      requests: one a request, in order: a file that lists samples, or a class, as for
        `jax-unlearn unlearn`.
      out: folder of the ledger and the models.
      seed: of the first request; each later one has the next.
      save_every: least seconds between two saves to go on from; 0 saves every step.
    """
    check_seed(seed)
    dataset = source.load_for(checkpoint)
    stored = store.load_model(checkpoint, dataset, modality=setting.modality)
    subject, origin = stored.subject(dataset), store.origin_of(stored)
    held = stored.ids, stored.unseen
    named = [requested(subject, *held, text, source.keys) for text in requests]
    ids = [one.ids for one in named]
    parts = stored.trained, *held, origin
    start = chains.Chain(subject, *parts, reading_of(stored.record))
    blame = setting.method, setting.learning_rate, checkpoint
    with Reporter(open_console(), len(ids)) as progress, blamed(*blame):
        how = {"folder": out, "seed": seed, "save_every": save_every}
        how["records"] = [one.record for one in named]
        served = chains.chain(start, setting, ids, progress=progress, **how)
        seconds = [done.seconds["run"] for done in served]
    record = out / chains.LEDGER
    entries = ledger.read(record)
    for entry, spent in zip(entries, seconds, strict=True):
        print(
            f"request {entry['number']}: forgot {entry['forgotten']}, "
            f"{entry['left']} left, in {spent:.1f} s; model {entry['after'][:12]}"
        )
        for line in entry.get("chosen", {}).get("why", ()):
            print(f"auto: {line}")
        for line in entry.get("certificate", {}).get("says", ()):
            print(line)
    last = out / f"request-{len(ids)}"
    print(f"ledger {record}; the last model is {last}")
    return {"ledger": str(record), "last": str(last), "requests": entries}
