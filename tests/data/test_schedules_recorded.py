"""Schedules give the batches that they gave when `schedules.json` was recorded.

Runs resume, and stored results are compared, batch by batch: a schedule that shuffles
otherwise is another experiment. Each entry is the start of the sha256 of all steps of a
schedule. To record anew, after a change that is meant, run this file.
"""

import hashlib
import json
from pathlib import Path

import jax
import numpy as np
import pytest

import jax_unlearn as ju

RECORD = Path(__file__).with_name("schedules.json")
EXAMPLES = ju.data.Examples(
    np.arange(60, dtype=np.float32).reshape(60, 1), (np.arange(60) % 5).astype(np.int32)
)
FORGET, RETAIN, UNSEEN = np.arange(7), np.arange(7, 47), np.arange(47, 60)
SETS = EXAMPLES, FORGET, RETAIN
REFERENCES = {
    "none": {},
    "all": {"reference": UNSEEN},
    "drawn": {"reference": UNSEEN, "reference_size": 3},
    "batch": {"reference": ju.data.take(EXAMPLES, UNSEEN[:2])},
}


def _queried(**options):
    strategies = [
        ju.data.queries.uniform(40),
        ju.data.queries.class_skewed(EXAMPLES.labels[RETAIN]),
        ju.data.queries.hard(np.linspace(0, 1, 40) % 0.3),
    ]
    return ju.data.queried(*SETS, strategies, query_size=5, **options)


def _phases(**options):
    impair = ju.data.zipped(*SETS, epochs=1, **options)
    repair = ju.data.retain_only(EXAMPLES, RETAIN, epochs=2, **options)
    return ju.data.phases(impair.from_step(1), repair)


def _scrub(**options):
    return ju.data.scrub_schedule(*SETS, epochs=3, **options).schedule


MAKERS = {
    "forget_only": lambda **o: ju.data.forget_only(EXAMPLES, FORGET, epochs=3, **o),
    "retain_only": lambda **o: ju.data.retain_only(EXAMPLES, RETAIN, epochs=3, **o),
    "sequential": lambda **o: ju.data.sequential(*SETS, epochs=3, **o),
    "zipped": lambda **o: ju.data.zipped(*SETS, epochs=2, **o),
    "zipped by steps": lambda **o: ju.data.zipped(*SETS, steps=17, **o),
    "every_k": lambda **o: ju.data.every_k(*SETS, k=3, epochs=2, **o),
    "merged": lambda **o: ju.data.merged(*SETS, epochs=2, **o),
    "scrub": lambda **o: _scrub(forget_epochs=2, forget_batch_size=3, **o),
    "scrub of one size": lambda **o: _scrub(forget_epochs=1, **o),
    "phases": _phases,
    "queried": lambda **o: _queried(epochs=2, **o),
    "queried by steps": lambda **o: _queried(steps=5, **o),
}


def digest(schedule):
    """Return what tells the arrays of all steps apart, and what a step lacks."""
    state = hashlib.sha256(str(len(schedule)).encode())
    for step in schedule:
        for leaf in jax.tree.leaves(tuple(step), is_leaf=lambda leaf: leaf is None):
            array = np.asarray("nothing" if leaf is None else leaf)
            state.update(f"{array.dtype.str}{array.shape}".encode())
            state.update(array.tobytes())
    return state.hexdigest()[:16]


def digests(name):
    """Return the digest of a schedule for each size, seed and kind of reference."""
    return {
        f"size {size} seed {seed} reference {kind}": digest(
            MAKERS[name](batch_size=size, seed=seed, **reference)
        )
        for size in (2, 4, 50)
        for seed in (0, 5)
        for kind, reference in REFERENCES.items()
    }


@pytest.mark.parametrize("name", MAKERS)
def test_batches_are_those_of_the_record(name):
    assert digests(name) == json.loads(RECORD.read_text())[name]


def test_the_record_tells_settings_apart():
    for name, record in json.loads(RECORD.read_text()).items():
        assert len(set(record.values())) == len(record) == 24, name


if __name__ == "__main__":
    text = json.dumps({name: digests(name) for name in MAKERS}, indent=1)
    RECORD.write_text(text + "\n")
