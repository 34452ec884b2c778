"""A model trained elsewhere: imported, served by the commands, exported again."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy
from flax import serialization
from flax.training import train_state
from small import refused, small_data

import jax_unlearn as ju
from jax_unlearn.cli import main
from jax_unlearn.drivers import formats
from jax_unlearn.lab import store
from jax_unlearn.zoo import weights

MODELS = """
import flax.linen as nn
from flax import nnx
import jax_unlearn as ju
from helpers import flat  # stands beside this file


class Linen(nn.Module):
    classes: int = 3

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.Dense(8)(flat(x))
        x = nn.BatchNorm(use_running_average=not train)(x)
        return nn.Dense(self.classes)(nn.relu(x))


class Nnx(nnx.Module):
    def __init__(self, num_classes, *, rngs):
        self.body = nnx.Linear(64, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.head = nnx.Linear(8, num_classes, rngs=rngs)

    def features(self, x):
        return nnx.relu(self.norm(self.body(flat(x))))

    def __call__(self, x):
        return self.head(self.features(x))


def make():
    return Linen()


def model(num_classes):
    return ju.from_linen(Linen(num_classes))


def fixed():
    return Nnx(3, rngs=nnx.Rngs(0))


ONE = fixed()


def wide():
    return Linen(4)


def asks(width):
    return Linen(width)


class Seen(nn.Module):  # its features are maps, as of a convolution
    def setup(self):
        self.body, self.head = nn.Dense(5), nn.Dense(3)
        self.norm = nn.BatchNorm()

    def features(self, x, train: bool):
        return nn.relu(self.norm(self.body(x), use_running_average=not train))

    def __call__(self, x, train: bool):
        return self.head(flat(self.features(x, train)))


def nothing():
    return 5


def breaks():
    raise KeyError("on purpose")
"""
FED = ["--mean", "0.3", "--std", "0.4"]  # as the training below has it
MAKE = ["--network", "my_models.py:make"]


class Net(nn.Module):
    """The same network as in the file."""

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.Dense(8)(x.reshape((x.shape[0], -1)))
        x = nn.BatchNorm(use_running_average=not train)(x)
        return nn.Dense(3)(nn.relu(x))


class State(train_state.TrainState):
    batch_stats: dict


class Elsewhere(NamedTuple):
    """What another program left behind: a folder, and the state it trained."""

    folder: Path
    state: State

    @property
    def variables(self):
        return self.state.params, {"batch_stats": self.state.batch_stats}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Elsewhere:
    """Train a linen network in a loop of its own, on the first 80 of 100 samples."""
    folder = tmp_path_factory.mktemp("elsewhere")
    data = np.load(small_data(folder / "data.npz"))
    x = (jnp.asarray(data["x_train"][:80], jnp.float32) / 255 - 0.3) / 0.4
    y = jnp.asarray(data["y_train"][:80])
    variables = Net().init(jax.random.key(0), x, train=False)
    state = State.create(
        apply_fn=Net().apply, tx=optax.sgd(0.3, momentum=0.9), **variables
    )

    @jax.jit
    def step(state):
        def loss(params):
            at = {"params": params, "batch_stats": state.batch_stats}
            logits, new = Net().apply(at, x, train=True, mutable=["batch_stats"])
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
            return losses.mean(), new["batch_stats"]

        gradients, statistics = jax.grad(loss, has_aux=True)(state.params)
        return state.apply_gradients(grads=gradients).replace(batch_stats=statistics)

    for _ in range(40):
        state = step(state)
    (folder / "my_models.py").write_text(MODELS)
    (folder / "helpers.py").write_text(
        "def flat(x):\n    return x.reshape((x.shape[0], -1))\n"
    )
    (folder / "state.msgpack").write_bytes(serialization.to_bytes(state))
    (folder / "trained.csv").write_text("".join(f"{n}\n" for n in range(80)))
    (folder / "request.csv").write_text("id\n3\n14\n15\n60\n")
    return Elsewhere(folder, state)


@pytest.fixture
def here(elsewhere, tmp_path, monkeypatch) -> Path:
    """Stand in a fresh folder with those files, as a user whom nobody knows yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    folder = tmp_path / "work"
    shutil.copytree(elsewhere.folder, folder)
    monkeypatch.chdir(folder)
    return folder


def bring(params="state.msgpack", *options, out="original", network=MAKE):
    main(
        ["import", *network, "--params", params, "--data", "data.npz", "--out", out]
        + [*(FED if "--mean" not in options else []), *options]
    )
    return store.load_model(out)


def same(found, wanted):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_a_model_from_elsewhere_is_served_by_every_command(here, elsewhere, capsys):
    stored = bring("state.msgpack", "--trained-on", "trained.csv", "--epochs", "2")
    said = capsys.readouterr().out
    read = "read state.msgpack: 15 arrays of msgpack; not read: step (1), opt_state (6)"
    assert read in said
    assert "divided by 255, less mean 0.3, over std 0.4: -0.75 to 1.75" in said
    assert "unseen" in said
    assert "has epochs 2, batch_size 64, learning_rate 0.1" in said
    same(stored.trained[:2], elsewhere.variables)
    assert stored.unseen.tolist() == list(range(80, 100))

    Path("second.csv").write_text("7\n")
    served = ["--data", "data.npz", "--checkpoint", "original"]
    asked = ["--forget", "request.csv", "--epochs", "1"]
    main(["unlearn", "random_label", "--weighting", "falw", *served, *asked])
    main(["unlearn", "salun", *served, *asked, "--out", "by-salun"])
    main(
        ["chain", "finetune", *served, "--epochs", "1"]
        + ["--requests", "request.csv", "second.csv"]
    )
    main(
        ["train", "--retrain", "--original", "original", "--data", "data.npz"]
        + ["--forget", "request.csv", "--out", "retrained"]
    )
    retrained = store.load_model("retrained")
    assert retrained.built.network == stored.built.network
    assert len(retrained.ids) == 76
    main(
        ["audit", "--data", "data.npz", "--original", "original", "--forget"]
        + ["request.csv", "--unlearned", "unlearned", "by-salun"]
        + ["--retrained", "retrained"]
    )
    rows = json.loads(Path("audit.json").read_text())["rows"]
    assert rows["original"]["metrics"]["ra"]["mean"] == 100.0
    main(["report"])
    assert Path("report.html").is_file()
    main(["export", "--checkpoint", "unlearned", "--out", "back.msgpack"])
    tree = serialization.msgpack_restore(Path("back.msgpack").read_bytes())
    logits = Net().apply(tree, jnp.ones((2, 8, 8, 1)), train=False)
    assert logits.shape == (2, 3)


@pytest.mark.parametrize("format", ["safetensors", "npz", "msgpack"])
def test_what_is_exported_is_imported_bit_by_bit(here, elsewhere, format):
    bring()
    main(["export", "--checkpoint", "original", "--out", f"w.{format}"])
    same(bring(f"w.{format}", out="again").trained[:2], elsewhere.variables)


def test_folders_of_orbax_and_flat_files(here, elsewhere):
    with ocp.CheckpointManager(here / "run") as manager:
        for step in (90, 100):
            manager.save(step, args=ocp.args.StandardSave(elsewhere.state))
    params, state = elsewhere.variables
    arrays = ju.parameters.named({"params": params, **state})
    np.savez("slashes.npz", **arrays)
    dots = {n.replace("/", "."): np.asarray(array) for n, array in arrays.items()}
    safetensors.numpy.save_file(dots, "dots.safetensors")
    for path in ("run", "run/100", "slashes.npz", "dots.safetensors"):
        out = path.replace("/", "-").replace(".", "-") + "-model"
        same(bring(path, out=out).trained[:2], elsewhere.variables)


@pytest.mark.parametrize("name", ["model", "Nnx", "fixed", "ONE", "Linen", "Seen"])
def test_networks_of_every_form_train_and_come_back(here, name, capsys):
    network = ["--network", f"my_models.py:{name}"]
    main(
        ["train", *network, "--data", "data.npz", "--epochs", "1", "--out", "made"]
        + ["--mean", "0.3", "--std", "0.4"]
    )
    warned = "takes no rngs" in capsys.readouterr().err
    assert warned == (name in ("fixed", "ONE"))
    main(["export", "--checkpoint", "made", "--out", "made.safetensors"])
    stored = bring("made.safetensors", network=network)
    same(stored.trained[:2], store.load_model("made").trained[:2])
    features = stored.built.features.apply(
        *stored.trained[:2], jnp.ones((2, 8, 8, 1)), train=False
    )[0]
    width = {"model": 3, "Linen": 3, "Seen": 8 * 8 * 5}.get(name, 8)
    assert features.shape == (2, width)


def test_the_accuracy_shows_what_is_fed_wrongly(here, capsys):
    bring("state.msgpack", "--mean", "60", "--std", "0.4")
    said = capsys.readouterr()
    assert "guessing reaches: check --mean, --std" in said.err
    bring(out="right")
    assert "warning" not in capsys.readouterr().err


def test_without_unseen_samples_what_needs_them_says_so(here, capsys):
    bring()
    assert "so none is unseen; give --trained-on FILE" in capsys.readouterr().out
    asked = ["--data", "data.npz", "--checkpoint", "original", "--forget", "3"]
    Path("3").write_text("")
    asked[-1] = "request.csv"
    line = refused(capsys, ["unlearn", "--weighting", "falw", *asked])
    assert "of which there are 0; hold some out in training (train" in line
    assert "import --trained-on)" in line
    line = refused(capsys, ["unlearn", "amnesiac", *asked])
    assert "this one was imported, its steps are not known" in line
    assert not Path("unlearned").exists()
    main(["unlearn", "finetune", *asked, "--epochs", "1"])
    main(
        ["audit", "--data", "data.npz", "--original", "original", "--forget"]
        + ["request.csv", "--unlearned", "unlearned"]
    )


def test_the_file_of_a_network_is_found_again_or_missed(here, capsys, monkeypatch):
    bring()
    (here / "inside").mkdir()
    monkeypatch.chdir(here / "inside")  # it is where it was
    export = ["export", "--checkpoint", "../original", "--out"]
    main([*export, "one.npz"])
    monkeypatch.chdir(here)
    export = ["export", "--checkpoint", "original", "--out"]
    shutil.move("my_models.py", "inside/theirs.py")
    shutil.copy("helpers.py", "inside")
    line = refused(capsys, [*export, "two.npz"])
    assert "its file is neither at my_models.py nor in " in line
    assert "give --network FILE.py:make" in line
    main([*export, "two.npz", "--network", "inside/theirs.py:make"])
    main([*export, "three.npz", "--network=inside/theirs.py:make"])
    Path("my_models.py").write_text(f"{MODELS}\n# changed\n")
    line = refused(capsys, [*export, "four.npz"])
    assert "my_models.py was changed since the checkpoint was made" in line
    assert not Path("four.npz").exists()
    main([*export, "four.npz", *MAKE])


def test_a_file_is_not_run_on_the_word_of_a_record(here, capsys, monkeypatch):
    bring()
    Path("my_models.py").rename("others.py")
    record = json.loads(Path("original/record.json").read_text())
    assert record["network"]["name"] == "my_models.py:make"
    Path("others.py").rename("my_models.py")
    monkeypatch.setenv("XDG_STATE_HOME", str(here / "another-user"))
    monkeypatch.setattr("jax_unlearn.lab.catalog._ran", set())
    export = ["export", "--checkpoint", "original", "--out"]
    line = refused(capsys, [*export, "a.npz"])
    assert "is named by a record, not by you: its file is not run; give --network" in (
        line
    )
    main([*export, "a.npz", *MAKE])
    main([*export, "b.npz"])  # from now on this user has named it


BAD = {
    "nothing": "gives int; let it return a ju.Model",
    "breaks": "fails (KeyError: 'on purpose'); mend it",
    "asks": "asks for 'width'; let it take no more than rngs and num_classes",
    "wide": "returns (2, 4) for [2, 8, 8, 1] float32; logits of shape (2, 3)",
    "absent": "unknown name in my_models.py 'absent'",
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("command", ["import", "train"])
def test_networks_that_are_none(here, capsys, command, name):
    params = ["--params", "state.msgpack"] if command == "import" else []
    line = refused(
        capsys,
        [command, "--network", f"my_models.py:{name}", *params, "--data", "data.npz"],
    )
    assert BAD[name] in line
    assert not Path("original").exists()


def test_bad_files_leave_nothing_behind(here, capsys):
    (here / "home").mkdir()
    before = sorted(here.iterdir())
    told = ["import", *MAKE, "--data", "data.npz", *FED, "--params"]
    np.savez("other.npz", **{"params/Dense_0/kernel": np.ones((64, 9), np.float32)})
    np.savez("empty.npz")
    for params, words in {
        "none.npz": "does not exist",
        "data.npz": "are of another network: 8 expected leaves are not there",
        "empty.npz": "8 expected leaves are not there",
        "my_models.py": "is of no known format",
        "other.npz": "7 expected leaves are not there, 1 is of another shape",
        "home": "holds no parameters that are known here",
    }.items():
        assert words in refused(capsys, [*told, params])
    for options, words in (
        (["--mean", "nan"], "give one finite number a channel"),
        (["--std", "0"], "std=0.0 must be positive"),
        (["--mean", "1", "2"], "--mean 1.0 2.0: give one finite number a channel"),
        (["--width", "3"], "width=3: the network of my_models.py:make has its own"),
        (["--trained-on", "none.csv"], "none.csv"),
        (["--trained-on", "request.txt"], "request.txt"),
        (["--subtree", "ema"], "subtree='ema' holds no parameters of this network"),
    ):
        Path("request.txt").write_text("3\n3\n")
        assert words in refused(capsys, [*told, "state.msgpack", *options])
    for name in ("other.npz", "empty.npz", "request.txt"):
        Path(name).unlink()
    assert sorted(here.iterdir()) == before


def test_leaves_are_compared_on_the_screen(here, capsys):
    np.savez("few.npz", **{"Dense_0/weights": np.ones((64, 8), np.float32)})
    with pytest.raises(SystemExit):
        main(["import", *MAKE, "--data", "data.npz", "--params", "few.npz"])
    lines = capsys.readouterr().out.splitlines()
    kernel = next(line for line in lines if "Dense_0/kernel" in line)
    assert kernel == (
        "expected Dense_0/kernel (64, 8) float32: not there; nearest: Dense_0/weights "
        "(64, 8) float32"
    )


def test_models_that_read_the_data_otherwise_are_not_compared(here, capsys):
    bring("state.msgpack", "--trained-on", "trained.csv")
    common = ["--data", "data.npz", "--forget", "request.csv"]
    told = ["train", "--retrain", *MAKE, *common, "--epochs", "1", "--out"]
    main([*told, "otherwise"])
    audit = ["audit", "--original", "original", "--unlearned", "original", *common]
    line = refused(capsys, [*audit, "--retrained", "otherwise"])
    assert "otherwise has another mean than the original" in line
    assert "train it with --mean 0.3" in line
    main([*told, "alike", *FED])
    main([*audit, "--retrained", "alike"])


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_a_state_dict_of_torch_for_a_network_here(here, capsys, suffix):
    model = ju.from_nnx(
        lambda rngs: ju.zoo.ResNet(
            3, stage_sizes=(1, 1, 1), in_channels=1, width=2, rngs=rngs
        )
    )
    wanted = model.init(jax.random.key(3), None)
    names = weights.to_torch(*wanted)
    assert "layer1.0.conv1.weight" in names
    front = {"npz": "module.", "safetensors": ""}[suffix]
    arrays = {front + name: np.ascontiguousarray(a) for name, a in names.items()}
    if suffix == "npz":
        np.savez("torch.npz", **arrays)
    else:
        safetensors.numpy.save_file(arrays, "torch.safetensors")
    network = ["--network", "resnet8", "--width", "2"]
    stored = bring(f"torch.{suffix}", network=network)
    assert "names and axes of PyTorch became those of the network" in (
        capsys.readouterr().out
    )
    same(stored.trained[:2], wanted)
    main(
        ["export", "--checkpoint", "original", "--format", "torch-names"]
        + ["--out", f"back.{suffix}"]
    )
    back = formats.read(f"back.{suffix}").arrays
    for name, array in names.items():
        np.testing.assert_array_equal(back[name.replace(".", "/")], array)
    if suffix == "npz":
        del arrays["module.conv1.weight"]
        np.savez("less.npz", **arrays)
        told = ["import", *network, "--params", "less.npz", "--data", "data.npz"]
        line = refused(capsys, [*told, "--out", "less"])
        assert "conv1.weight" in line
        assert not Path("less").exists()


def test_export_refuses_what_it_cannot_write(here, capsys):
    bring()
    export = ["export", "--checkpoint", "original", "--out"]
    for words in (["w.foo"], ["w"], ["w.pt"], ["w.npz", "--format", "hdf5"]):
        assert "npz" in refused(capsys, [*export, *words])
    line = refused(capsys, [*export, "w.npz", "--names", "timm"])
    assert "--names='timm' is for --format='torch-names'; leave it out" in line
    line = refused(capsys, [*export, "w.npz", "--format", "torch-names"])
    assert "is no network whose names in PyTorch are known" in line
    Path("w.npz").write_text("mine")
    assert "exists" in refused(capsys, [*export, "w.npz"])
    assert Path("w.npz").read_text() == "mine"
    main([*export, "w.npz", "--overwrite"])
    assert len(np.load("w.npz")) == 8
