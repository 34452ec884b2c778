"""A small problem of one-shot unlearning: noisy classes, and a network that knows them.

Five classes on a circle beside noise; class 0 is to be forgotten.
"""

import functools

import jax
import numpy as np
import optax
from toys import mlp, relaxed, softmax64

import jax_unlearn as ju

CLASSES, NOISE, SAMPLES = 5, 6, 200
MODEL = mlp(width=32, classes=CLASSES)
EVAL = ju.objectives.descent(MODEL)._replace(train=False)
KEY = jax.random.key(0)


@functools.cache
def data():
    """Return all samples as one batch of host arrays: cutting them compiles nothing."""
    rng = np.random.default_rng(0)
    labels = (np.arange(SAMPLES) % CLASSES).astype(np.int32)
    angle = 2 * np.pi * labels / CLASSES
    centres = 3.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    signal = centres + rng.normal(size=centres.shape)
    inputs = np.concatenate([signal, rng.normal(size=(SAMPLES, NOISE))], axis=1)
    return ju.Batch(np.float32(inputs), labels, np.arange(SAMPLES, dtype=np.int32))


def rows(batch, which):
    return jax.tree.map(lambda leaf: leaf[np.asarray(which)], batch)


def forget():
    return rows(data(), np.flatnonzero(np.asarray(data().labels) == 0))


def retain():
    return rows(data(), np.flatnonzero(np.asarray(data().labels) != 0))


def pieces(batch, size):
    """Cut a batch into batches; the last one is filled up, masked out."""
    count = batch.labels.shape[0]
    parts = []
    for start in range(0, count, size):
        which = np.arange(start, start + size)
        part = rows(batch, np.minimum(which, count - 1))
        parts.append(part._replace(mask=which < count))
    return parts


@functools.cache
def original():
    """Return parameters trained on all samples."""
    params, _ = MODEL.init(jax.random.key(0), data().inputs)
    alg = ju.methods.finetune(MODEL, relaxed(optax.adam(0.01)))
    batches = [ju.UnlearnBatch(retain=data())] * 80
    return ju.run(alg, alg.init(params, ()), batches, KEY, scan=1).params


def accuracy(params, batch):
    logits = ju.predict(MODEL, params, (), batch.inputs)
    return (logits.argmax(1) == np.asarray(batch.labels)).mean()


def loss(params, batch):
    probs = softmax64(ju.predict(MODEL, params, (), batch.inputs))
    return -np.log(probs[np.arange(len(probs)), np.asarray(batch.labels)]).mean()
