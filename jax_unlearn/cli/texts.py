"""The commands of language models: their audit, answers, and scores of texts."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jax_unlearn import _validate
from jax_unlearn import audit as audits
from jax_unlearn.cli import console as consoles
from jax_unlearn.cli.attacks import print_audit
from jax_unlearn.cli.audit import Probes, advised
from jax_unlearn.cli.choices import Kind
from jax_unlearn.cli.habits import asked_options
from jax_unlearn.cli.sources import DataSource, refuse_existing
from jax_unlearn.data import write_atomic
from jax_unlearn.errors import InputError, check_seed
from jax_unlearn.lab.checkpoints import Checkpoints
from jax_unlearn.lab.modalities.language.figures import (
    TextTable,
    against_unseen,
    ratios_of,
)
from jax_unlearn.lab.modalities.language.probes import PROBES
from jax_unlearn.lab.probes import check_probes
from jax_unlearn.lab.results import head, to_json
from jax_unlearn.language.texts import read_texts, text_dataset

__all__ = ["audit_texts", "audited"]


def audit_texts(
    source: DataSource,
    original: Path,
    forget: str,
    unlearned: tuple[Path, ...] = (),
    retrained: tuple[Path, ...] = (),
    null: Path | None = None,
    target: Path | None = None,
    logs: Path | None = None,
    other: Path | None = None,
    answers: int = 0,
    stem: bool = False,
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
      original: checkpoint of the model before unlearning.
      forget: what was to be forgotten, as it was given to `unlearn`.
      unlearned: checkpoints to audit.
      retrained: checkpoints of `train --retrain`, each from another seed. The first is
        the target of every figure, the second the null; from three on the figures of
        membership are compared with all of them.
      null: second checkpoint of `train --retrain`, if it is not given above.
      target: results of a Retrain that open-unlearning wrote (TOFU_EVAL.json, or a
        summary), as the target, if you have no Retrain.
      logs: folder to which the figures of every model are written in open-unlearning's
        format, NAME_EVAL.json, for its own comparisons.
      other: texts of another source, on which the perplexity is measured.
      answers: longest answer, in tokens, for ROUGE-L. The questions of the forgotten
        texts and of as many retained ones are asked; 0 asks none. TOFU uses 200.
      stem: compare the stems of the words, as TOFU's code does (needs nltk).
      probes: further tests of each checkpoint, Retrain included: "relearn" (p of half
        of the forget texts after 10 and 50 steps on the other half), "int8" and "int4"
        (p of all with rounded weights).
      all_figures: print all figures, not only the main ones. The file always holds all.
      out: path of the results, which `jax-unlearn report` reads.
      modality: kind of model. Default: that of the original.
      seed: seed of the samples that the attacks draw.
      overwrite: replace the file if it exists.
    """
    del modality
    refuse_existing(out, overwrite=overwrite)
    check_seed(seed)
    _validate.at_least("answers", answers, 0, "try 64")
    if stem:
        if not answers:
            raise InputError("stem=True is for answers; give --answers 64, or leave it")
        audits.language.rouge_l([""], [""], stem="porter")  # refused before the work
    check_probes(PROBES, probes)
    how = {"seed": seed, "every": all_figures, "overwrite": overwrite, "other": other}
    how |= {"answers": answers, "stem": stem, "probes": probes, "logs": logs}
    if target is not None:
        if retrained:
            raise InputError(
                f"target={target} and retrained={retrained[0]}: two targets; leave one "
                "of them out"
            )
        how["log"] = _read_log(target)
    given = source, original, forget, unlearned, retrained, null
    return advised(audited, out, *given, **how)


def audited(
    models: Checkpoints,
    out: Path,
    advise: Any,
    *,
    seed: int = 0,
    every: bool = False,
    overwrite: bool = False,
    other: Path | None = None,
    answers: int = 0,
    stem: bool = False,
    probes: Sequence[str] = (),
    log: Mapping[str, Any] | None = None,
    logs: Path | None = None,
) -> dict[str, Any]:
    """Measure checkpoints that were read; write, print and return what was found."""
    subject = models.subject
    console, more = consoles.open_console(), None
    if other is not None:
        more = subject.built.samples(text_dataset(read_texts(other)).train)
    words = "porter" if stem else None
    table = TextTable(subject, other=more, answers=answers, stem=words)
    table.probes, table.log = probes, log or {}
    with consoles.status(console, "running the models over the texts"):
        models.measure(table, seed)
        beside = models.beside(seed)
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
    if logs is not None:
        _write_logs(logs, table, found["rows"])
    return {"out": str(out), **results}


def _read_log(path: Path) -> dict[str, Any]:
    """Return the results of a Retrain elsewhere, refused where they are no target."""
    found = audits.language.read_results(path)
    if "forget_probability" not in audits.language.figures_in(found):
        raise InputError(
            f"target={path} has no forget_Q_A_Prob (it has {', '.join([*found][:4])}); "
            "give open-unlearning's TOFU_EVAL.json of the Retrain"
        )
    return found


def _write_logs(folder: Path, table: TextTable, rows: Mapping[str, Any]) -> None:
    """Write the figures of each model as open-unlearning does."""
    for key, seen in table.seen.items():
        figures = {n: own["mean"] for n, own in rows[key]["figures"].items()}
        told = {"forget_probability": np.exp(-seen.losses("forget"))}
        if (ratios := ratios_of(seen)) is not None:
            told["forget_truth_geometric"] = ratios
        file = folder / f"{key}_EVAL.json"
        results = audits.language.logged(figures, told)
        audits.language.write_results(file, results)
    print(f"wrote {len(table.seen)} files NAME_EVAL.json in {folder}")
