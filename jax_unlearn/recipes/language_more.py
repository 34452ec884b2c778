"""What the study of language models measures beside the table of an experiment.

ROUGE of what models answer, the attack with the base as reference, other texts, groups
of authors; what comes back after relearning and rounding; and what all that says of
LoReUn, from the stored results alone.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jax_unlearn import audit
from jax_unlearn.data import Dataset, Examples, read_json, take, write_atomic
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Plan
from jax_unlearn.lab.modalities.language.figures import answers_of
from jax_unlearn.lab.modalities.language.measured import mean_losses, scores_of
from jax_unlearn.lab.modality import adam
from jax_unlearn.lab.results import spread
from jax_unlearn.lab.store import load_model
from jax_unlearn.lab.subject import Subject, subject_of
from jax_unlearn.recipes.recipe import Results

__all__ = ["Models", "Pair", "answer", "gates", "inside", "joined", "pairs_of"]
__all__ += ["portable", "with_more"]

ASKED, MOST = 40, 48  # questions of a part that are answered, in so many tokens
OTHER = 100  # other texts that are read
FEW, HELD, BATCH = 0.2, 80, 4  # share relearned, others looked at, texts a step
# by a tenth of the original's peak rate; one and the same, so one program
RELEARNING = optax.chain(adam(), optax.scale_by_learning_rate(2e-4))
STEPS = (10, 50)
GROUPS = ("head", "mid", "tail")
LEVEL = 0.05
STRANGE = 0.05  # p of a text that a model never saw is less
BANDS = {"original": (0.9, 0.95)}  # p on the forgotten texts


class Models(NamedTuple):
    """Where the models of a seed are."""

    run: Path
    originals: Path
    retrains: Path
    base: Path
    seed: int

    def path(self, key: str) -> Path:
        """Return the checkpoint of a row."""
        others = {"original": self.originals, "retrain": self.retrains}
        run = others.get("retrain" if key == "null" else key, self.run)
        return run / "checkpoints" / f"seed-{self.seed}" / key

    def kept(self, name: str, key: str) -> Path:
        """Return where what was measured of a row is kept."""
        return self.run / name / f"seed-{self.seed}" / f"{key}.json"


class Asking(NamedTuple):
    """What is asked of models beside their table.

    Attributes:
      pressed: whether they are relearned and rounded, or else answer questions.
      other: data sets of other text, none or one.
    """

    pressed: bool = False
    other: Sequence[Dataset] = ()


def with_more(
    results: dict[str, Any],
    models: Models,
    plan: Plan,
    dataset: Dataset,
    asked: Asking | None,
    screen: Any,
) -> dict[str, Any]:
    """Return the results of a seed with all that is measured beside its table."""
    subject = subject_of(plan.training, dataset)
    ids = {"forget": np.array(plan.given), "unseen": np.array(plan.held)}
    everything = np.arange(len(dataset.train.labels))
    ids["retain"] = np.setdiff1d(everything, [*plan.given, *plan.held])
    other = asked.other if asked else ()
    texts = _Other(subject, other[0]) if other else None
    look = _Look(subject, ids, texts, models.seed)
    base = _kept(models.kept("figures", "base"), lambda: look.losses(models.base))
    rows, counts = results["rows"], np.bincount(dataset.train.labels[ids["forget"]])
    for number, (key, row) in enumerate(rows.items()):
        if asked:
            place = f"{number + 1} of {len(rows)}"
            screen.say(f"seed {models.seed}, {place}: {row['label']}")
        path = models.kept("more", key)
        found = read_json(path) if path.exists() else {}
        at = _Lazy(models.path(key))
        wanted = look.measures(asked.pressed) if asked else {}
        for name, measure in wanted.items():
            if name not in found:
                found |= {name: measure(at())}
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(path, json.dumps(found), overwrite=True)
        figures = {k: v for name in wanted for k, v in found[name].items()}
        losses = read_json(models.kept("figures", key))["losses"]
        sides = (np.subtract(base[p], losses[p]) for p in ("forget", "unseen"))
        figures["auc_reference"] = audit.language.attack_auc(*sides)
        if plan.gamma != 1 or len(set(counts[counts > 0])) > 1:
            labels = dataset.train.labels[ids["forget"]]
            figures |= _by_group(np.exp(-np.array(losses["forget"])), labels, counts)
        row["figures"] |= {k: spread([v]) for k, v in figures.items()}
    return results


def portable(value: Any, folder: Path) -> Any:
    """Return results without the name of the folder they were made in."""
    if isinstance(value, Mapping):
        return {key: portable(one, folder) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [portable(one, folder) for one in value]
    return value.removeprefix(f"{folder}/") if isinstance(value, str) else value


def gates(results: Results, vocabulary: int) -> list[str]:
    """Return in sentences whether the models are ones that can be compared."""
    rows, told = results["rows"], []

    def mean(key: str, name: str) -> float:
        return rows[key]["figures"][name]["mean"]

    for key, (low, high) in BANDS.items():
        p = mean(key, "forget_probability")
        word = "inside" if low <= p <= high else "outside"
        told.append(
            f"p of the original on forgotten texts is {p:.3f}: {word} {low}–{high}"
        )
    loss, bound = mean("retrain", "unseen_loss"), math.log(vocabulary)
    word = "below" if loss < bound else "not below"
    told.append(
        f"Retrain's loss on unseen texts is {loss:.2f}: {word} ln V = {bound:.2f}"
    )
    p = mean("retrain", "forget_probability")
    word = "below" if p < STRANGE else "not below"
    told.append(f"its p on forgotten texts is {p:.3f}: {word} {STRANGE}")
    gaps = {key: mean(key, "auc_gap") for key in rows}
    told.append(
        f"another Retrain's AUC is {gaps['null']:.3f} away, the original's "
        f"{gaps['original']:.3f}"
    )
    if "graddiff" in gaps:
        word = "nearer" if gaps["graddiff"] < gaps["original"] else "no nearer"
        told.append(f"GradDiff's is {gaps['graddiff']:.3f} away: {word}")
    return told


def joined(found: Sequence[Results], title: str, part: str) -> dict[str, Any]:
    """Return the results of several seeds as one."""
    first = found[0]

    def over(parts: Sequence[Any]) -> Any:
        return (
            None if None in parts else spread([v for p in parts for v in p["per_seed"]])
        )

    rows = {}
    for key, row in first["rows"].items():
        own = [one["rows"][key] for one in found]
        figures = {n: over([o["figures"][n] for o in own]) for n in row["figures"]}
        times = {n: over([o[n] for o in own]) for n in ("seconds", "cost")}
        rows[key] = {**row, "figures": figures, **times}
    seeds = [seed for one in found for seed in one["plan"]["seeds"]]
    methods = first["plan"]["methods"]
    plan = {**first["plan"], "title": f"{title}: {part}", "seeds": seeds}
    plan["methods"] = methods
    told = {k: v for k, v in first.items() if k not in ("rows", "plan", "vocabulary")}
    passed = [gates(one, one["vocabulary"]) for one in found]
    return {**told, "plan": plan, "rows": rows, "gates": passed}


def _kept(path: Path, make: Any) -> Any:
    """Return what a file holds, made and written first if there is none."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(make()), overwrite=True)
    return read_json(path)


class _Lazy:
    """A model that is read when it is first asked for."""

    def __init__(self, path: Path):
        self._path, self._found = path, None

    def __call__(self) -> Any:
        if self._found is None:
            self._found = load_model(self._path).trained[:2]
        return self._found


class _Other:
    """Texts of another source, those that fit a model, as tokens."""

    def __init__(self, subject: Subject, dataset: Dataset):
        if not dataset.is_text:
            raise InputError(f"{dataset.name} holds no texts; give a .txt")
        words = dataset.train.inputs[:, 1].tolist()
        short = [n for n, text in enumerate(words) if 8 <= len(text.split()) <= 80]
        chosen = np.array(short)[:OTHER] if short else np.arange(0)
        if not len(chosen):
            raise InputError(f"{dataset.name} holds no text of 8 to 80 words")
        part = Examples(dataset.train.inputs[chosen], dataset.train.labels[chosen])
        self.examples = subject.modality.samples(subject.built, part)


class _Look:
    """What is measured of a model, by name."""

    def __init__(
        self,
        subject: Subject,
        ids: Mapping[str, np.ndarray],
        other: _Other | None,
        seed: int,
    ):
        self._subject, self._ids, self._other, self._seed = subject, ids, other, seed

    def measures(self, pressed: bool) -> dict[str, Any]:
        """Return the functions of a model's variables."""
        if pressed:
            return {"relearned": self._relearned, "rounded": self._rounded}
        if self._other is not None:
            return {"rouge": self._rouge, "other": self._elsewhere}
        return {"rouge": self._rouge}

    def losses(self, path: Path) -> dict[str, list[float]]:
        """Return the mean losses of forget and unseen texts of a checkpoint."""
        found = self._losses(load_model(path).trained[:2])
        return {part: own.tolist() for part, own in found.items()}

    def _losses(self, at: Any) -> dict[str, np.ndarray]:
        model, examples = self._subject.model, self._subject.examples
        parts = {part: self._ids[part] for part in ("forget", "unseen")}
        return {
            part: mean_losses(scores_of(model, at, examples.at(ids)))
            for part, ids in parts.items()
        }

    def _rouge(self, at: Any) -> dict[str, float]:
        rows, found = self._subject.dataset.train.inputs, {}
        for part in ("forget", "retain"):
            chosen = self._ids[part][:: max(len(self._ids[part]) // ASKED, 1)][:ASKED]
            told = answers_of(self._subject, at, rows[chosen, 0].tolist(), MOST)
            recall = audit.language.rouge_l(told, rows[chosen, 1].tolist()).recall
            found[f"{part}_rouge"] = float(recall.mean())
        return found

    def _elsewhere(self, at: Any) -> dict[str, float]:
        assert self._other is not None
        scores = scores_of(self._subject.model, at, self._other.examples)
        total = np.asarray(scores.nll, np.float64).sum() / scores.counted.sum()
        return {"other_perplexity": float(np.exp(total))}

    def _relearned(self, at: Any) -> dict[str, float]:
        """Return p of forgotten texts while others of them are learned again."""
        rng = np.random.default_rng(self._seed)
        order = rng.permutation(self._ids["forget"])
        count = max(round(FEW * len(order)), 1)
        few, held = order[:count], order[count : count + HELD]
        examples = self._subject.examples
        parts = np.array_split(few, -(-count // BATCH))
        batches = [take(examples, own) for own in parts]
        model, key = self._subject.model, jax.random.key(self._seed)
        given = batches, take(examples, held), RELEARNING, key
        how = {"steps": STEPS[-1], "every": STEPS[0]}
        found = audit.recovery(model, at[0], at[1], *given, **how)
        shares = dict(zip(found.steps.tolist(), found.right.tolist(), strict=True))
        return {f"relearned_{n}": shares[n] / 100 for n in (0, *STEPS)}

    def _rounded(self, at: Any) -> dict[str, float]:
        """Return p and AUC of the forget texts with rounded weights."""
        found = {}
        for bits in (8, 4):
            own = self._losses((audit.quantised(at[0], bits=bits), at[1]))
            found[f"int{bits}_probability"] = float(np.exp(-own["forget"]).mean())
            auc = audit.language.attack_auc(-own["forget"], -own["unseen"])
            found[f"int{bits}_auc"] = float(auc)
        return found


def _by_group(
    p: np.ndarray, labels: np.ndarray, counts: np.ndarray
) -> dict[str, float]:
    """Return the mean p of the texts of much, middling and little asked authors."""
    ranked = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())]
    parts = zip(GROUPS, np.array_split(ranked, 3), strict=True)
    found = {name: p[np.isin(labels, own)] for name, own in parts if len(own)}
    return {f"{name}_p": float(values.mean()) for name, values in found.items()}


class Pair(NamedTuple):
    """A method with LoReUn's weights beside the method alone.

    Attributes:
      plain, weighted: labels of the rows.
      change: of |AUC − AUC*|, in the mean over the seeds; below 0 is nearer.
      p: paired over the seeds.
      null: mean |AUC − AUC*| of another Retrain.
      nearer: clearly so, and by more than the null.
      inside: whether its perplexities are as near to Retrain's as another Retrain's.
    """

    plain: str
    weighted: str
    change: float
    p: float
    null: float
    nearer: bool
    inside: bool


def pairs_of(rows: Mapping[str, Any], mark: str = " + LoReUn") -> Iterator[Pair]:
    """Yield the rows with LoReUn's weights beside those without.

    A row called "METHOD + LoReUn ..." is beside "METHOD"; another mark is ", ".
    """
    by_label = {row["label"]: (key, row) for key, row in rows.items()}
    null = rows["null"]["figures"]["auc_gap"]["mean"]
    for label, (key, row) in by_label.items():
        plain = label.partition(mark)[0]
        if plain == label or plain not in by_label:
            continue
        both = [
            one["figures"]["auc_gap"]["per_seed"] for one in (row, by_label[plain][1])
        ]
        p = 1.0  # a seed alone shows nothing
        if len(both[0]) > 1:
            p = audit.paired_test(*both).p
        change = float(np.mean(both[0]) - np.mean(both[1]))
        clear = p < LEVEL and change < -null
        yield Pair(plain, label, change, float(p), null, clear, inside(rows, key))


def inside(rows: Mapping[str, Any], key: str) -> bool:
    """Return whether a row's perplexities are as near to Retrain's as the null's.

    In the mean over the seeds, on retain and unseen texts, no farther than the null is
    on the seed where it is farthest.
    """
    for name in ("retain_perplexity", "unseen_perplexity"):
        own, null, goal = (
            np.array(rows[k]["figures"][name]["per_seed"])
            for k in (key, "null", "retrain")
        )
        if np.abs(own - goal).mean() > np.abs(null - goal).max():
            return False
    return True


def answer(found: Mapping[str, Any], *parts: str) -> str:
    """Return in a word whether LoReUn's weights carry over: "yes", "in part", "no".

    Yes where every pair of the parts' tables is nearer at perplexities inside the null.
    """
    pairs = [
        pair
        for part in parts
        if part in found
        for pair in pairs_of(found[part]["rows"])
    ]
    good = [one for one in pairs if one.nearer and one.inside]
    if not pairs:
        return "not tested"
    return "yes" if len(good) == len(pairs) else "in part" if good else "no"
