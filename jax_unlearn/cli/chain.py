"""The command that serves forget requests one after another, and keeps the ledger."""

from collections.abc import Callable
from pathlib import Path

from jax_unlearn.cli.choices import Choice, parsed
from jax_unlearn.cli.console import Reporter, open_console
from jax_unlearn.cli.sources import DataSource
from jax_unlearn.errors import check_seed
from jax_unlearn.lab.chain import LEDGER, Chain
from jax_unlearn.lab.chain import chain as serve
from jax_unlearn.lab.job import blamed
from jax_unlearn.lab.ledger import read
from jax_unlearn.lab.requests import requested
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.store import SECONDS, load_model, origin_of


def chain_command(choice: Choice) -> Callable[..., None]:
    """Return the command that serves requests by a method."""

    def chain(
        source: DataSource,
        setting: Unlearning,
        checkpoint: Path,
        requests: tuple[str, ...],
        out: Path = Path("chain"),
        seed: int = 0,
        save_every: float = SECONDS,
    ) -> None:
        """Serve forget requests one after another on one model; write a ledger of them.

        Give the command again to go on where it was killed, or with more requests after
        those that were served. OUT/request-N is the model after the N-th.

        Args:
          source: the data the model was trained on.
          setting: how each request is served.
          checkpoint: of `jax-unlearn train`.
          requests: one a request, in order: a file of ids (.csv, .json or .npy) or a
            class, as for `jax-unlearn unlearn`.
          out: folder of the ledger and the models.
          seed: of the first request; each later one has the next.
          save_every: least seconds between two saves to go on from; 0 saves every step.
        """
        check_seed(seed)
        dataset = source.load_for(checkpoint)
        stored = load_model(checkpoint, dataset, modality=choice.modality.name)
        subject = stored.subject(dataset)
        asked = [requested(subject, stored.ids, text)[0] for text in requests]
        start = Chain(
            subject, stored.trained, stored.ids, stored.unseen, origin_of(stored)
        )
        with (
            Reporter(open_console(), len(asked)) as progress,
            blamed(setting.method, setting.learning_rate, checkpoint),
        ):
            served = serve(
                start,
                setting,
                asked,
                folder=out,
                seed=seed,
                progress=progress,
                save_every=save_every,
            )
            seconds = [done.seconds["run"] for done in served]
        for entry, spent in zip(read(out / LEDGER), seconds, strict=True):
            print(
                f"request {entry['number']}: forgot {entry['forgotten']}, "
                f"{entry['left']} left, in {spent:.1f} s; model {entry['after'][:12]}"
            )
        last = out / f"request-{len(asked)}"
        print(f"ledger {out / LEDGER}; the last model is {last}")

    return parsed(chain, setting=choice.form())
