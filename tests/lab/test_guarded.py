"""Guards as settings: what they keep back, where they stop, a cut run."""

import jax
import numpy as np
import pytest
from toys import small_plan, trees_close

from jax_unlearn.data import digits
from jax_unlearn.drivers.loop import predict
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Training, Unlearning
from jax_unlearn.lab.bench import Bench
from jax_unlearn.lab.prepare import held_back

DATA = digits()
TRAINING = Training(network="mlp", width=16, epochs=6)
PLAN = small_plan(title="guarded", fraction=0.1, unseen=400, training=TRAINING)
ASCENT = Unlearning.of(
    method="gradient_ascent", epochs=20, batch_size=30, learning_rate=0.1, clip=1.0
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(PLAN, DATA, folder=tmp_path_factory.mktemp("guarded"))


@pytest.fixture(scope="module")
def case(bench):
    return bench.case(0)


def guarded(**guards):
    return ASCENT.but(guard_every=3, **guards)


def utility(bench, case, setting, trained):
    _, held = held_back(DATA, case.request, setting, 0)
    at = trained.params, trained.model_state
    logits = predict(bench.subject.model, *at, DATA.train.inputs[held])
    return 100 * np.mean(logits.argmax(-1) == DATA.train.labels[held])


def test_a_tenth_of_the_retain_set_is_kept_back(case):
    setting, request = guarded(guard_utility=70.0), case.request
    left, held = held_back(DATA, request, setting, 0)
    assert len(held) == round(0.1 * len(request.retain))
    assert not set(held) & set(left.retain)
    assert set(held) | set(left.retain) == set(request.retain)
    assert held_back(DATA, request, ASCENT, 0)[0] is request


def test_a_collapse_is_stopped_or_rolled_back(bench, case):
    original = bench.original(0)
    rest = {"case": case, "original": original, "keep": False}
    setting = guarded(guard_utility=70.0)
    plain = bench.unlearn("plain", ASCENT, **rest)
    assert utility(bench, case, setting, plain.trained) < 70
    assert "stopped" not in plain.notes
    stopped = bench.unlearn("stopped", setting, **rest)
    assert utility(bench, case, setting, stopped.trained) < 70
    told = stopped.notes["stopped"]
    assert told["step"] % 3 == 0
    assert told["reason"].endswith("is under 70 %")
    back = setting.but(guard_roll_back=True)
    rolled = bench.unlearn("rolled", back, **rest)
    assert rolled.notes["stopped"] == told
    assert utility(bench, case, setting, rolled.trained) >= 70


def test_forgetting_ends_at_the_endpoint(bench, case):
    original = bench.original(0)
    gentle = guarded(guard_endpoint=True).but(learning_rate=0.01)
    done = bench.unlearn("endpoint", gentle, case, original, keep=False)
    assert "has reached the unseen endpoint" in done.notes["stopped"]["reason"]


def test_a_guarded_run_that_was_cut_ends_where_it_would_have(bench, case, tmp_path):
    original = bench.original(0)
    setting = guarded(guard_utility=70.0, guard_roll_back=True)
    rest = {"case": case, "original": original}
    whole = bench.unlearn("whole", setting, **rest, keep=False)
    end = whole.notes["stopped"]["step"]

    def cut(label, done, total):
        if done == end - 1:
            raise KeyboardInterrupt

    path = tmp_path / "cut"
    first = Bench(PLAN, DATA, cut, folder=path, save_every=0)
    with pytest.raises(KeyboardInterrupt):
        first.unlearn("cut", setting, **rest)
    again = Bench(PLAN, DATA, folder=path, save_every=0).unlearn("cut", setting, **rest)
    assert again.notes["stopped"] == whole.notes["stopped"]
    trees_close(again.trained.params, whole.trained.params, rtol=0, atol=0)
    assert all(
        np.isfinite(leaf).all() for leaf in jax.tree.leaves(again.trained.params)
    )


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"guard_utility": 101.0}, "guard_utility=101"),
        ({"guard_every": 0}, "guard_every=0"),
        ({"guard_endpoint": True, "method": "ssd"}, "ssd takes no steps"),
        (
            {"guard_utility": 50.0, "method": "scrub", "rewind": True},
            "rewind=True chooses",
        ),
    ],
)
def test_guards_that_cannot_be(setting, words):
    with pytest.raises(InputError, match=words):
        Unlearning.of(**setting)
