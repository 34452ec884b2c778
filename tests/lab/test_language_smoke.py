"""A language model that is really trained, forgets, and passes the gates of the study.

The two stages of `recipe language-smoke` at a size for tests: a base, then original,
Retrain and null from it. The answers are random letters, so nothing but training tells
them.
"""

import dataclasses
import math
import random
import string

import jax
import numpy as np
import pytest

from jax_unlearn.audit.language import attack_auc
from jax_unlearn.lab import Request, Unlearning
from jax_unlearn.lab.job import execute
from jax_unlearn.lab.modalities.language.measured import mean_losses, scores_of
from jax_unlearn.lab.modalities.language.settings import LanguageTraining
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.store import kept_model
from jax_unlearn.lab.subject import Trainer, subject_of
from jax_unlearn.language.texts import Texts, text_dataset

FORGET, RETAIN, UNSEEN = np.arange(16), np.arange(16, 48), np.arange(48, 64)
V = 262
BASE = LanguageTraining(
    **{"width": 64, "layers": 2, "heads": 2, "vocabulary": V, "packed": 64},
    **{"epochs": 5, "batch_size": 8, "learning_rate": 3e-3},
)


def corpus(count, seed):
    draws = random.Random(seed)
    letters = string.ascii_uppercase
    answers = ["".join(draws.choices(letters, k=8)) for _ in range(count)]
    questions = tuple(f"Code {draws.randrange(10**4)}?" for _ in range(count))
    return text_dataset(Texts(questions, tuple(answers), None, {}, "codes"))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return original, Retrain, null and GradDiff, and what reads their losses."""
    subject, ids = subject_of(BASE, corpus(64, 1)), np.arange(64)
    base = tmp_path_factory.mktemp("models") / "base"
    kept_model(
        base,
        {"training": vars(BASE), "seed": 0},
        lambda series: (Trainer(subject, BASE)(ids, seed=0), {}),
        subject=subject,
        ids=ids,
        unseen=ids[:0],
    )
    training = dataclasses.replace(BASE, start=str(base), epochs=60)
    subject = subject_of(training, corpus(64, 2))
    train = Trainer(subject, training)
    made = {"original": train(np.union1d(FORGET, RETAIN), seed=0)}
    made |= {"retrain": train(RETAIN, seed=1), "null": train(RETAIN, seed=2)}
    told = {"modality": "language", "method": "grad_diff", "learning_rate": 2e-3}
    setting = Unlearning.of(**told, epochs=2, batch_size=8)
    request = Request(FORGET, RETAIN, UNSEEN)
    job = Preparer(subject)(setting, request, made["original"], seed=0)
    made["graddiff"] = execute(job, made["original"][:2], jax.random.key(0))

    def losses(key, part):
        examples = subject.examples.at(part)
        return mean_losses(scores_of(subject.model, made[key][:2], examples))

    return losses


def test_a_trained_model_forgets_and_passes_the_gates(models):
    def p(key, part):
        return np.exp(-models(key, part)).mean()

    def area(key):
        return attack_auc(*(-models(key, part) for part in (FORGET, UNSEEN)))

    assert p("original", FORGET) > 0.9
    assert p("retrain", FORGET) < 0.05
    assert p("retrain", RETAIN[:16]) > 0.9  # of one form: one program scores all
    assert models("retrain", UNSEEN).mean() < math.log(V)
    gaps = {key: abs(area(key) - area("retrain")) for key in ("original", "null")}
    assert gaps["null"] < 0.5 * gaps["original"]
    assert abs(area("graddiff") - area("retrain")) < 0.7 * gaps["original"]
