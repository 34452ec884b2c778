"""Which method serves a request, and what auto makes of it."""

import jax
import numpy as np
import pytest
from toys import three_digits

from jax_unlearn.data import forget_split
from jax_unlearn.drivers.series import Series
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Request, Training, Unlearning, choose, context
from jax_unlearn.lab.choose import ALONE, HAVE, NOTHING, Row, best, choice, kind_of
from jax_unlearn.lab.job import Trained, execute
from jax_unlearn.lab.modalities import modality_named
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.rewinds import Origin
from jax_unlearn.lab.subject import Trainer, subject_of

KIND, DIFFUSION = modality_named("classification"), modality_named("diffusion")
LABELS = np.tile(np.arange(10), 60)


def row(have, method, budget=0.2, request="random10", distance=1.0, **setting):
    told = request, budget, have, method, method, setting, distance, "study"
    return Row(*told)


@pytest.fixture
def known(monkeypatch):
    rows = (
        row("record", "partial_reset"),
        row("record", "random_label", 0.01, learning_rate=0.1),
        row("unseen", "regun", distance=0.5, learning_rate=0.2),
        row("earlier", "rewind", distance=0.3),
        row("untrained", "neggrad_plus", 0.0),
        row("part", "finetune", learning_rate=0.3),
    )
    monkeypatch.setattr(choose, "rows", lambda: rows)


def asked(**how):
    split = forget_split(LABELS[:500], seed=0, num_classes=10, gamma=1.0, **how)
    return Request(split.forget, split.retain, np.arange(500, 600))


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ({"kind": "random", "fraction": 0.1}, "random10"),
        ({"kind": "random", "fraction": 0.02}, "random10"),
        ({"kind": "random", "fraction": 0.5}, "random50"),
        ({"kind": "long_tailed", "fraction": 0.3}, "gamma-1"),
        ({"kind": "class", "fraction": 1.0}, "class"),
    ],
)
def test_a_request_is_of_the_kind_that_it_looks_like(how, kind):
    assert kind_of(asked(**how), LABELS) == kind


@pytest.mark.parametrize(
    ("told", "method"),
    [
        ({"budget": 0.3, "rate": 0.1}, "regun"),  # there are unseen samples
        ({"budget": 0.3, "rate": 0.1, "earlier": "states"}, "rewind"),
        ({"budget": 0.01, "rate": 0.1}, "random_label"),
        ({"budget": 0.3}, "neggrad_plus"),
        ({"budget": 0.3, "rate": 0.1, "rho": 0.1}, "finetune"),
    ],
)
def test_the_method_follows_from_budget_and_what_there_is(known, told, method):
    found = choice(asked(kind="random", fraction=0.1), LABELS, KIND, **told)
    assert found.method == method
    assert "nearest to Retrain" in found.why[0]
    assert "study" in found.why[0]


def test_rates_are_those_of_the_study_in_units_of_the_training(known):
    request = asked(kind="random", fraction=0.1)._replace(unseen=np.zeros(0, int))
    found = choice(request, LABELS, KIND, budget=0.01, rate=0.02)
    assert found.method == "random_label"
    assert found.setting["learning_rate"] == pytest.approx(0.02)
    assert choice(request, LABELS, KIND, budget=0.3, rate=0.1).method == "partial_reset"
    assert best("near", 0.3, ["record"]) is None


def test_without_a_study_the_usual_is_taken_and_said(monkeypatch):
    monkeypatch.setattr(choose, "rows", tuple)
    request = asked(kind="random", fraction=0.1)
    assert choice(request, LABELS, KIND, budget=0.3, rate=0.1).method == "partial_reset"
    found = choice(request, LABELS, KIND, budget=0.3)
    assert found.method == "scrub"
    assert "no record says how the original was trained" in found.why[0]
    found = choice(request, LABELS, DIFFUSION, budget=0.3, rate=0.1)
    assert found.method == "random_label"
    assert "diffusion" in found.why[0]


def test_requests_like_or_unlike_all_others_are_told_by_their_features(monkeypatch):
    rows = (
        row("record", "partial_reset"),
        row("record", "gradient_ascent", request="near"),
        row("record", "msg", request="far"),
    )
    monkeypatch.setattr(choose, "rows", lambda: rows)
    request = asked(kind="random", fraction=0.1)
    draws = np.random.default_rng(0).normal(size=(600, 4))
    spread = {"near": 0.01, "random": 1.0, "far": 20.0}
    methods = {"near": "gradient_ascent", "random": "partial_reset", "far": "msg"}
    for name, scale in spread.items():
        features = draws.copy()
        features[request.forget] *= scale
        told = {"budget": 0.2, "rate": 0.1, "features": features.__getitem__}
        found = choice(request, LABELS, KIND, **told)
        assert found.method == methods[name]
        assert ("by its features" in found.why[0]) == (name != "random")
    few = request._replace(forget=request.forget[:5])  # say nothing
    features[few.forget] *= 20
    assert choice(few, LABELS, KIND, **told).method == "partial_reset"
    del told["features"]
    assert choice(request, LABELS, KIND, **told).method == "partial_reset"


def test_the_package_has_the_rows_of_the_studies():
    for one in choose.rows():
        assert one.have in HAVE
        assert one.request in choose.REQUESTS
        if one.label == NOTHING:  # which `auto` is never told
            assert (one.method, one.setting, one.have) == ("", {}, ALONE)
            continue
        setting = Unlearning.of(**{**one.setting, "method": one.method})
        assert setting.card.label


@pytest.fixture(scope="module")
def world():
    training = Training(network="linear", epochs=10, batch_size=32, learning_rate=0.1)
    dataset = three_digits(200, 30)
    subject, trained = subject_of(training, dataset), np.arange(150)
    split = forget_split(dataset.train.labels[:150], fraction=0.1, seed=0)
    request = Request(split.forget, split.retain, np.arange(150, 200))
    original = Trainer(subject, training)(trained, seed=0)
    return subject, request, original, Origin(training, 0)


def made(world, **told):
    subject, request, original, origin = world
    origin = told.pop("origin", origin)
    request = told.pop("request", request)
    given = {"seed": 1, "origin": origin, "series": told.pop("series", None)}
    setting = Unlearning.of(method="auto", **told)
    job = Preparer(subject)(setting, request, original, **given)
    return job, execute(job, original[:2], jax.random.key(1))


def test_auto_is_partial_reset_at_the_budget(world):
    job, found = made(world, budget=0.5)
    told = job.details["chosen"]
    assert told["method"] == "partial_reset"
    assert job.steps == 25  # of 50: 5 batches of 135 in 10 epochs
    known = {k: told["setting"][k] for k in ("shrink", "perturb")}
    assert known["perturb"] is None  # as the study of the frontier says
    setting = {"method": "partial_reset", **known}
    subject, request, original, origin = world
    same = Preparer(subject)(
        Unlearning.of(budget=0.5, **setting), request, original, seed=1, origin=origin
    )
    again = execute(same, original[:2], jax.random.key(1))
    for one, other in zip(*map(jax.tree.leaves, (found[0], again[0])), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    assert "follows from the budget" in told["why"][1]


def test_attempts_stay_within_the_budget_and_tell_their_interval(world):
    job, found = made(world, budget=0.5, attempts=3)
    told = job.details["chosen"]
    assert len(told["tried"]) == len(told["seconds"]) == 3
    assert told["setting"]["share"] * 3 <= 0.5
    low, high = told["interval"]
    assert low < high == pytest.approx(told["setting"]["shrink"], abs=1e-4)
    assert "attempts" in told["why"][1]
    assert isinstance(found, Trained)
    with pytest.raises(InputError, match="fewer than attempts"):
        made(world, budget=0.02, attempts=3)


def test_attempts_of_a_killed_run_are_not_made_again(world, tmp_path, monkeypatch):
    real, runs = context.execute, []

    def killed(*given, **told):
        runs.append(told["series"])
        if len(runs) == 3:
            raise KeyboardInterrupt
        return real(*given, **told)

    told = {"budget": 0.5, "attempts": 3, "series": Series(tmp_path / "run", {})}
    monkeypatch.setattr(context, "execute", killed)
    with pytest.raises(KeyboardInterrupt):
        made(world, **told)
    assert len(runs) == 3
    assert None not in runs
    _, again = made(world, **told)
    assert len(runs) == 4  # the third alone
    _, once = made(world, budget=0.5, attempts=3)
    for one, other in zip(*map(jax.tree.leaves, (again[0], once[0])), strict=True):
        np.testing.assert_array_equal(one, other)
    other = Series(tmp_path / "run", {})
    with pytest.raises(InputError, match="another setting"):
        made(world, budget=0.4, attempts=3, series=other)


def test_few_unseen_samples_judge_nothing(world):
    request = world[1]._replace(unseen=np.arange(150, 155))
    job, _ = made(world, budget=0.5, attempts=3, request=request)
    told = job.details["chosen"]
    assert "too few to judge attempts" in told["why"][1]
    assert "tried" not in told


def test_another_method_keeps_the_budget_and_says_why(world, known):
    request = world[1]._replace(unseen=np.zeros(0, int))
    job, _ = made(world, budget=0.1, request=request)
    assert job.details["chosen"]["method"] == "partial_reset"  # nearest in the log
    job, _ = made(world, budget=0.04, batch_size=8, request=request)
    told = job.details["chosen"]
    assert told["method"] == "random_label"
    assert 0 < told["cost"] <= 0.04
    assert told["setting"] == {"learning_rate": 0.1}
    job, _ = made(world, budget=0.03, request=request)  # a batch of 64 is too much
    told = job.details["chosen"]
    assert told["method"] == "partial_reset"
    assert "is less than random_label takes at least" in told["why"][1]


def test_without_a_record_of_the_training_another_method_serves(world):
    job, _ = made(world, origin=None, epochs=1)
    told = job.details["chosen"]
    assert told["method"] == "scrub"
    assert "no record" in told["why"][0]
    with pytest.raises(InputError, match="leave --budget out"):
        made(world, origin=None, budget=0.2)
