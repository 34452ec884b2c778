"""Settings become the unlearners they name; two requests share one program."""

from typing import Any

import jax
import numpy as np
import pytest
from toys import trees_close

from jax_unlearn.data import digits, forget_split, holdout, to_ids
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Request, Training, Unlearning
from jax_unlearn.lab.job import Trained, execute
from jax_unlearn.lab.prepare import Preparer, accessible
from jax_unlearn.lab.refusals import check_unseen
from jax_unlearn.lab.subject import Trainer, subject_of
from jax_unlearn.methods.ltu import ATTACKS

DATA = digits()


def request(seed: int) -> Request:
    trained, unseen = holdout(DATA.train.labels, fraction=0.2, seed=seed)
    split = forget_split(DATA.train.labels[trained], fraction=0.1, seed=seed)
    split = to_ids(split, trained)
    return Request(split.forget, split.retain, unseen)


@pytest.fixture(scope="module")
def subject():
    return subject_of(Training(network="mlp", width=6), DATA)


@pytest.fixture(scope="module")
def original(subject):
    params, state = jax.jit(subject.model.init)(
        jax.random.key(0), DATA.train.inputs[:2]
    )
    return Trained(params, state, {})


def test_a_second_request_runs_the_program_of_the_first(subject, original):
    preparer = Preparer(subject)
    setting = Unlearning.of(
        method="salun", weighting="falw", estimator="anchored", epochs=1, batch_size=400
    )
    jobs: list[Any] = [preparer(setting, request(s), original, seed=s) for s in (0, 1)]
    assert jobs[0].unlearner.step is jobs[1].unlearner.step
    states = [j.unlearner.init(original.params, original.model_state) for j in jobs]
    masks = [jax.tree.leaves(state.opt_state) for state in states]
    assert any(
        not np.array_equal(a, b) for a, b in zip(*masks, strict=True) if a.dtype == bool
    )
    key = jax.random.key(0)
    done = [execute(j, original[:2], key) for j in jobs]
    assert done[1].seconds["compile"] < done[0].seconds["compile"]


@pytest.mark.parametrize("switch", [{"microbatch": 64}, {"remat": True}])
def test_memory_switches_change_no_result(subject, original, switch):
    preparer = Preparer(subject)
    plain = Unlearning.of(
        weighting="loreun", epochs=1, batch_size=200, learning_rate=0.1
    )
    key, at = jax.random.key(0), original[:2]
    done = [
        execute(preparer(setting, request(0), original, seed=0), at, key)
        for setting in (plain, plain.but(**switch))
    ]
    trees_close(done[1].params, done[0].params, rtol=1e-5, atol=1e-6)
    moved = jax.tree.map(np.subtract, done[0].params, original.params)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(moved)) > 1e-2


def test_a_second_setting_alike_runs_the_program_of_the_first_microbatched(
    subject, original
):
    preparer = Preparer(subject)
    setting = Unlearning.of(epochs=1, batch_size=400, microbatch=100, remat=True)
    jobs: list[Any] = [preparer(setting, request(s), original, seed=s) for s in (0, 1)]
    assert jobs[0].unlearner.step is jobs[1].unlearner.step


def test_a_forget_class_without_unseen_samples_is_named():
    forget = np.flatnonzero(DATA.train.labels == 3)[:4]
    unseen = np.flatnonzero(DATA.train.labels != 3)[:9]
    asked = Request(forget, unseen[:0], unseen)
    with pytest.raises(InputError, match="class 3"):
        check_unseen(DATA, asked, Unlearning.of(weighting="falw"))
    check_unseen(DATA, asked, Unlearning.of(method="ltu"))  # any unseen samples will do


def test_a_method_that_compares_with_unseen_samples_needs_some():
    asked = request(0)._replace(unseen=np.arange(0))
    with pytest.raises(InputError, match="method='ltu' .* there are 0"):
        check_unseen(DATA, asked, Unlearning.of(method="ltu"))
    check_unseen(DATA, asked, Unlearning.of())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rho": 0.0}, r"rho=0.0 must lie in \(0, 1\]"),
        ({"rho": 1.5}, "rho=1.5"),
        ({"method": "ltu", "attacks": ("logistic",)}, "needs 2 or more membership"),
        ({"method": "ltu", "attacks": ("lira", "logistic")}, "attacks 'lira'"),
        ({"method": "ltu", "strategies": ()}, "needs one or more"),
        ({"method": "ltu", "batch_size": 3}, "less than the 4 attacks"),
        ({"method": "ltu", "inner_rate": -1.0}, "inner_rate=-1.0"),
        ({"harmonizer": "one_way"}, "needs method='ltu'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        Unlearning.of(**options)


def test_a_share_of_the_retain_set_too_small_for_its_classes_is_refused():
    with pytest.raises(InputError, match="rho=0.005"):
        accessible(DATA, request(0), 0.005, 0)


def test_every_method_of_a_seed_reads_the_same_share(subject, original):
    preparer = Preparer(subject)
    asked = request(0)
    subset = accessible(DATA, asked, 0.3, seed=0).retain
    assert len(subset) == round(0.3 * len(asked.retain))
    setting = Unlearning.of(rho=0.3, epochs=1)
    job: Any = preparer(setting, asked, original, seed=0)
    seen = {
        int(i) for batch in job.schedule for i in batch.retain.index[batch.retain.mask]
    }
    assert seen == set(subset.tolist())


@pytest.fixture(scope="module")
def overfitted():
    """Return a request and a model that knows its training samples by heart."""
    trained, unseen = holdout(DATA.train.labels, count=700, seed=5)
    split = forget_split(DATA.train.labels[trained], fraction=0.2, seed=5)
    split = to_ids(split, trained)
    training = Training(network="mlp", width=64, epochs=60, weight_decay=0.0)
    wide = subject_of(training, DATA)
    model = Trainer(wide, training)(trained, seed=5)
    return wide, Request(split.forget, split.retain, unseen), model


def test_ltu_learns_its_attacks_and_shares_its_program(overfitted):
    subject, asked, model = overfitted
    preparer = Preparer(subject)
    base = {"method": "ltu", "query_size": 8, "batch_size": 32, "epochs": 1}
    slow: Any = preparer(Unlearning.of(**base, rho=0.3), asked, model, seed=0)
    fast: Any = preparer(
        Unlearning.of(**base, learning_rate=1.0, rho=0.6), asked, model, seed=1
    )
    assert slow.unlearner.step is fast.unlearner.step  # rate and rho are in the state
    assert len(fast.schedule) == 2 * len(slow.schedule)
    assert len(slow.schedule[0].retain.labels) == 5 * 8
    attacks, gaps = slow.details["attacks"], slow.details["gaps"]
    assert list(attacks) == list(ATTACKS)
    assert any(found["better_than_chance"] for found in attacks.values())
    assert gaps["class_skewed"]["labels"] > gaps["support"]["labels"]
    key = jax.random.key(0)
    first = execute(slow, model[:2], key)
    second = execute(fast, model[:2], key)
    assert second.seconds["compile"] < first.seconds["compile"] / 2
    moved = [
        float(abs(a - b).max())
        for run in (first, second)
        for a, b in [(run.params["head"]["kernel"], model.params["head"]["kernel"])]
    ]
    assert 0 < moved[0] < moved[1]


def test_attacks_may_learn_from_shadow_models(overfitted):
    subject, asked, model = overfitted
    preparer = Preparer(subject)
    names = ("gaussian_ratio", "gaussian_ratio", "logistic")
    setting = Unlearning.of(method="ltu", attacks=names, shadows=2, query_size=8)
    found = preparer(setting, asked, model, seed=0).details["attacks"]
    assert list(found) == ["gaussian_ratio", "gaussian_ratio 2", "logistic"]
    assert found["gaussian_ratio"]["better_than_chance"]
    # judged on all samples of the model itself, not on a held-out half
    setting = setting.but(shadows=0)
    alone = preparer(setting, asked, model, seed=0).details["attacks"]
    errors = [a["gaussian_ratio"]["standard_error"] for a in (found, alone)]
    assert errors[0] < 0.8 * errors[1]


def test_a_model_that_gives_nothing_away_is_no_case_for_ltu(subject, original):
    preparer = Preparer(subject)
    with pytest.raises(InputError, match="none is better than chance .*logistic"):
        preparer(Unlearning.of(method="ltu"), request(0), original, seed=0)
