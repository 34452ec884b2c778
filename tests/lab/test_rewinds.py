"""R2D: both ends of it, what it keeps and reads, what it forgets."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest
from scipy.stats import norm
from toys import three_digits, trees_close

import jax_unlearn as ju
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Plan, Request, Training, Unlearning
from jax_unlearn.lab.bench import Bench
from jax_unlearn.lab.job import Trained, execute
from jax_unlearn.lab.modalities.diffusion.settings import DiffusionTraining
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.requests import Case
from jax_unlearn.lab.rewinds import Given, Origin, Replayed, epoch_of, gone_on, marks_of
from jax_unlearn.lab.subject import Trainer, subject_of
from jax_unlearn.methods.accountant import guarantee_of
from jax_unlearn.methods.rewinding import rewinding_distance

DATA = three_digits(90, 30)
ONES = np.flatnonzero(DATA.train.labels == 1)
OTHERS = np.flatnonzero(DATA.train.labels != 1)
EVERY = np.arange(len(DATA.train.labels))
CLASSES = Training(network="mlp", width=16, epochs=10, batch_size=15)
FLIPPED = dataclasses.replace(CLASSES, epochs=4, augment="flip")  # draws from its key
DRAWING = DiffusionTraining(widths=(4, 8), timesteps=20, steps=10, batch_size=8)


class World:
    """An original, its earlier states, and jobs that begin with one."""

    def __init__(self, training):
        self.training, self.subject = training, subject_of(training, DATA)
        self.trainer = Trainer(self.subject, training)
        make = lambda: self.trainer.job(EVERY, seed=3)  # noqa: E731
        sizes = self.trainer.steps(len(EVERY)), epoch_of(training, len(EVERY))
        self.states = Replayed(make, *sizes)
        self.original = self.trainer(EVERY, seed=3)

    def rewound(self, retain=OTHERS, seed=7, **options) -> Trained:
        job = self.job(retain, seed, **options)
        return execute(job, self.original[:2], jax.random.key(seed))

    def proof(self, **options):
        return self.job(OTHERS, 7, **options).details["certificate"]

    def job(self, retain, seed, **options):
        setting = Unlearning.of(
            modality=self.subject.modality.name, method="rewind", **options
        )
        forget = np.setdiff1d(EVERY, retain)
        request = Request(forget, retain, EVERY[:0])
        origin = Origin(self.training, 3, earlier=self.states)
        made = Preparer(self.subject)
        return made(setting, request, self.original, seed=seed, origin=origin)


world_of = functools.cache(World)


@pytest.fixture(
    scope="module",
    params=[CLASSES, FLIPPED, DRAWING],
    ids=["classes", "augmented", "images"],
)
def world(request):
    return world_of(request.param)


def test_at_step_0_it_is_retrain_of_the_originals_seed(world):
    found, retrained = world.rewound(rewind_to=0), world.trainer(OTHERS, seed=3)
    trees_close(found[:2], retrained[:2], rtol=0, atol=0)


def test_with_nothing_to_forget_it_is_the_original(world):
    """The optimizer's state, the schedule's place and the keys go on as they were."""
    found = world.rewound(EVERY, rewind_to=0.7)
    trees_close(found[:2], world.original[:2], rtol=0, atol=0)


def test_it_begins_where_the_original_stood_and_ends_with_its_schedule():
    world = world_of(CLASSES)
    job, key = world.trainer.job(OTHERS, seed=3)
    made, begin = gone_on(job, key, 4, world.states)
    assert begin == 4 * epoch_of(CLASSES, len(OTHERS)) < 4 * world.states.epoch
    state = made.unlearner.init(*made.start)
    there = world.states.at(4 * world.states.epoch, state)
    trees_close(state.params, there.params, rtol=0, atol=0)
    counts = [int(c) for c in jax.tree.leaves(state.opt_state) if c.ndim == 0]
    assert [*counts, int(state.step)] == [begin, begin]
    traces = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    assert all(np.any(leaf) for leaf in traces)  # momentum goes on too


def transcription(params, momentum, batches, rates, decay):
    """R2D as published, with momentum and decay, in float64: K steps on D_r alone."""
    for (x, y), rate in zip(batches, rates, strict=True):
        w, b = params
        logits = x @ w + b
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        p[np.arange(len(y)), y] -= 1
        g = (x.T @ p / len(y) + decay * w, p.mean(axis=0) + decay * b)
        momentum = [0.9 * m + d for m, d in zip(momentum, g, strict=True)]
        params = [v - rate * m for v, m in zip(params, momentum, strict=True)]
    return params


def test_every_step_is_the_published_one_in_float64():
    training = dataclasses.replace(CLASSES, network="linear", epochs=6)
    world = World(training)
    job, key = world.trainer.job(OTHERS, seed=3)
    made, begin = gone_on(job, key, 3, world.states)
    state = made.unlearner.init(*made.start)
    shapes = sorted((leaf.ndim for leaf in jax.tree.leaves(state.params)), reverse=True)
    assert shapes == [2, 1]
    order = lambda tree: sorted(  # noqa: E731
        (np.float64(x) for x in jax.tree.leaves(tree) if x.ndim), key=lambda x: -x.ndim
    )
    momentum = order([leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim])
    total = job.schedule.steps
    steps = range(begin, total)
    rates = [0.1 * (1 + np.cos(np.pi * step / total)) / 2 for step in steps]
    network = world.subject.network
    batches = []
    for step in steps:
        batch = job.schedule[step].retain
        counts = np.asarray(batch.mask)
        x = np.asarray(batch.inputs, np.float64)[counts] / 255
        x = (x - network.mean) / network.std
        batches.append((x.reshape(len(x), -1), np.asarray(batch.labels)[counts]))
    params = transcription(order(state.params), momentum, batches, rates, 5e-4)
    found = execute(made, None, key)
    for ours, theirs in zip(order(found.params), params, strict=True):
        difference = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
        assert difference < 2e-5


def accuracy(world, found, ids):
    inputs, labels = DATA.train.inputs[ids], DATA.train.labels[ids]
    logits = ju.predict(world.subject.model, *found[:2], inputs)
    return np.mean(logits.argmax(1) == labels)


def test_it_forgets_more_the_farther_it_goes_back():
    world = world_of(CLASSES)
    assert accuracy(world, world.original, ONES) > 0.9
    far, near = (world.rewound(rewind_to=to) for to in (0.1, 0.95))
    assert accuracy(world, far, ONES) < 0.1 < accuracy(world, near, ONES)
    assert accuracy(world, far, OTHERS) > 0.9


def test_an_experiment_makes_the_states_of_its_own_originals():
    settings = {"kind": "random", "fraction": 0.2, "gamma": 1.0, "unseen": 10}
    methods = {"R2D": Unlearning.of(method="rewind", rewind_to=6)}
    plan = Plan("small", training=CLASSES, methods=methods, seeds=(3, 4), **settings)
    bench = Bench(plan, DATA)
    case = bench.case(3)
    original = bench.original(3)
    held = bench.origin(3), bench.origin(4)
    assert held == (bench.origin(3), bench.origin(4))  # a search's seeds take turns
    made = bench.unlearn("R2D", methods["R2D"], case, original)
    assert made.notes["rewound"]["left"] == pytest.approx(0.4)
    assert made.trained.seconds["prepare"] < 1.0  # what a kept state would spare
    nothing = case.request.forget[:0]
    trained = np.union1d(case.request.forget, case.request.retain)
    whole = Case(3, "", Request(nothing, trained, case.request.unseen))
    same = bench.unlearn("R2D", methods["R2D"], whole, original)
    trees_close(same.trained[:2], original[:2], rtol=0, atol=0)


def test_parameters_without_an_optimizers_state_begin_with_a_new_one():
    world = world_of(CLASSES)
    job, key = world.trainer.job(OTHERS, seed=3)
    there = world.states.at(60, job.unlearner.init(*job.start))
    given = Given((there.params, there.model_state), 60 * 2, 6)
    made, begin = gone_on(job, key, 0.5, given)
    state = made.unlearner.init(*made.start)
    trees_close(state.params, there.params, rtol=0, atol=0)
    traces = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    assert begin == job.steps // 2
    assert not any(np.any(leaf) for leaf in traces)


def test_places_that_make_no_sense_are_refused():
    world = world_of(CLASSES)
    for rewind_to in (10, 40.0):
        with pytest.raises(InputError, match=f"rewind_to={rewind_to:g}.*10 epochs"):
            world.rewound(rewind_to=rewind_to)
    with pytest.raises(InputError, match="rewind_to=-1"):
        Unlearning.of(method="rewind", rewind_to=-1)
    with pytest.raises(InputError, match="trainable"):
        Unlearning.of(method="rewind", trainable="head")
    for every in (-1, 10, 11):
        with pytest.raises(InputError, match=f"keep_every={every}"):
            marks_of(every, 60, 6)
    world = World.__new__(World)
    vars(world).update(vars(world_of(CLASSES)), states=None)
    with pytest.raises(InputError, match="--keep-every.*--earlier.*--rewind-to"):
        world.rewound()


def test_counts_of_any_optimizer_are_set():
    world = world_of(DRAWING)
    job, key = world.trainer.job(OTHERS, seed=3)
    made, begin = gone_on(job, key, 0.5, world.states)
    found = made.unlearner.init(*made.start).opt_state
    counts = [int(leaf) for leaf in jax.tree.leaves(found) if leaf.ndim == 0]
    assert set(counts) == {begin}


WHOLE = Training(
    network="linear",
    epochs=12,
    batch_size=len(EVERY),
    learning_rate=0.05,
    momentum=0.0,
    weight_decay=0.01,
    mean=(0.0,),
    std=(1.0,),
)
REACH = float(
    np.sqrt(1 + np.square(DATA.range.unit(DATA.train.inputs)).sum((1, 2, 3)).max())
)
# of a linear softmax: |∇ℓ| = |p - y|·|(x, 1)|, and its curvature is at most |(x, 1)|²/2
BOUNDS = {"gradient_bound": 2**0.5 * REACH, "smoothness": REACH**2 / 2}


def test_no_run_is_farther_from_retrain_than_the_certificate_says():
    world = world_of(WHOLE)
    retrained = world.rewound(rewind_to=0.0)
    gap = {}
    for to in (3, 6, 9):
        found = world.rewound(rewind_to=to)
        pairs = zip(*map(jax.tree.leaves, (found[0], retrained[0])), strict=True)
        gap[to] = np.sqrt(sum(np.square(a - b).sum() for a, b in pairs))
        proof = world.proof(rewind_to=to, noise=0.1, **BOUNDS)
        assert 0.001 * proof["distance"] < gap[to] <= proof["distance"]
    assert gap[3] < gap[6] < gap[9]


def test_the_distance_by_hand():
    """θ' = θ - η(Lθ - c), c apart by 2Gm/n at first: the bound is attained."""
    rates, share, gradient, smooth, decay = [0.1, 0.3, 0.2, 0.05], 0.2, 3.0, -1.5, -0.25
    ours = theirs = 1.0
    for step, rate in enumerate(rates):
        push = 2 * gradient * share * (step < 2)
        ours = ours - rate * ((smooth + decay) * ours - push)
        theirs = theirs - rate * (smooth + decay) * theirs
    bounds = {"gradient": gradient, "smoothness": -smooth, "decay": -decay}
    found = rewinding_distance(rates, 2, share=share, **bounds)
    np.testing.assert_allclose(found, ours - theirs, rtol=1e-12)
    assert rewinding_distance(rates, 0, share=share, **bounds) == 0


def test_the_certificate_is_that_of_a_gaussian_mechanism_and_its_noise_is_there():
    world, sigma = world_of(WHOLE), 2.0
    proof = world.proof(rewind_to=6, noise=sigma, **BOUNDS)
    rate = proof["distance"] ** 2 / (2 * sigma**2)
    assert proof["renyi"] == pytest.approx(rate)
    assert proof["epsilon"] == guarantee_of(rate, 1e-5).epsilon
    # the exact ε of two Gaussians is no more (Balle and Wang, arXiv 1805.06530)
    ratio, eps = proof["distance"] / sigma, proof["epsilon"]
    if eps < 500:
        low, high = ratio / 2 - eps / ratio, -ratio / 2 - eps / ratio
        assert norm.cdf(low) - np.exp(eps) * norm.cdf(high) <= 1e-5
    assert "which nobody checked" in proof["says"][2]
    plain = world.rewound(rewind_to=6)
    noisy = world.rewound(rewind_to=6, noise=sigma)
    again = world.rewound(rewind_to=6, noise=sigma, seed=8)
    moved = [
        np.concatenate(
            [np.ravel(leaf) for leaf in jax.tree.leaves(optax.tree.sub(one, plain[0]))]
        )
        for one in (noisy[0], again[0])
    ]
    for one in moved:
        assert abs(one.std() / sigma - 1) < 0.2
    assert np.abs(np.corrcoef(*moved)[0, 1]) < 0.3


@pytest.mark.parametrize(
    ("training", "said"),
    [
        (dataclasses.replace(WHOLE, batch_size=30), "batch_size=30, below the"),
        (dataclasses.replace(WHOLE, momentum=0.9), "momentum=0.9"),
        (dataclasses.replace(WHOLE, augment="flip"), "augment=flip"),
        (CLASSES, "mean and deviation of its inputs from all samples"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_certificate_where_it_would_not_be_one(training, said):
    with pytest.raises(InputError, match=said):
        world_of(training).proof(rewind_to=6, noise=0.1, **BOUNDS)


def test_options_of_the_certificate_that_do_not_go_together():
    for bad in ({"gradient_bound": 1.0}, {"gradient_bound": 1.0, "smoothness": 1.0}):
        with pytest.raises(InputError, match="a certificate takes all three"):
            Unlearning.of(method="rewind", **bad)
    with pytest.raises(InputError, match="rewind further"):
        world_of(WHOLE).proof(
            rewind_to=6, noise=0.1, gradient_bound=1.0, smoothness=1e200
        )
