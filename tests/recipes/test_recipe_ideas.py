"""Ideas to better partial reset: what each changes, and what a page tells of trials."""

import json
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_unlearn.data import digits
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Bench, Plan, Training
from jax_unlearn.recipes import ideas, pages, reset_shares, resets
from jax_unlearn.recipes.recipe import Asked, Screen

TRAINING = Training(network="small_cnn", width=2, epochs=8, batch_size=128)
BEST = {"share": 0.5, "shrink": 0.4, "perturb": 0.6, "rate": 1.0}


@pytest.fixture(scope="module")
def bench():
    plan = Plan("t", "random", 0.1, 1.0, 400, TRAINING, {}, (100, 101))
    return Bench(plan, digits())


def job_of(bench, idea, **options):
    case = bench.case(100)
    setting = resets.setting_of(idea, {**BEST, **options})
    return bench.prepared(setting, case, bench.original(100))


def test_the_plain_one_is_partial_reset(bench):
    from jax_unlearn.lab import Unlearning

    case, original = bench.case(100), bench.original(100)
    given = {**BEST, "rate": 1.0}
    own = bench.unlearn("a", resets.setting_of(resets.PLAIN, given), case, original)
    setting = Unlearning.of(method="partial_reset", **given)
    card = bench.unlearn("b", setting, case, original)
    pairs = zip(*map(jax.tree.leaves, (own.trained[:2], card.trained[:2])), strict=True)
    for one, other in pairs:
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_rates_rise_and_fall():
    rates = resets.annealed(2.0, 10, warm=0.3)
    assert np.argmax(rates) == 3
    assert rates.max() == 2.0
    assert (np.diff(rates[3:]) < 0).all()
    assert resets.annealed(1.0, 4)[0] == 1.0
    assert resets.annealed(1.0, 100, end=0.25)[-1] == pytest.approx(0.25, abs=1e-3)


def test_layers_are_as_deep_as_they_lie():
    layer = {"conv": {"kernel": 0.0}, "norm": {"scale": 0.0}}
    params = {"stem": layer, "block1": layer, "head": {"kernel": 0.0}}
    by_path = dict(zip(resets._paths(params), resets.depths(params), strict=True))
    assert {by_path[path] for path in by_path if "stem" in path} == {0.0}
    assert {by_path[path] for path in by_path if "block1" in path} == {0.5}
    assert {by_path[path] for path in by_path if "head" in path} == {1.0}


def test_ideas_of_the_start_move_the_leaves_they_name(bench):
    plain = job_of(bench, resets.PLAIN).start[0]
    original = bench.original(100).params
    kept = job_of(bench, "normalisation kept").start[0]
    new = job_of(bench, "head new").start[0]
    old = {"norm": original["block1"]["norm"], "conv": plain["block1"]["conv"]}
    assert jax.tree.all(jax.tree.map(jnp.array_equal, kept["block1"], old))
    assert not jnp.array_equal(new["head"]["kernel"], plain["head"]["kernel"])
    assert jnp.array_equal(new["block1"]["conv"]["kernel"], old["conv"]["kernel"])
    falling = job_of(bench, "λ falling by layer", strength=0.8).start[0]
    fresh = job_of(bench, resets.PLAIN, shrink=0.0, perturb=1.0).start[0]

    def shares(start: Any, layer: str) -> float:
        kernel, whole = start[layer]["kernel"], original[layer]["kernel"]
        left = kernel - 0.6 * fresh[layer]["kernel"]
        return float(jnp.vdot(left, whole) / jnp.vdot(whole, whole))

    assert shares(falling, "head") == pytest.approx(0.4 * 0.2, abs=1e-4)
    assert shares(plain, "head") == pytest.approx(0.4, abs=1e-4)


@pytest.mark.parametrize("idea", resets.IDEAS)
def test_every_idea_runs_at_the_same_cost(bench, idea):
    changes = resets.IDEAS[idea].tried[0]
    if idea.endswith("at the end"):
        job = job_of(bench, idea, **{**changes, "share": 1.0})
        assert job.start is not None  # where partial reset has ended
        assert 1 <= job.steps <= 32  # a tenth or a quarter of eight passes
        return
    if idea == "reset transport":
        job = job_of(bench, idea, **changes)
        # of half of eight passes; batches of 60 forget and 64 retain samples
        assert job.steps == int((1 - changes["strength"]) * 0.5 * 8 * 540 / 124)
        chex.assert_trees_all_equal(job.start[0], bench.original(100).params)
        return
    spent = reset_shares.COST * reset_shares.STEPS if "learned" in idea else 0
    share = 1.0 if spent else 0.5  # λ is paid for first
    job = job_of(bench, idea, **{"share": share, **changes})
    steps = 8 * share * -(-540 // changes.get("batch", 128)) - spent  # of eight passes
    assert job.steps == steps // (2 if "unseen" in idea else 1)
    if idea in ("distilling on unseen", "EMA", "distilling on D_r"):
        case, original = bench.case(100), bench.original(100)
        setting = resets.setting_of(idea, {**BEST, **changes})
        found = bench.unlearn(idea, setting, case, original, keep=False).trained
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found.params))


def figures(gap: float) -> dict[str, float]:
    return dict.fromkeys(ideas.FIGURES, gap)


def test_what_wins_is_run_again_and_told(tmp_path, monkeypatch):
    monkeypatch.setattr(ideas, "_GRID", ideas._GRID[:2])
    some = {name: resets.IDEAS[name] for name in ("EMA", "head new")}
    for module in (ideas, resets):
        monkeypatch.setattr(module, "IDEAS", some)
    path = tmp_path / "trials" / "random10-20.json"
    trials, ran = ideas.Trials(None, path), []

    def trial(self, idea, options, seed):
        ran.append((idea, seed))
        gap = {"EMA": 1.0 + (seed % 2) / 50, "head new": 3.0}.get(idea, 2.0)
        rows = self.found.setdefault("trials", {}).setdefault(idea, {})
        row = rows.setdefault(json.dumps(options, sort_keys=True), {})
        row[str(seed)] = figures(gap)
        for key in ("null", "original", "retrained"):
            self.found.setdefault(key, {})[str(seed)] = figures(1.0)

    monkeypatch.setattr(ideas.Trials, "__call__", trial)
    said: list[str] = []
    ideas.run_part(trials, 0.2, said.append, some)
    assert {idea for idea, seed in ran if seed >= 300} == {"Partial reset", "EMA"}
    path.parent.mkdir()
    path.write_text(json.dumps(trials.found))
    ideas.write(tmp_path, digits(), TRAINING)
    found = json.loads((tmp_path / "results.json").read_text())
    told = ideas.compared(found["parts"]["random10-20"])
    assert told["EMA"]["fresh"] == pytest.approx(-0.992)
    assert "fresh" not in told["head new"]
    rows = dict(ideas.tried(found))
    assert rows["head new"] == ["+1.00"]
    assert rows["EMA"][0].startswith("**−0.99 → −0.99")
    page = pages.page_of(ideas.IDEAS_DIGITS, found).text
    assert "| EMA | **−0.99 → −0.99 (p 0.00)** |" in page


def test_an_unknown_part_is_named(tmp_path):
    screen = Screen(*(lambda *_: None,) * 4)
    with pytest.raises(InputError, match="unknown part 'random10-7'"):
        ideas.IDEAS_DIGITS.run(Asked(screen, out=tmp_path, parts=("random10-7",)))
    with pytest.raises(InputError, match="has its own; leave it out"):
        ideas.IDEAS_DIGITS.run(Asked(screen, out=tmp_path, seeds=(1,)))
