"""What a kind of model serves, and what of a request its compiled steps hold."""

import itertools
import re

import numpy as np
import pytest
from toys import three_digits

from jax_unlearn import audit, harmonize
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Request, Unlearning
from jax_unlearn.lab.catalog import METHODS, WEIGHTINGS
from jax_unlearn.lab.context import Context
from jax_unlearn.lab.job import Trained, checked
from jax_unlearn.lab.modalities import MODALITIES, modality_named
from jax_unlearn.lab.modalities.diffusion.settings import DiffusionTraining
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.subject import subject_of

DIFFUSION = modality_named("diffusion")


@pytest.mark.parametrize("kind", MODALITIES, ids=lambda kind: kind.name)
def test_methods_and_weightings_are_served_by_what_they_need(kind):
    refused = 0
    for card, weighting in itertools.product(METHODS.values(), WEIGHTINGS.values()):
        if set(card.roles) <= kind.roles and weighting.reads in ("losses", *kind.roles):
            kind.serves(card, weighting)
        else:
            with pytest.raises(InputError, match=f"{kind.name} models do not have"):
                kind.serves(card, weighting)
            refused += 1
    assert 0 < refused < len(METHODS) * len(WEIGHTINGS)


@pytest.mark.parametrize(
    ("method", "weighting", "message"),
    [
        (
            "scrub",
            "uniform",
            "method='scrub' needs 'logits', which diffusion models do not have; "
            "`jax-unlearn methods` lists those that serve",
        ),
        (
            "random_label",
            "el2n",
            "weighting='el2n' reads logits, which diffusion models do not have; use "
            "loreun",
        ),
    ],
)
def test_what_is_missing_is_named(method, weighting, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        DIFFUSION.serves(METHODS[method], WEIGHTINGS[weighting])
    with pytest.raises(InputError, match=re.escape(message)):
        Unlearning.of(modality="diffusion", method=method, weighting=weighting)
    DIFFUSION.serves(METHODS["random_label"], WEIGHTINGS["loreun"])  # its remedy


def prepared(condition, **options):
    """Return a function of (class, word) to the prepared job of such a request."""
    training = DiffusionTraining(
        condition=condition, widths=(4,), attention=(0,), timesteps=12
    )
    data = three_digits(60, 20)
    subject = subject_of(training, data)
    preparer = Preparer(subject)
    setting = Unlearning.of(modality="diffusion", steps=2, batch_size=8, **options)
    labels, ids = data.train.labels, np.arange(60)

    def job(label, concept=None):
        inside = labels == label
        request = Request(ids[inside], ids[~inside][:20], ids[~inside][20:])
        return preparer(setting, request, Trained({}, (), {}), seed=0, concept=concept)

    return job


def step_of(job):
    return checked(job)[0].step


def test_a_step_that_replaces_words_serves_requests_of_the_same_words_alone():
    job = prepared("text")
    first = step_of(job(0, "a"))
    assert step_of(job(0, "a")) is first
    assert step_of(job(0, "b")) is not first  # another word
    assert step_of(job(1)) is not step_of(job(0))  # the word of another class


def test_a_step_that_replaces_classes_serves_all_classes():
    job = prepared("class")
    assert step_of(job(0)) is step_of(job(1))


@pytest.mark.parametrize("condition", ["text", "class"])
def test_what_is_forgotten_cannot_take_its_own_place(condition):
    job = prepared(condition, replace="a")
    with pytest.raises(InputError, match="replace='a' is to be forgotten itself;"):
        job(0, "a" if condition == "text" else None)
    assert job(1).steps == 2


@pytest.mark.parametrize("harmonizer", ["none", "one_way"])
def test_the_retain_gradient_is_weighted_in_either_unit(harmonizer):
    setting = Unlearning.of(modality="diffusion", harmonizer=harmonizer)
    subject = subject_of(
        DiffusionTraining(widths=(4,), attention=(0,)), three_digits(60, 20)
    )
    request = Request(*np.split(np.arange(60), [20, 40]))

    def joined(**options):
        told = subject, subject.built.model, setting.but(**options), request
        context = Context(*told, Trained({}, (), {}), None, 0)
        join = context.harmonizer() or harmonize.add()
        return join(np.array([1.0, -1.0], "f4"), np.array([0.0, 1.0], "f4"))

    usual = joined()
    in_means = joined(retain_strength=0.064)
    assert not np.allclose(usual, in_means)
    in_sums = joined(retain_strength=1e-3, retain_unit="sum")  # of 8 x 8 pixels
    np.testing.assert_allclose(in_sums, in_means, rtol=1e-6)
    halved = joined(forget_strength=0.5)
    assert not np.allclose(usual, halved)


def test_figures_that_a_kind_of_model_names_exist():
    known = {card.key for card in audit.FIGURES} | set(audit.GROUPS)
    for kind in MODALITIES:
        assert set(kind.metrics or ()) <= known
