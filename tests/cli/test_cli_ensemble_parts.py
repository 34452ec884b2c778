"""Ensembles made in parts, by several processes or machines, and joined."""

import json
import re
import shlex

import numpy as np
import pytest
from small import refused, small_data

from jax_unlearn.cli import main
from jax_unlearn.data import from_npz
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Plan, Training, Unlearning
from jax_unlearn.lab.parts import EnsemblePart, chunk_of
from jax_unlearn.lab.results import dataset_record, to_json

TRAINING = Training(network="linear", epochs=1, batch_size=32)
METHODS = {
    "FT": Unlearning.of(method="finetune", epochs=1, batch_size=32),
    "SSD": Unlearning.of(method="ssd", batch_size=32, selection=2.0),
}
PLAN = Plan("Small", "random", 0.2, 1.0, 20, TRAINING, METHODS, (0, 1))


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """Return the words that name a data file and a plan."""
    folder = tmp_path_factory.mktemp("plan")
    data = small_data(folder / "data.npz")
    record = {"plan": PLAN.record(), "dataset": dataset_record(from_npz(data))}
    (folder / "config.json").write_text(to_json(record))
    return ["--data", str(data), "--run", str(folder)]


def ensemble(planned, out, *options) -> None:
    main(["ensemble", *planned, "--out", str(out), *map(str, options)])


@pytest.fixture(scope="module")
def whole(planned, tmp_path_factory):
    """Return the folder of one run of all models."""
    out = tmp_path_factory.mktemp("whole")
    given = "--models", 5, "--chunk", 2, "--how", "vmap", "--resamples", 2
    ensemble(planned, out, *given)
    return out


def told(out):
    """Return what an audit found, but for its seconds, and its arrays."""
    results = json.loads((out / "results.json").read_text())
    with np.load(out / "outputs.npz") as file:
        arrays = {name: file[name] for name in file.files}
    return results["plan"], results["audit"], arrays


def test_parts_join_to_what_one_run_makes(planned, whole, tmp_path, capsys):
    """Bit for bit; two of the parts in one folder, the third in another."""
    one, other, out = (tmp_path / name for name in ("one", "other", "joined"))
    given = "--models", 5, "--chunk", 2, "--how", "vmap"
    ensemble(planned, one, *given, "--part", "1/3")
    printed = capsys.readouterr().out
    assert "part 1/3: models 0 to 1 of 5" in printed
    assert not (one / "results.json").exists()
    before = {path: path.read_bytes() for path in one.rglob("*.npz")}
    assert len(before) == 2 * 4
    ensemble(planned, other, *given, "--part", "3/3")
    assert len(list(other.rglob("*.npz"))) == 1 * 4

    line = refused(
        capsys, ["ensemble", *planned, "--join", one, other, "--out", tmp_path / "x"]
    )
    assert "part 2/3 missing (models 2 to 3)" in line
    assert not (tmp_path / "x").exists()
    command = shlex.split(re.search(r"by: jax-unlearn (.*)$", line)[1])
    assert command[-4:] == ["--part", "2/3", "--out", str(tmp_path / "part-2")]
    main([*command[:-1], str(one)])  # it may as well stand beside the first
    assert {path: path.read_bytes() for path in before} == before

    joined = "--join", one, other, "--resamples", 2
    ensemble(planned, out, *joined)
    plan, audit, arrays = told(out)
    assert (plan, audit) == told(whole)[:2]
    assert set(arrays) == set(told(whole)[2])
    for name, array in told(whole)[2].items():
        np.testing.assert_array_equal(array, arrays[name], strict=True)
    assert (out / "report.html").exists()

    # the same by the command that audits, whom the parts tell their data and request
    results = tmp_path / "audit.json"
    asked = ["audit", "--resamples", "2", "--out", str(results)]
    line = refused(capsys, [*asked, "--parts", one / "nowhere"])
    assert "nowhere holds no models" in line
    line = refused(capsys, [*asked, "--probes", "relearn", "--parts", one, other])
    assert "give --probes relearn to the commands" in line
    assert not results.exists()
    main([*asked, "--parts", str(one), str(other)])
    found = json.loads(results.read_text())
    assert (found["plan"], found["audit"]) == (plan, audit)
    assert "audit them by: jax-unlearn audit --parts" in printed
    assert "exists" in refused(capsys, [*asked, "--parts", one, other])


def test_models_that_were_made_whole_are_audited_by_their_own_command(
    planned, whole, tmp_path, capsys
):
    asked = ["audit", "--out", tmp_path / "audit.json", "--parts", whole]
    line = refused(capsys, asked)
    assert f"{whole} was made without --part" in line
    join = ["ensemble", *planned, "--join", whole, "--out", tmp_path / "x"]
    line = refused(capsys, [*join, "--models", 5, "--probes", "relearn"])
    assert "give --probes relearn to the commands" in line  # its plan is known
    before, made = told(whole), sorted(whole.glob("models/**/*"))
    times = [path.stat().st_mtime_ns for path in made]
    (whole / "report.html").unlink()
    command = re.search(r"by: jax-unlearn (.*) \(", refused(capsys, asked))[1]
    main(shlex.split(command))
    assert (whole / "report.html").exists()
    assert told(whole)[:2] == before[:2]
    assert [path.stat().st_mtime_ns for path in made] == times


def test_a_run_of_all_goes_on_as_the_parts_began(planned, whole, tmp_path, capsys):
    given = "--models", 5, "--chunk", 2, "--how", "vmap", "--part", "2/2"
    ensemble(planned, tmp_path, *given)
    ensemble(planned, tmp_path, "--resamples", 2)  # no --models, --chunk, --how
    assert told(tmp_path)[:2] == told(whole)[:2]


def test_what_is_no_part_is_refused(planned, tmp_path, capsys):
    out = tmp_path / "out"
    asked = ["ensemble", *planned, "--out", out]
    for part in ("0/8", "9/8", "3", "3/0", "-1/4", "a/b", "3/8/2"):
        line = refused(capsys, [*asked, f"--part={part}"])
        assert repr(part) in line
    line = refused(capsys, [*asked, "--part", "3/8", "--chunk", "16"])
    assert "16 models in chunks of 16 make 1 parts" in line
    assert "--chunk 2" in line
    line = refused(capsys, [*asked, "--part", "3/8", "--models", "4"])
    assert "ask for fewer parts" in line
    line = refused(capsys, [*asked, "--part", "3/8", "--join", tmp_path])
    assert "give one" in line
    assert "holds no models" in refused(capsys, [*asked, "--join", tmp_path])
    assert not out.exists()


def test_parts_of_two_ensembles_are_not_joined(planned, tmp_path, capsys):
    one, other = tmp_path / "one", tmp_path / "other"
    ensemble(planned, one, "--models", 2, "--part", "1/2", "--methods", "FT")
    ensemble(planned, other, "--models", 3, "--part", "2/3", "--methods", "FT")
    asked = ["ensemble", *planned, "--out", tmp_path / "x"]
    line = refused(capsys, [*asked, "--join", one, other])
    assert "of another ensemble" in line
    line = refused(capsys, [*asked, "--join", one, "--models", "3"])
    assert "leave --models out" in line
    (one / "models" / "ft" / "0000.npz").unlink()
    line = refused(capsys, [*asked, "--join", one])
    assert "part 1/2, 2/2 missing (models 0 to 1)" in line
    (one / "parts" / "1-of-2" / "part.json").unlink()
    line = refused(capsys, [*asked, "--join", one, "--models", "2", "--methods", "FT"])
    assert "without --join" in line


@pytest.mark.parametrize("count", [1, 7, 16, 64, 100])
@pytest.mark.parametrize("parts", [1, 2, 3, 8])
def test_parts_share_all_models(count, parts):
    if count < parts:
        with pytest.raises(InputError, match="ask for fewer parts"):
            EnsemblePart(1, parts).numbers(count, 1)
        return
    every = [EnsemblePart(n, parts) for n in range(1, parts + 1)]
    chunk = chunk_of(count, every[0])
    own = [part.numbers(count, chunk) for part in every]
    assert sorted(number for numbers in own for number in numbers) == list(range(count))
    assert all(own)
    assert all(numbers[0] % chunk == 0 for numbers in own)
