"""`--trainable`: a part of the network moves, the rest is that of the original."""

import jax
import numpy as np
import pytest
from small import NETWORK, refused, small_data

from jax_unlearn.cli import main
from jax_unlearn.lab.store import load_model
from jax_unlearn.leaves import name_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with data, an original and a request."""
    path = tmp_path_factory.mktemp("part")
    data = small_data(path / "data.npz")
    main(["train", "--data", str(data), "--out", str(path / "original"), *NETWORK])
    ids = load_model(path / "original").ids[::8]
    (path / "ids.csv").write_text("\n".join(["id", *map(str, ids)]))
    return path


def unlearning(folder, out, *more):
    arguments = ["unlearn", "--data", folder / "data.npz", "--out", folder / out]
    arguments += ["--checkpoint", folder / "original", "--forget", folder / "ids.csv"]
    return [str(argument) for argument in (*arguments, *more)]


METHODS = {
    "random_label": ["--epochs", "1"],
    "scrub": ["--epochs", "2", "--rewind"],
    "partial_reset": ["--share", "1.0"],
    "ssd": ["--selection", "0.5"],
}


@pytest.mark.parametrize("method", METHODS)
def test_only_the_part_that_is_named_moves(method, folder):
    told = ["--method", method, "--trainable", "head|hidden2", *METHODS[method]]
    main(unlearning(folder, method, *told))
    before, after = (load_model(folder / name) for name in ("original", method))
    trees = [jax.tree.leaves_with_path(m.trained.params) for m in (before, after)]
    moved = {
        name_of(path)
        for (path, a), (_, b) in zip(*trees, strict=True)
        if (np.asarray(a) != np.asarray(b)).any()
    }
    assert "head/kernel" in moved
    assert not any(name.startswith("hidden1") for name in moved)
    assert after.record["unlearning"]["trainable"] == "head|hidden2"


def test_what_is_not_there_and_what_cannot_be_is_said(folder, capsys):
    said = refused(capsys, unlearning(folder, "none", "--trainable", "haed"))
    assert "trainable='haed' leaves none of the 6 parameters" in said
    assert "'head/kernel'" in said
    whole = ["--method", "amnesiac", "--trainable", "head"]
    said = refused(capsys, unlearning(folder, "none", *whole))
    assert "amnesiac goes through the whole training again; leave it out" in said
    assert not (folder / "none").exists()
