"""Parameters of other programs: every format, matched by names, types kept."""

import json
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy
from flax import linen as nn
from flax import nnx, serialization
from flax.training import train_state

import jax_unlearn as ju
from jax_unlearn.drivers import formats, torch_names
from jax_unlearn.drivers.parameters import MismatchError
from jax_unlearn.errors import InputError

X = jnp.ones((2, 3))


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        x = nn.Dense(4)(x)
        return nn.BatchNorm(use_running_average=not train)(x)


class Nnx(nnx.Module):
    def __init__(self, *, rngs):
        self.layers = nnx.List([nnx.Linear(3, 4, rngs=rngs)])
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.drop(self.norm(self.layers[0](x)))


class State(train_state.TrainState):
    batch_stats: dict


def expected(model):
    return jax.eval_shape(model.init, jax.random.key(0), X)


def same(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        assert jax.tree.structure(one) == jax.tree.structure(other)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.fixture(scope="module")
def linen():
    """Return a model, its variables, and a training state that holds them."""
    model = ju.from_linen(Linen())
    params, state = model.init(jax.random.key(1), X)
    state = jax.tree.map(lambda leaf: leaf + 0.25, state)
    training = State.create(apply_fn=None, params=params, tx=optax.adam(1e-3), **state)
    return model, (params, state), training


WRITERS = {
    "variables.msgpack": lambda path, at, _: path.write_bytes(
        serialization.to_bytes({"params": at[0], **at[1]})
    ),
    "training.msgpack": lambda path, _, ts: path.write_bytes(
        serialization.to_bytes(ts)
    ),
    "checkpoint_7": lambda path, _, ts: path.write_bytes(serialization.to_bytes(ts)),
    "slashes.npz": lambda path, at, _: np.savez(
        path, **ju.parameters.named({"params": at[0], **at[1]})
    ),
    "dots.npz": lambda path, at, _: np.savez(
        path,
        **{
            name.replace("/", "."): leaf
            for name, leaf in ju.parameters.named({**at[0], **at[1]}).items()
        },
    ),
    "one.safetensors": lambda path, at, _: safetensors.numpy.save_file(
        {
            name.replace("/", "."): np.asarray(leaf)
            for name, leaf in ju.parameters.named({"params": at[0], **at[1]}).items()
        },
        path,
    ),
}


@pytest.mark.parametrize("name", WRITERS)
def test_files_of_flax_trees(linen, tmp_path, name):
    model, at, training = linen
    WRITERS[name](tmp_path / name, at, training)
    found = ju.parameters.load(tmp_path / name, *expected(model))
    same(found[:2], at)
    if "7" not in name:  # the only file of its folder is found there
        same(ju.parameters.load(tmp_path, *expected(model))[:2], at)


def test_folders_of_orbax(linen, tmp_path):
    model, at, training = linen
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "tree", {"params": at[0], **at[1]})
        checkpointer.save(tmp_path / "state", training)
    items = {"params": at[0], "rest": at[1]}
    with ocp.CheckpointManager(tmp_path / "steps") as manager:
        for step in (9, 10):  # not in the order of their names
            trees = items if step == 10 else jax.tree.map(jnp.zeros_like, items)
            saved = {n: ocp.args.StandardSave(tree) for n, tree in trees.items()}
            manager.save(step, args=ocp.args.Composite(**saved))
    for folder in ("tree", "state", "steps", "steps/10"):
        same(ju.parameters.load(tmp_path / folder, *expected(model))[:2], at)
    notes = ju.parameters.load(tmp_path / "steps", *expected(model)).notes
    assert notes == ("6 arrays of orbax, step 10",)
    notes = ju.parameters.load(tmp_path / "state", *expected(model)).notes
    assert notes[1] == "not read: opt_state (9), step (1)"


def test_all_variables_of_an_nnx_module(tmp_path):
    model = ju.from_nnx(lambda rngs: Nnx(rngs=rngs))
    module = Nnx(rngs=nnx.Rngs(3))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "nnx", nnx.state(module))
    found = ju.parameters.load(tmp_path / "nnx", *expected(model))
    same(found[:2], ju.adapters.nnx_variables(module))


def test_shards_with_an_index(linen, tmp_path):
    model, at, _ = linen
    arrays = {k: np.asarray(v) for k, v in ju.parameters.named(at[0] | at[1]).items()}
    names, where = sorted(arrays), {}
    for number, part in enumerate((names[:2], names[2:])):
        file = f"model-{number}-of-2.safetensors"
        safetensors.numpy.save_file({n: arrays[n] for n in part}, tmp_path / file)
        where |= dict.fromkeys(part, file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    for path in (tmp_path, index):
        same(ju.parameters.load(path, *expected(model))[:2], at)
    (tmp_path / "model-1-of-2.safetensors").unlink()
    with pytest.raises(InputError, match=r"names 'model-1-of-2.safetensors', which is"):
        ju.parameters.load(tmp_path, *expected(model))
    index.write_text(json.dumps({"weight_map": {"a": "../../secret"}}))
    with pytest.raises(InputError, match="not beside it"):
        ju.parameters.load(index, *expected(model))


@pytest.mark.parametrize("format", formats.WRITTEN)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_what_is_written_is_read_bit_by_bit(tmp_path, format, dtype):
    key = jax.random.key(0)
    params = {"a": [jax.random.normal(key, (2, 3), dtype), jnp.ones((), dtype)]}
    state = {"count": jnp.arange(3), "flag": jnp.array([True, False])}
    path = ju.parameters.save(tmp_path / "x", params, state, format=format)
    found = ju.parameters.load(path, params, state)
    same(found[:2], (params, state))
    with pytest.raises(InputError, match="exists"):
        ju.parameters.save(path, params, state, format=format)


def test_types_change_only_where_that_loses_nothing(tmp_path):
    like = {"w": jnp.zeros(2)}, {}
    np.savez(tmp_path / "thirds.npz", w=np.ones(2) / 3)
    with pytest.raises(InputError) as caught:
        ju.parameters.load(tmp_path / "thirds.npz", *like)
    assert str(caught.value) == (
        "'w' is float64, float32 is expected, which would round 100% of it; give "
        "--cast (cast=True) to allow that, or a network of parameters of that type, "
        "with JAX_ENABLE_X64=1"
    )
    found = ju.parameters.load(tmp_path / "thirds.npz", *like, cast=True)
    assert found.params["w"].tolist() == [float(np.float32(1 / 3))] * 2
    assert found.notes[-1] == "1 leaf of float64 became float32, rounded, as asked"
    np.savez(tmp_path / "half.npz", w=np.ones(2, jnp.bfloat16))
    found = ju.parameters.load(tmp_path / "half.npz", *like)
    assert found.notes[-1].endswith("bfloat16 became float32, which loses nothing")
    np.savez(tmp_path / "nan.npz", w=np.array([1, np.nan], np.float32))
    with pytest.raises(InputError, match="'w' holds NaN"):
        ju.parameters.load(tmp_path / "nan.npz", *like)
    np.savez(tmp_path / "complex.npz", w=np.ones(2, np.complex64))
    with pytest.raises(InputError, match="'w' is complex64, float32 is expected;"):
        ju.parameters.load(tmp_path / "complex.npz", *like, cast=True)


def test_leaves_that_differ_are_compared(tmp_path):
    like = {"conv": {"kernel": jnp.zeros((3, 3)), "bias": jnp.zeros(3)}}, {}
    arrays = {"conv/kernel": np.ones((3, 4)), "conv/biases": np.ones(3)}
    np.savez(tmp_path / "a.npz", **arrays, **{"head/kernel": np.ones(2)})
    with pytest.raises(MismatchError) as caught:
        ju.parameters.load(tmp_path / "a.npz", *like)
    assert (
        "1 expected leaf is not there, 2 are not expected, 1 is of another shape; "
        "first 'conv/bias', nearest 'conv/biases', " in str(caught.value)
    )
    lines = caught.value.lines
    assert lines[0].startswith(
        "expected conv/bias (3,) float32: not there; nearest: conv/biases (3,) float64"
    )
    assert lines[-1] == "shape of conv/kernel: expected (3, 3), found (3, 4)"
    assert len(lines) == 4


def test_the_state_is_missed(linen, tmp_path):
    model, at, _ = linen
    tree = {"params": at[0], "opt_state": {"mu": at[0]}}  # none of it is near
    np.savez(tmp_path / "p.npz", **ju.parameters.named(tree))
    told = r"'batch_stats/BatchNorm_0/mean', nearest none; give the network"
    with pytest.raises(MismatchError, match=told):
        ju.parameters.load(tmp_path / "p.npz", *expected(model))


def test_parameters_that_are_there_twice(tmp_path):
    arrays = {"generator/w": np.zeros(1), "critic/w": np.ones(1), "ema/w": np.ones(1)}
    np.savez(tmp_path / "two.npz", **arrays)
    like = {"w": jnp.zeros(1)}, {}
    with pytest.raises(InputError, match=r"2 times, under critic, generator; give one"):
        ju.parameters.load(tmp_path / "two.npz", *like)
    for part, value in (("critic", 1.0), ("generator", 0.0), ("ema", 1.0)):
        found = ju.parameters.load(tmp_path / "two.npz", *like, subtree=part)
        assert found.params["w"].tolist() == [value]
    with pytest.raises(InputError, match="the file has critic, ema, generator"):
        ju.parameters.load(tmp_path / "two.npz", *like, subtree="params")


def test_names_of_torch_become_those_of_flax(tmp_path):
    class Net(nnx.Module):
        def __init__(self, *, rngs):
            self.conv = nnx.Conv(3, 4, (3, 2), rngs=rngs)
            self.norm = nnx.BatchNorm(4, rngs=rngs)
            self.fc = nnx.Linear(4, 5, rngs=rngs)

        def __call__(self, x):
            return self.fc(self.norm(self.conv(x)).mean((1, 2)))

    rng = np.random.default_rng(0)
    shapes = {"conv.weight": (4, 3, 3, 2), "conv.bias": (4,), "fc.weight": (5, 4)}
    shapes |= {f"norm.{n}": (4,) for n in ("weight", "bias", *torch_names.ENDS)}
    shapes |= {"fc.bias": (5,), "norm.num_batches_tracked": ()}
    arrays = {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    wrapped = {f"module.{name}": array for name, array in arrays.items()}
    safetensors.numpy.save_file(wrapped, tmp_path / "t.safetensors")
    model = ju.from_nnx(lambda rngs: Net(rngs=rngs))
    found = ju.parameters.load(tmp_path / "t.safetensors", *expected(model))
    kernel = np.asarray(found.params["conv"]["kernel"])
    np.testing.assert_array_equal(
        kernel, np.transpose(arrays["conv.weight"], (2, 3, 1, 0))
    )
    np.testing.assert_array_equal(found.params["fc"]["kernel"], arrays["fc.weight"].T)
    np.testing.assert_array_equal(
        found.model_state["norm"]["var"], arrays["norm.running_var"]
    )
    assert "became those of flax" in found.notes[1]


BAD = {
    "a.npz": (b"PK\x03\x04rubbish", "no readable npz"),
    "a.safetensors": (b"\x08" + b"\0" * 7 + b"{broken}", "no readable safetensors"),
    "a.msgpack": (b"\xc1\xc1", "no readable msgpack"),
    "a.pkl": (b"\x80\x04K\x01.", "of no known format"),
    "empty": (b"", "of no known format"),
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_cannot_be_read(tmp_path, name):
    content, said = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        formats.read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_paths_that_hold_nothing(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        formats.read(tmp_path / "none")
    with pytest.raises(InputError, match="holds no parameters that are known"):
        formats.read(tmp_path)
    np.savez(tmp_path / "pickled.npz", w=np.array({"a": 1}, dtype=object))
    with pytest.raises(InputError, match="write one array a name"):
        formats.read(tmp_path / "pickled.npz")


def test_a_state_dict_without_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with zipfile.ZipFile(tmp_path / "weights", "w") as archive:  # told by its content
        archive.writestr("weights/data.pkl", b"")
    (tmp_path / "resnet.pt").write_bytes(b"")
    for name in ("weights", "resnet.pt"):
        with pytest.raises(InputError, match="`pip install torch`, or turn it into"):
            formats.read(tmp_path / name)


def test_state_dicts_of_torch(tmp_path):
    torch = pytest.importorskip("torch")
    like = {"fc": {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3, jnp.bfloat16)}}
    weight = torch.arange(6.0).reshape(3, 2)
    state = {"fc.weight": weight, "fc.bias": torch.ones(3, dtype=torch.bfloat16)}
    wrapped = {"epoch": 3, "state_dict": {f"module.{n}": t for n, t in state.items()}}
    for name, stored in (("a.pt", state), ("b.pth", wrapped)):
        torch.save(stored, tmp_path / name)
        found = ju.parameters.load(tmp_path / name, like, {})
        np.testing.assert_array_equal(found.params["fc"]["kernel"], weight.numpy().T)
        assert found.params["fc"]["bias"].dtype == jnp.bfloat16
    torch.save(torch.nn.Linear(2, 3), tmp_path / "whole.pt")
    with pytest.raises(InputError, match="only tensors are read, no code"):
        ju.parameters.load(tmp_path / "whole.pt", like, {})
