"""Costs beside Retrain, counted and by the operations that run; budgets that hold."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from toys import three_digits

from jax_unlearn import objectives
from jax_unlearn.cards import Card, Job, Options, Positive
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Plan, Request, Training, Unlearning, costs
from jax_unlearn.lab.bench import Bench
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.rewinds import Kept, Origin, Replayed, epoch_of
from jax_unlearn.lab.subject import Trainer, subject_of
from jax_unlearn.oneshot import fisher
from jax_unlearn.types import Batch

DATA = three_digits(240, 20)
# no batch is filled up, so that operations and samples are the same count
FORGET, RETAIN = np.arange(40), np.arange(40, 240)
REQUEST = Request(FORGET, RETAIN, np.arange(0))
TRAINING = Training(network="mlp", width=128, epochs=10, batch_size=20)


@pytest.fixture(scope="module")
def world():
    """Return a subject, an original, its origin, and the operations of a Retrain."""
    subject = subject_of(TRAINING, DATA)
    trainer = Trainer(subject, TRAINING)
    every = np.arange(240)
    make = lambda: trainer.job(every, seed=0)  # noqa: E731
    states = Replayed(make, trainer.steps(240), epoch_of(TRAINING, 240))
    origin = Origin(TRAINING, 0, earlier=states)
    return (
        subject,
        trainer(every, seed=0),
        origin,
        flops(trainer.job(RETAIN, seed=0)[0]),
    )


def flops(job: Job) -> float:
    """Return the operations of all steps of a job, by what XLA counts of each form."""
    state = job.unlearner.init(*job.start)
    counts, total = {}, 0.0
    for step in range(int(state.step), job.schedule.steps):
        batch = job.schedule[step]
        form = str(jax.tree.map(np.shape, batch))
        if form not in counts:
            lowered = jax.jit(job.unlearner.step).lower(state, batch, jax.random.key(0))
            counts[form] = lowered.cost_analysis()["flops"]
        total += counts[form]
    return total


@pytest.mark.parametrize("budget", [0.1, 0.33])
@pytest.mark.parametrize(
    "options",
    [
        {"method": "finetune"},
        {"method": "gradient_ascent"},
        {"method": "random_label"},
        {"method": "random_label", "schedule": "zipped"},
        {"method": "random_label", "schedule": "sequential"},
        {"method": "scrub", "forget_epochs": 1},
        {"method": "bad_teacher"},
        {"method": "partial_reset"},
        {"method": "rewind"},
        {"method": "regun"},
        {"method": "reset_transport", "lead": 0.25},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_what_runs_is_within_the_budget_and_near_it(world, options, budget):
    subject, original, origin, whole = world
    setting = Unlearning.of(**options, batch_size=20, budget=budget)
    request = REQUEST
    if setting.compares:
        request = REQUEST._replace(unseen=np.arange(20))
    if setting.method == "scrub" and budget < 0.2:
        with pytest.raises(costs.TooLittle):  # it has whole epochs, and one is more
            Preparer(subject)(setting, REQUEST, original, seed=0, origin=origin)
        return
    job = Preparer(subject)(setting, request, original, seed=0, origin=origin)
    job = job._replace(start=job.start or original[:2])
    ran = flops(job) / whole
    counted = job.details["length"]["cost"]
    if options["method"] == "reset_transport":  # what leads it has run by now
        led = Unlearning.of(method="short_retrain", share=counted / 4)
        leading = Preparer(subject)(led, REQUEST, original, seed=0, origin=origin)
        ran += flops(leading) / whole
    assert counted <= budget + 1e-9
    # beside the network's passes there are losses, and optimizers of more or less work
    assert ran == pytest.approx(counted, rel=0.03)
    least = budget - (0.14 if setting.card.by_epochs else 0.02)
    assert counted >= least


def test_retrain_costs_one_and_doing_less_costs_less(world):
    kind = world[0].modality
    share = lambda **o: costs.share_of(  # noqa: E731
        Unlearning.of(**o), REQUEST, TRAINING, kind
    )
    assert share(method="retrain") == 1.0
    assert share(method="short_retrain", share=0.3) == pytest.approx(0.3)
    assert share(method="rewind", rewind_to=0.9) == pytest.approx(0.1)
    assert share(method="rewind", rewind_to=9) == pytest.approx(0.1)
    assert share(method="finetune", epochs=2) == 0.2
    assert share(method="finetune", epochs=2, rho=0.5) == 0.1
    assert share(method="finetune", steps=5, batch_size=20) == pytest.approx(0.05)
    assert share(method="ssd") == pytest.approx((200 + 80) / 2000)
    drawn = REQUEST._replace(retain=RETAIN[:-30], unseen=RETAIN[-30:])
    plain, exact = (
        costs.share_of(Unlearning.of(weighting=w), drawn, TRAINING, kind)
        for w in ("uniform", "falw")
    )
    steps = 5 * 4  # of 210 samples, in batches of 64
    assert exact - plain == pytest.approx(steps * 30 / 3 / 1700)


def products(jaxpr) -> float:
    """Return the operations of a program's matrix products, loops at their length."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (inner, _), _ = equation.params["dimension_numbers"]
            left, (out,) = equation.invars[0].aval.shape, equation.outvars
            total += 2.0 * np.prod(out.aval.shape) * np.prod([left[i] for i in inner])
        for told in equation.params.values():
            if hasattr(told, "eqns") or hasattr(told, "jaxpr"):
                times = equation.params.get("length", 1)
                total += times * products(getattr(told, "jaxpr", told))
    return total


@pytest.mark.parametrize("published", [False, True])
def test_fisher_forgetting_costs_a_gradient_a_class_where_it_is_published(
    world, monkeypatch, published
):
    subject, original, _, _ = world
    summed, per = [], "model" if published else "sample"
    monkeypatch.setattr(fisher, "over_batches", summed.append)
    loss = objectives.descent(subject.model)._replace(train=False)
    fisher.fisher_information(loss, per=per)
    batch = Batch(*subject.examples.at(RETAIN)[:2], None, None)
    given = original.params, original.model_state, batch, jax.random.key(0)
    ran = products(jax.make_jaxpr(summed[0])(*given).jaxpr)
    job = Trainer(subject, TRAINING).job(RETAIN, seed=0)[0]
    one = job.unlearner.init(*job.start), job.schedule[0], jax.random.key(0)
    step = jax.make_jaxpr(job.unlearner.step)(*one)
    share = ran / (job.schedule.steps * products(step.jaxpr))
    setting = Unlearning.of(method="fisher_forgetting", published=published)
    kind, origin = subject.modality, Origin(TRAINING, 0, classes=3)
    counted = costs.beside(setting, origin, REQUEST, kind)
    assert counted == pytest.approx((3 if published else 1) / 10)  # of ten epochs
    assert share == pytest.approx(counted, rel=0.01)
    known = {"kind": "random", "fraction": 0.2, "seeds": (0, 1), "gamma": 1}
    plan = Plan("costs", **known, unseen=0.1, training=TRAINING, methods={})
    assert Bench(plan, DATA).origin(0).classes == 3


def test_rum_costs_what_its_methods_cost_on_their_parts(world):
    kind, origin = world[0].modality, world[2]

    def count(**told):  # parts of 14, 13 and 13 samples; scores by a forward pass
        setting = Unlearning.of(method="rum", **told)
        return costs.share_of(setting, REQUEST, TRAINING, kind) * 2000

    scores, tuned = 40 / 3, 3 * (200 + 13)
    assert count(epochs=3) == pytest.approx(scores + 2 * tuned + 13)
    alone = {"parts": ("none", "none", "gradient_ascent"), "epochs": 3}
    assert count(**alone) == pytest.approx(scores + 3 * 13)
    assert count(**alone, memorised="scores.npy") == pytest.approx(3 * 13)
    mixed = {"parts": ("ssd", "partial_reset", "none"), "share": 0.3, "epochs": 3}
    reset = 0.3 * 10 * (200 + 13)  # not of the first part, whose turn is over
    once = 200 + 26 + 2 * 14
    assert count(**mixed) == pytest.approx(scores + once + reset)
    own = {"parts": ("finetune", "none", "finetune"), "part_epochs": (2, 9, 1)}
    assert count(**own) == pytest.approx(scores + 2 * 226 + 200)
    setting = Unlearning.of(method="rum", budget=0.5)
    found = costs.met(setting, origin, REQUEST, kind)
    assert found.epochs == 2
    assert costs.share_of(found, REQUEST, TRAINING, kind) <= 0.5
    with pytest.raises(InputError, match="part_epochs=.*leave one of them out"):
        Unlearning.of(method="rum", **own, budget=0.5)
    still = {"parts": ("ssd", "none", "fisher_forgetting"), "budget": 0.5}
    with pytest.raises(InputError, match="has no length to choose"):
        costs.met(Unlearning.of(method="rum", **still), origin, REQUEST, kind)


def kept(*steps: int) -> Kept:
    return Kept(Path("o.earlier"), {}, 120, 12, steps)


def test_r2d_begins_at_the_first_kept_state_that_the_budget_reaches(world):
    kind, setting = world[0].modality, Unlearning.of(method="rewind", budget=0.4)
    given = Origin(TRAINING, 0, earlier=kept(24, 48, 84, 108))
    assert costs.met(setting, given, REQUEST, kind).options.rewind_to == 84 / 120
    assert (
        costs.met(setting.but(budget=1.0), given, REQUEST, kind).options.rewind_to == 0
    )
    with pytest.raises(InputError, match="give --budget 0.1 or more"):
        costs.met(setting.but(budget=0.05), given, REQUEST, kind)


@pytest.mark.parametrize(
    "told",
    [
        {"method": "finetune", "epochs": 3},
        {"method": "finetune", "steps": 9},
        {"method": "partial_reset", "share": 0.2},
        {"method": "rewind", "rewind_to": 0.3},
    ],
    ids=lambda told: "-".join(map(str, told.values())),
)
def test_two_lengths_are_refused(told):
    name = [*told][1]
    with pytest.raises(InputError, match=f"budget=0.5, {name}=.*leave one of them out"):
        Unlearning.of(**told, budget=0.5)


@pytest.mark.parametrize("budget", [0.0, -0.1, 1.5, float("nan")])
def test_shares_that_are_none_are_refused(budget):
    with pytest.raises(InputError, match="budget="):
        Unlearning.of(method="finetune", budget=budget)


@dataclasses.dataclass(frozen=True)
class Twice(Options):
    """Options of a card of one's own."""

    times: Positive = 2.0


OWN = Card("twice", "Twice", "Twice", lambda lab, options: None, options=Twice)


def test_a_card_of_ones_own_has_a_budget_by_its_formula(world):
    kind, origin = world[0].modality, world[2]
    card = OWN.but(cost="times·E·(R + F)/2", reads=("forget", "retain"))
    setting = Unlearning.of(method=card, batch_size=20, budget=0.48, times=4.0)
    assert costs.met(setting, origin, REQUEST, kind).epochs == 2
    for formula in ("not said", "E·X", "E^R", "R/0"):
        setting = Unlearning.of(method=OWN.but(cost=formula), budget=0.5)
        with pytest.raises(InputError, match="cannot be counted; write it in its card"):
            costs.met(setting, origin, REQUEST, kind)
        assert costs.share_of(setting, REQUEST, TRAINING, kind) is None


def test_a_search_leaves_the_length_to_the_budget():
    from jax_unlearn.lab.space import Space

    for method, gone in (("finetune", "epochs"), ("partial_reset", "share")):
        space = Space.of(Unlearning.of(method=method, budget=0.2))
        tried = {**space.ranges, **space.choices}
        assert tried
        assert gone not in tried
        assert space.base.budget == 0.2


def test_records_without_a_budget_are_as_they_were():
    setting = Unlearning.of(method="finetune")
    assert "budget" not in setting.record()
    given = setting.but(budget=0.2)
    assert Unlearning.read(given.record()) == given
    assert given.told()["budget"] == 0.2
