"""A series of checkpoints: what comes back, what is skipped, what is refused."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import batch, batchnorm_net

import jax_unlearn as ju
from jax_unlearn.drivers import checkpoint, signals
from jax_unlearn.drivers.series import locked
from jax_unlearn.errors import InputError
from jax_unlearn.lab.job import Candidates, Infos
from jax_unlearn.lab.store import partial_of, unfinished

STEPS, KEY = 6, jax.random.key(1)
BATCHES = [
    ju.UnlearnBatch(batch(s, 6), batch(s + 9, 6), batch(s + 20, 6))
    for s in range(STEPS)
]


def bits(tree) -> list[bytes]:
    leaves = [
        jax.random.key_data(x)
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        else np.asarray(x)
        for x in jax.tree.leaves(tree)
    ]
    return [np.asarray(leaf).tobytes() for leaf in leaves]


@pytest.fixture(scope="module")
def world():
    """A method with momentum, BatchNorm state and a weighting with a memory."""
    model = batchnorm_net()
    params, model_state = model.init(jax.random.key(0), jnp.zeros((1, 4)))
    alg = ju.methods.random_label(
        model,
        optax.sgd(0.1, momentum=0.9),
        num_classes=3,
        weighting=ju.weights.falw(
            jnp.array([2, 2, 2]), estimator=ju.weights.streaming()
        ),
    )
    start = alg.init(params, model_state)
    return alg, start, ju.run(alg, start, BATCHES, KEY)


@pytest.fixture
def saved(world, tmp_path):
    """The series of a run that was killed after four steps."""
    alg, start, _ = world
    series = ju.Series(tmp_path / "run", {"seed": 0}, seconds=0, keep=2)
    ju.run(alg, start, BATCHES[:4], KEY, callback=series.callback)
    return series


def resumed(world, folder, said=None):
    alg, start, _ = world
    say = None if said is None else said.append
    state = ju.Series(folder, {"seed": 0}, say=say).latest(start)
    return int(state.step), ju.run(alg, state, BATCHES[int(state.step) :], KEY)


def test_the_last_two_stay_and_resume_bit_for_bit(world, saved):
    assert [path.name for path in saved.paths()] == [
        "step-0000000003",
        "step-0000000004",
    ]
    step, end = resumed(world, saved.folder)
    assert step == 4
    assert bits(end) == bits(world[2])


def damage(path, how):
    if how == "no digests":
        (path / "digests.json").unlink()
        return
    files = [file for file in (path / "arrays").rglob("*") if file.is_file()]
    file = max(files, key=lambda f: f.stat().st_size)
    content = file.read_bytes()
    if how == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif how == "altered":
        at = len(content) // 2
        flipped = bytes([content[at] ^ 1])
        file.write_bytes(content[:at] + flipped + content[at + 1 :])
    else:
        file.unlink()


@pytest.mark.parametrize("how", ["cut", "altered", "lost", "no digests"])
def test_a_damaged_state_is_told_of_and_the_one_before_it_used(world, saved, how):
    damage(saved.paths()[-1], how)
    said = []
    step, end = resumed(world, saved.folder, said)
    assert step == 3
    assert bits(end) == bits(world[2])
    assert len(said) == 1
    assert "step-0000000004" in said[0]
    assert "the one before it is used" in said[0]


def test_nothing_whole_is_a_fresh_start_and_leftovers_go(world, saved):
    for path in saved.paths():
        damage(path, "cut")
    (saved.folder / ".step-0000000005.x1").mkdir()
    said = []
    series = ju.Series(saved.folder, {"seed": 0}, say=said.append)
    assert series.latest(world[1]) is None
    assert len(said) == 2
    assert list(saved.folder.iterdir()) == []


def test_states_of_another_run_are_refused(world, saved):
    with pytest.raises(InputError, match="another setting, seed"):
        ju.Series(saved.folder, {"seed": 1}).latest(world[1])


@pytest.mark.parametrize("options", [{"seconds": -1}, {"keep": 0}, {"seconds": np.nan}])
def test_bad_options(tmp_path, options):
    with pytest.raises(InputError, match="wait 0 or more, keep 1 or more"):
        ju.Series(tmp_path, {}, **options)


def test_time_decides_when_it_saves(world, tmp_path):
    series = ju.Series(tmp_path / "run", {}, seconds=3600)
    ju.run(world[0], world[1], BATCHES, KEY, callback=series.callback)
    assert series.paths() == []


def test_states_lie_on_the_mesh_they_lay_on(tmp_path):
    mesh = jax.make_mesh((8,), ("data",))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    like = {
        "sharded": jax.device_put(jnp.arange(16.0), place),
        "free": jnp.ones(3, jnp.bfloat16),
        "key": jax.random.key(7),
    }
    series = ju.Series(tmp_path, {})
    series.save(1, like)
    back = series.latest(like)
    assert back["sharded"].sharding == place
    assert not back["free"].committed
    assert bits(back) == bits(like)


def test_companions_come_back(world, tmp_path):
    alg, start, _ = world
    infos, kept = Infos(), Candidates(jax.tree.structure(start.params))
    series = ju.Series(tmp_path, {}, seconds=0)
    series.carry("infos", infos)
    series.carry("kept", kept)
    kept.found = [start.params, jax.tree.map(lambda leaf: leaf + 1, start.params)]
    ju.run(
        alg, start, BATCHES, KEY, callback=ju.guards.first_of(infos, series.callback)
    )
    infos.found.append(infos.found[-1]._replace(weights=None, index=None))
    series.save(STEPS + 1, start)
    again = ju.Series(tmp_path, {})
    found, candidates = Infos(), Candidates(jax.tree.structure(start.params))
    again.carry("infos", found)
    again.carry("kept", candidates)
    again.latest(start)
    assert bits(candidates.found) == bits(kept.found)
    assert found.found[-1].weights is None
    for field in ("weights", "task_losses", "index", "conflict"):
        wanted = [getattr(info, field) for info in infos.found]
        assert bits([getattr(info, field) for info in found.found]) == bits(wanted)


def test_sigterm_saves_and_ends(world, tmp_path):
    alg, start, whole = world
    series = ju.Series(tmp_path, {"seed": 0}, seconds=3600)

    def kill(step, state, info):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with (
        pytest.raises(signals.Stopped) as caught,
        signals.handled(),
        signals.held(),
    ):
        ju.run(
            alg, start, BATCHES, KEY, callback=ju.guards.first_of(kill, series.callback)
        )
    assert caught.value.signal == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    step, end = resumed(world, tmp_path)
    assert step == 2
    assert bits(end) == bits(whole)


def interrupt(*numbers):
    """Send the signals; the last one must end what is waited for here."""
    for number in numbers or (signal.SIGINT,):
        os.kill(os.getpid(), number)
    time.sleep(5)
    pytest.fail("not stopped")


def test_a_signal_where_nothing_is_held_ends_at_once():
    with pytest.raises(signals.Stopped), signals.handled():
        interrupt()
    assert not signals.pending()


def test_the_second_signal_does_not_wait():
    with pytest.raises(signals.Stopped) as caught, signals.handled(), signals.held():
        interrupt(signal.SIGTERM, signal.SIGINT)
    assert caught.value.signal == signal.SIGINT


def test_a_signal_to_another_process_ends_this_one_too(world, tmp_path, monkeypatch):
    alg, start, _ = world
    monkeypatch.setattr(checkpoint, "largest", lambda due, number: (1, signal.SIGTERM))
    series = ju.Series(tmp_path, {}, seconds=600)
    with pytest.raises(signals.Stopped) as caught:
        ju.run(alg, start, BATCHES, KEY, callback=series.callback)
    assert caught.value.signal == signal.SIGTERM
    assert [path.name for path in series.paths()] == ["step-0000000001"]


HOLD = """
import sys, time
from jax_unlearn.drivers.series import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_is_refused_until_it_is_gone(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"process {holder.pid}"), locked(tmp_path):
            pytest.fail("two runs in one folder")
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert (tmp_path / ".lock").exists()  # what is left of it locks nothing
    with locked(tmp_path):
        assert [file.name for file in tmp_path.iterdir()] == [".lock"]
    assert not (tmp_path / ".lock").exists()


def test_a_lock_that_came_after_is_not_removed(tmp_path):
    with contextlib.ExitStack() as later:
        with locked(tmp_path / "run"):
            shutil.rmtree(tmp_path / "run")  # as a finished model's folder is
            later.enter_context(locked(tmp_path / "run"))
        assert (tmp_path / "run" / ".lock").exists()
    assert not (tmp_path / "run" / ".lock").exists()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match="cannot write to folder"),
        locked(tmp_path / "file" / "run"),
    ):
        pytest.fail("no folder")


def diverge(series):
    if series is not None:
        series.save(1, {"w": jnp.ones(2)})
    raise ArithmeticError


def test_the_partial_goes_with_success_and_stays_with_what_can_be_resumed(tmp_path):
    path = tmp_path / "model"
    with unfinished(path, {}) as series:
        series.save(1, {"w": jnp.ones(2)})
    assert not partial_of(path).exists()
    with pytest.raises(ArithmeticError), unfinished(path, {}):
        diverge(None)
    assert not partial_of(path).exists()
    with pytest.raises(ArithmeticError), unfinished(path, {}) as series:
        diverge(series)
    assert [p.name for p in partial_of(path).iterdir()] == ["step-0000000001"]
    with (
        pytest.raises(InputError, match="give --resume"),
        unfinished(path, {}, resume=False),
    ):
        pytest.fail("an interrupted run overwritten")


FULL = """
import resource, sys
import jax, jax.numpy as jnp, numpy as np
import jax_unlearn as ju
series = ju.Series(sys.argv[1], {})
state = {"w": jax.random.normal(jax.random.key(0), (100_000,))}
series.save(1, state)
if sys.argv[2] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
else:
    series.save(2, {"w": state["w"] + 2})
try:
    for step in range(3, 40):
        series.save(step, {"w": state["w"] + step})
except ju.InputError as error:
    print(error)
    back = ju.Series(sys.argv[1], {}).latest(state)
    step = int(series.paths()[-1].name[5:])
    print(np.array_equal(back["w"], state["w"] + (step if step > 1 else 0)))
    print(sorted(p.name for p in series.folder.iterdir()))
"""


def full_disk(folder, how) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(folder), how],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def test_a_write_that_the_system_cuts_short_leaves_the_state_before(tmp_path):
    error, same, names = full_disk(tmp_path, "limit")
    assert "cannot write checkpoint" in error
    assert "free some space" in error
    assert same == "True"
    assert names == "['step-0000000001']"


def test_a_full_disk_leaves_the_states_before(tmp_path):
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    if mount.returncode:
        pytest.skip(f"no file system can be mounted here: {mount.stderr.strip()}")
    try:
        error, same, names = full_disk(tmp_path, "disk")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert "cannot write checkpoint" in error
    assert same == "True"
    assert "step-" in names


def test_a_read_only_folder_is_refused(tmp_path):
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "none", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    if mount.returncode:
        pytest.skip(f"no file system can be mounted here: {mount.stderr.strip()}")
    try:
        with pytest.raises(InputError, match="Read-only file system"):
            ju.Series(tmp_path / "run", {}).save(1, {"w": jnp.ones(2)})
        with (
            pytest.raises(InputError, match="Read-only file system"),
            unfinished(tmp_path / "model", {}),
        ):
            pytest.fail("locked a read-only folder")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
