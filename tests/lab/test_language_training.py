"""Training of language models: packed as padded, one program, resumed bit for bit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jax_unlearn import objectives
from jax_unlearn.gradients import mean_gradient
from jax_unlearn.lab.modalities.language.settings import LanguageTraining
from jax_unlearn.lab.store import unfinished
from jax_unlearn.lab.subject import Trainer, subject_of
from jax_unlearn.language.packing import pack
from jax_unlearn.language.text import Scored, answered
from jax_unlearn.language.texts import Texts, text_dataset
from jax_unlearn.objectives.language import reduced
from jax_unlearn.types import Batch

TRAINING = LanguageTraining(
    **{"width": 16, "layers": 1, "heads": 2, "vocabulary": 260, "packed": 64},
    **{"epochs": 2, "batch_size": 4},
)


@pytest.fixture(scope="module")
def trainer():
    answers = [f"it is {'so ' * (n % 5)}{n}" for n in range(10)]
    texts = Texts(("Why?", "") * 5, tuple(answers), None, {}, "why")
    return Trainer(subject_of(TRAINING, text_dataset(texts)), TRAINING)


def shapes(batch):
    return str(jax.tree.map(np.shape, batch))


def test_packed_rows_have_the_gradient_of_padded_ones_and_one_form(trainer):
    subject, ids = trainer.subject, np.arange(10)
    packed, _ = trainer.job(ids, seed=0)
    padded = Trainer(subject, dataclasses.replace(TRAINING, packed=0))
    plain, _ = padded.job(ids, seed=0)
    assert packed.schedule.steps == plain.schedule.steps == 6
    assert len({shapes(batch) for batch in packed.schedule}) == 1  # one program
    rows = packed.schedule[0].retain.labels.shape[0]
    assert rows < plain.schedule[0].retain.labels.shape[0]
    loss = objectives.next_token(subject.model, reduction="token")
    gradient, at = mean_gradient(loss), packed.start
    for step in (0, 2):  # the last of an epoch is filled up, masked
        both = [
            gradient(*at, [job.schedule[step].retain], jax.random.key(0))
            for job in (packed, plain)
        ]
        for a, b in zip(*map(jax.tree.leaves, both), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("reduction", ["sequence", "sum", "token"])
def test_losses_of_packed_rows_are_those_of_the_texts(trainer, reduction):
    text = jax.tree.map(np.asarray, trainer.subject.examples.inputs)
    draws = np.random.default_rng(0)
    nll = draws.uniform(size=text.tokens.shape).astype(np.float32)
    rows = pack(text._replace(tokens=np.arange(nll.size).reshape(nll.shape)), length=64)
    pairs = []
    for given in (text, rows):
        # each token's loss is its own, wherever it stands
        own = nll if given is text else nll.ravel()[rows.tokens]
        counted = answered(given)
        tokens = Scored(jnp.asarray(own[:, 1:]), counted)
        batch = Batch(given, np.zeros(len(own), np.int32))
        pairs.append(reduced(tokens, batch, reduction=reduction).mean())
    np.testing.assert_allclose(*pairs, rtol=1e-5)


def test_eight_devices_are_one(trainer):
    subject = trainer.subject
    text = jax.tree.map(lambda leaf: leaf[:8], subject.examples.inputs)
    batch = jax.tree.map(jnp.asarray, Batch(text, np.zeros(8, np.int32)))
    job, _ = trainer.job(np.arange(8), seed=0)
    loss = objectives.next_token(subject.model)

    @jax.jit
    def total(params, batch):
        losses, _ = loss(params, job.start[1], batch, jax.random.key(0))
        return losses.mean()

    mesh = Mesh(np.array(jax.devices()[:8]), ("data",))
    spread = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
    whole = jax.device_put(job.start[0], NamedSharding(mesh, PartitionSpec()))
    first = jax.value_and_grad(total)(job.start[0], batch)
    again = jax.value_and_grad(total)(whole, spread)
    for a, b in zip(*map(jax.tree.leaves, (first, again)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_killed_training_goes_on_bit_for_bit(trainer, tmp_path):
    ids, path = np.arange(10), tmp_path / "model"
    whole = trainer(ids, seed=3)

    def killed(step, state, info):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), unfinished(path, {}, seconds=0) as series:
        trainer(ids, seed=3, callback=killed, series=series)
    steps = []
    with unfinished(path, {}, seconds=0) as series:
        again = trainer(
            ids, seed=3, callback=lambda step, *_: steps.append(step), series=series
        )
    assert steps[0] > 1
    for a, b in zip(*(jax.tree.leaves(m.params) for m in (whole, again)), strict=True):
        np.testing.assert_array_equal(a, b)
