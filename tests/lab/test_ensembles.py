"""Ensembles on disk: the models that single runs make, none made twice."""

import dataclasses
import json
import re
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from toys import small_plan, three_digits

from jax_unlearn.data import Dataset
from jax_unlearn.drivers.loop import predict
from jax_unlearn.drivers.series import Series
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Plan, Training, Unlearning, draw_request
from jax_unlearn.lab.ensemble_models import RETRAIN_SEED, Maker
from jax_unlearn.lab.ensembles import PARTS, Files, _unpack, run_ensembles
from jax_unlearn.lab.job import execute
from jax_unlearn.lab.plan import slug
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.subject import Trainer, subject_of

RL = {"RL + LoReUn": Unlearning.of(weighting="loreun", epochs=2, batch_size=32)}
SSD = {"SSD": Unlearning.of(method="ssd", batch_size=32, selection=2.0)}
TRAINING = Training(network="mlp", width=6, epochs=2, batch_size=32)


def plan(**changes) -> Plan:
    settings = {"unseen": 40, "training": TRAINING, "seeds": (3, 4)}
    return small_plan(**{**settings, **changes})


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return three_digits(140, 30)


def content(folder):
    """Return bytes and time of every file."""
    return {
        path.relative_to(folder).as_posix(): (
            path.read_bytes(),
            path.stat().st_mtime_ns,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def grown(dataset, tmp_path_factory):
    """Two models, then four and one more method, in one folder."""
    folder = tmp_path_factory.mktemp("ensembles")
    lines, phases = [], []

    def make(count, methods):
        return run_ensembles(
            plan(),
            dataset,
            folder,
            count=count,
            methods=methods,
            chunk=2,
            how="vmap",
            say=lines.append,
            progress=lambda *told: phases.append(told),
        )

    first, before = make(2, RL), content(folder)
    second = make(4, {**RL, **SSD})
    return folder, first, second, before, lines, phases


def alone(dataset, number):
    """Return the logits of one number's models, each made by itself."""
    request, _ = draw_request(plan(), dataset, 3)
    subject = subject_of(TRAINING, dataset)
    model, train = subject.model, Trainer(subject, TRAINING)
    everything = np.union1d(request.forget, request.retain)
    original = train(everything, seed=number)
    models = {
        "original": original,
        "retrain": train(request.retain, seed=RETRAIN_SEED + number),
    }
    for label, setting in {**RL, **SSD}.items():
        job = Preparer(subject)(setting, request, original, seed=number)
        models[label] = execute(job, original[:2], jax.random.key(number))
    inputs = {
        part: dataset.train.inputs[ids] for part, ids in request._asdict().items()
    }
    inputs["test"] = dataset.test.inputs
    return request, {
        role: {
            part: predict(model, each.params, each.model_state, values)
            for part, values in inputs.items()
        }
        for role, each in models.items()
    }


def test_the_models_are_those_that_single_runs_make(grown, dataset):
    _, _, found, *_ = grown
    request, expected = alone(dataset, 3)
    assert list(found.logits) == ["original", "retrain", *RL, *SSD]
    for role, parts in expected.items():
        for part in PARTS:
            got = found.logits[role][part]
            assert got.dtype == np.float32
            assert got.shape == (4, *parts[part].shape)
            np.testing.assert_allclose(got[3], parts[part], rtol=1e-3, atol=1e-3)
    for ids, own in zip(request, found.request, strict=True):
        np.testing.assert_array_equal(ids, own)
    for part, ids in request._asdict().items():
        np.testing.assert_array_equal(found.labels[part], dataset.train.labels[ids])
    np.testing.assert_array_equal(found.labels["test"], dataset.test.labels)


def test_no_two_models_are_alike(grown):
    _, _, found, *_ = grown
    flat = [
        logits["test"][i].reshape(-1)
        for logits in found.logits.values()
        for i in range(4)
    ]
    for i, one in enumerate(flat):
        for other in flat[:i]:
            assert np.abs(one - other).max() > 1e-3


def test_what_exists_is_not_made_again(grown):
    folder, first, second, before, lines, _ = grown
    after = content(folder)
    assert {name: after[name] for name in before} == before
    names = {f"models/{r}/000{i}.npz" for r in ("original", "retrain") for i in (0, 1)}
    assert set(before) == names | {f"models/rl-loreun/000{i}.npz" for i in (0, 1)}
    assert len(after) == 4 * 4  # and no temporary file
    for role, parts in first.logits.items():
        for part in PARTS:
            np.testing.assert_array_equal(parts[part], second.logits[role][part][:2])
        assert second.seconds[role] > first.seconds[role] > 0
    times = r"[0-9.]+ (s|min|h)"
    pattern = (
        f"models: about {times} \\(training {times}, unlearning {times}\\) with vmap, "
        "2 at a time"
    )
    assert re.fullmatch(f"2 {pattern}", lines[0])
    assert re.fullmatch(f"4 {pattern}; not counted: SSD", lines[1])
    assert len(lines) == 2


def test_progress_is_told_step_by_step(grown):
    *_, phases = grown
    steps = 2 * -(-100 // 32)  # of an original
    start = phases.index(("original", 0, steps))
    assert phases[start : start + steps + 1] == [
        ("original", n, steps) for n in range(steps + 1)
    ]
    assert [told[1:] for told in phases if told[0] == "SSD"] == 2 * [
        (0, 2),
        (1, 2),
        (2, 2),
    ]


def test_originals_that_lack_probes_alone_are_counted_as_no_trainings(
    grown, dataset, monkeypatch
):
    def estimate(maker, missing, methods, size):
        raise LookupError(missing)

    monkeypatch.setattr(Maker, "estimate", estimate)
    probed = dataclasses.replace(plan(), probes=("int8",))
    with pytest.raises(LookupError) as caught:
        run_ensembles(probed, dataset, grown[0], count=5, methods=RL)
    (missing,) = caught.value.args
    assert missing["original"] == [4]  # four are read
    assert missing["retrain"] == [0, 1, 2, 3, 4]


def test_nothing_to_make_says_and_costs_nothing(grown, dataset, monkeypatch):
    folder, first, *_ = grown
    before = content(folder)
    monkeypatch.delattr(Maker, "train")
    lines = []
    again = run_ensembles(
        plan(), dataset, folder, count=2, methods=RL, say=lines.append
    )
    assert lines == []
    assert content(folder) == before
    np.testing.assert_array_equal(
        again.logits["retrain"]["forget"], first.logits["retrain"]["forget"]
    )


def test_files_hold_no_pickle_and_the_arrays_of_originals(grown):
    folder = grown[0]
    record, arrays = _unpack((folder / "models/original/0001.npz").read_bytes())
    assert record["told"]["seed"] == 1
    assert record["told"]["training"]["width"] == 6
    assert {name for name in arrays if name in PARTS} == set(PARTS)
    assert sum(arrays[n].size for n in arrays if n.startswith("array-")) > 64 * 6
    record, arrays = _unpack((folder / "models/rl-loreun/0001.npz").read_bytes())
    assert record["told"]["unlearning"]["weighting"] == "loreun"
    assert set(arrays) == set(PARTS)


def damage(kind, path):
    data = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "flipped":
        place = data.index(b"retain.npy") + 400
        path.write_bytes(data[:place] + b"\xff" + data[place + 1 :])
    else:
        with path.open("wb") as file:
            np.savez(file, record=np.frombuffer(b"{}", np.uint8))


@pytest.fixture
def copy(grown, tmp_path):
    """Return a folder with the two first models, which a test may harm."""
    for name, (data, _) in grown[3].items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


@pytest.mark.parametrize("kind", ["truncated", "empty", "flipped", "another file"])
@pytest.mark.parametrize("name", ["original/0001", "rl-loreun/0000"])
def test_a_damaged_file_is_told_of_and_not_read(grown, copy, dataset, kind, name):
    path, lines = copy / "models" / f"{name}.npz", []
    request = grown[1].request
    files = Files(copy, plan(), dataset, request, RL, lines.append)
    role, number = ("original", 1) if "original" in name else ("RL + LoReUn", 0)
    found = files.read(role, number)
    assert found is not None
    np.testing.assert_array_equal(
        found[0]["test"], grown[1].logits[role]["test"][number]
    )
    assert lines == []
    damage(kind, path)
    assert files.read(role, number) is None
    assert re.match(f"{path} is damaged .*: making the model again$", lines[0])


def test_a_damaged_file_is_made_again(grown, copy, dataset):
    before, lines = content(copy), []
    damage("truncated", copy / "models/rl-loreun/0000.npz")
    found = run_ensembles(
        plan(), dataset, copy, count=2, methods=RL, how="vmap", say=lines.append
    )
    assert len(lines) == 2
    after = content(copy)
    changed = [name for name in before if before[name] != after[name]]
    assert changed == ["models/rl-loreun/0000.npz"]
    for role, parts in grown[1].logits.items():
        for part in PARTS:  # alone in its program: other rounding
            np.testing.assert_allclose(
                found.logits[role][part], parts[part], rtol=1e-3, atol=1e-3
            )


CHANGES = [
    ({"training": Training(network="mlp", width=6, epochs=3, batch_size=32)}, RL),
    ({"seeds": (5, 6)}, RL),
    ({}, {"RL + LoReUn": Unlearning.of(weighting="loreun", epochs=3, batch_size=32)}),
]


@pytest.mark.parametrize(("changes", "methods"), CHANGES)
def test_a_folder_of_another_setting_is_refused(copy, dataset, changes, methods):
    before = content(copy)
    with pytest.raises(InputError, match=r"^\S+npz was made with another setting"):
        run_ensembles(plan(**changes), dataset, copy, count=3, methods=methods)
    assert content(copy) == before


def test_other_data_are_refused_and_settings_unknown_then_are_defaults(copy, dataset):
    labels = dataset.train.labels.copy()
    labels[0] = (labels[0] + 1) % 3
    other = dataset._replace(train=dataset.train._replace(labels=labels))
    with pytest.raises(InputError, match="data set; choose another folder"):
        run_ensembles(plan(), other, copy, count=2, methods=RL)
    for path in copy.glob("models/rl-loreun/*.npz"):
        record, arrays = _unpack(path.read_bytes())
        del record["told"]["unlearning"]["momentum"]  # of an older version
        text = np.frombuffer(json.dumps(record).encode(), np.uint8)
        savez: Any = np.savez  # the stubs take keywords for other options
        with path.open("wb") as file:
            savez(file, record=text, **arrays)
    before = content(copy)
    run_ensembles(plan(), dataset, copy, count=2, methods=RL)
    assert content(copy) == before


def test_an_interrupted_run_loses_one_chunk(copy, dataset, monkeypatch):
    unlearn, before = Maker.unlearn, content(copy)

    def interrupted(self, label, setting, originals, numbers, *, series):
        if 3 in numbers:
            raise KeyboardInterrupt
        return unlearn(self, label, setting, originals, numbers, series=series)

    def go():
        return run_ensembles(
            plan(), dataset, copy, count=4, methods=RL, chunk=1, how="vmap"
        )

    with monkeypatch.context() as patch:
        patch.setattr(Maker, "unlearn", interrupted)
        with pytest.raises(KeyboardInterrupt):
            go()
    kept = content(copy)
    assert {name: kept[name] for name in before} == before
    made = {f"models/{r}/000{i}.npz" for r in ("original", "retrain") for i in (2, 3)}
    assert set(kept) - set(before) == made | {"models/rl-loreun/0002.npz"}
    go()
    after = content(copy)
    assert {name: after[name] for name in kept} == kept
    assert set(after) - set(kept) == {"models/rl-loreun/0003.npz"}


def test_devices_share_the_models_and_rewinding_works(grown, dataset, tmp_path):
    scrub = {
        "SCRUB+R": Unlearning.of(
            method="scrub", rewind=True, epochs=2, forget_epochs=1, batch_size=64
        )
    }
    lines = []
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "how.json").write_text('"loop"')  # begun on one device
    found = run_ensembles(
        plan(),
        dataset,
        tmp_path,
        count=3,  # one is padding
        methods=scrub,
        say=lines.append,
        mesh=Mesh(np.array(jax.devices()[:2]), ("ensemble",)),
    )
    assert re.search(r"with (vmap|map), 3 at a time$", lines[0])
    for part in PARTS:
        np.testing.assert_allclose(
            found.logits["original"][part],
            grown[2].logits["original"][part][:3],
            rtol=1e-3,
            atol=1e-3,
        )
    subject = subject_of(TRAINING, dataset)
    model = subject.model
    everything = np.union1d(found.request.forget, found.request.retain)
    original = Trainer(subject, TRAINING)(everything, seed=2)
    job = Preparer(subject)(scrub["SCRUB+R"], found.request, original, seed=2)
    single = execute(job, original[:2], jax.random.key(2))
    expected = predict(model, single.params, single.model_state, dataset.test.inputs)
    np.testing.assert_allclose(
        found.logits["SCRUB+R"]["test"][2], expected, rtol=1e-3, atol=1e-3
    )


def test_arguments_that_cannot_be_served(dataset, tmp_path):
    def go(told=None, count=2, methods=None, **options):
        methods = RL if methods is None else methods
        run_ensembles(
            told or plan(), dataset, tmp_path, count=count, methods=methods, **options
        )

    with pytest.raises(InputError, match="count=0 must be at least 1"):
        go(count=0)
    with pytest.raises(InputError, match="chunk=-1 must be at least 1"):
        go(chunk=-1)
    with pytest.raises(InputError, match="kind='near' follows the features"):
        go(plan(kind="near"))
    with pytest.raises(InputError, match="'Retrain' needs a folder of its own"):
        go(methods={"Retrain": RL["RL + LoReUn"]})
    with pytest.raises(InputError, match="'R l' needs a folder of its own, and 'r-l'"):
        go(methods={"R-L": Unlearning.of(), "R l": Unlearning.of()})
    with pytest.raises(InputError, match="'\\+' needs a folder of its own, and ''"):
        go(methods={"+": Unlearning.of()})
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_diverges_is_named(dataset, tmp_path):
    wild = Training(network="mlp", width=6, epochs=2, batch_size=32, learning_rate=1e30)
    with pytest.raises(
        InputError,
        match=r"original with learning_rate=1e\+30, models \[0, 1\], .* model \d .*"
        r"not finite at step \d+; lower the learning rate$",
    ):
        run_ensembles(
            plan(training=wild), dataset, tmp_path, count=2, methods={}, how="vmap"
        )
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_method_that_diverges_is_left_out_where_that_is_told(dataset, tmp_path):
    wild = {"Wild": Unlearning.of(epochs=1, batch_size=32, learning_rate=1e30), **RL}
    given = plan(), dataset, tmp_path
    with pytest.raises(InputError, match=r"Wild .*1e\+30, models \[0, 1\]"):
        run_ensembles(*given, count=2, methods=wild)
    told, said = {}, []
    asked = {"diverged": told, "say": said.append}
    made = run_ensembles(*given, count=2, methods=wild, **asked)
    assert list(told) == ["Wild"]
    assert f"no row, because it diverged: {told['Wild']}" in said
    assert "lower the learning rate" in told["Wild"]
    assert {*made.logits} == {"original", "retrain", *RL} == {*made.seconds}


class Killed(BaseException):
    """What a test raises where a process would be gone."""


KILLS = [
    ("vmap", {"SCRUB+R": 5}),
    pytest.param(
        "loop", {"original": 3, "retrain": 2, "SCRUB+R": 5}, marks=pytest.mark.slow
    ),
]


@pytest.mark.parametrize(("how", "at"), KILLS)
def test_a_killed_chunk_goes_on_in_it_bit_for_bit(
    dataset, tmp_path, monkeypatch, how, at
):
    scrub = Unlearning.of(
        method="scrub", rewind=True, epochs=2, forget_epochs=1, batch_size=64
    )
    methods = {"SCRUB+R": scrub}

    def go(folder, save_every):
        options = {"count": 2, "how": how, "save_every": save_every}
        return run_ensembles(plan(), dataset, folder, methods=methods, **options)

    whole = go(tmp_path / "whole", 3600)
    save = Series.save
    for role, number in at.items():

        def killing(self, step, state, role=role, number=number):
            path = save(self, step, state)
            if step == number and self.folder.parent.name == slug(role):
                raise Killed
            return path

        with monkeypatch.context() as patch:
            patch.setattr(Series, "save", killing)
            with pytest.raises(Killed):
                go(tmp_path / "part", 0)
        assert len(list((tmp_path / "part").rglob("step-*"))) == 2
    write = Files.write

    def once(self, role, number, *rest):
        write(self, role, number, *rest)
        if role == "SCRUB+R":
            raise Killed

    with monkeypatch.context() as patch:  # between the files of a chunk
        patch.setattr(Files, "write", once)
        with pytest.raises(Killed):
            go(tmp_path / "part", 0)
    found = go(tmp_path / "part", 0)
    for role, parts in whole.logits.items():
        for part in PARTS:
            assert parts[part].tobytes() == found.logits[role][part].tobytes()
    assert list((tmp_path / "part").rglob("*.partial")) == []


def test_auto_is_decided_once_a_folder(dataset, tmp_path):
    run_ensembles(plan(), dataset, tmp_path, count=1, methods={})
    decided = tmp_path / "models" / "how.json"
    assert json.loads(decided.read_text()) in ("vmap", "map", "loop")
    decided.write_text('"map"')
    lines = []
    run_ensembles(plan(), dataset, tmp_path, count=2, methods={}, say=lines.append)
    assert "with map, 1 at a time" in lines[0]
