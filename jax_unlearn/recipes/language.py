"""Language models that forget authors: TOFU's questions, from a base to an audit.

Two stages, as language models are made: one base for all models of a seed, of authors
that nobody asks about; then the original on the retained and forgotten authors, Retrain
and the null (another order) on the retained ones, from the same base. The tokenizer
sees neither forgotten nor unseen texts. Trained from scratch on so little, Retrain
would be no language model off its data, and at p = .999 no loss would be left to weigh
by: hence the gates.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jax_unlearn.data import Dataset, Examples, write_atomic
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Plan, Unlearning, experiment
from jax_unlearn.lab.catalog import METHODS, WEIGHTINGS, names_of
from jax_unlearn.lab.experiment import phases
from jax_unlearn.lab.job import reporting
from jax_unlearn.lab.modalities.language.networks import texts_of
from jax_unlearn.lab.modalities.language.settings import LanguageTraining
from jax_unlearn.lab.results import spread, to_json
from jax_unlearn.lab.store import kept_model
from jax_unlearn.lab.subject import Trainer, subject_of
from jax_unlearn.language.texts import TOPIC
from jax_unlearn.language.tokens import encode, save_tokenizer, train_tokenizer
from jax_unlearn.recipes.recipe import Asked, Recipe, Results, declared, publish

__all__ = ["LANGUAGE_SMOKE", "LANGUAGE_TOFU", "Authors", "LanguageStudy", "gates"]
__all__ += ["methods_of", "run_study"]

QUESTIONS = 20  # of an author, where a file names no topics
BANDS = {"original": (0.9, 0.95)}  # p on the forgotten texts


@dataclasses.dataclass(frozen=True)
class Authors:
    """How many authors are of each part; the file has at least as many, in this order.

    Of 200 authors, as in TOFU, the parts begin at 0, 40, 160 and 180.
    """

    retain: int = 40
    base: int = 120
    unseen: int = 20
    forget: int = 20

    def places(self, count: int) -> dict[str, range]:
        """Return the numbers of each part's authors, of so many there are."""
        sizes = dataclasses.asdict(self)
        if sum(sizes.values()) > count:
            raise InputError(
                f"the file has {count} authors, the recipe takes {self.retain} + "
                f"{self.base} + {self.unseen} + {self.forget}; give a larger file"
            )
        begins = (0, 40, 160, 180) if count == 200 else np.cumsum([0, *sizes.values()])
        return {
            name: range(int(begin), int(begin) + size)
            for (name, size), begin in zip(sizes.items(), begins, strict=False)
        }


@dataclasses.dataclass(frozen=True)
class LanguageStudy:
    """A study of texts by author."""

    title: str
    authors: Authors
    training: LanguageTraining
    base_epochs: int
    seeds: tuple[int, ...]
    methods: Mapping[str, Mapping[str, Any]]
    ablation: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    gamma: float = 0.0  # of a part whose authors are forgotten in a long tail; 0: none

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of its tables."""
        found = ("main", *(("ablation",) if self.ablation else ()))
        return (*found, *(("long_tailed",) if self.gamma else ()))


class _Texts:
    """The texts of a study by part, as data sets of ids from 0 on."""

    def __init__(self, dataset: Dataset, study: LanguageStudy, seed: int, part: str):
        if not dataset.is_text:
            raise InputError(f"{dataset.name} holds no texts; give TOFU's, as .json")
        rows = np.arange(len(dataset.train.labels))
        named = TOPIC in dataset.columns
        author = dataset.train.labels if named else rows // QUESTIONS
        numbers = np.unique(author)
        places = study.authors.places(len(numbers))
        ids = {
            name: rows[np.isin(author, numbers[list(where)])]
            for name, where in places.items()
        }
        forget = ids["forget"]
        if part == "long_tailed":
            forget = _tail(forget, author, study.gamma, seed)
        main = np.concatenate([ids["retain"], ids["forget"], ids["unseen"]])
        self.base = _part(dataset, ids["base"], author, "base")
        self.main = _part(dataset, main, author, dataset.name)
        self.forget = np.flatnonzero(np.isin(main, forget))
        self.unseen = np.flatnonzero(np.isin(main, ids["unseen"]))
        self.known = texts_of(dataset, np.union1d(ids["base"], ids["retain"]))


def _tail(ids: np.ndarray, author: np.ndarray, gamma: float, seed: int) -> np.ndarray:
    """Return fewer texts of each author than of the one before: k^−γ of 18 of 20."""
    rng, chosen = np.random.default_rng(seed), []
    for rank, number in enumerate(rng.permutation(np.unique(author[ids])), 1):
        own = ids[author[ids] == number]
        count = max(1, round(0.9 * len(own) * rank**-gamma))
        chosen.append(rng.permutation(own)[:count])
    return np.sort(np.concatenate(chosen))


def _part(dataset: Dataset, ids: np.ndarray, author: np.ndarray, name: str) -> Dataset:
    """Return some texts as a data set whose classes are the authors."""
    numbers, labels = np.unique(author[ids], return_inverse=True)
    known = dataset.class_names if TOPIC in dataset.columns else None
    names = tuple(known[n] if known else f"author {n}" for n in numbers)
    parts = Examples(dataset.train.inputs[ids], labels.astype(np.int32))
    none = Examples(parts.inputs[:0], parts.labels[:0])
    columns = {TOPIC: np.array(names)[labels]}
    return Dataset(name, parts, none, len(names), names, columns)


def methods_of(**common: Any) -> dict[str, dict[str, Any]]:
    """Return the rows of the main table, those whose method there is."""
    shared = {"modality": "language", **common}
    loreun = {"weighting": "loreun", "relative": True}
    static = {"weighting": "loreun_static", "relative": True}
    rows: dict[str, dict[str, Any]] = {
        "Partial reset": {"method": "partial_reset", "budget": 0.3},
        "GA": {"method": "gradient_ascent"},
        "GradDiff": {"method": "neggrad_plus"},
        "GradDiff + LoReUn": {"method": "neggrad_plus", **loreun},
        "GradDiff + LoReUn (static)": {"method": "neggrad_plus", **static},
    }
    for name in ("npo", "simnpo", "idk_nll", "idk_dpo", "wga", "rmu"):
        if name in METHODS:
            title = METHODS[name].title
            rows[title] = {"method": name}
            if METHODS[name].weighs:
                rows[f"{title} + LoReUn"] = {"method": name, **loreun}
    # partial reset has the rates of the original's training
    kind = {"modality": "language"}
    return {k: {**(kind if "budget" in v else shared), **v} for k, v in rows.items()}


def ablation_of(**common: Any) -> dict[str, dict[str, Any]]:
    """Return rows by the shape and the reference of LoReUn, for GA and others."""
    rows: dict[str, dict[str, Any]] = {}
    known = names_of(WEIGHTINGS["loreun"].options)
    for title, method in (("GradDiff", "neggrad_plus"), ("NPO", "npo")):
        if method not in METHODS:
            continue
        for weighting in ("loreun", "loreun_static"):
            for normalize in ("mean_one", "none"):
                if "normalize" not in known and normalize == "none":
                    continue
                own = {"normalize": normalize} if "normalize" in known else {}
                label = f"{title}, {weighting.removeprefix('loreun') or 'dynamic'}"
                label = f"{label.replace('_static', 'static')}, {normalize}"
                rows[label] = {
                    **{"modality": "language", "method": method, **common},
                    **{"weighting": weighting, "relative": True, **own},
                }
    return rows


def run_study(recipe: Recipe, asked: Asked, dataset: Dataset, folder: Path) -> None:
    """Run the parts of a study, seed by seed; what is made is not made again."""
    study: LanguageStudy = recipe.study
    parts, screen = asked.parts or study.parts, asked.screen
    for part in parts:
        if part not in study.parts:
            raise InputError(
                f"parts={part!r}: {recipe.name} has {', '.join(study.parts)}"
            )
    found: dict[str, Any] = {}
    for part in parts:
        seeds = []
        for seed in asked.seeds or study.seeds:
            texts = _Texts(dataset, study, seed, part)
            one = _seed(study, texts, folder, part, seed, screen)
            seeds.append(one)
            for line in gates(one, one["vocabulary"]):
                screen.say(f"seed {seed}: {line}")
        found[part] = _joined(seeds, study.title, part)
        path = folder / part / "results.json"
        write_atomic(path, to_json(found[part]), overwrite=True)
    only = len(found) == 1
    publish(recipe, screen, folder, {"": found[parts[0]]} if only else found)


def _seed(
    study: LanguageStudy, texts: _Texts, folder: Path, part: str, seed: int, screen: Any
) -> dict[str, Any]:
    """Make and measure all models of a seed."""
    base, tokenizer = folder / f"seed-{seed}" / "base", folder / "tokenizer"
    if not tokenizer.exists():
        save_tokenizer(
            train_tokenizer(texts.known, size=study.training.vocabulary), tokenizer
        )
    first = dataclasses.replace(
        study.training, tokenizer=str(tokenizer), epochs=study.base_epochs
    )
    subject = subject_of(first, texts.base)
    ids = np.arange(len(texts.base.train.labels))
    trainer = Trainer(subject, first)
    with screen.progress(1) as progress:
        report = reporting(progress, "base", trainer.steps(len(ids)))
        kept_model(
            base,
            {"training": vars(first), "seed": seed},
            lambda series: (
                trainer(ids, seed=seed, callback=report, series=series),
                {},
            ),
            subject=subject,
            ids=ids,
            unseen=ids[:0],
        )
    rows = study.ablation if part == "ablation" else study.methods
    plan = Plan(
        title=study.title,
        kind="given",
        fraction=0.0,
        gamma=study.gamma if part == "long_tailed" else 1.0,
        unseen=len(texts.unseen),
        training=dataclasses.replace(study.training, start=str(base)),
        methods={label: Unlearning.of(**own) for label, own in rows.items()},
        seeds=(seed,),
        given=tuple(texts.forget.tolist()),
        held=tuple(texts.unseen.tolist()),
    )
    at = folder / part / f"seed-{seed}"
    originals = folder / "main" / f"seed-{seed}" if part != "main" else None
    there = originals is not None and originals.is_dir()
    how: dict[str, Any] = {"originals": originals} if there else {}
    if part == "ablation" and there:  # the same request
        how["retrains"] = originals
    with screen.progress(phases(plan)) as progress:
        results = experiment(
            plan, texts.main, at, progress=progress, resume=True, **how
        )
    inputs = texts.main.train.inputs
    pair = inputs[:, 0].tolist(), inputs[:, 1].tolist()
    lengths = encode(pair[0], pair[1], subject.network.tokenizer).lengths
    kept = np.setdiff1d(np.arange(len(lengths)), [*texts.forget, *texts.unseen])
    ratio = float(lengths[texts.forget].mean() / lengths[kept].mean())
    return {**results, "vocabulary": subject.network.tokenizer.size, "lengths": ratio}


def gates(results: Results, vocabulary: int) -> list[str]:
    """Return in sentences whether the models are ones that can be compared."""
    rows, told = results["rows"], []
    for key, (low, high) in BANDS.items():
        p = rows[key]["figures"]["forget_probability"]["mean"]
        word = "inside" if low <= p <= high else "outside"
        told.append(
            f"p of the original on forgotten texts is {p:.3f}: {word} {low}–{high}"
        )
    loss, bound = (
        rows["retrain"]["figures"]["unseen_loss"]["mean"],
        math.log(vocabulary),
    )
    word = "below" if loss < bound else "not below"
    told.append(
        f"Retrain's loss on unseen texts is {loss:.2f}: {word} ln V = {bound:.2f}"
    )
    return told


def _joined(found: Sequence[Results], title: str, part: str) -> dict[str, Any]:
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


TRAINING = LanguageTraining(epochs=15, batch_size=16, packed=256, learning_rate=2e-3)
TUNED: dict[str, Any] = {"learning_rate": 2e-4, "epochs": 5}

LANGUAGE_SMOKE = declared(
    "language-smoke",
    run_study,
    options=("parts",),
    study=LanguageStudy(
        "TOFU, 20 authors: forget two",
        Authors(retain=18, base=120, unseen=2, forget=2),
        TRAINING,
        base_epochs=6,
        seeds=(0,),
        methods={k: v for k, v in methods_of(**TUNED).items() if "static" not in k},
    ),
)
LANGUAGE_TOFU = declared(
    "language-tofu",
    run_study,
    options=("parts",),
    study=LanguageStudy(
        "TOFU, 60 authors: forget 20",
        Authors(),
        TRAINING,
        base_epochs=6,
        seeds=(0, 1, 2, 3, 4),
        methods=methods_of(**TUNED),
        ablation=ablation_of(**TUNED),
        gamma=1.0,
    ),
)
