"""What cards are built from: one model, one request, one setting, any kind of model."""

import dataclasses
import functools
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from jax_unlearn import data, harmonize, masks, oneshot, types
from jax_unlearn.audit.memorisation import memorisation_proxy
from jax_unlearn.cards import Job, Learned, Ranked, Variables
from jax_unlearn.data import Examples, Schedule
from jax_unlearn.drivers.loop import predict
from jax_unlearn.drivers.series import Series
from jax_unlearn.errors import InputError
from jax_unlearn.gradients import mean_gradient
from jax_unlearn.lab import choose, costs, store
from jax_unlearn.lab.job import Trained, execute, probabilities
from jax_unlearn.lab.modality import Modality, optimizer_of
from jax_unlearn.lab.refusals import check_unseen, few_samples
from jax_unlearn.lab.requests import Request
from jax_unlearn.lab.rewinds import Origin, epoch_of, gone_on
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.subject import Subject, Trainer
from jax_unlearn.lab.transfer import earlier_at
from jax_unlearn.types import Array, Batch, LossFn, Model, PyTree

__all__ = ["Context"]


@dataclasses.dataclass(frozen=True)
class Context:
    """One method to be prepared: the `Lab` of its card."""

    subject: Subject
    model: Model  # with the memory switches of the setting
    setting: Unlearning
    request: Request  # its retain set is what may be read
    trained: Trained
    origin: Origin | None
    seed: int
    # compiled, and shared between the contexts of a model
    programs: dict[Hashable, Any] = dataclasses.field(default_factory=dict)
    concept: str | None = None  # what the request is about, where that is a word
    # what was measured of this request, by name
    measured: dict[str, Any] = dataclasses.field(default_factory=dict)
    # of the run, if it is kept as it goes on: there stand the jobs that are `done`
    series: Series | None = None

    @property
    def modality(self) -> Modality:
        """The kind of model."""
        return self.subject.modality

    @property
    def examples(self) -> Examples:
        """The training samples, as the objectives read them."""
        return self.subject.examples

    @property
    def range(self) -> data.PixelRange:
        """The range of the training images' pixels."""
        return self.subject.dataset.range

    @property
    def num_classes(self) -> int:
        """K."""
        return self.subject.dataset.num_classes

    @property
    def original(self) -> Variables:
        """Parameters and state of the model that is to forget."""
        return self.trained.params, self.trained.model_state

    @property
    def key(self) -> Array:
        """The key of what is measured before the run."""
        return jax.random.fold_in(jax.random.key(self.seed), 7)

    @property
    def model_state(self) -> str:
        """What the steps do to batch statistics, as methods call it."""
        return "frozen" if self.setting.freezes_statistics else "sequential"

    @property
    def featured(self) -> Model:
        """The model of penultimate features, with the same parameters."""
        return self.subject.built.features

    @property
    def training(self) -> Any:
        """How the original was trained."""
        if self.origin is None:
            raise InputError(
                f"method={self.setting.method!r} goes through the training of the "
                "original again, of which this checkpoint has no record; give one made "
                "by `jax-unlearn train`"
            )
        card = self.setting.card
        if self.origin.imported and card.kind != "training":
            raise InputError(
                f"method={card.name!r} replays the training of the original step by "
                "step; this one was imported, its steps are not known: use another "
                "method, or one that trains anew"
            )
        return self.origin.training

    def ids(self, part: str) -> np.ndarray:
        """Return sample ids of a part; "trained": forget and retain."""
        if part == "trained":
            return np.union1d(self.request.forget, self.request.retain)
        return getattr(self.request, part)

    def some(self, ids: np.ndarray) -> np.ndarray:
        """Return as many of the ids as the modality measures, chosen by the seed."""
        rng = np.random.default_rng(self.seed)
        return np.sort(rng.permutation(ids)[: self.modality.measured])

    def labels(self, part: str) -> np.ndarray:
        """Return the classes of a part's samples, `i32[n]`."""
        return self.examples.labels[self.ids(part)]

    def objective(self, role: str, **options: Any) -> LossFn:
        """Return the loss of a role."""
        return self.modality.objective(self, role, **options)

    def membership(self, options: Any) -> Learned:
        """Train membership attacks and set up queries."""
        return self.modality.membership(self, options)

    def loss_table(self, **told: Any) -> Array:
        """Return the original's loss by sample id, 0 beyond the forget set."""
        return self.modality.loss_table(self, **told)

    def difficulty(self, ranking: str) -> Ranked:
        """Return how easily each forget sample would be predicted unseen."""
        if self.modality.difficulty is None:
            raise InputError(
                f"ranking={ranking!r} needs a classifier, and this is a "
                f"{self.modality.name} model; use another method"
            )
        return self.modality.difficulty(self, ranking)

    def predict(self, ids: np.ndarray, at: Variables | None = None) -> np.ndarray:
        """Return the outputs for training samples in eval mode, on the host."""
        return predict(self.model, *(at or self.original), self.examples.inputs[ids])

    def features(self, ids: np.ndarray) -> np.ndarray:
        """Return the original's penultimate features of training samples."""
        return predict(self.featured, *self.original, self.examples.inputs[ids])

    def probabilities(self, part: str) -> np.ndarray:
        """Return what the original model says of a part's samples, `[n, K]`."""
        if "logits" not in self.modality.roles:
            raise InputError(
                f"{self.setting.method} with {self.setting.weighting} asks for "
                f"probabilities of classes, which {self.modality.name} models do not "
                "give; use another method or weighting"
            )
        inputs = self.examples.inputs[self.ids(part)]
        return probabilities(self.model, self.trained, inputs)

    def confidence(self, part: str) -> np.ndarray:
        """Return the original's probability of the true class; of texts, e^{−ℓ̄}."""
        if self.modality.texts:
            given = self.examples.at(self.ids(part))
            seen = self.modality.observe(self.subject, self.original, given)
            return 1 / (1 + np.exp(seen[:, 1] - seen[:, 0]))
        labels = self.labels(part)
        return self.probabilities(part)[np.arange(len(labels)), labels]

    def passes(self, **changes: Any) -> dict[str, Any]:
        """Return what every schedule is told; unseen samples ride along if asked."""
        setting, unseen = self.setting, self.request.unseen
        passes: dict[str, Any] = {"batch_size": setting.batch_size, "seed": self.seed}
        length = "steps" if setting.steps and "epochs" not in changes else "epochs"
        passes[length] = getattr(setting, length)
        how = setting.weighting_card.reference(setting.weighting_options)
        if how == "batches":
            size = min(setting.batch_size, len(unseen))
            passes |= {"reference": unseen, "reference_size": size}
        elif how == "whole":
            every = np.ones(len(unseen), np.bool_)
            passes["reference"] = data.take(self.examples, unseen, every)
        return {**passes, **changes}

    def schedule(self, kind: str) -> Schedule[types.UnlearnBatch]:
        """Return batches: "forget", "retain", "zipped", or "both" as was asked."""
        forget, retain = self.request.forget, self.request.retain
        if kind in ("forget", "retain"):
            make = data.forget_only if kind == "forget" else data.retain_only
            return make(self.examples, self.ids(kind), **self.passes())
        make = getattr(data, self.setting.scheduling if kind == "both" else kind)
        return make(self.examples, forget, retain, **self.passes())

    def batches(
        self,
        part: str,
        *,
        ids: np.ndarray | None = None,
        seed: int = 0,
        make: Any = None,
    ) -> list[Batch]:
        """Return one pass over a part, or these ids of it, in the setting's batches."""
        make = make or (data.forget_only if part == "forget" else data.retain_only)
        ids, size = self.ids(part) if ids is None else ids, self.setting.batch_size
        if self.modality.measured:
            ids = self.some(ids)
        steps = make(self.examples, ids, batch_size=size, epochs=1, seed=seed)
        return [batch for step in steps if (batch := step.forget or step.retain)]

    def optimizer(
        self, *, plain: bool = False, **changes: Any
    ) -> optax.GradientTransformation:
        """Return the optimizer; over the salient weights if asked, and not `plain`."""
        setting = self.setting.but(**changes) if changes else self.setting
        mask = None
        if not plain and self.setting.masks:
            keep = self.setting.keep
            mask = masks.gradient_saliency(self.gradient("forget"), keep=keep)
        return optimizer_of(setting, jax.block_until_ready(mask))

    def weighting(self) -> types.Weighting:
        """Return the weighting of the forget samples."""
        setting = self.setting
        return setting.weighting_card.build(self, setting.weighting_options)

    def harmonizer(self) -> types.Harmonizer | None:
        """Return what joins the gradients; None is the method's own."""
        setting, join = self.setting, None
        if setting.dual:
            join = harmonize.separate
        elif setting.joining != "none":
            join = getattr(harmonize, setting.joining)(per_leaf=setting.per_leaf)
        elif setting.card.joins:
            join = harmonize.add()
        own = getattr(setting.modality_options, "factors", None)
        factors = own(self.subject.network.input_shape) if own else {}
        if set(factors.values()) <= {1.0}:
            return join
        return harmonize.scaled(join or harmonize.add(), **factors)

    def joint(self) -> dict[str, Any]:
        """Return what methods of two gradients are told."""
        return {
            "weighting": self.weighting(),
            "harmonizer": self.harmonizer(),
            "model_state": self.model_state,
        }

    def forward(self) -> dict[str, Any]:
        """Return how many forward passes a step has."""
        return {"forward": "merged"} if self.setting.scheduling == "merged" else {}

    def gradient(self, part: str, ids: np.ndarray | None = None) -> PyTree:
        """Return the mean gradient of the original on a part, or these ids of it."""
        measure = self._program("gradient", mean_gradient)
        return measure(*self.original, self.batches(part, ids=ids), self.key)

    def fisher(self, part: str, *, per: str = "sample") -> PyTree:
        """Return the Fisher information's diagonal of the original on a part."""
        make = functools.partial(oneshot.fisher_information, per=per)
        measure = self._program(("fisher", per), make)
        batches = self.batches(part, make=data.retain_only)
        return measure(*self.original, batches, self.key)

    def memorisation(self, part: str) -> np.ndarray:
        """Return a guess of how much of a part's samples is memorised, `f64[n]`."""
        return memorisation_proxy(self.probabilities(part), self.labels(part))

    def part(
        self, changes: dict[str, Any], forget: np.ndarray, retain: np.ndarray, at: Any
    ) -> Job:
        """Return the job of another method, for a part of the request, from a model."""
        setting = self._lengthened(self.setting.part(changes))
        request = self.request._replace(forget=forget, retain=retain)
        trained = Trained(at[0], at[1], {})
        check_unseen(self.subject.dataset, request, setting)
        if few_samples(setting.card, request, trained):
            setting = dataclasses.replace(setting, freeze_statistics=True)
        own = {"setting": setting, "request": request, "trained": trained}
        lab = dataclasses.replace(self, **own, measured={})
        return setting.card.build(lab, setting.options)

    def choice(
        self, budget: float, *, asked: bool = True
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return a method for the request, with what it is told; and why, for records.

        It costs no more than the budget where it was asked for and the original's
        training is known.
        """
        origin, rho, kind = self.origin, self.setting.rho, self.modality
        known = {"budget": budget, "rho": rho, "earlier": origin and origin.earlier}
        if origin and not (kind.texts and kind.division(self.setting)):
            known["rate"] = getattr(origin.training, "learning_rate", None)
        if "logits" in self.modality.roles and hasattr(self.subject.built, "features"):
            known["features"] = self.features
        given = self.request, self.subject.dataset.train.labels, kind
        name, own, why = choose.choice(*given, **known)
        changes = {**own, "method": name}
        if origin is None:
            return changes, {"method": name, "setting": own, "why": why}
        if asked or "logits" in self.modality.roles:
            changes["budget"] = min(budget / rho, 1.0)
        try:
            setting = self._lengthened(self.setting.part(changes))
        except costs.TooLittle as error:
            name, own, changes = choose.FIRST, {}, {"method": choose.FIRST}
            setting = self._lengthened(self.setting.part({**changes, "budget": budget}))
            why = [*why, f"but {error}"]
        told = {"method": name, "setting": own, "why": why}
        cost = costs.beside(setting.but(rho=1.0), origin, self.request, self.modality)
        if name != choose.FIRST and cost is not None:
            told["cost"] = cost * rho
        return changes, told

    def _lengthened(self, setting: Unlearning) -> Unlearning:
        """Return a setting of the length that a budget of its own allows."""
        whole = setting.but(rho=1.0)  # the request is what may be read
        found = costs.met(whole, self.origin, self.request, self.modality)
        return setting if found is whole else found.but(rho=setting.rho)

    def done(
        self, job: Job, at: Variables, number: int
    ) -> tuple[Variables, dict[str, float]]:
        """Run a job to its end; return its model and the seconds of its stages.

        In a run that is kept as it goes on, a job is made once, and gone on with.
        """
        key = jax.random.fold_in(jax.random.key(self.seed), number)
        found, seconds = self.series, store.SECONDS
        path = None if found is None else found.folder / f"{store.DONE}-{number}"
        end, record = store.kept_model(
            path,
            {"unlearning": self.setting.record(), "seed": self.seed, "done": number},
            lambda series: (execute(job, at, key, series=series), {}),
            subject=self.subject,
            ids=self.request.retain,
            unseen=self.request.unseen,
            seconds=seconds if found is None else found.seconds,
        )
        return (end.params, end.model_state), record.get("seconds", end.seconds)

    def retraining(
        self, part: str, *, seed: int | None = None, **shortened: float
    ) -> tuple[Job, Array]:
        """Return the original's training on a part, from a start, and its key."""
        trainer = Trainer(self.subject, self.training)
        own = self.origin.seed if seed is None and self.origin else seed
        return trainer.job(self.ids(part), seed=own or 0, **shortened)

    def rewound(self, part: str, to: float, earlier: str = "") -> Job:
        """Return the original's training on a part, from an earlier state of it on."""
        job, key = self.retraining(part)
        origin, samples = self.origin, len(self.ids("trained"))
        assert origin is not None
        if to == 0:
            return job._replace(key=key)
        states = origin.earlier
        if earlier:
            trainer = Trainer(self.subject, origin.training)
            sizes = trainer.steps(samples), epoch_of(origin.training, samples)
            states = earlier_at(Path(earlier), self.subject, self.original, *sizes)
        if states is None:
            raise InputError(
                f"rewind_to={to:g}: no earlier state of the original was kept; train "
                "it with --keep-every, name one by --earlier PATH, or give --rewind-to "
                "0, which is Retrain"
            )
        job, begin = gone_on(job, key, to, states)
        whole = job.steps
        told = {"begins": begin, "steps": whole, "left": round(1 - begin / whole, 6)}
        return job._replace(details={**job.details, "rewound": told})

    def _program(self, name: Hashable, make: Any) -> Any:
        key = name, self.model
        if key not in self.programs:
            self.programs[key] = make(self.objective("evaluate"))
        return self.programs[key]
