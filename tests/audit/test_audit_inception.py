"""The standard FID's network: against pytorch-fid, and files of its weights."""

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from inception_arrays import drawn, pictures
from safetensors.numpy import save_file

from jax_unlearn import audit
from jax_unlearn.audit.inception import folded, inception_shapes
from jax_unlearn.errors import InputError

REFERENCE = json.loads((Path(__file__).parent / "inception.json").read_text())
SHAPES = {
    name: tuple(shape)
    for name, shape in REFERENCE["shapes"].items()
    if not name.startswith("fc.")
}


@pytest.fixture(scope="module")
def arrays():
    return {name: drawn(name, shape) for name, shape in SHAPES.items()}


@pytest.fixture(scope="module")
def weights(arrays):
    return folded(arrays)


def test_the_arrays_are_those_of_pytorch_fid():
    assert inception_shapes() == SHAPES


@pytest.mark.parametrize("size", [75, 299])
def test_features_agree_with_pytorch_fid(weights, size):
    expected = np.array(REFERENCE["features"][str(size)])
    found = audit.inception_features(weights, pictures(), size=size)
    assert found.shape == (2, 2048)
    np.testing.assert_allclose(
        found[:, ::64], expected, rtol=0, atol=1e-4 * expected.std()
    )


def test_images_do_not_depend_on_their_batch_and_grey_is_repeated(weights):
    images = np.concatenate([pictures(), pictures()[:, ::-1]])[:3]
    told = []
    found = audit.inception_features(
        weights, images, size=75, batch_size=2, progress=lambda *p: told.append(p)
    )
    assert told == [(2, 3), (3, 3)]
    alone = audit.inception_features(weights, images[2:], size=75)
    np.testing.assert_allclose(found[2:], alone, rtol=0, atol=1e-5)
    grey = pictures(1)
    np.testing.assert_allclose(  # some machines round the two programs differently
        audit.inception_features(weights, grey, size=75),
        audit.inception_features(weights, np.repeat(grey, 3, axis=3), size=75),
        rtol=0,
        atol=1e-5,
    )


def test_files_of_arrays_are_read(arrays, weights, tmp_path):
    np.savez(tmp_path / "fid.npz", **arrays)
    save_file(arrays, tmp_path / "fid.safetensors")
    for name in ("fid.npz", "fid.safetensors"):
        found = audit.load_inception(tmp_path / name)
        assert set(found) == set(weights)
        for at, (kernel, bias) in weights.items():
            np.testing.assert_array_equal(found[at][0], kernel)
            np.testing.assert_array_equal(found[at][1], bias)


def test_a_file_of_torch_is_read_where_torch_is(arrays, weights, tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "fid.pth"
    torch.save({k: torch.from_numpy(v) for k, v in arrays.items()}, path)
    found = audit.load_inception(path)
    for at, pair in weights.items():
        for a, b in zip(found[at], pair, strict=True):
            np.testing.assert_array_equal(a, b)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="no readable .pth file of arrays"):
        audit.load_inception(path)


def test_other_arrays_are_refused(arrays):
    name = "Mixed_6e.branch7x7_2.conv.weight"
    lacking = {k: v for k, v in arrays.items() if k != name}
    with pytest.raises(InputError, match=f"arrays lacks '{name}'; give the FID"):
        folded(lacking)
    with pytest.raises(InputError, match=r"has shape \(1,\), not \(192, 192, 1, 7\)"):
        folded({**arrays, name: np.zeros(1)})
    with pytest.raises(InputError, match="these weights are another training's"):
        folded({**arrays, "fc.bias": np.zeros(1000)})
    assert folded({**arrays, "fc.bias": np.zeros(1008)})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npz", b"nothing", "no readable .npz file"),
        ("a.npz", pickle.dumps({"a": 1}), "no readable .npz file"),
        ("a.safetensors", b"nothing", "no readable .safetensors file"),
        ("a.h5", b"nothing", "give a file that ends in .npz, .safetensors"),
        ("a.pth", b"nothing", "needs torch; where it is, turn it into .npz"),
    ],
)
def test_files_that_cannot_be_read_are_named(
    tmp_path, monkeypatch, name, content, message
):
    monkeypatch.setitem(sys.modules, "torch", None)  # as where torch is not installed
    path = tmp_path / name
    with pytest.raises(InputError, match="no such file; give the FID weights"):
        audit.load_inception(path)
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        audit.load_inception(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((2, 8, 8, 3), np.float32)}, "give u8"),
        ({"images": np.zeros((2, 8, 8, 4), np.uint8)}, "1 or 3 channels"),
        (
            {"images": np.zeros((0, 8, 8, 3), np.uint8)},
            "number of images=0 must be at least 1",
        ),
        ({"size": 74}, "size=74 must be at least 75"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
    ],
)
def test_bad_images_are_named(change, message):
    with pytest.raises(InputError, match=message):
        audit.inception_features({}, **{"images": pictures(), **change})
