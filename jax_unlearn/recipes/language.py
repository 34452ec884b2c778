"""Language models that forget authors: TOFU's questions, from a base to an audit.

Two stages, as language models are made: one base for all models of a seed, of authors
that nobody asks about; then the original on the retained and forgotten authors, Retrain
and the null (another order) on the retained ones, from the same base. The tokenizer
sees neither forgotten nor unseen texts. Trained from scratch on so little, Retrain
would be no language model off its data, and at p = .999 no loss would be left to weigh
by: hence the gates.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jax_unlearn.data import Dataset, Examples, read_json, write_atomic
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Plan, Unlearning, experiment
from jax_unlearn.lab.experiment import phases
from jax_unlearn.lab.job import reporting
from jax_unlearn.lab.modalities.language.figures import ALTERNATIVES
from jax_unlearn.lab.modalities.language.networks import texts_of
from jax_unlearn.lab.modalities.language.settings import LanguageTraining
from jax_unlearn.lab.results import to_json
from jax_unlearn.lab.store import kept_model
from jax_unlearn.lab.subject import Subject, Trainer, subject_of
from jax_unlearn.language.texts import TOPIC
from jax_unlearn.language.tokens import encode, save_tokenizer, train_tokenizer
from jax_unlearn.recipes.language_more import (
    Asking,
    Models,
    gates,
    joined,
    portable,
    with_more,
)
from jax_unlearn.recipes.language_rows import (
    ABLATION,
    FURTHER,
    LONGER,
    LONGER_ABLATION,
    MAIN,
    OF,
    OTHER_ABLATION,
    PRESSED,
    ROUNDS,
    TAIL,
    Authors,
    LanguageStudy,
    Rows,
    fixed,
    grids_of,
    settings_of,
)
from jax_unlearn.recipes.recipe import HERE, Asked, Recipe, declared, publish
from jax_unlearn.recipes.search import search, text_of

__all__ = ["LANGUAGE_SMOKE", "LANGUAGE_TOFU", "Authors", "LanguageStudy", "gates"]
__all__ += ["run_study"]

QUESTIONS = 20  # of an author, where a file names no topics


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
        told = dataset
        if part != "main":  # truth ratios take as long as unlearning
            kept = {k: v for k, v in dataset.columns.items() if k not in ALTERNATIVES}
            told = dataset._replace(columns=kept)
        self.main = _part(told, main, author, dataset.name)
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
    for column in ALTERNATIVES:
        if column in dataset.columns:
            columns[column] = dataset.columns[column][ids]
    return Dataset(name, parts, none, len(names), names, columns)


def run_study(
    recipe: Recipe, asked: Asked, datasets: Sequence[Dataset], folder: Path
) -> None:
    """Search settings if there are none, or if asked; run the parts, seed by seed.

    What is made is not made again, and parts that the folder holds from earlier runs
    are published with those of this one. A second data set is of other texts, whose
    perplexity is told.
    """
    study: LanguageStudy = recipe.study
    parts, screen = asked.parts or study.parts, asked.screen
    for part in parts:
        if part not in study.parts:
            raise InputError(
                f"parts={part!r}: {recipe.name} has {', '.join(study.parts)}"
            )
    if len(datasets) > 2:
        raise InputError(
            f"data: {len(datasets)} files; give that of the questions, and at most one "
            "of other text"
        )
    if asked.tune and study.search_seed is None:
        raise InputError(f"tune=True: the settings of {recipe.name} are fixed")
    note = "The settings are fixed; none were searched."
    rows: dict[str, Rows] = study.searches(parts)
    if study.search_seed is not None:
        for kind, asked_rows in rows.items():
            settings = None if asked.tune else _settings(recipe, folder, kind)
            if settings is None:
                settings = _searched(recipe, datasets[0], folder, screen, kind)
            rows[kind] = {label: settings["settings"][label] for label in asked_rows}
            note = (
                f"Each method has the settings with the smallest distance from Retrain "
                f"of {settings['trials']} trials on search seed {study.search_seed}."
            )
    if asked.tune:
        return
    tables = {
        **rows,
        **{
            part: settings_of(rows[kind], study.changes(part))
            for part, kind in OF.items()
            if kind in rows
        },
    }
    for part in parts:
        seeds = []
        for seed in asked.seeds or study.seeds:
            texts = _Texts(datasets[0], study, seed, part)
            at = _Place(folder, part, seed)
            plan = _plan(study, texts, at, tables[part], note)
            one = _seed(study, texts, at, plan, screen, datasets[1:])
            seeds.append(one)
            for line in gates(one, one["vocabulary"]):
                screen.say(f"seed {seed}: {line}")
            found = portable(joined(seeds, study.title, part), folder)
            write_atomic(_results(folder, part), to_json(found), overwrite=True)
    every = [part for part in study.parts if _results(folder, part).exists()]
    whole = {part: read_json(_results(folder, part)) for part in every}
    publish(recipe, screen, folder, whole if len(every) > 1 else {"": whole[every[0]]})


def _results(folder: Path, part: str) -> Path:
    return folder / part / "results.json"


class _Place(NamedTuple):
    """Where the models of a part and a seed are."""

    folder: Path
    part: str
    seed: int

    @property
    def base(self) -> Path:
        """The base."""
        return self.folder / f"seed-{self.seed}" / "base"

    @property
    def run(self) -> Path:
        """All others; but long tails all parts are of the same request."""
        own = self.part == "long_tailed"
        part = self.part if own else OF.get(self.part, self.part)
        return self.folder / part / f"seed-{self.seed}"

    @property
    def shared(self) -> dict[str, Path]:
        """Where others have made the originals, and of the same request Retrains."""
        found = self.folder / "main" / f"seed-{self.seed}"
        if self.run == found or (self.part == "long_tailed" and not found.is_dir()):
            return {}
        both = {"originals": found, "retrains": found}
        return {"originals": found} if self.part == "long_tailed" else both


def _settings(recipe: Recipe, folder: Path, kind: str) -> dict[str, Any] | None:
    """Return what a search found: in the run's folder, or the package."""
    for file in (folder / "settings.json", HERE / "settings" / f"{recipe.stem}.json"):
        found = json.loads(file.read_text("utf-8")) if file.is_file() else {}
        found = found if kind == "main" else found.get(kind, {})
        if "settings" in found:
            return found
    return None


def _searched(
    recipe: Recipe, dataset: Dataset, folder: Path, screen: Any, kind: str
) -> dict[str, Any]:
    """Search settings on the seed kept for it; write and return what is found."""
    study: LanguageStudy = recipe.study
    assert study.search_seed is not None
    at = _Place(folder, "main", study.search_seed)
    texts = _Texts(dataset, study, at.seed, "main")
    _based(study, texts, at, screen)
    plan, path = _plan(study, texts, at, {}, ""), folder / "settings.json"

    def save(now: dict[str, Any]) -> dict[str, Any]:
        found, whole = portable(now, folder), read_json(path) if path.exists() else {}
        whole |= found if kind == "main" else {kind: found}
        write_atomic(path, text_of(whole), overwrite=True)
        return found

    how: dict[str, Any] = {"folder": folder / "search", "rounds": ROUNDS[kind]}
    how |= {"models": at.run / "checkpoints", "save": save}
    grids = grids_of(study.searches((kind,))[kind], kind)
    found = save(search(plan, texts.main, grids, screen.say, **how))
    screen.say(f"wrote {path}")
    return found


def _based(study: LanguageStudy, texts: _Texts, at: _Place, screen: Any) -> Subject:
    """Make the tokenizer and the base of a seed, if they are not there."""
    tokenizer = at.folder / "tokenizer"
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
            at.base,
            {"training": vars(first), "seed": at.seed},
            lambda series: (
                trainer(ids, seed=at.seed, callback=report, series=series),
                {},
            ),
            subject=subject,
            ids=ids,
            unseen=ids[:0],
        )
    return subject


def _plan(
    study: LanguageStudy, texts: _Texts, at: _Place, rows: Mapping[str, Any], note: str
) -> Plan:
    return Plan(
        title=study.title,
        kind="given",
        fraction=0.0,
        gamma=study.gamma if at.part == "long_tailed" else 1.0,
        unseen=len(texts.unseen),
        training=dataclasses.replace(study.training, start=str(at.base)),
        methods={label: Unlearning.of(**own) for label, own in rows.items()},
        seeds=(at.seed,),
        note=note,
        given=tuple(texts.forget.tolist()),
        held=tuple(texts.unseen.tolist()),
    )


def _seed(
    study: LanguageStudy,
    texts: _Texts,
    at: _Place,
    plan: Plan,
    screen: Any,
    other: Sequence[Dataset],
) -> dict[str, Any]:
    """Make and measure all models of a seed."""
    subject = _based(study, texts, at, screen)
    how: dict[str, Any] = at.shared
    with screen.progress(phases(plan)) as progress:
        results = experiment(
            plan, texts.main, at.run, progress=progress, resume=True, **how
        )
    others = {"originals": at.run, "retrains": at.run, **at.shared}
    given = Models(at.run, **others, base=at.base, seed=at.seed)
    asked = {"main": Asking(other=other), "pressed": Asking(pressed=True)}.get(at.part)
    results = with_more(results, given, plan, texts.main, asked, screen)
    inputs = texts.main.train.inputs
    pair = inputs[:, 0].tolist(), inputs[:, 1].tolist()
    lengths = encode(pair[0], pair[1], subject.network.tokenizer).lengths
    kept = np.setdiff1d(np.arange(len(lengths)), [*texts.forget, *texts.unseen])
    ratio = float(lengths[texts.forget].mean() / lengths[kept].mean())
    return {**results, "vocabulary": subject.network.tokenizer.size, "lengths": ratio}


TRAINING = LanguageTraining(epochs=15, batch_size=16, packed=256, learning_rate=2e-3)
DATA: dict[str, Any] = {"options": ("parts", "tune"), "several": True}

LANGUAGE_SMOKE = declared(
    "language-smoke",
    run_study,
    **DATA,
    study=LanguageStudy(
        "TOFU, 20 authors: forget two",
        Authors(retain=18, base=120, unseen=2, forget=2),
        TRAINING,
        base_epochs=6,
        seeds=(0,),
        methods=fixed(learning_rate=3e-4),
    ),
)
LANGUAGE_TOFU = declared(
    "language-tofu",
    run_study,
    **DATA,
    study=LanguageStudy(
        "TOFU, 30 authors: forget ten",
        Authors(),
        TRAINING,
        base_epochs=6,
        seeds=(0, 1, 2, 3, 4),
        methods=MAIN,
        further=FURTHER,
        ablation=ABLATION,
        other_ablation=OTHER_ABLATION,
        longer=LONGER,
        longer_ablation=LONGER_ABLATION,
        long_tailed=TAIL,
        gamma=1.0,
        search_seed=100,
        pressed=PRESSED,
    ),
)
