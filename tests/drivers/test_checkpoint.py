"""Checkpoints come back as they went, or not at all."""

import errno
import os
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import batch, batchnorm_net, forms, trees_close

import jax_unlearn as ju
from jax_unlearn.drivers import checkpoint, signals

TREE = {
    "params": {
        "w": jnp.arange(6.0).reshape(2, 3),
        "half": jnp.array([1.5, -2.0], jnp.bfloat16),
    },
    "state": ({"mean": jnp.ones(3)}, [jnp.int32(7), jnp.array([True, False])]),
    "key": jax.random.key(5),
    "none": (),
}
RECORD = {"model": "toy", "classes": 10, "rate": 0.1, "list": [1, 2], "größe": None}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return checkpoint.save(tmp_path_factory.mktemp("saved") / "one", TREE, RECORD)


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def test_round_trip(saved):
    for template in (TREE, jax.eval_shape(lambda: TREE)):
        back = checkpoint.load(saved, template)
        assert forms(back) == forms(TREE)
        trees_close(back, TREE, rtol=0, atol=0)
    record = checkpoint.read_record(str(saved))
    assert record == {**RECORD, "format": checkpoint.FORMAT}


def test_a_moved_checkpoint_is_the_same(copied):
    trees_close(checkpoint.load(copied, TREE), TREE, rtol=0, atol=0)


def test_resumed_from_disk_is_uninterrupted(tmp_path):
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
    batches = [
        ju.UnlearnBatch(batch(s, 6), batch(s + 9, 6), batch(s + 20, 6))
        for s in range(6)
    ]
    key = jax.random.key(1)
    start = alg.init(params, model_state)
    whole = ju.run(alg, start, batches, key)
    half = ju.run(alg, start, batches[:3], key)
    path = checkpoint.save(tmp_path / "half", half, {})
    template = jax.eval_shape(alg.init, params, model_state)
    back = checkpoint.load(path, template)
    assert isinstance(back, ju.UnlearnState)
    rest = ju.run(alg, back, batches[3:], key)
    trees_close(rest, whole, rtol=0, atol=0)


def all_files(folder):
    return sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())


def damage_truncate(file):
    data = file.read_bytes()
    if not data:
        file.write_bytes(b"x")
    else:
        file.write_bytes(data[: len(data) // 2])


def damage_alter(file):
    data = bytearray(file.read_bytes() or b"x")
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", [damage_truncate, damage_alter, os.remove])
def test_every_file_is_guarded(saved, tmp_path, damage):
    files = all_files(saved)
    assert len(files) > 4
    for number, name in enumerate(files):
        broken = shutil.copytree(saved, tmp_path / str(number))
        damage(broken / name)
        for read in (checkpoint.read_record, lambda p: checkpoint.load(p, TREE)):
            with pytest.raises(ju.InputError) as caught:
                read(broken)
            message = str(caught.value)
            assert "\n" not in message
            assert "take another copy" in message
            assert str(broken) in message


def test_a_foreign_file_is_noticed(copied):
    (copied / "arrays" / "extra").write_text("x")
    with pytest.raises(ju.InputError, match="arrays/extra"):
        checkpoint.read_record(copied)


def test_missing_checkpoint_and_other_folders(tmp_path):
    with pytest.raises(ju.InputError, match="does not exist"):
        checkpoint.load(tmp_path / "nowhere", TREE)
    (tmp_path / "resnet.pt").write_text("x")
    remedy = "jax-unlearn import --params resnet.pt --network FILE.py:NAME"
    with pytest.raises(ju.InputError, match=f"is there, but is no checkpo.*{remedy}"):
        checkpoint.read_record(tmp_path / "resnet.pt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ju.InputError, match="is no checkpoint"):
        checkpoint.read_record(tmp_path / "empty")


def test_another_format(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 99)
    with pytest.raises(ju.InputError, match="another format than 99"):
        checkpoint.read_record(saved)


def changed(path, value):
    """Return the template with one leaf replaced."""
    tree = {**TREE, "params": dict(TREE["params"])}
    if value is None:
        del tree["params"][path]
    else:
        tree["params"][path] = value
    return tree


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (changed("w", jnp.zeros((3, 2))), "params/w"),
        (changed("w", jnp.zeros((2, 3), jnp.int32)), "params/w"),
        (changed("half", None), "params/half.*absent"),
        (changed("more", jnp.zeros(1)), "params/more is absent"),
        ({"params": TREE["params"]}, "absent"),
    ],
    ids=["shape", "dtype", "lacks", "extra", "part"],
)
def test_another_model(saved, template, told):
    with pytest.raises(ju.InputError, match=told) as caught:
        checkpoint.load(saved, template)
    assert "another model" in str(caught.value)


def test_an_existing_target_is_kept(saved):
    before = {name: (saved / name).read_bytes() for name in all_files(saved)}
    with pytest.raises(ju.InputError, match="exists already"):
        checkpoint.save(saved, {"w": jnp.zeros(1)}, {})
    assert before == {name: (saved / name).read_bytes() for name in all_files(saved)}
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_an_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ju.InputError, match="cannot write checkpoint"):
        checkpoint.save(tmp_path / "file" / "c", {"w": jnp.zeros(1)}, {})
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("step", ["replace", "chmod"])
def test_nothing_half_written_is_left(tmp_path, monkeypatch, step):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.os, step, full)
    with pytest.raises(ju.InputError, match="No space left on device"):
        checkpoint.save(tmp_path / "c", {"w": jnp.zeros(1)}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_crash_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "_digests", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path / "c", {"w": jnp.zeros(1)}, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("tree", "record", "message"),
    [
        ({"w": jnp.zeros(1)}, {"model": object()}, "not JSON-able"),
        ({"w": jnp.zeros(1)}, {"format": 3}, "format=3"),
        ({"empty": ()}, {}, "no arrays"),
    ],
)
def test_impossible_content(tmp_path, tree, record, message):
    with pytest.raises(ju.InputError, match=message):
        checkpoint.save(tmp_path / "c", tree, record)
    assert list(tmp_path.iterdir()) == []


def test_parents_are_made_and_others_may_read(tmp_path):
    path = checkpoint.save(tmp_path / "a" / "b" / "c", {"w": jnp.ones(2)}, {})
    assert path.stat().st_mode & 0o055 == 0o055
    np.testing.assert_array_equal(
        checkpoint.load(path, {"w": jnp.ones(2)})["w"], [1, 1]
    )


def test_a_signal_while_arrays_are_read_does_not_damage_them(tmp_path):
    def read(path):
        try:  # as tensorstore, which makes an error of its own of what is raised inside
            signal.raise_signal(signal.SIGTERM)
        except BaseException as error:
            raise RuntimeError(f"reading {path}") from error

    with pytest.raises(signals.Stopped), signals.handled():
        checkpoint._orbax(tmp_path, read)
