"""Partial reset and short Retrain: their start, their length, what they forget."""

import jax
import numpy as np
import pytest
from toys import three_digits, trees_close

import jax_unlearn as ju
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Request, Training, Unlearning
from jax_unlearn.lab.job import Trained, execute
from jax_unlearn.lab.modalities.diffusion.settings import DiffusionTraining
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.rewinds import Origin
from jax_unlearn.lab.subject import Trainer, subject_of

DATA = three_digits(90, 30)
ONES = np.flatnonzero(DATA.train.labels == 1)
OTHERS = np.flatnonzero(DATA.train.labels != 1)
REQUEST = Request(ONES, OTHERS, np.arange(0))
TRAINING = Training(
    network="mlp", width=16, epochs=10, batch_size=15, learning_rate=0.1
)
DRAWING = DiffusionTraining(widths=(4, 8), timesteps=20, steps=10, batch_size=8)


def test_the_equation_in_float64():
    rng = np.random.default_rng(0)
    old, new = ({"a": rng.normal(size=(3, 2)), "b": [rng.normal(size=4)]} for _ in "ab")
    single = [jax.tree.map(np.float32, tree) for tree in (old, new)]
    found = ju.methods.partial_reset(*single, shrink=0.3, perturb=0.9)
    expected = jax.tree.map(lambda a, b: 0.3 * a + 0.9 * b, old, new)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["shrink", "perturb"])
@pytest.mark.parametrize("value", [-0.1, float("nan")])
def test_factors_that_make_no_sense_are_refused(name, value):
    with pytest.raises(InputError, match=name):
        ju.methods.partial_reset({}, {}, **{name: value})
    with pytest.raises(InputError, match=name):
        Unlearning.of(method="partial_reset", **{name: value})


@pytest.mark.parametrize("method", ["partial_reset", "short_retrain"])
def test_budgets_that_make_no_sense_are_refused(method):
    for values, named in (({"share": 0.0}, "share"), ({"share": 1.5}, "share=1.5")):
        with pytest.raises(InputError, match=named):
            Unlearning.of(method=method, **values)
    with pytest.raises(InputError, match="rate"):
        Unlearning.of(method=method, rate=0.0)


class World:
    """A subject with its original, and jobs that unlearn from it."""

    def __init__(self, training):
        self.subject = subject_of(training, DATA)
        self.trainer = Trainer(self.subject, training)
        job, _ = self.trainer.job(np.arange(len(DATA.train.labels)), seed=0)
        assert job.start is not None
        params, state = job.start  # as good as any where none is run
        self.original = Trained(params, state, {})
        self.origin = Origin(training, 0)
        self.modality = self.subject.modality.name

    def job(self, method, **options):
        setting = Unlearning.of(modality=self.modality, method=method, **options)
        made = Preparer(self.subject)
        return made(setting, REQUEST, self.original, seed=0, origin=self.origin)

    def run(self, method, **options) -> Trained:
        at = self.original.params, self.original.model_state
        return execute(self.job(method, **options), at, jax.random.key(0))


@pytest.fixture(scope="module", params=[TRAINING, DRAWING], ids=["classes", "images"])
def world(request):
    return World(request.param)


def test_without_anything_new_it_begins_where_the_original_ended(world):
    start, _ = world.job("partial_reset", shrink=1.0, perturb=0.0).start
    trees_close(start, world.original.params, rtol=0, atol=0)


def test_without_anything_old_it_is_short_retrain(world):
    reset = world.job("partial_reset", shrink=0.0, perturb=1.0, rate=1.0, share=0.2)
    short = world.job("short_retrain", share=0.2)
    trees_close(reset.start, short.start, rtol=0, atol=0)
    trees_close(
        [reset.schedule[i] for i in range(2)], [short.schedule[i] for i in range(2)]
    )


def test_its_start_is_not_that_of_the_original(world):
    first, _ = world.trainer.job(OTHERS, seed=0)
    fresh = world.job("short_retrain").start[0]
    same = jax.tree.map(np.array_equal, fresh, first.start[0])
    assert not all(jax.tree.leaves(same))


@pytest.mark.parametrize("share", [0.1, 0.3, 1.0])
def test_its_length_is_its_share_of_retrain(world, share):
    whole = world.trainer.steps(len(OTHERS))
    assert world.job("short_retrain", share=share).steps == -(-10 * share * whole // 10)
    assert world.job("partial_reset", share=share).steps == round(share * whole)


def accuracy(world, found, ids):
    model, inputs = world.subject.model, DATA.train.inputs[ids]
    logits = ju.predict(model, found.params, found.model_state, inputs)
    return np.mean(logits.argmax(1) == DATA.train.labels[ids])


def test_what_is_left_out_is_forgotten_and_the_rest_kept():
    world = World(TRAINING)
    world.original = world.trainer(np.arange(len(DATA.train.labels)), seed=0)
    assert accuracy(world, world.original, ONES) > 0.9
    for method in ("partial_reset", "short_retrain"):
        found = world.run(method, share=0.5)
        assert accuracy(world, found, ONES) < 0.1, method
        assert accuracy(world, found, OTHERS) > 0.9, method
    restarted = world.run("partial_reset", shrink=1.0, perturb=0.0, share=0.1, rate=0.1)
    assert accuracy(world, restarted, ONES) > 0.5  # a warm restart forgets little


def test_a_reset_model_tells_what_to_say_of_the_forget_set():
    world = World(TRAINING)
    world.original = world.trainer(np.arange(len(DATA.train.labels)), seed=0)
    told = {"batch_size": 15, "epochs": 4, "learning_rate": 0.1, "momentum": 0.9}
    found = world.run("reset_transport", shrink=0.3, **told)
    assert accuracy(world, found, ONES) < 0.2
    assert accuracy(world, found, OTHERS) > 0.95
    made = world.job("reset_transport", budget=0.5, batch_size=15)
    assert made.details["length"]["cost"] <= 0.5
    whole = world.trainer.steps(len(OTHERS)) * 15  # gradients of samples of a Retrain
    spent = made.steps * 30  # of both sets, after three tenths of the whole
    assert 0.25 < spent / whole <= 0.35
    with pytest.raises(InputError, match="lead=1"):
        Unlearning.of(method="reset_transport", lead=1.0)


def test_two_gradients_it_has_not():
    with pytest.raises(InputError, match="harmonizer='two_way' needs"):
        World(TRAINING).job("reset_transport", harmonizer="two_way")
