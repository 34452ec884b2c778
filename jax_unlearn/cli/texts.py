"""The commands of language models: their audit, answers, and scores of texts."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jax_unlearn import _validate
from jax_unlearn import audit as audits
from jax_unlearn.audit.evidence import FEWEST
from jax_unlearn.cli import console as consoles
from jax_unlearn.cli.attacks import print_audit
from jax_unlearn.cli.audit import Models, Probes, advised
from jax_unlearn.cli.choices import Kind
from jax_unlearn.cli.habits import asked_options
from jax_unlearn.cli.sources import DataSource, refuse_existing
from jax_unlearn.data import write_atomic
from jax_unlearn.errors import check_seed
from jax_unlearn.lab.ensembles import figures_of
from jax_unlearn.lab.modalities.language.figures import TextTable, against_unseen
from jax_unlearn.lab.modalities.language.probes import PROBES
from jax_unlearn.lab.results import NULL, ORIGINAL, RETRAIN, head, to_json
from jax_unlearn.language.texts import read_texts, text_dataset

__all__ = ["audit_texts", "audited", "beside_retrains"]


def audit_texts(
    source: DataSource,
    original: Path,
    forget: str,
    unlearned: tuple[Path, ...] = (),
    retrained: tuple[Path, ...] = (),
    null: Path | None = None,
    other: Path | None = None,
    answers: int = 0,
    probes: Probes = (),
    all_figures: bool = False,
    out: Path = Path("audit.json"),
    modality: Kind = "language",
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Measure language models by the losses of texts, beside Retrain and the null.

    Example: `jax-unlearn audit --data texts.jsonl --original model --forget Ada
    --unlearned unlearned`

    Args:
      source: the texts the models were trained on.
      original: checkpoint the request was made to.
      forget: what was to be forgotten, as given to `unlearn`.
      unlearned: checkpoints to audit.
      retrained: checkpoints of `train --retrain`, each from another seed: the first is
        the target of every figure, the second the null; from three on figures of
        membership are audited beside all of them.
      null: the second, by its name.
      other: texts of another source, of which the perplexity is told.
      answers: longest answer, in tokens, to the questions of forgotten texts and of as
        many retained ones, for ROUGE-L; 0 asks none.
      probes: of each checkpoint, Retrain too: "relearn" (p of half of the forget texts
        after 10 and 50 steps on the others), "int8", "int4" (p of all with rounded
        weights).
      all_figures: print all, not the headlines alone; the file holds all.
      out: file to write, for `jax-unlearn report`.
      modality: kind of model; that of the original is found out.
      seed: of the attacks' samples.
      overwrite: replace the file if it exists.
    """
    del modality
    refuse_existing(out, overwrite=overwrite)
    check_seed(seed)
    _validate.at_least("answers", answers, 0, "try 64")
    for name in probes:
        _validate.one_of("probe", name, PROBES)
    how = {"seed": seed, "every": all_figures, "overwrite": overwrite, "other": other}
    how |= {"answers": answers, "probes": probes}
    given = source, original, forget, unlearned, retrained, null
    return advised(audited, out, *given, **how)


def audited(
    models: Models,
    out: Path,
    advise: Any,
    *,
    seed: int = 0,
    every: bool = False,
    overwrite: bool = False,
    other: Path | None = None,
    answers: int = 0,
    probes: Sequence[str] = (),
) -> dict[str, Any]:
    """Measure checkpoints that were read; write, print and return what was found."""
    subject = models.subject
    console, more = consoles.open_console(), None
    if other is not None:
        more = subject.built.samples(text_dataset(read_texts(other)).train)
    table = TextTable(subject, other=more, answers=answers)
    table.probes = probes
    with consoles.status(console, "running the models over the texts"):
        models.measure(table, seed)
        beside = beside_retrains(models, seed)
    found = table.summary()
    if beside is not None:
        found["audit"] = audits.to_record(beside)
    elif (unseen := against_unseen(table.seen)) is not None:
        found["unseen"] = unseen
    found["advice"] = advise(beside)
    plan = head(models.plan(seed), subject.dataset)
    results = {**plan, **asked_options(), **found}
    text = to_json(results)
    write_atomic(out, text, overwrite=overwrite)
    consoles.print_language(console, json.loads(text))
    if beside is not None:
        print_audit(console, beside, models.labels, every=every)
    print(f"wrote {out}")
    return {"out": str(out), **results}


def beside_retrains(models: Models, seed: int) -> audits.Audit | None:
    """Audit single models beside three Retrains or more by logit p of every text."""
    subject, request = models.subject, models.request
    rows = models.rows
    again = [rows[key] for key in (RETRAIN, NULL) if key in rows] + models.more
    if len(again) < FEWEST:
        return None
    parts = {name: ids for name, ids in request._asdict().items() if len(ids)}
    kind, examples = subject.modality, subject.examples

    def stack(stored: list[Any]) -> audits.ModelOutputs:
        made = {
            name: np.stack(
                [
                    kind.observe(subject, one.trained[:2], examples.at(ids))
                    for one in stored
                ]
            )
            for name, ids in parts.items()
        }
        return audits.ModelOutputs(
            **{"test": made.get("unseen", made["retain"]), **made}
        )

    given = {k: stack([one]) for k, one in rows.items() if k not in (RETRAIN, NULL)}
    zeros = {name: np.zeros(len(ids), np.int32) for name, ids in parts.items()}
    labels = audits.PartLabels(
        **{"test": zeros.get("unseen", zeros["retain"]), **zeros}
    )
    figures = figures_of(kind.training(), audits.FIGURES)
    told = {"figures": figures, "originals": ORIGINAL, "seed": seed}
    return audits.audit(given, stack(again), labels, **told)
