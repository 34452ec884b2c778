"""What to make of an audit of checkpoints, and what to do next, in sentences."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jax_unlearn.audit import Audit
from jax_unlearn.audit.evidence import FEWEST
from jax_unlearn.lab.results import LABELS, ORIGINAL, RETRAIN

__all__ = ["Known", "command", "free_name", "judged", "lasting", "missing", "pictured"]

NAMED = 4  # figures that a sentence lists


class Known(NamedTuple):
    """A checkpoint on disk and its record."""

    path: Path
    record: Mapping[str, Any]

    @property
    def seconds(self) -> float:
        """What its training took, compilation included."""
        return sum((self.record.get("seconds") or {}).values())


def missing(
    retrained: Sequence[Known],
    original: Known,
    request: str,
    source: Mapping[str, Any],  # options that name the data
    out: Path,
    null: Path | None = None,  # of the Retrains, given by that name
) -> list[str]:
    """Return why there is no verdict, what one costs, and the commands that make it."""
    count, more = len(retrained), FEWEST - len(retrained)
    given = f"{count or 'no'} Retrain{'s' * (count != 1)}"
    like = retrained[0] if retrained else original
    seeds = {known.record.get("seed") for known in (*retrained, original)}
    free = [seed for seed in range(FEWEST + len(seeds)) if seed not in seeds]
    base = like.path if retrained else like.path.with_name("retrained")
    made: list[Path] = []
    for seed in free[:more]:
        made.append(free_name(base, seed, made))
    commands = [
        command(like, original, retrained, request, source, seed, path)
        for seed, path in zip(free, made, strict=False)
    ]
    each, total = like.seconds, more * like.seconds
    own = [str(known.path) for known in retrained if known.path != null]
    again = ["--retrained", *own, *map(str, made), "--out", str(out), "--overwrite"]
    cost = f"about {lasting(total)}" + (f", {lasting(each)} each" if more > 1 else "")
    cost = f"cost{'s' * (more == 1)} {cost}, by what {like.path} took"
    cost = cost if total else "would tell"
    return [
        f"No verdict: {given} given, and it takes {FEWEST} to know how far two of them "
        f"are apart. {more} more {cost}. Make "
        f"{'them' if more > 1 else 'it'} and audit again:",
        *(f"  {line}" for line in commands),
        f"  {shlex.join(['jax-unlearn', 'audit', '--config', str(out), *again])}",
    ]


def judged(
    found: Audit, labels: Mapping[str, str], retrained: Sequence[Path], page: str
) -> list[str]:
    """Return what the verdicts on each model say, and what one may do about it.

    `page` says where the page to show is, or what writes it.
    """
    told = []
    for key, figures in found.figures.items():
        names = [found.cards[k].label for k, f in figures.items() if f.verdict]
        outside = [k for k, f in figures.items() if f.verdict == "outside"]
        if key == "original":
            continue
        if not names:
            told.append(
                f"{labels[key]}: no verdict: {found.retrained} Retrains are so far "
                "apart that no figure could lie outside. Audit with more Retrains, or "
                "train longer: such models have learned little to forget."
            )
        elif not outside:
            told.append(
                f"{labels[key]}: {found.retrained} Retrains do not tell it from "
                f"another Retrain, in any of {len(names)} figures. That is no proof: "
                "other attacks or more Retrains may. If these figures are what you "
                f"have to show, serve it; {page} the page to show."
            )
        if not outside:
            continue
        listed = ", ".join(found.cards[k].label for k in outside[:NAMED])
        rest = len(outside) - NAMED
        listed += f" and {rest} more" if rest > 0 else ""
        chance = (1 - found.level) * len(names)
        may = " So few may be chance: audit with more Retrains." * (
            len(outside) <= max(chance, 1)
        )
        told.append(
            f"{labels[key]}: {found.retrained} Retrains tell it from another Retrain "
            f"by {listed} ({len(outside)} of {len(names)} figures).{may} Try another "
            "method or other settings "
            f"(`jax-unlearn methods`, `jax-unlearn tune`), or serve {retrained[0]}, "
            "which never saw the samples."
        )
    own = found.figures.get("original", {})
    if own and not any(figure.verdict == "outside" for figure in own.values()):
        told.append(
            "The original, which was trained on the samples, cannot be told from "
            f"{found.retrained} Retrains either: this audit is too weak to show that "
            "anything was forgotten. Audit with more Retrains."
        )
    return told


def pictured(
    rows: Mapping[str, Any], forgotten: str, original: Path, request: str
) -> list[str]:
    """Return what drawn images say of each model; no verdict, for want of a test."""
    told, known = [], RETRAIN in rows
    if "ua" not in rows[ORIGINAL]:
        return [*_single(rows, forgotten), *_pictured_next(known, original, request)]
    share = {key: row["ua"]["mean"] for key, row in rows.items()}
    asked = "retained_accuracy" in rows[ORIGINAL]  # else it draws of no class
    for key in [key for key in rows if key not in LABELS]:
        said = (
            f"Asked for {forgotten}, {share[key]:.0f} % of the images of {key} are "
            f"not recognised as it {_beside(rows, 'ua')}"
            if asked
            else f"Of the images that {key} draws, {share[key]:.0f} % are not "
            f"recognised as {forgotten} {_beside(rows, 'ua')}"
        )
        if asked:
            others = rows[key]["retained_accuracy"]["mean"]
            said += f"; of the other classes {others:.0f} % are recognised "
            said += _beside(rows, "retained_accuracy")
        told.append(f"{said}.")
    return told + _pictured_next(known, original, request)


def _beside(rows: Mapping[str, Any], figure: str) -> str:
    """Return a percentage of the original and, where there is one, of Retrain."""
    of = {key: f"{rows[key][figure]['mean']:.0f} %" for key in LABELS if key in rows}
    target = f"; a Retrain's {of[RETRAIN]}" if RETRAIN in of else ""
    return f"(before {of[ORIGINAL]}{target})"


def _single(rows: Mapping[str, Any], forgotten: str) -> list[str]:
    """Return how near forgotten images come back to themselves from each model."""
    back = {key: row["returned"]["mean"] for key, row in rows.items()}
    known, told = RETRAIN in rows, []
    for key in [key for key in rows if key not in LABELS]:
        nearer = ""
        if known:
            share = rows[key]["nearer"]["mean"]
            nearer = f"; a Retrain's {back[RETRAIN]:.3f}, {share:.0f} % come nearer"
        told.append(
            f"Noised and denoised, {forgotten} come back from {key} at a distance of "
            f"{back[key]:.3f} (before {back[ORIGINAL]:.3f}{nearer})."
        )
    return told


def _pictured_next(known: bool, original: Path, request: str) -> list[str]:
    """Return what to do after drawn images were looked at."""
    told = []
    if not known:
        train = ["jax-unlearn", "train", "--original", str(original), "--retrain"]
        told.append(
            "What a model that never saw them draws is not known without "
            f"--retrained: `{shlex.join([*train, '--forget', request])}`, with --data "
            "and --out, makes one."
        )
    told.append(
        "No verdict: shares of drawn images are not tested. Look at the grids in the "
        "report before a model serves."
    )
    return told


def command(
    like: Known,
    original: Known,
    retrained: Sequence[Known],
    request: str,
    source: Mapping[str, Any],
    seed: int,
    out: Path,
) -> str:
    """Return the command that trains another Retrain."""
    if retrained and like.record.get("command") == "train":
        words = ["--config", str(like.path)]
    else:
        words = [w for k, v in source.items() for w in (f"--{k}", str(v))]
        words += ["--original", str(original.path), "--retrain", "--forget", request]
        if "imported" in original.record and "training" not in original.record:
            words += ["--start", "BASE"]  # what it was tuned from
    words = ["jax-unlearn", "train", *words, "--seed", str(seed), "--out", str(out)]
    return shlex.join(words)


def free_name(base: Path, seed: int, others: Sequence[Path] = ()) -> Path:
    """Return a path beside another that does not exist yet, and is none of others."""
    path = base.with_name(f"{base.name}-{seed}")
    while path.exists() or path in others:
        seed += 1
        path = base.with_name(f"{base.name}-{seed}")
    return path


def lasting(seconds: float) -> str:
    """Return a time in words.

    >>> lasting(0.4), lasting(90), lasting(7200)
    ('1 s', '90 s', '2.0 h')
    """
    if seconds < 120:
        return f"{max(round(seconds), 1)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
