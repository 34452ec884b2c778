"""The checkpoints of an audit: what belongs together, and what is measured of each."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jax_unlearn import audit
from jax_unlearn.audit.evidence import FEWEST
from jax_unlearn.data import digest
from jax_unlearn.errors import InputError
from jax_unlearn.lab import advice
from jax_unlearn.lab.ensembles import figures_of
from jax_unlearn.lab.requests import Asked, Request, said_of
from jax_unlearn.lab.results import LABELS, NULL, ORIGINAL, RETRAIN
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.store import Stored, load_model
from jax_unlearn.lab.subject import Subject

__all__ = ["Checkpoints", "gathered", "given_plan"]


class Checkpoints(NamedTuple):
    """The checkpoints of an audit by row: Retrain, the null, the original, others."""

    subject: Subject
    request: Request
    named: Asked
    rows: dict[str, Stored]
    labels: dict[str, str]
    more: list[Stored]  # Retrains beside the target and the null

    @property
    def base(self) -> Stored:
        """The original."""
        return self.rows[ORIGINAL]

    @property
    def retrains(self) -> list[Stored]:
        """All Retrains."""
        return [self.rows[k] for k in (RETRAIN, NULL) if k in self.rows] + self.more

    def plan(self, seed: int) -> dict[str, Any]:
        """Return what results say of the request that was given."""
        dataset, forget = self.subject.dataset, self.request.forget
        given = f"Audit on {dataset.name}", dataset.train.labels[forget], seed
        told = given_plan(*given, dataset.num_classes)
        told["forgotten_sha256"] = digest(forget)
        if record := self.named.record:
            told |= {"request": record, "note": said_of(record)}
        return told

    def measure(self, table: Any, seed: int, *, noted: bool = False) -> None:
        """Add all to a table, with what their records note if asked to."""
        target = self.rows.get(RETRAIN)
        table.start(self.request, target and target.trained, seed)
        for key, stored in self.rows.items():
            setting, notes = None, {}
            if key not in LABELS:
                told, spent = stored.record.get("unlearning"), stored.record.get("cost")
                notes = dict(stored.record if noted else {})
                if isinstance(spent, dict):
                    notes["cost"] = spent.get("counted")
                if (proof := stored.record.get("certificate")) is not None:
                    notes["certificate"] = proof
                with contextlib.suppress(InputError):  # of a card that is not at hand
                    setting = None if told is None else Unlearning.read(told)
            given = key, self.labels[key], stored.trained, setting
            table.add(*given, notes)

    def beside(self, seed: int) -> audit.Audit | None:
        """Audit single models beside three Retrains or more by what is observed."""
        if len(again := self.retrains) < FEWEST:
            return None
        subject = self.subject
        parts = {name: ids for name, ids in self.request._asdict().items() if len(ids)}
        kind, examples = subject.modality, subject.examples

        def whole(made: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {"test": made.get("unseen", made["retain"]), **made}

        def stack(stored: Sequence[Stored]) -> audit.ModelOutputs:
            made = {
                name: np.stack(
                    [
                        kind.observe(subject, one.trained[:2], examples.at(ids))
                        for one in stored
                    ]
                )
                for name, ids in parts.items()
            }
            return audit.ModelOutputs(**whole(made))

        rows = self.rows.items()
        given = {k: stack([one]) for k, one in rows if k not in (RETRAIN, NULL)}
        targets = {name: kind.targets(examples.at(ids)) for name, ids in parts.items()}
        figures = figures_of(kind.training(), audit.FIGURES)
        told = {"figures": figures, "originals": ORIGINAL, "seed": seed}
        labels = audit.PartLabels(**whole(targets))
        return audit.audit(given, stack(again), labels, **told)

    def advice(
        self, found: Any, forget: str, source: Mapping[str, Any], *paths: Any
    ) -> list[str]:
        """Return what the audit says and what to do next."""
        again = self.retrains
        if isinstance(found, audit.Audit):
            page = f"`jax-unlearn report --results {paths[0]}` writes"
            return advice.judged(found, self.labels, [one.path for one in again], page)
        known = [advice.Known(one.path, one.record) for one in (*again, self.base)]
        return advice.missing(known[:-1], known[-1], forget, source, *paths)


def gathered(
    base: Stored,
    subject: Subject,
    request: Request,
    named: Asked,
    *,
    forget: str,  # the request as it was given
    unlearned: Mapping[str, Path],
    retrained: Sequence[Path] = (),
    null: Path | None = None,
    say: Callable[[str], None],
) -> Checkpoints:
    """Read the checkpoints of an audit; refuse what does not belong together."""
    again = [*retrained[:1], *([] if null is None else [null]), *retrained[1:]]
    kind, dataset = base.modality.name, subject.dataset

    def read(path: Path) -> Stored:
        return load_model(path, dataset, modality=kind, like=subject.network)

    retrains = [read(path) for path in again]
    for stored in retrains:
        seen = np.intersect1d(stored.ids, request.forget)
        if "unlearning" in stored.record or seen.size:
            raise InputError(
                f"checkpoint {stored.path} is no retraining: it was trained on "
                f"{seen.size} of the {len(request.forget)} forget samples or unlearned "
                "from a model that was; use `jax-unlearn train --retrain --original "
                f"{base.path} --forget {forget}` with the options of the data"
            )
        if less := np.setdiff1d(request.retain, stored.ids).size:
            say(
                f"{stored.path} was trained without {less} samples that the request "
                "does not name: it is the Retrain of a larger request"
            )
    rows = dict(zip((RETRAIN, NULL), retrains, strict=False)) | {ORIGINAL: base}
    rows |= {key: read(path) for key, path in unlearned.items()}
    labels = LABELS | {key: path.name for key, path in unlearned.items()}
    return Checkpoints(subject, request, named, rows, labels, retrains[2:])


def given_plan(
    title: str, labels: np.ndarray, seed: int, classes: int = 0
) -> dict[str, Any]:
    """Return what results say of a request that was given, by its samples' labels."""
    return {
        "title": title,
        "kind": "given",
        "forget_counts": np.bincount(labels, minlength=classes).tolist(),
        "forgotten": len(labels),
        "seeds": [seed],
        "note": "",
    }
