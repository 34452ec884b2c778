"""Training of language models: packed as padded, one program, resumed bit for bit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_unlearn import objectives, run, sharding
from jax_unlearn.gradients import mean_gradient
from jax_unlearn.lab import Request, Unlearning
from jax_unlearn.lab.job import Trained, execute
from jax_unlearn.lab.modalities.language.settings import LanguageTraining
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.store import unfinished
from jax_unlearn.lab.subject import Trainer, subject_of
from jax_unlearn.language.packing import pack
from jax_unlearn.language.text import Scored, answered
from jax_unlearn.language.texts import Texts, text_dataset
from jax_unlearn.objectives.language import reduced
from jax_unlearn.types import Batch

KEY = jax.random.key(0)
TRAINING = LanguageTraining(
    **{"width": 16, "layers": 1, "heads": 2, "vocabulary": 260, "packed": 64},
    **{"epochs": 2, "batch_size": 4},
)


@pytest.fixture(scope="module")
def trainer():
    answers = [f"it is {'so ' * (n % 5)}{n}" for n in range(10)]
    texts = Texts(("Why?", "") * 5, tuple(answers), None, {}, "why")
    return Trainer(subject_of(TRAINING, text_dataset(texts)), TRAINING)


@pytest.fixture(scope="module")
def unlearning():
    """Return the job of NPO over 24 texts, its start, and its end on one device."""
    answers = tuple(f"it is {'so ' * (n % 5)}{n}" for n in range(24))
    texts = Texts(("Why?", "") * 12, answers, None, {}, "why")
    subject = subject_of(TRAINING, text_dataset(texts))
    start = jax.jit(subject.model.init)(jax.random.key(1), None)
    request = Request(np.arange(8), np.arange(8, 24), np.arange(0))

    told = {"modality": "language", "epochs": 3, "batch_size": 8}
    told |= {"method": "npo", "weighting": "loreun", "learning_rate": 1e-3}
    job = Preparer(subject)(Unlearning.of(**told), request, Trained(*start, {}), seed=0)
    assert len(job.schedule) == 6  # three passes over the texts that stay
    end = run(job.unlearner, job.unlearner.init(*start), job.schedule, KEY)
    return job, start, jax.device_get(end.params)


def pairs(one, other):
    return zip(*map(jax.tree.leaves, (one, other)), strict=True)


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


@pytest.mark.parametrize("data", [None, "data"], ids=["data parallel", "fsdp"])
def test_a_whole_unlearning_on_eight_devices_is_that_on_one(unlearning, data):
    job, start, alone = unlearning
    mesh = jax.make_mesh((8, 1), ("data", "tensor"))
    rules = sharding.decoder_rules(data=data)
    state = sharding.shard(job.unlearner.init(*start), mesh, rules)
    batches = [*sharding.spread(job.schedule, mesh)]
    tokens = batches[0].forget.inputs.tokens
    assert tokens.addressable_shards[0].data.shape[0] == 1  # one text a device
    found = run(job.unlearner, state, batches, KEY)
    up = found.params["layer0"]["mlp"]["up"]["kernel"]
    parts = 1 if data is None else 8
    assert up.addressable_shards[0].data.size * parts == up.size
    moved = [float(jnp.abs(a - b).max()) for a, b in pairs(alone, start[0])]
    assert min(moved) > 1e-3
    for a, b in pairs(sharding.fetch(found.params), alone):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_a_killed_unlearning_goes_on_bit_for_bit(unlearning, tmp_path):
    job, start, alone = unlearning

    def killed(step, state, info):
        if step == 3:
            raise KeyboardInterrupt

    path, steps = tmp_path / "model", []
    with pytest.raises(KeyboardInterrupt), unfinished(path, {}, seconds=0) as series:
        execute(job, start, KEY, callback=killed, series=series)
    with unfinished(path, {}, seconds=0) as series:
        told = {"callback": lambda step, *_: steps.append(step), "series": series}
        again = execute(job, start, KEY, **told)
    assert steps[0] > 1
    for a, b in pairs(again.params, alone):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("method", ["grad_diff", "npo"])
def test_loreun_costs_texts_a_hundredth_more_at_most(trainer, method):
    """Operations, counted before compiling; by the clock: `tests/benchmarks`."""
    subject = trainer.subject
    start = jax.jit(subject.model.init)(jax.random.key(1), None)
    request = Request(np.arange(4), np.arange(4, 10), np.arange(0))
    counts = []
    for weighting in ("uniform", "loreun", "loreun_static", "loreun_tokens"):
        told = {"modality": "language", "method": method, "batch_size": 4}
        setting = Unlearning.of(**told, weighting=weighting)
        job = Preparer(subject)(setting, request, Trained(*start, {}), seed=0)
        given = job.unlearner.init(*start), job.schedule[0], KEY
        lowered = jax.jit(job.unlearner.step).lower(*given)
        counts.append(lowered.cost_analysis()["flops"])
    assert counts[0] > 1e6
    assert max(counts) <= 1.01 * counts[0]


def test_blocks_computed_anew_train_the_same_model(trainer):
    again = Trainer(trainer.subject, dataclasses.replace(TRAINING, remat=True))
    (job, key), (plain, _) = (t.job(np.arange(10), seed=0) for t in (again, trainer))
    step = (job.unlearner.init(*job.start), job.schedule[0], key)
    assert "remat" in str(jax.make_jaxpr(job.unlearner.step)(*step))
    assert "remat" not in str(jax.make_jaxpr(plain.unlearner.step)(*step))
    made = [t(np.arange(10), seed=0).params for t in (again, trainer)]
    for a, b in zip(*map(jax.tree.leaves, made), strict=True):
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
