"""Weightings, harmonizers and SFRon against what is published, in float64."""

import jax
import numpy as np
import pytest
from published import (
    CLASSES,
    FALWS,
    FORGET,
    MERGED,
    ORIGINAL,
    RETAIN,
    UNSEEN,
    At,
    Sgd,
    add,
    cross,
    falling,
    flat,
    forward,
    job_of,
    losses,
    mean_gradient,
    one,
    onehot,
    relabelled,
    rows_of,
    subject,
    true,
    two,
    union,
    walk,
)
from toys import softmax64

import jax_unlearn as ju

# --- weightings and harmonizers -----------------------------------------------------


def mean_one(raw):
    return raw * len(raw) / raw.sum()


def apart_from_label(at, samples):
    """Return ‖p − y‖ of each sample, and how far its logit is above the others'."""
    logits = forward(at, samples.inputs).logits
    true = onehot(samples.labels)
    own = (logits * true).sum(1)
    others = np.where(true, -np.inf, logits).max(1)
    return np.linalg.norm(softmax64(logits) - true, axis=1), own - others


def static(at, samples):
    return mean_one(np.exp(-losses(ORIGINAL, samples, train=False) / 0.5))


@pytest.mark.parametrize(
    ("weighting", "options", "weights"),
    [
        (
            "loreun",
            {"temperature": 0.5},
            lambda at, x: mean_one(np.exp(-losses(at, x) / 0.5)),
        ),
        (
            "loreun",
            {"temperature": 0.5, "normalize": "none"},
            lambda at, x: np.exp(-losses(at, x) / 0.5),
        ),
        (
            "loreun",
            {"temperature": 0.5, "relative": True},
            lambda at, x: mean_one(np.exp(-losses(at, x) / losses(at, x).std() / 0.5)),
        ),
        ("loreun_static", {"temperature": 0.5}, static),
        ("sfron", {"power": 0.5}, lambda at, x: mean_one(losses(at, x) ** -0.5)),
        (
            "el2n",
            {"temperature": 0.5},
            lambda at, x: mean_one(np.exp(-apart_from_label(at, x)[0] / 0.5)),
        ),
        (
            "margin",
            {"temperature": 2.0},
            lambda at, x: mean_one(np.exp(apart_from_label(at, x)[1] / 2)),
        ),
    ],
    ids=["loreun", "loreun-raw", "loreun-spread", "static", "sfron", "el2n", "margin"],
)
def test_weightings(weighting, options, weights):
    job = job_of("gradient_ascent", weighting=weighting, **options)
    walk(job, one("forget", true, sign=-1.0, weights=weights))


def test_falw():
    """Algorithm 1: moments of the current model over the whole unseen set, each step.

    Weights of the probability of the true class, on the loss towards a random one.
    """
    everyone, labels = rows_of(UNSEEN), rows_of(FORGET).labels
    counts = np.bincount(labels, minlength=CLASSES)
    balance = (len(labels) / (CLASSES * counts)) ** 0.5

    def weights(at, batch, logits):
        probs = softmax64(forward(at, everyone.inputs, train=False).logits)
        sure = probs[np.arange(len(probs)), everyone.labels]
        own = softmax64(logits)[np.arange(len(logits)), batch.forget.labels]
        each = []
        for p, c in zip(own, batch.forget.labels, strict=True):
            z = (p - sure[everyone.labels == c].mean()) / sure[
                everyone.labels == c
            ].std()
            each.append(1 + np.sign(z) * np.tanh(abs(z)) ** (1 / balance[c]))
        return np.array(each)

    job = job_of("random_label", weighting="falw", tau=0.5, **MERGED)
    walk(job, union(relabelled(**FALWS), weights=weights), tolerance=1e-4)


def projected(g, onto):
    """Return g without what works against another gradient."""
    g, onto = flat(g), flat(onto)
    return g - min(g @ onto, 0) / (onto @ onto) * onto


def like(tree, values):
    """Undo `flat`."""
    leaves, structure = jax.tree.flatten(tree)
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
    parts = np.split(values, ends)
    shaped = [v.reshape(leaf.shape) for v, leaf in zip(parts, leaves, strict=True)]
    return structure.unflatten(shaped)


def bargained(forget, retain):
    f, r = flat(forget), flat(retain)
    cosine = f @ r / np.linalg.norm(f) / np.linalg.norm(r)
    factor = np.sqrt((1 - cosine) / (np.sin(np.arccos(cosine)) ** 2 + 1e-8))
    return factor * (f / np.linalg.norm(f) + r / np.linalg.norm(r))


@pytest.mark.parametrize(
    ("name", "join"),
    [
        ("one_way", lambda f, r: flat(r) + projected(f, r)),
        ("two_way", lambda f, r: projected(f, r) + projected(r, f)),
        ("bargain", bargained),
    ],
)
def test_harmonizers(name, join):
    conflicts = []

    def joined(forget, retain):
        pair = add((-0.5, forget)), add((0.5, retain))
        conflicts.append(flat(pair[0]) @ flat(pair[1]) < 0)
        return like(forget, join(*pair))

    told = {"alpha": 0.5, "schedule": "zipped", "harmonizer": name}
    walk(job_of("neggrad_plus", **told), two(true, join=joined), tolerance=1e-4)
    assert any(conflicts)


# --- SFRon --------------------------------------------------------------------------


def squares(ids):
    """Return the mean over batches of 10 of (∇ of a batch's mean loss)²."""
    batches = ju.data.retain_only(
        subject().examples, ids, batch_size=10, epochs=1, seed=0
    )
    each = []
    for step in batches:
        error = cross(step.retain.labels)
        grads, _ = mean_gradient(ORIGINAL, step.retain, error, train=False)
        each.append((1 / len(batches), jax.tree.map(np.square, grads)))
    return add(*each)


def test_sfron():
    """Every second step up the forget loss first, through the same optimizer."""
    told = {"forget_every": 2, "peak": 5.0, "ascent_clip": 0.5}
    job = job_of("sfron", **told)
    steps, sgd, clipped = len(job.schedule), Sgd(), []
    mask = jax.tree.map(np.greater_equal, squares(FORGET), squares(RETAIN))
    assert 0 < flat(mask).mean() < 1
    fall = falling(steps)

    def update(t, at, batch):
        if t % 2 == 0:
            samples = batch.forget
            weights = mean_one(losses(at, samples) ** -0.5)
            error = cross(samples.labels)
            grads, state = mean_gradient(at, samples, error, weights=weights)
            grads = jax.tree.map(np.multiply, mask, add((-5.0 * fall(t), grads)))
            norm = np.linalg.norm(flat(grads))
            clipped.append(norm > 0.5)
            grads = add((min(1, 0.5 / norm), grads))
            at = At(sgd(at.params, grads, fall(t)), state)
        samples = batch.retain
        grads, state = mean_gradient(at, samples, cross(samples.labels))
        return At(sgd(at.params, grads, fall(t)), state)

    walk(job, update)
    assert set(clipped) == {True, False}
