"""What the published updates are walked with: a network in float64 numpy, and a lab.

The network is a convolution as large as the image, BatchNorm, ReLU and a linear layer,
its derivatives by hand; flax keeps the biased running variance, PyTorch the unbiased.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from toys import apart, moved, softmax64

import jax_unlearn as ju
from jax_unlearn.data import Dataset, Examples
from jax_unlearn.lab import Request, Training, Unlearning
from jax_unlearn.lab.catalog import METHODS
from jax_unlearn.lab.job import Trained
from jax_unlearn.lab.modalities.classification import CLASSIFICATION
from jax_unlearn.lab.modalities.classification.networks import Classifier
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.rewinds import Origin
from jax_unlearn.lab.subject import Subject
from jax_unlearn.zoo.layers import batch_norm

CLASSES, WIDTH, SEED = 3, 6, 4
KEY = jax.random.key(1)
FORGET, RETAIN, UNSEEN = np.arange(20), np.arange(20, 60), np.arange(60, 90)
RATE, MOMENTUM, DECAY = 0.05, 0.9, 0.02
TRAINING = Training(
    network="small_cnn", epochs=2, batch_size=10, learning_rate=RATE, weight_decay=DECAY
)


class Net(nnx.Module):
    """The network of the walks, as the library has it."""

    def __init__(self, *, rngs):
        self.conv = nnx.Conv(
            1, WIDTH, (3, 3), padding="VALID", use_bias=False, rngs=rngs
        )
        self.norm = batch_norm(WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, CLASSES, rngs=rngs)

    def features(self, x, *, train):
        hidden = self.conv(x).reshape(len(x), WIDTH)
        return nnx.relu(self.norm(hidden, use_running_average=not train))

    def __call__(self, x, *, train):
        return self.head(self.features(x, train=train))


@functools.cache
def subject():
    """Return the network with 90 images in 0..1, one in eight of another's label."""
    rng = np.random.default_rng(0)
    labels = (np.arange(90) % CLASSES).astype(np.int32)
    centres = rng.random((CLASSES, 3, 3, 1))
    images = np.clip(centres[labels] + 0.3 * rng.normal(size=(90, 3, 3, 1)), 0, 1)
    labels[::8] = (labels[::8] + 1) % CLASSES
    examples = Examples(images.astype(np.float32), labels)
    models = (
        ju.from_nnx(lambda rngs: Net(rngs=rngs), method=method)
        for method in ("__call__", "features")
    )
    built = Classifier(*models, None)
    names = ("a", "b", "c")
    dataset = Dataset("small", examples, examples, CLASSES, names)
    return Subject(CLASSIFICATION, built, dataset, examples)


@functools.cache
def drawn(number):
    """Return parameters and state, none of which is at its start; 0: the original's."""
    key = jax.random.key(number)
    at = jax.jit(subject().model.init)(key, subject().examples.inputs[:2])
    return moved(at[0], seed=number), moved(at[1], scale=0.02, seed=number + 1)


@functools.cache
def preparer():
    return Preparer(subject())


REQUEST = Request(FORGET, RETAIN, UNSEEN)


def job_of(method, *, original=None, request=REQUEST, **settings):
    """Return the job of a card over the request, by SGD of the walks' settings."""
    common = {"batch_size": 10}
    if METHODS[method].kind == "steps":
        common |= {"epochs": 2, "learning_rate": RATE}
        common |= {"momentum": MOMENTUM, "weight_decay": DECAY}
    setting = Unlearning.of(**{"method": method, **common, **settings})
    at = drawn(0) if original is None else original
    return preparer()(
        setting,
        request,
        Trained(*at, {}),
        seed=SEED,
        origin=Origin(TRAINING, SEED),
    )


def wide(tree):
    """Return a tree of float64 arrays on the host."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


class At(NamedTuple):
    """Parameters and running statistics, float64."""

    params: dict
    state: dict

    @classmethod
    def of(cls, variables):
        return cls(*map(wide, variables))


class Pass(NamedTuple):
    """A forward pass, and what its derivatives are made of."""

    at: At
    rows: np.ndarray
    normal: np.ndarray
    spread: np.ndarray
    hidden: np.ndarray
    logits: np.ndarray
    state: dict
    train: bool

    def pull(self, error, *, hidden_error=0.0):
        """Return the gradient for an error of the logits, and that of the input."""
        params = self.at.params
        norm, head = params["norm"], params["head"]
        back = error @ head["kernel"].T + hidden_error
        back = back * (self.hidden > 0)
        scaled = back * norm["scale"]
        if self.train:
            along = self.normal * (scaled * self.normal).mean(0)
            scaled = scaled - scaled.mean(0) - along
        scaled = scaled / self.spread
        kernel = params["conv"]["kernel"]
        grads = {
            "conv": {"kernel": (self.rows.T @ scaled).reshape(kernel.shape)},
            "head": {"bias": error.sum(0), "kernel": self.hidden.T @ error},
            "norm": {"bias": back.sum(0), "scale": (back * self.normal).sum(0)},
        }
        return grads, scaled @ kernel.reshape(9, WIDTH).T


def forward(at, images, *, train=True):
    """Run the network; in train mode the running statistics take a tenth."""
    params, state = at
    rows = np.asarray(images, np.float64).reshape(len(images), 9)
    raw = rows @ params["conv"]["kernel"].reshape(9, WIDTH)
    mean, var = state["norm"]["mean"], state["norm"]["var"]
    if train:
        old = mean, var
        mean, var = raw.mean(0), ((raw - raw.mean(0)) ** 2).mean(0)
        kept = [0.9 * a + 0.1 * b for a, b in zip(old, (mean, var), strict=True)]
        state = {"norm": {"mean": kept[0], "var": kept[1]}}
    spread = np.sqrt(var + 1e-5)
    normal = (raw - mean) / spread
    hidden = normal * params["norm"]["scale"] + params["norm"]["bias"]
    hidden = np.maximum(hidden, 0)
    logits = hidden @ params["head"]["kernel"] + params["head"]["bias"]
    return Pass(at, rows, normal, spread, hidden, logits, state, train)


def onehot(labels):
    return np.eye(CLASSES)[np.asarray(labels)]


def cross(labels):
    """Return the error of the logits for cross-entropy to labels, or to rows."""
    target = onehot(labels) if np.ndim(labels) == 1 else labels
    return lambda logits: softmax64(logits) - target


def follows(teacher, temperature=1.0):
    """Return the error of the logits for T²·KL(teacher ‖ ·)."""

    def error(logits):
        own, target = (softmax64(z / temperature) for z in (logits, teacher))
        return temperature * (own - target)

    return error


def mean_gradient(at, batch, error, *, weights=1.0, train=True):
    """Return the gradient of the mean over a batch, and the state after the pass."""
    assert batch.mask is None or np.all(batch.mask)  # every pass is whole
    run = forward(at, batch.inputs, train=train)
    each = error(run.logits) * np.reshape(weights, (-1, 1)) / len(batch.labels)
    return run.pull(each)[0], run.state


def losses(at, batch, *, train=True):
    probs = softmax64(forward(at, batch.inputs, train=train).logits)
    return -np.log(probs[np.arange(len(probs)), np.asarray(batch.labels)])


def rows_of(ids):
    """Return a batch of samples by id."""
    inputs, labels = subject().examples
    return ju.Batch(inputs[ids], labels[ids], ids)


def add(*terms):
    """Return Σ c·tree of (c, tree)."""
    scaled = [jax.tree.map(lambda leaf, c=c: c * leaf, tree) for c, tree in terms]
    return jax.tree.map(lambda *leaves: sum(leaves), *scaled)


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


class Sgd:
    """PyTorch's SGD: decay is added to the gradient, the rate multiplies the memory."""

    def __init__(self, rate=RATE, momentum=MOMENTUM, decay=DECAY):
        self.rate, self.momentum, self.decay, self.memory = rate, momentum, decay, None

    def __call__(self, params, grads, factor=1.0):
        grads = add((1, grads), (self.decay, params))
        if self.memory is not None:
            grads = add((self.momentum, self.memory), (1, grads))
        self.memory = grads
        return add((1, params), (-self.rate * factor, grads))


class Adam:
    """PyTorch's Adam: decay is added to the gradient, ε to the root."""

    def __init__(self, rate=RATE, decay=DECAY):
        self.rate, self.decay, self.count = rate, decay, 0
        self.first = self.second = None

    def __call__(self, params, grads):
        grads, self.count = add((1, grads), (self.decay, params)), self.count + 1
        square = jax.tree.map(np.square, grads)
        zero = add((0, grads))
        self.first = add((0.9, self.first or zero), (0.1, grads))
        self.second = add((0.999, self.second or zero), (0.001, square))
        one, two = 1 - 0.9**self.count, 1 - 0.999**self.count

        def step(param, first, second):
            return param - self.rate * first / one / (np.sqrt(second / two) + 1e-8)

        return jax.tree.map(step, params, self.first, self.second)


def far(found, expected, start):
    """Return how far a tree is from another, in units of that one's movement.

    Where there is none it is 0 if the two are equal but for rounding, else infinite.
    """
    distance, moved = apart(found, expected), apart(expected, start)
    if not moved:
        return 0.0 if distance < 1e-6 else np.inf
    return distance / moved


def walk(job, update, *, tolerance=2e-5):
    """Walk a job and a published update side by side over the job's own batches.

    `update(t, at, batch) -> at`. After every step parameters and statistics differ by
    less than the tolerance, relative to how far they moved; returns the last ones.
    """
    start = job.start or drawn(0)
    state, step = job.unlearner.init(*start), jax.jit(job.unlearner.step)
    begin = at = At.of(start)
    for t, batch in enumerate(job.schedule):
        at = update(t, at, batch)
        state, _ = step(state, batch, jax.random.fold_in(KEY, t))
        for found, expected, first in zip(
            (state.params, state.model_state), at, begin, strict=True
        ):
            assert far(found, expected, first) < tolerance, t
    return at


@functools.partial(jax.jit, static_argnames=("redraw", "exclude_true"))
def losses_of(batch, t, *, redraw, exclude_true):
    """Return the losses of known logits towards the random labels of a step."""
    options = {"num_classes": CLASSES, "redraw": redraw, "exclude_true": exclude_true}
    objective = ju.objectives.random_label(subject().model, seed=SEED, **options)
    key = jax.random.split(jax.random.fold_in(KEY, t))[0]
    logits = jnp.broadcast_to(
        jnp.arange(CLASSES, dtype=jnp.float32), (len(batch.labels), CLASSES)
    )
    return objective.output_loss(logits, batch, key, objective.data)[0]


def labels_drawn(batch, t, **how):
    """Return the random labels of a step: those of which the losses tell."""
    found = losses_of(batch._replace(inputs=None), t, **how)
    table = -np.log(softmax64(np.arange(CLASSES)))
    return np.abs(table - np.asarray(found)[:, None]).argmin(1)


ORIGINAL = At.of(drawn(0))
MERGED = {"schedule": "merged", "batch_size": 12}  # 4 to forget and 8 to retain


def one(part, towards, *, sign=1.0, extra=None, weights=None, optimizer=None):
    """Return the update along the mean gradient over one part of a step's batch."""
    optimizer = optimizer or Sgd()

    def update(t, at, batch):
        samples = getattr(batch, part)
        told = {} if weights is None else {"weights": weights(at, samples)}
        grads, state = mean_gradient(at, samples, towards(t, at, samples), **told)
        grads = add((sign, grads), *((extra(t, at),) if extra else ()))
        return At(optimizer(at.params, grads), state)

    return update


def true(t, at, samples):
    return cross(samples.labels)


def two(forget, retain=true, *, join=None, optimizer=None):
    """Return the update by two passes, the statistics of the forget pass first."""
    optimizer = optimizer or Sgd()
    join = join or (lambda f, r: add((1, f), (1, r)))

    def update(t, at, batch):
        grads, state = {}, at.state
        for part, towards in (("forget", forget), ("retain", retain)):
            samples = getattr(batch, part)
            if samples is None:
                continue
            seen = At(at.params, state)
            error = towards(t, seen, samples)
            grads[part], state = mean_gradient(seen, samples, error)
        pair = [grads[part] for part in ("forget", "retain") if part in grads]
        grads = join(*pair) if len(pair) == 2 else pair[0]
        return At(optimizer(at.params, grads), state)

    return update


def union(forget, retain=true, *, weights=None, optimizer=None):
    """Return the update by one pass and one mean over both parts together."""
    optimizer = optimizer or Sgd()

    def update(t, at, batch):
        parts = batch.forget, batch.retain
        images = np.concatenate([part.inputs for part in parts])
        run = forward(at, images)
        split = len(parts[0].labels)
        errors = [
            forget(t, at, parts[0])(run.logits[:split]),
            retain(t, at, parts[1])(run.logits[split:]),
        ]
        if weights:
            each = weights(at, batch, run.logits[:split])
            errors[0] = errors[0] * each[:, None]
        grads, _ = run.pull(np.concatenate(errors) / len(images))
        return At(optimizer(at.params, grads), run.state)

    return update


def relabelled(**how):
    return lambda t, at, samples: cross(labels_drawn(samples, t, **how))


FALWS = {"redraw": False, "exclude_true": True}  # one wrong label a sample, for good
SALUNS = {"redraw": True, "exclude_true": False}  # any label, again and again


def falling(steps):
    return lambda t: (1 + np.cos(np.pi * t / steps)) / 2


def retaining(factor, slow=None):
    """Return fine-tuning whose rate has a factor a step, some gradients another."""
    sgd = Sgd()

    def update(t, at, batch):
        samples = batch.retain
        grads, state = mean_gradient(at, samples, cross(samples.labels))
        if slow is not None:
            grads = jax.tree.map(np.multiply, slow, grads)
        return At(sgd(at.params, grads, factor(t)), state)

    return update
