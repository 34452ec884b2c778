"""Trials in optuna's storage: by number, by many at once, taken over when killed."""

import json
import os
import subprocess
import sys
import threading

import pytest
from optuna.trial import TrialState

from jax_unlearn.errors import InputError
from jax_unlearn.lab import Unlearning
from jax_unlearn.lab import trials as trials_of
from jax_unlearn.lab.modalities.language.settings import LanguageTraining
from jax_unlearn.lab.space import Range, Space
from jax_unlearn.lab.trials import Spread, begun, storage_of, values_of, work

SPACE = Space.of(Unlearning.of(method="finetune"))
RECORD = {"by": "gap", "seeds": (1, 2)}


def opened(place, space=SPACE, seed=0):
    sampler = Spread(space, seed)
    return begun(storage_of(place), "ft", RECORD, sampler, where=place)


def measure(values, seed):
    return {"gap": abs(values["learning_rate"] - 0.2) + 0.01 * seed}


def run(study, wanted, measure=measure, space=SPACE, seeds=(1, 2)):
    work(study, space, wanted, seeds, measure)
    ended = study.get_trials(states=trials_of.ENDED)
    return [(values_of(space, t.params), t.state, t.value) for t in ended]


@pytest.fixture(params=["journal", "sqlite"])
def place(request, tmp_path):
    named = {"journal": tmp_path / "j", "sqlite": f"sqlite:///{tmp_path / 's.db'}"}
    return named[request.param]


def test_a_study_gone_on_with_makes_the_trials_of_one_run(tmp_path, place):
    whole = run(opened(tmp_path / "whole"), 14)
    assert len(whole) == 14
    assert whole[0][0] == {"learning_rate": 0.1, "epochs": 8}  # the cards' middle
    assert len({json.dumps(values) for values, *_ in whole}) == 14
    made = []

    def counted(values, seed):
        made.append((json.dumps(values), seed))
        return measure(values, seed)

    assert run(opened(place), 5, counted) == whole[:5]
    assert run(opened(place), 14, counted) == whole
    assert len(made) == len(set(made))  # none twice
    assert run(opened(place), 3, counted) == whole  # nor fewer
    assert run(opened(tmp_path / "other", seed=1), 5) != whole[:5]


def test_a_trial_without_promise_is_stopped_between_seeds(tmp_path):
    study, made = opened(tmp_path / "j"), []

    def worse(values, seed):
        made.append(seed)
        return {"gap": float(len(made))}

    states = [state for *_, state, _ in run(study, 8, worse)]
    pruned = states.count(TrialState.PRUNED)
    assert pruned == 4
    assert states[:4] == [TrialState.COMPLETE] * 4
    assert made.count(2) == 8 - pruned
    assert study.best_value == 1.5


def test_what_diverges_is_worst_and_not_made_on_other_seeds(tmp_path):
    study, made = opened(tmp_path / "j"), []

    def diverging(values, seed):
        made.append(seed)
        return None if len(made) == 1 else measure(values, seed)

    found = run(study, 3, diverging)
    assert found[0][1:] == (TrialState.PRUNED, None)
    assert made == [1, 1, 2, 1, 2]


def test_workers_at_once_make_as_many_as_wanted(place):
    made, flaws = [], []
    gate = threading.Barrier(3)
    studies = [opened(place) for _ in range(3)]

    def one(study):
        def counted(values, seed):
            made.append((json.dumps(values), seed))
            return measure(values, seed)

        try:
            gate.wait()
            work(study, SPACE, 7, (1, 2), counted)
        except BaseException as error:
            flaws.append(error)

    threads = [threading.Thread(target=one, args=(study,)) for study in studies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not flaws
    assert len(studies[0].get_trials(states=trials_of.ENDED)) == 7
    assert len(made) == len(set(made))
    assert not studies[0].get_trials(states=(TrialState.RUNNING, TrialState.WAITING))


def test_a_killed_workers_trial_is_gone_on_with(place):
    study = opened(place)
    trial = study.ask(trials_of.distributions(SPACE))
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    told = {"here": trials_of._here(), "pid": done.pid, "at": 2e9}
    trial.set_user_attr("alive", told)
    trial.set_user_attr("seed 1", {"gap": 7.0})
    made = []

    def counted(values, seed):
        made.append(seed)
        return measure(values, seed)

    found = run(opened(place), 1, counted)
    assert made == [2]  # the first seed was made before
    assert found[0][0] == values_of(SPACE, trial.params)
    assert found[0][2] == pytest.approx((7.0 + measure(found[0][0], 2)["gap"]) / 2)


def test_what_others_make_is_waited_for(tmp_path, monkeypatch):
    study = opened(tmp_path / "j")
    trial = study.ask(trials_of.distributions(SPACE))
    told = {"here": ["elsewhere", 1], "pid": os.getpid(), "at": trials_of.time.time()}
    trial.set_user_attr("alive", told)
    looks = []

    def look():
        looks.append(1)
        if len(looks) == 2:
            study.tell(trial, 3.0)

    monkeypatch.setattr(trials_of, "POLL", 0.01)
    work(opened(tmp_path / "j"), SPACE, 1, (1, 2), measure, look=look)
    assert len(looks) >= 2
    assert study.best_value == 3.0
    monkeypatch.setattr(trials_of, "GRACE", -1.0)  # it has not been heard of since
    silent = study.ask(trials_of.distributions(SPACE))
    silent.set_user_attr("alive", told)
    assert len(run(opened(tmp_path / "j"), 2)) == 2
    assert study.trials[silent.number].state == TrialState.FAIL


def test_an_interrupted_trial_is_passed_on_at_once(place):
    made = []

    def interrupted(values, seed):
        made.append(seed)
        if len(made) == 4:
            raise KeyboardInterrupt
        return measure(values, seed)

    with pytest.raises(KeyboardInterrupt):
        run(opened(place), 3, interrupted)
    whole = run(opened(place), 3, interrupted)
    assert len(whole) == 3
    assert made == [1, 2, 1, 2, 2, 1, 2]


def test_half_a_line_of_a_killed_process_is_cut_off(tmp_path):
    place = tmp_path / "j"
    whole = run(opened(place), 2)
    with place.open("ab") as file:
        file.write(b'{"op_code":5,"wor')
    assert run(opened(place), 3)[:2] == whole


def test_other_settings_are_refused_and_named(place):
    opened(place)
    record = {**RECORD, "seeds": (1, 3)}
    with pytest.raises(InputError, match=r"seeds was \[1, 2\], is \[1, 3\]"):
        begun(storage_of(place), "ft", record, Spread(SPACE, 0), where=place)
    begun(storage_of(place), "another", record, Spread(SPACE, 0), where=place)


def test_a_search_from_before_a_training_had_some_fields_is_gone_on_with(place):
    now = vars(LanguageTraining())
    then = {k: v for k, v in now.items() if not k.startswith("lora")}
    given = storage_of(place), "npo"
    for training in (then, now):
        begun(*given, {"training": training}, Spread(SPACE, 0), where=place)
    other = {"training": {**now, "lora": 4, "start": "base"}}
    with pytest.raises(InputError, match="lora"):
        begun(*given, other, Spread(SPACE, 0), where=place)


@pytest.mark.parametrize("kind", ["foreign", "url", "folder", "driver"])
def test_what_is_no_study_is_refused(tmp_path, kind):
    path = tmp_path / "notes.json"
    path.write_text('{"mine": 1}')
    place = {
        "foreign": path,
        "url": "sqlite:////nowhere/at/all.db",
        "folder": tmp_path,
        "driver": "nosuch://host/db",
    }[kind]
    with pytest.raises(InputError, match="cannot be opened"):
        storage_of(place)
    assert path.read_text() == '{"mine": 1}'


def test_a_space_of_few_settings_is_tried_whole(tmp_path):
    setting = Unlearning.of(method="finetune", learning_rate=0.5)
    space = Space.of(setting)
    assert space.ranges == {"epochs": Range(3, 8, whole=True)}
    assert Spread(space, 0).count(20) == 6
    found = run(opened(tmp_path / "j", space), 6, lambda v, s: {"gap": 1.0 * s}, space)
    assert sorted(values["epochs"] for values, *_ in found) == list(range(3, 9))


def test_choices_of_any_type_come_back(tmp_path):
    setting = Unlearning.of(method="influence")
    space = Space.of(setting)
    found = run(opened(tmp_path / "j", space), 5, lambda v, s: {"gap": s}, space)
    assert {values["form"] for values, *_ in found} <= {"published", "exact"}
    for values, *_ in found:
        assert space.setting(values).options.strength == values["strength"]
        assert 1.0 <= values["strength"] <= 100.0
        assert values["strength"] == float(f"{values['strength']:.3g}")
    odd = Space(setting, {}, {"x": (None, (1, 2), True)}, {"x": None})
    stored = {"x": json.dumps((1, 2))}
    assert values_of(odd, stored) == {"x": (1, 2)}
