"""Figures of language models, a row a model over seeds beside target and null."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jax_unlearn.audit.language import (
    Logged,
    TextOutputs,
    attack_auc,
    figures_in,
    ks_quality,
    language_figures,
    mean_nll,
    privleak,
    truth_ratio,
)
from jax_unlearn.cards import Variables
from jax_unlearn.data import Examples
from jax_unlearn.lab.job import Trained
from jax_unlearn.lab.modalities.classification.beside import REACH
from jax_unlearn.lab.modalities.language.measured import (
    mean_losses,
    scores_of,
    token_statistics,
)
from jax_unlearn.lab.probes import pressed
from jax_unlearn.lab.requests import Request
from jax_unlearn.lab.results import COSTS, LABELS, RETRAIN, recalled, spread
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.subject import Subject
from jax_unlearn.language.generate import generate
from jax_unlearn.language.tokens import encode, encode_prompts, until_end
from jax_unlearn.membership.quality import auc_standard_error

__all__ = ["Seen", "TextTable", "against_unseen", "answers_of", "beside_log"]
__all__ += ["figures_of", "ratios_of", "seen_by"]

PARTS = ("forget", "retain", "unseen")
OTHER = "other"  # texts of another source, of which perplexity alone is told
ALTERNATIVES = ("paraphrased_answer", "perturbed_answer")  # columns for truth ratios
ASKED = 16  # questions answered at a time
SOME = 800  # retain texts that are looked at, evenly spaced


class Seen(NamedTuple):
    """What a model says of the texts of a request, by part, and their true answers."""

    outputs: TextOutputs
    texts: dict[str, list[str]]

    def losses(self, part: str) -> np.ndarray:
        """Return ℓ̄ of each text of a part."""
        return mean_nll(self.outputs.nll[part])


def seen_by(
    built: Any, at: Variables, parts: Mapping[str, Examples]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return losses, right tokens and moments of the tokens of texts, ragged."""
    nll, right, moments = {}, {}, {}
    for name, part in parts.items():
        found = token_statistics(built.logits, at, part)

        def own(values: np.ndarray, counted: np.ndarray = found.counted) -> list:
            return [row[of] for row, of in zip(values, counted, strict=True)]

        nll[name], right[name] = own(found.nll), own(found.right)
        moments[name] = own(found.mean), own(found.std)
    return nll, right, moments


def answers_of(
    subject: Subject, at: Variables, questions: list[str], most: int
) -> list[str]:
    """Return what a model answers, the likeliest token each time, `most` of them."""
    network, built = subject.network, subject.built
    found: list[str] = []
    prompts = encode_prompts(questions, network.tokenizer)
    how: dict[str, Any] = {"pad": network.tokenizer.pad, "eos": network.ends}
    how["max_new_tokens"] = most
    real = np.asarray(prompts.real)
    for begin in range(0, len(questions), ASKED):
        rows = np.arange(begin, begin + ASKED) % len(questions)  # one program
        given = prompts.tokens[rows]
        made = generate(built.logits, *at, given, real=real[rows], **how)
        found += [
            network.tokenizer.decode(until_end(row, network.ends))
            for row in np.asarray(made)
        ]
    return found[: len(questions)]


class TextTable:
    """Collect the figures of all models of a subject, seed by seed."""

    def __init__(
        self,
        subject: Subject,
        *,
        other: Examples | None = None,
        answers: int = 0,
        stem: str | None = None,  # of the words of answers, see `rouge_l`
    ):
        self._subject, self._other, self._answers = subject, other, answers
        self._stem = stem
        # figures and single texts of a Retrain elsewhere, see `read_results`
        self.log: Mapping[str, Logged] = {}
        self.probes: Sequence[str] = ()  # that every model is put to
        self.original: Trained | None = None  # of the seed
        self.seen: dict[str, Seen] = {}  # by row, of the last seed
        self._rows: dict[str, dict[str, Any]] = {}

    def start(self, request: Request, target: Trained | None, seed: int) -> None:
        """Begin a seed: a request, and Retrain if there is one."""
        self._seed = seed
        self._request, self._retrained = request, target
        self._target: Seen | None = None

    def _goal(self) -> Seen | None:
        """Return what Retrain says, looked at when it is first asked for."""
        if self._target is None and self._retrained is not None:
            self._target = self._look(self._retrained)
        return self._target

    def _look(self, trained: Trained) -> Seen:
        """Return what a model says of each part that has texts."""
        subject, at = self._subject, trained[:2]
        ids = {name: getattr(self._request, name) for name in PARTS}
        if len(kept := ids["retain"]) > SOME:
            ids["retain"] = kept[np.linspace(0, len(kept) - 1, SOME).astype(int)]
        ids = {name: own for name, own in ids.items() if len(own)}
        parts = {name: subject.examples.at(own) for name, own in ids.items()}
        rows = subject.dataset.train.inputs
        texts = {name: rows[own, 1].tolist() for name, own in ids.items()}
        if self._other is not None:
            parts[OTHER] = self._other
        outputs = TextOutputs(*seen_by(subject.built, at, parts))
        outputs = outputs._replace(**self._alternatives(at, ids["forget"]))
        if self._answers:
            told = {}
            for name in ("forget", "retain"):
                chosen = ids[name][: len(ids["forget"])]
                asked = rows[chosen, 0].tolist()
                told[name] = answers_of(subject, at, asked, self._answers)
                texts[name] = (
                    rows[chosen, 1].tolist() if name == "retain" else texts[name]
                )
            outputs = outputs._replace(answers=told)
        return Seen(outputs, texts)

    def _alternatives(self, at: Variables, forget: np.ndarray) -> dict[str, Any]:
        """Return losses of other words and wrong answers, where the data have them."""
        dataset = self._subject.dataset
        known = [dataset.columns.get(name) for name in ALTERNATIVES]
        if any(own is None for own in known):
            return {}
        right, wrong = (np.asarray(own)[forget].tolist() for own in known)
        if not all(isinstance(own, str) for own in right) or not all(wrong):
            return {}
        questions = dataset.train.inputs[forget, 0].tolist()
        other = [text for own in wrong for text in own]
        asked = [q for q, own in zip(questions, wrong, strict=True) for _ in own]
        losses = [self._losses(at, questions, right), self._losses(at, asked, other)]
        return {
            "paraphrased": {"forget": losses[0]},
            "wrong": {"forget": losses[1].reshape(len(questions), -1)},
        }

    def _losses(self, at: Variables, questions: list, answers: list) -> np.ndarray:
        tokenizer = self._subject.network.tokenizer
        text = encode(questions, answers, tokenizer).text
        labels = np.zeros(len(answers), np.int32)
        part = Examples(text, labels)  # type: ignore[arg-type]
        return mean_losses(scores_of(self._subject.model, at, part))

    def add(
        self,
        key: str,
        label: str,
        trained: Trained,
        setting: Unlearning | None = None,
        notes: Mapping[str, Any] | None = None,
        *,
        keep: Path | None = None,
    ) -> None:
        """Measure one model of the seed begun last, or read what was kept of it."""
        tells = {*ALTERNATIVES} <= {*self._subject.dataset.columns}
        record = recalled(
            keep,
            functools.partial(self._record, key, trained),
            {"figures"},
            stale=lambda known: tells and not known.get("alternatives"),  # came since
            finite=False,  # a perplexity may overflow
        )
        row = {"label": label, "setting": setting, "seeds": [], "notes": []}
        row = self._rows.setdefault(key, row)
        row["seeds"].append({"figures": record["figures"], "seconds": trained.seconds})
        row["notes"].append(dict(notes or {}))

    def drop(self, label: str) -> None:
        """Take a row out, of all seeds."""
        rows = self._rows.items()
        self._rows = {key: row for key, row in rows if row["label"] != label}

    def _record(self, key: str, trained: Trained) -> dict[str, Any]:
        """Return figures of a model, and the mean losses of the texts by part."""
        target = self._goal()
        same = target is not None and trained is self._retrained
        seen = target if same and target is not None else self._look(trained)
        figures, self.seen[key] = figures_of(seen, target, self._stem), seen
        figures |= beside_log(seen, figures, self.log)
        given = self._subject, trained, self._request, self.probes
        figures |= pressed(*given, seed=self._seed)
        losses = {part: seen.losses(part).tolist() for part in seen.outputs.nll}
        other = bool(seen.outputs.paraphrased)
        return {"figures": figures, "losses": losses, "alternatives": other}

    def summary(self) -> dict[str, Any]:
        """Return what the results hold, JSON-able."""
        rows = {key: self._row(key) for key in self._rows}
        if self.log:
            theirs = {n: spread([v]) for n, v in figures_in(self.log).items()}
            for name in ("ks_p_value", "privleak"):  # of itself
                theirs.pop(name, None)
            row = {"label": f"{LABELS[RETRAIN]} (log)", "setting": None}
            row |= {"figures": theirs, "seconds": spread([0.0]), "cost": None}
            rows = {RETRAIN: row, **rows}
        sizes = {name: len(getattr(self._request, name)) for name in PARTS}
        return {"kind": "language", "texts": sizes, "rows": rows}

    def _row(self, key: str) -> dict[str, Any]:
        row = self._rows[key]
        seeds, setting = row["seeds"], row["setting"]
        names = [
            n for n in seeds[0]["figures"] if all(n in s["figures"] for s in seeds)
        ]
        costs = [note.get("cost", COSTS.get(key)) for note in row["notes"]]
        times = [s["seconds"].get("run", 0.0) for s in seeds]
        return {
            "label": row["label"],
            "setting": None if setting is None else setting.record(),
            "figures": {n: spread([s["figures"][n] for s in seeds]) for n in names},
            "seconds": spread(times),
            "cost": None if None in costs else spread(costs),
        }


def figures_of(
    seen: Seen, target: Seen | None, stem: str | None = None
) -> dict[str, float]:
    """Return the figures of a model by name, those beside Retrain where there is one.

    Those of `ju.audit.language.language_figures`; `auc_gap` is the distance of the AUC
    of the loss from Retrain's.
    """
    beside = None if target is None else target.outputs
    told: dict[str, Any] = {"retrained": beside, "stem": stem}
    figures = language_figures(seen.outputs, texts=seen.texts, **told)
    if target is not None and "auc_loss" in figures:
        own = language_figures(TextOutputs(target.outputs.nll))
        figures["auc_gap"] = abs(figures["auc_loss"] - own["auc_loss"])
    return {name: float(value) for name, value in figures.items()}


def beside_log(
    seen: Seen, figures: Mapping[str, float], log: Mapping[str, Logged]
) -> dict[str, float]:
    """Return the figures that compare a model with the results of a Retrain elsewhere.

    Forget quality, by the truth ratios of all texts, and distances of AUCs.
    """
    found, theirs = {}, figures_in(log)
    if "auc_loss" in theirs and "auc_loss" in figures:
        found["auc_gap"] = abs(figures["auc_loss"] - theirs["auc_loss"])
    if "auc_min_k" in figures and theirs.get("auc_min_k", 1.0) < 1:
        found["privleak"] = privleak(figures["auc_min_k"], theirs["auc_min_k"])
    ratios = log["forget_truth_ratio"].by_index if "forget_truth_ratio" in log else {}
    if (own := ratios_of(seen)) is not None and ratios:
        quality = ks_quality(own, [*ratios.values()])
        found |= {"ks_distance": quality.distance, "ks_p_value": quality.p_value}
    return found


def ratios_of(seen: Seen) -> np.ndarray | None:
    """Return the geometric truth ratios of the forget texts, if they were measured."""
    if not seen.outputs.paraphrased:
        return None
    pair = (getattr(seen.outputs, name)["forget"] for name in ("paraphrased", "wrong"))
    return truth_ratio(*pair, kind="geometric")


def against_unseen(seen: Mapping[str, Seen]) -> dict[str, Any] | None:
    """Return how well losses tell forget from unseen texts; None without unseen ones.

    As `classification.beside.against_unseen`: the AUC of each model, and chance, by the
    standard error of the rank-sum test.
    """
    first = next(iter(seen.values()))
    if "unseen" not in first.outputs.nll:
        return None
    sizes = {name: len(first.outputs.nll[name]) for name in ("forget", "unseen")}
    reach = REACH * float(auc_standard_error(0.5, *sizes.values()))
    areas = {
        key: attack_auc(*(-own.losses(part) for part in sizes))
        for key, own in seen.items()
    }
    return {
        "of": "unseen",
        "samples": sizes,
        "low": max(0.5 - reach, 0.0),
        "high": min(0.5 + reach, 1.0),
        "models": {
            k: {"auc": a, "right": None, "test": None} for k, a in areas.items()
        },
    }
