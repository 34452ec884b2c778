"""Methods for texts, walked over several optimizer steps beside their descriptions.

A small decoder, the cards of the lab, its batches and Adam with decay, whose memory
carries every step into the next; the other side is written from the papers: losses of
logits, and Adam by hand. What is asked of one step is in `tests/objectives`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import apart, moved

from jax_unlearn.lab import Request, Unlearning
from jax_unlearn.lab.job import Trained
from jax_unlearn.lab.modalities.language.settings import LanguageTraining
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.subject import subject_of
from jax_unlearn.language import REFUSALS, decoder
from jax_unlearn.language.texts import Texts, text_dataset
from jax_unlearn.language.tokens import encode

SEED, RATE, DECAY, CLIP, V = 3, 3e-3, 0.05, 1.0, 260
TOLERANCE = 2e-5  # of how far the parameters moved; rounding has 8e-6
FORGET, RETAIN = np.arange(4), np.arange(4, 12)
EPOCHS = 3  # of two steps each, of four texts to forget and four that stay
TRAINING = LanguageTraining(
    **{"width": 8, "layers": 1, "heads": 2, "vocabulary": V, "packed": 0}
)


@functools.cache
def subject():
    answers = [f"in {'the year ' * (n % 3)}{1900 + n}" for n in range(12)]
    texts = Texts(tuple(f"When {n}?" for n in range(12)), tuple(answers), None, {}, "t")
    return subject_of(TRAINING, text_dataset(texts))


@functools.cache
def original():
    params, state = jax.jit(subject().model.init)(jax.random.key(0), None)
    return moved(params, scale=0.3, seed=1), state


@functools.cache
def preparer():
    return Preparer(subject())


def job_of(method, **settings):
    common = {"epochs": EPOCHS, "batch_size": 4, "optimizer": "adam", "clip": CLIP}
    common |= {"learning_rate": RATE, "weight_decay": DECAY, "modality": "language"}
    setting = Unlearning.of(**{"method": method, **common, **settings})
    request = Request(FORGET, RETAIN, np.arange(0))
    return preparer()(setting, request, Trained(*original(), {}), seed=SEED)


class Seen:
    """What a model says of the texts of a batch: answers, logits, losses, states."""

    def __init__(self, params, text):
        state = original()[1]
        z = subject().built.logits.apply(params, state, text, train=True)[0]
        self.z, self.y, self.on = z[:, :-1], text.tokens[:, 1:], text.targets[:, 1:]
        self.log_p = jax.nn.log_softmax(self.z)
        own = jnp.take_along_axis(self.log_p, self.y[..., None], axis=-1)[..., 0]
        self.loss = jnp.where(self.on, -own, 0.0)
        self.n = jnp.float32(self.on.sum(1))
        self.total = self.loss.sum(1)  # S
        self.mean = self.total / self.n  # ℓ̄
        layer = decoder(subject().network.config, outputs="hidden", layer=0)
        self.hidden = layer.apply(params, state, text, train=True)[0][:, :-1]

    def each(self, of_token, on=None):
        """Return the mean over the batch of means over the answers' tokens."""
        on = self.on if on is None else on
        return jnp.mean(jnp.where(on, of_token, 0.0).sum(1) / jnp.float32(on.sum(1)))


def log_sigmoid(x):
    return -jnp.log1p(jnp.exp(-x))


def npo(now, before, batch):
    return jnp.mean(-2 / 0.1 * log_sigmoid(0.1 * (now.total - before.total)))


def simnpo(now, before, batch):
    # δ near the loss, that it be not at its end
    return 0.125 * jnp.mean(-2 / 4.5 * log_sigmoid(4.5 * (now.mean - 5.5)))


def wga(now, before, batch):
    p = jax.lax.stop_gradient(jnp.exp(-now.loss))
    return -(p**1.0 * now.loss).sum() / now.n.sum()


def graddiff(now, before, batch):
    return -now.loss.sum() / now.n.sum()


def ceu(now, before, batch):
    others = jnp.exp(now.log_p) * (1 - jnp.eye(V)[now.y])
    target = jax.lax.stop_gradient(others / others.sum(-1, keepdims=True))
    first = jnp.cumsum(now.on, axis=1) == 1
    return now.each(-(target * now.log_p).sum(-1), now.on & ~first)


def undial(now, before, batch):
    target = jax.nn.softmax(before.z - 10.0 * jnp.eye(V)[now.y])
    return now.each(-(target * now.log_p).sum(-1))


def rmu(now, before, batch):
    u = jax.random.uniform(jax.random.key(SEED), now.hidden.shape[-1:])
    u = 2.0 * u / jnp.sqrt((u**2).sum())
    return now.each(((now.hidden - u[None, None]) ** 2).mean(-1))


def held(now, before):
    return now.each(((now.hidden - before.hidden) ** 2).mean(-1))


@functools.cache
def refusals():
    """Return refusals to the questions, as many as texts, by id."""
    drawn = np.random.default_rng(SEED).integers(0, len(REFUSALS), len(FORGET))
    asked = [subject().dataset.train.inputs[n, 0] for n in FORGET]
    text = encode(asked, [REFUSALS[n] for n in drawn], subject().network.tokenizer)[0]
    return jax.tree.map(jnp.asarray, text)


def idk_dpo(now, before, batch, params):
    other = jax.tree.map(lambda leaf: leaf[batch.index], refusals())
    better, once = Seen(params, other), Seen(original()[0], other)
    margin = (now.total - before.total) - (better.total - once.total)
    return jnp.mean(-2 / 0.1 * log_sigmoid(0.1 * margin))


def flat(now, before, batch):
    return now.each((now.z.max(-1) - now.z.mean(-1)) ** 2)


def likely(now, before):
    return jnp.mean(now.mean)


def by_token(now, before):
    return now.loss.sum() / now.n.sum()


class Adam:
    """Adam: the gradient is clipped as a whole, then decay is added to it."""

    def __init__(self, clip):
        self.first = self.second = None
        self.clip, self.count = clip, 0

    def __call__(self, params, grads):
        grads = jax.tree.map(np.float64, grads)
        norm = np.sqrt(sum((g**2).sum() for g in jax.tree.leaves(grads)))
        scale = min(1.0, self.clip / norm) if self.clip else 1.0
        grads = jax.tree.map(lambda g, p: scale * g + DECAY * p, grads, params)
        self.count += 1
        zero = jax.tree.map(np.zeros_like, grads)
        self.first = jax.tree.map(
            lambda m, g: 0.9 * m + 0.1 * g, self.first or zero, grads
        )
        self.second = jax.tree.map(
            lambda v, g: 0.999 * v + 0.001 * g * g, self.second or zero, grads
        )
        one, two = 1 - 0.9**self.count, 1 - 0.999**self.count
        return jax.tree.map(
            lambda p, m, v: p - RATE * (m / one) / (np.sqrt(v / two) + 1e-8),
            params,
            self.first,
            self.second,
        )


def gradient_of(forget, retain):
    """Return the jitted gradient of forget + λ·retain, and the retain loss."""

    def total(params, batch, price):
        text, kept = batch.forget.inputs, jnp.float32(0)
        now, before = Seen(params, text), Seen(original()[0], text)
        more = (params,) if forget is idk_dpo else ()
        found = forget(now, before, batch.forget, *more)
        if retain is not None:
            text = batch.retain.inputs
            kept = retain(Seen(params, text), Seen(original()[0], text))
        return found + price * kept, kept

    return jax.jit(jax.grad(total, has_aux=True))


def walk(job, forget, retain=likely, *, price=1.0, after=None, clip=CLIP):
    """Walk a job and its description side by side; return how far apart they end.

    In units of how far the description moved, after each step.
    """
    gradient, optimizer = gradient_of(forget, retain), Adam(clip)
    begin = at = jax.tree.map(np.float64, original()[0])
    state, step = job.unlearner.init(*original()), jax.jit(job.unlearner.step)
    far, steps = [], 0
    for t, batch in enumerate(job.schedule):
        low = jax.tree.map(jnp.float32, at)
        grads, loss = gradient(low, batch, jnp.float32(price))
        at = optimizer(at, grads)
        price = price if after is None else after(t, price, float(loss))
        state, _ = step(state, batch, jax.random.key(t))
        far.append(apart(state.params, at) / apart(at, begin))
        steps += 1
    assert steps == (EPOCHS if retain is None else 2 * EPOCHS)
    return state, at, max(far)


@pytest.mark.parametrize(
    ("method", "forget", "retain", "settings"),
    [
        ("grad_diff", graddiff, by_token, {"reduction": "token"}),
        ("npo", npo, likely, {}),
        ("simnpo", simnpo, likely, {"delta": 5.5}),
        ("wga", wga, by_token, {"reduction": "token"}),
        ("idk_dpo", idk_dpo, likely, {}),
        ("ceu", ceu, likely, {}),
        ("undial", undial, None, {"clip": 0.0}),  # so that its size shows, too
        ("rmu", rmu, held, {}),
    ],
)
def test_steps_of_a_method_are_those_of_its_description(
    method, forget, retain, settings
):
    job = job_of(method, **settings)
    *_, far = walk(job, forget, retain, clip=settings.get("clip", CLIP))
    assert far < TOLERANCE, far


def test_steps_of_pdu_raise_the_price_as_described():
    settings = {"price": 2.0, "price_rate": 5.0, "retain_bound": 0.3}

    def after(t, price, loss):  # two steps of warm-up
        return price if t < 2 else max(0.0, price + 5.0 * (loss - 0.3))

    job = job_of("pdu", price_warmup=1, **settings)
    state, _, far = walk(job, flat, likely, price=2.0, after=after)
    assert far < TOLERANCE, far
    assert float(state.weight_state[1]) > 20


def test_the_task_vector_goes_back_by_what_steps_have_learned():
    job = job_of("task_vector", scale=0.7, clip=0.0)

    def learned(now, before, batch):
        return jnp.mean(now.mean)

    state, at, far = walk(job, learned, None, clip=0.0)
    assert far < TOLERANCE, far
    back, begin = job.finish(state)[0], original()[0]
    wanted = jax.tree.map(lambda o, a: np.float64(o) - 0.7 * (a - o), begin, at)
    assert apart(back, wanted) < TOLERANCE * apart(wanted, begin)
