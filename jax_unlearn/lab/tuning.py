"""The search of settings on a user's own data and model.

Every method gets equal trials. Each trial unlearns requests drawn like the user's, seed
by seed, from models that know nothing of what is reported; how good they are is read
beside a Retrain of each seed, or off forget against unseen samples.
"""

import csv
import functools
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jax_unlearn.data import Dataset, digest, fingerprint, write_atomic
from jax_unlearn.drivers.loop import predict
from jax_unlearn.drivers.series import InUseError
from jax_unlearn.errors import InputError, NonFiniteError
from jax_unlearn.lab.bench import Bench
from jax_unlearn.lab.costs import met
from jax_unlearn.lab.job import Progress, Trained, execute
from jax_unlearn.lab.modalities.language.foreign import identity_at
from jax_unlearn.lab.plan import Plan, slug
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.refusals import check_unseen
from jax_unlearn.lab.requests import Case, Request
from jax_unlearn.lab.results import environment, head, to_json
from jax_unlearn.lab.rewinds import Origin
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.space import Space, told
from jax_unlearn.lab.store import SECONDS, Stored, origin_of
from jax_unlearn.lab.subject import Subject
from jax_unlearn.lab.surrogates import (
    Distance,
    ForgetAgainstUnseen,
    Ground,
    Likeness,
    draw,
    ground_of,
)

RESULTS, JOURNAL = "tuning.json", "study.journal"
MISSING = 'the search needs the package optuna: pip install "jax-unlearn[tune]"'
RELEASE = 8  # trials of a method that compiles each, until their programs are let go


class Seeded(NamedTuple):
    """A seed's request, the model it is made to, and what measures who served it."""

    request: Request
    original: Trained
    origin: Origin | None
    measured: Callable[[Trained], dict[str, float]]


class Search:
    """What the trials of all methods share: data, seeds, models, the yardstick.

    Raises:
      InputError: a checkpoint that does not say how its model was trained, where models
        of the search's own are asked for; seeds that are the checkpoint's; requests
        that the data cannot serve.
    """

    def __init__(
        self,
        stored: Stored,
        dataset: Dataset,
        asked: Likeness,
        request: Request | None,
        *,
        checkpoint: Path,
        seeds: Sequence[int],
        without_retrain: bool = False,
        folder: Path | None = None,  # where models are kept
        save_every: float = SECONDS,
        progress: Progress | None = None,  # of the training of its models
    ):
        origin = origin_of(stored)
        if origin is None and not without_retrain:
            raise InputError(
                f"checkpoint={checkpoint} does not say how its model was trained, so "
                "none can be trained like it; give --without-retrain, which looks at "
                "the model itself, or a checkpoint of `jax-unlearn train`"
            )
        reported = {stored.record.get("seed"), origin and origin.seed}
        for own in sorted(reported.intersection(seeds)):
            raise InputError(
                f"seeds={list(seeds)}: {own} is the checkpoint's own, whose model is "
                "reported; search on others"
            )
        if without_retrain:
            origin = origin_of(stored, retraced=True)
        self.seeds, self.asked = tuple(seeds), asked
        self._stored, self._origin, self._checkpoint = stored, origin, checkpoint
        unseen = stored.unseen if without_retrain else stored.unseen[:0]
        if without_retrain and not len(unseen):
            raise InputError(
                f"without_retrain=True: checkpoint={checkpoint} was trained on all "
                "samples, and a search may not read the test set; put samples that it "
                "never saw among the training samples of the data, and name the others "
                "to `import --trained-on`, or leave --without-retrain out"
            )
        forget = stored.ids[:0] if request is None else request.forget
        self.ground = ground_of(dataset, stored.ids, unseen, forget)
        size = len(stored.ids) + len(stored.unseen)
        self.plan = Plan(
            title=f"Settings on {dataset.name}",
            kind=asked.kind if asked.counts is None else "random",
            fraction=asked.fraction,
            gamma=asked.gamma,
            unseen=len(stored.unseen) / size if len(stored.unseen) else 0.1,
            training=origin.training if origin else None,
            methods={},
            seeds=self.seeds,
        )
        self._bench: Bench | None = None
        if without_retrain:
            self.by = ForgetAgainstUnseen.by
            self.subject: Subject = stored.subject(self.ground.dataset)
            self._preparer = Preparer(self.subject)
        else:
            self.by = Distance.by
            options = {"folder": folder, "save_every": save_every}
            given = self.plan, self.ground.dataset, progress
            self._bench = Bench(*given, **options)
            self.subject, self._preparer = self._bench.subject, self._bench.preparer
        self._unshared = 0
        self.case = functools.cache(self._case)

    @property
    def assumes(self) -> str:
        """What is to be said of the training of an imported model; "" of others."""
        if self._bench is None or not (self._origin and self._origin.imported):
            return ""
        training = vars(self.plan.training).items()
        numbers = [(k, v) for k, v in training if isinstance(v, int | float)]
        how = ", ".join(f"{k}={v}" for k, v in numbers if k != "width" or v)
        return (
            f"models are trained as `import` was told ({how}); if {self._checkpoint} "
            "was trained otherwise, give --without-retrain"
        )

    def record(self, space: Space) -> dict[str, Any]:
        """Return what a study that is gone on with agrees in."""
        found = {
            "by": self.by,
            "seeds": self.seeds,
            "requests": self.asked.record(),
            "data": fingerprint(self.ground.dataset),
            "trained": digest(self.ground.trained),
            "space": space.record(),
        }
        if self._bench is None:
            return found | {"checkpoint": identity_at(self._checkpoint)}
        return found | {"training": vars(self.plan.training)}

    def check(self, setting: Unlearning) -> None:
        """Refuse before the work a method that the requests do not serve."""
        card = setting.card
        self.subject.modality.serves(card, setting.weighting_card)
        origin = self._origin
        foreign = origin is None or origin.imported or self._bench is None
        replays = "training" in card.reads and card.kind != "training"
        if "training" in card.reads and (origin is None or (replays and foreign)):
            raise InputError(
                f"method={setting.method!r} goes through the training of the original "
                "again, which a search without Retrain, or of an imported model, does "
                "not know; search other methods"
            )
        if self._bench is None or not self.plan.by_model:
            request = self._request(self.seeds[0])
            check_unseen(self.ground.dataset, request, setting)
            met(setting, origin, request, self.subject.modality)

    def measure(self, setting: Unlearning, seed: int) -> dict[str, float] | None:
        """Return what is measured of a setting on a seed; None where it diverges."""
        case, start = self.case(seed), time.perf_counter()
        given = setting, case.request, case.original
        if not setting.shares:  # a program takes memory mappings, which are limited
            self._unshared += 1
            if self._unshared % (RELEASE * len(self.seeds)) == 0:
                jax.clear_caches()
        try:
            job = self._preparer(*given, seed=seed, origin=case.origin)
            trained = execute(job, case.original[:2], jax.random.key(seed))
            found = case.measured(trained)
        except NonFiniteError:
            return None
        return found | {"seconds": time.perf_counter() - start}

    def _case(self, seed: int) -> Seeded:
        """Return a seed's request and models, made or loaded when first asked for."""
        bench = self._bench
        if bench is None:
            model, request = self._stored.trained, self._request(seed)
            measured = ForgetAgainstUnseen(self.subject, request, model)
            return Seeded(request, model, self._origin, measured)
        original = self._patient(lambda: bench.original(seed))
        request = self._request(seed, original)
        case = Case(seed, "", request)
        retrained = self._patient(lambda: bench.retrained(case))
        measured = Distance(self.subject, request, retrained, seed)
        return Seeded(request, original, bench.origin(seed), measured)

    def _request(self, seed: int, original: Trained | None = None) -> Request:
        dataset = self.ground.dataset

        def features(ids):
            assert original is not None
            inputs = dataset.train.inputs[ids]
            return predict(self.subject.built.features, *original[:2], inputs)

        return draw(self.ground, self.asked, self.plan, seed, features)

    def _patient(self, make: Callable[[], Trained]) -> Trained:
        """Return a model that another worker of the folder may be making now."""
        while True:
            try:
                return make()
            except InUseError:
                time.sleep(0.5)


def study_of(
    search: Search,
    setting: Unlearning,
    storage: Any,
    *,
    trials: int,
    seed: int,
    where: object,
) -> "Tuning":
    """Return the study of a method, begun or gone on with."""
    from jax_unlearn.lab.trials import Spread, begun

    space = Space.of(setting)
    sampler = Spread(space, seed)
    record = search.record(space) | {"seed": seed}
    own = setting.weighting in ("uniform", setting.card.weighting)
    label = setting.card.label + ("" if own else f" + {setting.weighting_card.label}")
    study = begun(storage, slug(label), record, sampler, where=where)
    return Tuning(label, search, space, study, sampler.count(trials))


class Tuning(NamedTuple):
    """The trials of one method."""

    label: str
    search: Search
    space: Space
    study: Any  # of optuna
    wanted: int

    def work(self, look: Callable[[], Any]) -> None:
        """Make trials until there are as many as wanted."""
        from jax_unlearn.lab.trials import work

        def measure(values: Mapping[str, Any], seed: int) -> dict[str, float] | None:
            return self.search.measure(self.space.setting(values), seed)

        given = self.study, self.space, self.wanted, self.search.seeds, measure
        work(*given, look=look)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row a trial that has ended: its values, and means over seeds."""
        from jax_unlearn.lab.trials import ENDED, seeds_of, values_of

        rows = []
        for trial in self.study.get_trials(deepcopy=False, states=ENDED):
            seeds = seeds_of(trial)
            found = [own for own in seeds.values() if own is not None]
            state = trial.state.name.lower()
            means = {
                name: sum(own[name] for own in found) / len(found)
                for name in (found[0] if found else ())
            }
            rows.append(
                {
                    "method": self.label,
                    "trial": trial.number,
                    "state": state if len(found) == len(seeds) else "diverged",
                    **values_of(self.space, trial.params),
                    "seeds": len(found),
                    **means,
                }
            )
        return rows

    def best(self) -> dict[str, Any] | None:
        """Return the row of the least mean of those made on all seeds, if any is."""
        whole = [row for row in self.rows() if row["state"] == "complete"]
        return min(whole, key=lambda row: row[self.search.by], default=None)

    def chosen(self, row: Mapping[str, Any]) -> Unlearning:
        """Return the setting of a row."""
        names = (*self.space.ranges, *self.space.choices)
        return self.space.setting({name: row[name] for name in names})


def conclude(
    studies: Sequence[Tuning], out: Path, *, dataset: Dataset, **notes: Any
) -> dict[str, tuple[Unlearning, dict[str, Any]]]:
    """Write the tables of all trials; return what is best of each method, best first.

    Raises:
      InputError: a method all of whose settings diverge.
    """
    by, found = studies[0].search.by, {}
    rows = [row for study in studies for row in study.rows()]
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, names, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_atomic(out / "trials.csv", text.getvalue(), overwrite=True)
    for study in studies:
        if (row := study.best()) is not None:
            found[study.label] = study.chosen(row), row
    found = dict(sorted(found.items(), key=lambda item: item[1][1][by]))
    search = studies[0].search
    results = {
        **head({"title": search.plan.title, "seeds": list(search.seeds)}, dataset),
        "by": by,
        "trials": {study.label: study.wanted for study in studies},
        "settings": {label: told(setting) for label, (setting, _) in found.items()},
        "table": rows,
        "environment": environment(),
        **notes,
    }
    write_atomic(out / RESULTS, to_json(results), overwrite=True)
    if missing := [study.label for study in studies if study.label not in found]:
        raise InputError(
            f"{missing[0]}: no setting stays finite on all seeds; give a smaller "
            f"--learning-rate, or another method (the trials are in {out})"
        )
    return found


def toml_of(setting: Unlearning, comment: str) -> str:
    """Return a setting as options in TOML, which `--config` reads.

    >>> print(toml_of(Unlearning.of(method="finetune", epochs=3), "best"), end="")
    # best
    method = "finetune"
    weighting = "uniform"
    epochs = 3
    """
    lines = [f"# {line}" for line in comment.splitlines()]
    for name, value in told(setting).items():
        key = name.replace("_", "-")
        if value is False:  # flags that are on by default
            key, value = f"no-{key}", True
        # numbers, text, truth values and lists of them are written as in JSON
        lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


__all__ = ["JOURNAL", "MISSING", "RESULTS", "Ground", "Likeness", "Search", "Tuning"]
__all__ += ["conclude", "study_of", "toml_of"]
