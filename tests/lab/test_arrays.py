"""Outputs of models as a file: what goes in comes out, and every flaw has its name."""

import numpy as np
import pytest

from jax_unlearn.audit.evidence import ModelOutputs, PartLabels
from jax_unlearn.errors import InputError
from jax_unlearn.lab.arrays import load_outputs, save_outputs

SIZES = {"forget": 4, "retain": 6, "test": 5, "unseen": 3}


def drawn(seed, models=2, unseen=True) -> ModelOutputs:
    rng = np.random.default_rng(seed)
    arrays = {p: rng.normal(size=(models, n, 3)) for p, n in SIZES.items()}
    return ModelOutputs(**(arrays if unseen else {**arrays, "unseen": None}))


def labels(unseen=True) -> PartLabels:
    truth = {part: np.arange(size) % 3 for part, size in SIZES.items()}
    return PartLabels(**(truth if unseen else {**truth, "unseen": None}))


def arrays() -> dict[str, np.ndarray]:
    """Return what a file holds, by name."""
    groups = {"labels": labels(), "retrained": drawn(0, 4), "ours": drawn(1)}
    return {
        f"{g}/{part}": getattr(of, part) for g, of in groups.items() for part in SIZES
    }


@pytest.mark.parametrize("unseen", [True, False])
def test_outputs_come_back_as_they_were(tmp_path, unseen):
    unlearned = {"FT (1 epoch)": drawn(1, unseen=unseen), "GA": drawn(2, 3, unseen)}
    retrained, truth = drawn(3, 4, unseen), labels(unseen)
    path = save_outputs(tmp_path / "new" / "out.npz", unlearned, retrained, truth)
    assert path == tmp_path / "new" / "out.npz"
    assert [file.name for file in path.parent.iterdir()] == ["out.npz"]
    found, target, read = load_outputs(path)
    assert list(found) == list(unlearned)
    groups = [*found.values(), target, read]
    for got, given in zip(groups, [*unlearned.values(), retrained, truth], strict=True):
        for part in SIZES:
            one, two = getattr(got, part), getattr(given, part)
            assert (one is None) == (two is None) == (part == "unseen" and not unseen)
            if one is not None:
                np.testing.assert_array_equal(one, two)
                assert one.dtype == two.dtype


def test_any_file_that_numpy_wrote_will_do(tmp_path):
    np.savez(tmp_path / "theirs.npz", allow_pickle=False, **arrays())
    found, target, _ = load_outputs(tmp_path / "theirs.npz")
    assert list(found) == ["ours"]
    assert target.forget.shape == (4, 4, 3)


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    path = tmp_path / "out.npz"
    for seed in (1, 2):
        save_outputs(path, {"FT": drawn(seed)}, drawn(3), labels())
    np.testing.assert_array_equal(load_outputs(path)[0]["FT"].test, drawn(2).test)
    before = path.read_bytes()

    class Broken:
        def __array__(self, *args, **kwargs):
            raise OSError("the disk is gone")

    for bad in (
        drawn(1)._replace(test=Broken()),
        drawn(1)._replace(test=[[1], [1, 2]]),
    ):
        with pytest.raises((OSError, ValueError)):
            save_outputs(path, {"FT": bad}, drawn(3), labels())
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["out.npz"]


def test_nothing_is_left_of_a_file_that_could_not_be_written(tmp_path, monkeypatch):
    def half(file, **arrays):
        file.write(b"half of it")
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez_compressed", half)
    with pytest.raises(OSError, match="no space left"):
        save_outputs(tmp_path / "out.npz", {"FT": drawn(1)}, drawn(3), labels())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["labels", "retrained", "a/b"])
def test_names_that_a_file_cannot_hold(tmp_path, name):
    with pytest.raises(InputError, match=f"method '{name}': choose a name"):
        save_outputs(tmp_path / "out.npz", {name: drawn(1)}, drawn(3), labels())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        *(
            ({f"labels/{part}": None}, f"lacks labels/{part}")
            for part in list(SIZES)[:3]
        ),
        ({"retrained/test": None}, "lacks retrained/test"),
        ({"ours/retain": None}, "lacks ours/retain"),
        ({"ours/train": np.zeros(1)}, "holds 'ours/train'; name its arrays NAME/PART"),
        ({"forget": np.zeros(1)}, "holds 'forget'"),
        ({"/forget": np.zeros(1)}, "holds '/forget'"),
        ({f"ours/{part}": None for part in SIZES}, "holds no unlearned model"),
        ({f"retrained/{part}": None for part in SIZES}, "lacks retrained/forget"),
        ({"ours/test": np.array([{}], object)}, "no .npz file of arrays .*Object"),
    ],
)
def test_a_file_whose_arrays_are_not_as_agreed(tmp_path, changes, words):
    path = tmp_path / "bad.npz"
    held = {k: v for k, v in {**arrays(), **changes}.items() if v is not None}
    np.savez(path, **held)
    refused(path, words)


def refused(path, words):
    with pytest.raises(InputError, match=words) as caught:
        load_outputs(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_file_of_arrays(tmp_path):
    refused(tmp_path / "nowhere.npz", "no such file")
    refused(tmp_path, "is no .npz file")
    path = tmp_path / "bad.npz"
    path.write_bytes(b"")
    refused(path, "is no .npz file")
    path.write_text("forget,retain\n1,2\n")
    refused(path, "is no .npz file")
    np.save(tmp_path / "one.npy", np.zeros((2, 3)))
    refused(tmp_path / "one.npy", "is no .npz file")


def test_a_file_that_was_cut_short_or_altered(tmp_path):
    path = save_outputs(tmp_path / "bad.npz", {"FT": drawn(1)}, drawn(3), labels())
    whole = path.read_bytes()
    for cut in (len(whole) - 20, len(whole) // 2, 10):
        path.write_bytes(whole[:cut])
        refused(path, "is no .npz file")
    place = whole.index(b"retrained/forget.npy") + 60  # amid the compressed numbers
    path.write_bytes(whole[:place] + b"\xff" * 20 + whole[place + 20 :])
    refused(path, "is no .npz file")
