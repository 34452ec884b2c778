"""Jobs whole on the device: the models of the usual way, programs shared."""

import threading

import jax
import numpy as np
import pytest

from jax_unlearn.data import digits, subset
from jax_unlearn.errors import NonFiniteError
from jax_unlearn.lab import Plan, Training, Unlearning
from jax_unlearn.lab.bench import Bench
from jax_unlearn.lab.device import Device

DATA = subset(digits(), train=300, test=50)
METHODS = {
    "RL": Unlearning.of(method="random_label", epochs=1),
    "Short Retrain": Unlearning.of(method="short_retrain", share=0.5),
}
PLAN = Plan(
    "digits", "random", 0.1, 1.0, 50, Training("linear", epochs=2), METHODS, (0, 1)
)


@pytest.fixture(scope="module")
def device():
    return Device(DATA.train, whole=True)


@pytest.fixture(scope="module")
def whole(device):
    return Bench(PLAN, DATA, execute=device)


def distance(one, other):
    pairs = zip(jax.tree.leaves(one[:2]), jax.tree.leaves(other[:2]), strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


def test_the_models_are_those_of_step_by_step(whole):
    plain = Bench(PLAN, DATA)
    original = whole.original(0)
    assert distance(original, plain.original(0)) < 1e-6
    case = whole.case(0)
    for label, setting in METHODS.items():
        made = [
            bench.unlearn(label, setting, case, original).trained
            for bench in (whole, plain)
        ]
        assert distance(*made) < 1e-6
        assert distance(made[0], original) > 1e-4


def test_a_second_seed_compiles_nothing(whole, device):
    case = whole.case(0)
    first = whole.retrained(case), whole.null(case)
    count = len(device._ready)
    second = whole.retrained(whole.case(1))
    assert len(device._ready) == count
    assert distance(first[0], first[1]) > 0
    assert distance(first[0], second) > 0


def test_what_is_compiled_ahead_is_what_runs(whole, device):
    setting = Unlearning.of(method="finetune", epochs=1)
    original, case = whole.original(0), whole.case(0)

    def call():
        job = whole.prepared(setting, case, original)
        return device.call(job, original[:2], jax.random.key(0))

    form = device.ahead(call).result().form
    count = len(device._ready)
    made = whole.unlearn("FT", setting, case, original)
    assert form in device._ready
    assert len(device._ready) == count
    assert made.trained.seconds["compile"] < 0.5


def test_speed_counts_samples_and_operations(whole, device):
    job = whole.prepared(METHODS["RL"], whole.case(0), whole.original(0))
    call = device.call(job, whole.original(0)[:2], jax.random.key(0), steps=2)
    found = device.speed(call, turns=1)
    assert found["samples_a_step"] == sum(
        len(part.labels) for part in job.schedule[0] if part is not None
    )
    rate = found["samples_a_step"] / found["milliseconds_a_step"]
    assert found["samples_per_second"] == pytest.approx(1e3 * rate)
    # a linear network: a product forward, and one for the gradient of its weights
    assert found["flops_a_step"] == 2 * 2 * found["samples_a_step"] * 64 * 10
    assert found["share_of_peak"] is None  # of a CPU none is known


def test_divergence_is_told(whole):
    setting = METHODS["RL"].but(learning_rate=1e30)
    with pytest.raises(NonFiniteError):
        whole.unlearn("RL", setting, whole.case(0), whole.original(0), keep=False)


def test_nothing_is_compiled_after_the_end():
    own, gate = Device(DATA.train, whole=True), threading.Event()
    first = own.ahead(lambda: gate.wait(60))  # never a call: the thread is busy
    second = own.ahead(lambda: pytest.fail("prepared after the end"))
    own.close()
    gate.set()
    assert second.cancelled()
    assert first.exception() is not None
