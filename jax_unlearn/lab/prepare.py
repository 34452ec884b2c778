"""From a setting and a request to a job that is ready to run."""

import dataclasses
import functools
import time
from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_unlearn.adapters.parts import PartState
from jax_unlearn.cards import Job, Variables
from jax_unlearn.data import Dataset, retain_subset
from jax_unlearn.drivers import guards, memory
from jax_unlearn.drivers.series import Series
from jax_unlearn.lab import costs
from jax_unlearn.lab.context import Context
from jax_unlearn.lab.job import Trained, checked
from jax_unlearn.lab.modality import Division
from jax_unlearn.lab.refusals import LENGTHS, check_unseen, few_samples
from jax_unlearn.lab.requests import Request
from jax_unlearn.lab.rewinds import Origin
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.subject import Subject
from jax_unlearn.types import Batch, Model, Unlearner, UnlearnState

__all__ = ["Preparer", "accessible", "held_back", "lengthened"]

HELD = 0.1  # of the retain samples, for the guard of utility


class Preparer:
    """Turn settings into jobs, the compiled steps shared between requests."""

    def __init__(self, subject: Subject):
        self.subject = subject
        self._steps: dict[Hashable, Unlearner] = {}
        self._models: dict[Hashable, Model] = {}
        self._subjects: dict[Division, Subject] = {}
        self._programs: dict[Hashable, Any] = {}

    def __call__(
        self,
        setting: Unlearning,
        request: Request,
        original: Trained,
        *,
        seed: int,  # of random labels and order
        origin: Origin | None = None,
        concept: str | None = None,  # the word a request is about, of captions
        series: Series | None = None,  # of the run, to keep what is run beforehand
    ) -> Job:
        """Prepare what the method needs: mask, loss table, attacks, queries."""
        start, spared = time.perf_counter(), _spared(origin)
        dataset = self.subject.dataset
        self.subject.modality.serves(setting.card, setting.weighting_card)
        check_unseen(dataset, request, setting)
        setting, chosen = lengthened(setting, origin, request, self.subject)
        request = accessible(dataset, request, setting.rho, seed)
        request, held = held_back(dataset, request, setting, seed)
        details, stated = {}, setting.freezes_statistics
        if not stated and few_samples(setting.card, request, original):
            details = {"statistics": {"frozen": True, "samples": len(request.forget)}}
            setting = dataclasses.replace(setting, freeze_statistics=True)
        subject, part = self.subject, original
        if (division := subject.modality.division(setting)) is not None:
            subject, variables = self._divided(division), division.divide(*original[:2])
            part = original._replace(params=variables[0], model_state=variables[1])
        model = self._economical(subject, setting)
        given = model, setting, request, part, origin, seed
        context = Context(subject, *given, self._programs, concept, series=series)
        job = setting.card.build(context, setting.options)
        if job.schedule is not None:
            kept = subject.modality.fitting(subject, setting, job.schedule)
            job = job._replace(schedule=kept)
        if division is not None:
            job = _in_part(job, division, part, original.params)
        if job.transform is None:
            job = self._shared(job, context)
            if setting.guarded:
                made = functools.partial(_guards, context, held, job.steps)
                job = job._replace(guards=made)
        details = {**job.details, **details, **chosen}
        spent = time.perf_counter() - start
        spent -= _spared(origin) - spared
        return job._replace(prepare_seconds=spent, details=details)

    def _divided(self, division: Division) -> Subject:
        """Return the subject whose network is trained in the part that is asked for."""
        if division not in self._subjects:
            built, kind = self.subject.built, self.subject.modality
            if (network := division.network(built.network)) != built.network:
                built = kind.build(network)
            networks = {
                name: division.model(getattr(built, name))
                for name in ("model", "features", "logits")
                if hasattr(built, name)
            }
            own = self.subject._replace(built=built._replace(**networks))
            self._subjects[division] = own
        return self._subjects[division]

    def _economical(self, subject: Subject, setting: Unlearning) -> Model:
        """Return the model with the memory switches of the setting, one a switch."""
        packed = getattr(setting.modality_options, "packed_into", 0)
        key = setting.microbatch, setting.remat, packed, subject.model
        if key not in self._models:
            economical = subject.modality.economical
            model = economical(subject, setting, subject.model)
            model = memory.rematerialised(model) if setting.remat else model
            if setting.microbatch:
                model = memory.microbatched(model, setting.microbatch)
            self._models[key] = model
        return self._models[key]

    def _shared(self, job: Job, context: Context) -> Job:
        """Return a job whose step is that of the first alike, if there may be such."""
        unlearner, schedule = checked(job)
        jax.block_until_ready(unlearner.init(*(job.start or context.original)))
        if context.setting.shares:
            first = self._steps.setdefault(_program(context, schedule.steps), unlearner)
            unlearner = unlearner._replace(step=first.step)
        return job._replace(unlearner=unlearner)


def _spared(origin: Origin | None) -> float:
    """Return the seconds that making earlier states again has taken."""
    states = None if origin is None else origin.earlier
    return 0.0 if states is None else states.seconds


def lengthened(
    setting: Unlearning, origin: Origin | None, request: Request, subject: Subject
) -> tuple[Unlearning, dict[str, Any]]:
    """Return a setting of the length that its budget allows, and what that is."""
    if setting.budget is None:
        return setting, {}
    found = costs.met(setting, origin, request, subject.modality)
    told = {"budget": setting.budget}
    told |= {n: v for n, v in found.flat().items() if n in LENGTHS}
    counted = costs.beside(found, origin, request, subject.modality)
    return found, {"length": told | {"cost": counted}}


def _in_part(job: Job, division: Division, original: Trained, params: Any) -> Job:
    """Return the job of a part of the parameters, which takes and gives whole ones."""

    def whole(found: Variables) -> Variables:
        return division.whole(*found, params)

    def divided(params, model_state) -> Variables:
        if not isinstance(model_state, PartState):
            params, model_state = division.divide(params, model_state)
        if not division.alone:
            # a start of its own is beside the original's frozen part, too
            frozen = original.model_state.frozen
            model_state = model_state._replace(frozen=frozen)
        return params, model_state

    if (transform := job.transform) is not None:
        return job._replace(transform=lambda *at: whole(transform(*divided(*at))))
    unlearner, _ = checked(job)
    finish = job.finish or (lambda state: (state.params, state.model_state))
    if (rewind := job.rewind) is not None:
        choose = rewind.choose
        rewind = rewind._replace(
            choose=lambda found: choose([divided(*at) for at in found])
        )
    return job._replace(
        unlearner=unlearner._replace(init=lambda *at: unlearner.init(*divided(*at))),
        finish=lambda state: whole(finish(state)),
        rewind=rewind,
    )


def accessible(dataset: Dataset, request: Request, rho: float, seed: int) -> Request:
    """Return the request with the share ρ of the retain set that may be read."""
    if rho == 1:
        return request
    subset = retain_subset(dataset.train.labels, request.retain, rho=rho, seed=seed)
    return request._replace(retain=subset)


def held_back(
    dataset: Dataset, request: Request, setting: Unlearning, seed: int
) -> tuple[Request, np.ndarray]:
    """Return the request less what the guard of utility looks at, and that."""
    if setting.guard_utility <= 0:
        return request, np.zeros(0, np.int64)
    held = accessible(dataset, request, HELD, seed).retain
    return request._replace(retain=np.setdiff1d(request.retain, held)), held


def _guards(
    context: Context, held: np.ndarray, steps: int, state: UnlearnState
) -> list[guards.Guard]:
    """Return the guards of a run."""
    setting, examples = context.setting, context.examples
    back = state if setting.guard_roll_back else None
    told = {"every": setting.guard_every, "roll_back": back, "steps": steps}

    def batch(ids: np.ndarray) -> Batch:
        return Batch(examples.inputs[ids], jnp.asarray(examples.labels[ids]))

    made, model = [], context.subject.model
    if setting.guard_utility > 0:
        bound = setting.guard_utility
        made.append(guards.utility_guard(model, batch(held), bound=bound, **told))
    if setting.guard_endpoint:
        labels = [context.labels(part) for part in ("unseen", "forget")]
        endpoint = guards.unseen_endpoint(context.confidence("unseen"), *labels)
        asked = batch(context.ids("forget"))
        made.append(guards.endpoint_guard(model, asked, endpoint=endpoint, **told))
    return made


def _program(context: Context, steps: int) -> tuple[Hashable, ...]:
    """Return what decides the compiled step: not data or their number."""
    setting = context.setting
    card, weighting = setting.card, setting.weighting_card
    reads = card.step_reads or ()
    free = {"epochs", "steps", "budget", "rho", "options"}
    free |= {"learning_rate"} - {*reads}
    options = vars(setting.options).items()
    values = (
        getattr(setting, field.name)
        for field in dataclasses.fields(setting)
        if field.name not in free and not field.name.startswith("guard_")
    )
    return (
        card,
        weighting,
        *values,
        *(value for name, value in options if name not in card.beforehand),
        steps if "length" in reads else None,
        context.origin and context.origin.training,
        context.modality.constants(context),
    )
