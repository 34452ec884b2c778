import io
import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from jax_unlearn.cli import main
from jax_unlearn.data import (
    Examples,
    check_examples,
    digest,
    digits,
    fingerprint,
    from_npz,
    from_tfds,
    holdout,
    joined,
    load,
    load_manifest,
    shrink,
    subset,
    with_columns,
)
from jax_unlearn.errors import InputError

IMAGES = np.zeros((3, 4, 4, 1), np.uint8)
LABELS = np.arange(3)


def _bad_pixels(value, dtype=np.float32):
    images = np.zeros((3, 4, 4, 1), dtype)
    images[1:, 2, 3, 0] = value
    return images


def test_check_examples_gives_the_types_of_examples():
    images, labels = check_examples(IMAGES.tolist() + np.zeros(1), [0, 1, 2])
    assert images.dtype == np.float32
    assert labels.dtype == np.int32
    images, _ = check_examples(IMAGES, LABELS.astype(np.uint8), num_classes=3)
    assert images is IMAGES


@pytest.mark.parametrize(
    ("inputs", "labels", "words"),
    [
        (IMAGES, LABELS.astype(float), r"labels\[0\]=0.0 is of type float64"),
        (IMAGES, [0, 1, 5], r"1 of 3 labels out of range, the first labels\[2\]=5"),
        (IMAGES, [0, -1, -1], r"2 of 3 labels out of range, the first labels\[1\]=-1"),
        (IMAGES, [0, 1], r"labels of shape \(2,\)"),
        (IMAGES, LABELS[:, None], r"labels of shape \(3, 1\)"),
        (IMAGES[..., 0], LABELS, r"inputs of shape \(3, 4, 4\)"),
        (IMAGES[:0], LABELS[:0], "not empty"),
        (_bad_pixels(np.nan), LABELS, r"2 of 3 inputs .*first inputs\[1\]"),
        (_bad_pixels(-np.inf), LABELS, r"2 of 3 inputs .*first inputs\[1\]"),
        (_bad_pixels(1e300, float), LABELS, r"2 of 3 inputs .*first inputs\[1\]"),
        (IMAGES.astype(int), LABELS, "inputs of type int64"),
        (IMAGES.astype(bool), LABELS, "inputs of type bool"),
        (IMAGES, ["a", "b", "c"], "labels must be whole numbers"),
    ],
)
def test_mistakes_name_the_count_and_the_first(inputs, labels, words):
    with pytest.raises(InputError, match=words) as caught:
        check_examples(inputs, labels, num_classes=3, name="mine")
    assert str(caught.value).startswith("mine: ")
    assert "\n" not in str(caught.value)


def test_digits_are_the_scaled_ones_in_a_fixed_stratified_division():
    data = digits()
    original, labels = load_digits(return_X_y=True)
    train, test = holdout(labels, count=797, seed=0)
    assert data.num_classes == 10
    assert data.class_names == tuple("0123456789")
    for part, ids in ((data.train, train), (data.test, test)):
        assert part.inputs.dtype == np.uint8
        np.testing.assert_array_equal(part.labels, labels[ids])
        scaled = original[ids].reshape(-1, 8, 8, 1) * 255 / 16
        assert np.abs(part.inputs - scaled).max() <= 0.5
        share = np.bincount(part.labels) / np.bincount(labels)
        np.testing.assert_allclose(share, len(ids) / 1797, atol=0.01)
    assert data.train.inputs.max() == 255
    assert digest(train)[:12] == "295b47790690"


def test_fingerprint_sees_what_a_model_sees():
    data = digits()
    whole = fingerprint(data)
    assert whole == fingerprint(digits())
    pixels = data.train.inputs.copy()
    pixels[5, 4, 3, 0] ^= 1
    labels = data.test.labels.copy()
    labels[-1] = (labels[-1] + 1) % 10
    others = [
        data._replace(train=data.train._replace(inputs=pixels)),
        data._replace(test=data.test._replace(labels=labels)),
        data._replace(num_classes=11),
        data._replace(
            train=data.train._replace(inputs=data.train.inputs.reshape(-1, 4, 16, 1))
        ),
    ]
    assert len({whole, *map(fingerprint, others)}) == 5
    big = data.train._replace(labels=data.train.labels.astype(">i4"))
    assert fingerprint(data._replace(train=big)) == whole


def _arrays(**changes):
    x = np.arange(4 * 5 * 5, dtype=np.uint8).reshape(4, 5, 5)
    arrays = {"x_train": x, "y_train": np.arange(4), "x_test": x[:2], "y_test": [3, 1]}
    arrays.update(changes)
    return {key: value for key, value in arrays.items() if value is not None}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    save(tmp_path / "mine.npz", **_arrays(class_names=list("abcde"), extra=[1]))
    data = from_npz(tmp_path / "mine.npz")
    assert (data.name, data.num_classes, data.class_names) == (
        "mine",
        5,
        tuple("abcde"),
    )
    assert data.train.inputs.shape == (4, 5, 5, 1)
    np.testing.assert_array_equal(data.train.inputs[..., 0], _arrays()["x_train"])
    assert data.test.labels.tolist() == [3, 1]


def test_npz_without_names_and_with_colours(tmp_path):
    x = np.zeros((2, 5, 5, 3))
    np.savez(tmp_path / "a.npz", x_train=x, y_train=[0, 1], x_test=x, y_test=[2, 0])
    data = from_npz(str(tmp_path / "a.npz"))
    assert data.num_classes == 3
    assert data.train.inputs.dtype == np.float32


def test_columns_of_the_training_samples_go_along(tmp_path):
    user = np.array(list("abcd"))
    np.savez(tmp_path / "a.npz", **_arrays(user_train=user, user_test=[1], extra=[1]))
    data = from_npz(tmp_path / "a.npz")
    assert data.columns["user"].tolist() == list("abcd")
    assert list(data.columns) == ["user"]
    assert not digits().columns
    assert len(joined([data, data]).columns["user"]) == 8
    assert not joined([data, data._replace(columns={})]).columns
    assert shrink(data, 5).columns == data.columns
    marked = with_columns(digits(), {"row": np.arange(1000)})
    small = subset(marked, train=100, test=0)
    kept = small.columns["row"]
    np.testing.assert_array_equal(marked.train.inputs[kept], small.train.inputs)
    with pytest.raises(InputError, match=r"'user' of shape \(3,\) .* 4 training"):
        with_columns(data, {"user": np.arange(3)})


class _Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"y_test": None}, "'x_test' and no labels beside it; expected are x_train"),
        (
            {"x_train": None},
            "missing x_train or the like; its arrays are y_train, x",
        ),
        ({"x_train": np.array([_Bomb()], object)}, "allow_pickle=False"),
        ({"class_names": np.array([_Bomb()], object)}, "allow_pickle=False"),
        ({"class_names": [1, 2, 3, 4]}, "class_names of type int64"),
        ({"class_names": ["a", "b"]}, "mine train: 2 of 4 labels"),
        ({"y_test": [0]}, "mine test: labels of shape"),
        ({"x_test": np.zeros((2, 4, 4), np.uint8)}, "must have one type and shape"),
        ({"x_test": np.zeros((2, 5, 5))}, "must have one type and shape"),
        ({"x_test": np.zeros(2)}, r"inputs of shape \(2,\)"),
    ],
)
def test_npz_mistakes(tmp_path, changes, words):
    np.savez(tmp_path / "mine.npz", **_arrays(**changes))
    with pytest.raises(InputError, match=words) as caught:
        from_npz(tmp_path / "mine.npz")
    assert "\n" not in str(caught.value)


def test_files_that_are_no_npz(tmp_path):
    path = tmp_path / "mine.npz"
    with pytest.raises(InputError, match="no such file"):
        from_npz(path)
    np.savez(path, **_arrays())
    whole = path.read_bytes()
    damaged = [b"", pickle.dumps(_Bomb()), b"PK\x03\x04", whole[:-30]]
    middle = bytearray(whole)
    middle[200] ^= 0xFF
    for content in (*damaged, bytes(middle)):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"not a usable \.npz"):
            from_npz(path)


# A TFDS set is prepared for real, in array_record files, with TFDS' own writers, and
# read back by random access. The images are handed over as PNG files: TFDS encodes
# arrays with TensorFlow, which is not needed for anything else here.


def _pixels(split, number, channels=1):
    rng = np.random.default_rng([len(split), number])
    return rng.integers(0, 256, (6, 6, channels), np.uint8)


def _png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(
        stream, "PNG"
    )
    stream.seek(0)
    return stream


@pytest.fixture(scope="module")
def builders():
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()

    class Base(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        SPLITS = {"train": 11, "validation": 4}  # noqa: RUF012
        SHAPE = (6, 6, 1)

        def _features(self):
            names = ["cat", "dog", "emu"]
            return {
                "image": tfds.features.Image(shape=self.SHAPE),
                "label": tfds.features.ClassLabel(names=names),
            }

        def _info(self):
            features = tfds.features.FeaturesDict(self._features())
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            del dl_manager
            return {s: self._generate_examples(s, n) for s, n in self.SPLITS.items()}

        def _generate_examples(self, split, count):
            for n in range(count):
                yield n, {"image": _png(_pixels(split, n)), "label": n % 3}

    class TinyPets(Base):
        pass

    class TinyPetsTwoTests(Base):
        SPLITS = {"train": 2, "validation": 3, "test": 4}  # noqa: RUF012

    class TinyPetsTrainOnly(Base):
        SPLITS = {"train": 3}  # noqa: RUF012

    class TinyPetsTestOnly(Base):
        SPLITS = {"test": 3}  # noqa: RUF012

    class TinyPetsByOtherNames(Base):
        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(
                    {
                        "photo": tfds.features.Image(shape=self.SHAPE),
                        "kind": tfds.features.ClassLabel(names=["cat", "dog", "emu"]),
                        "image": np.int64,
                    }
                ),
                supervised_keys=("photo", "kind"),
            )

        def _generate_examples(self, split, count):
            for n in range(count):
                yield n, {"photo": _png(_pixels(split, n)), "kind": n % 3, "image": n}

    class TinyPetsNoLabel(Base):
        def _features(self):
            return {"image": tfds.features.Image(shape=self.SHAPE), "size": np.int64}

        def _generate_examples(self, split, count):
            for n in range(count):
                yield n, {"image": _png(_pixels(split, n)), "size": n}

    class TinyPetsUnequal(Base):
        SHAPE = (None, None, 1)

        def _generate_examples(self, split, count):
            for n in range(count):
                yield n, {"image": _png(_pixels(split, n)[n % 2 :]), "label": 0}

    class TinyPetsNeedsMore(Base):
        def _generate_examples(self, split, count):
            import a_package_that_is_not_there  # pyright: ignore  # noqa: F401

            yield from super()._generate_examples(split, count)

    return tfds


def _assert_tiny_pets(data):
    assert data.name == "tiny_pets"
    assert data.class_names == ("cat", "dog", "emu")
    for part, split, count in ((data.train, "train", 11), (data.test, "validation", 4)):
        assert part.inputs.shape == (count, 6, 6, 1)
        assert part.inputs.dtype == np.uint8
        assert part.labels.dtype == np.int32
        # TFDS shuffles on the disk: find each image again by its pixels.
        number = {_pixels(split, n).tobytes(): n for n in range(count)}
        found = [number[image.tobytes()] for image in part.inputs]
        assert sorted(found) == list(range(count))
        np.testing.assert_array_equal(part.labels, np.array(found) % 3)


def test_tfds_set_is_prepared_and_read_in_a_stable_order(builders, tmp_path):
    with pytest.raises(InputError, match=r"not prepared in data_dir=.*download=True"):
        from_tfds("tiny_pets", data_dir=tmp_path)
    data = from_tfds("tiny_pets", data_dir=tmp_path, download=True)
    _assert_tiny_pets(data)
    (record,) = tmp_path.glob("tiny_pets/1.0.0/*train.array_record*")
    assert record.stat().st_size > 0
    for name in ("tiny_pets", "tiny_pets:1.0.0"):
        again = from_tfds(name, data_dir=tmp_path)
        assert fingerprint(again) == fingerprint(data)
    with pytest.raises(InputError, match="not prepared"):
        from_tfds("tiny_pets:2.0.0", data_dir=tmp_path)
    with pytest.raises(InputError, match="'tiny_pots'; did you mean 'tiny_pets'"):
        from_tfds("tiny_pots", data_dir=tmp_path)


def test_tfds_set_is_read_without_its_code_or_tensorflow_or_a_network(
    builders, tmp_path
):
    from_tfds("tiny_pets", data_dir=tmp_path, download=True)
    program = f"""
import socket, sys
def refuse(*args, **options):
    raise AssertionError("the network was used")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from jax_unlearn.data import fingerprint, from_tfds
print(fingerprint(from_tfds("tiny_pets", data_dir={str(tmp_path)!r})))
assert "tensorflow" not in sys.modules
"""
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = fingerprint(from_tfds("tiny_pets", data_dir=tmp_path))
    assert done.stdout.strip() == expected


def test_the_command_line_reads_a_prepared_tfds_set(builders, tmp_path, capsys):
    from_tfds("tiny_pets", data_dir=tmp_path, download=True)
    out = tmp_path / "split.json"
    source = ["--dataset", "tiny_pets", "--data-dir", str(tmp_path)]
    options = ["--fraction", "0.3", "--unseen-fraction", "0.2"]
    main(["split", *source, *options, "--out", str(out)])
    assert "tiny_pets: forget 3, retain 6, unseen 2" in capsys.readouterr().out
    split, unseen = load_manifest(out)
    every = np.sort(np.concatenate([split.forget, split.retain, unseen]))
    np.testing.assert_array_equal(every, np.arange(11))


def test_tfds_takes_the_test_split_first(builders, tmp_path):
    data = from_tfds("tiny_pets_two_tests", data_dir=tmp_path, download=True)
    assert len(data.test.labels) == 4


def test_tfds_supervised_keys_and_a_set_without_a_test_part(builders, tmp_path):
    data = from_tfds("tiny_pets_by_other_names", data_dir=tmp_path, download=True)
    _assert_tiny_pets(data._replace(name="tiny_pets"))
    again = load(tmp_path / "tiny_pets_by_other_names" / "1.0.0")
    assert fingerprint(again) == fingerprint(data)
    data = from_tfds("tiny_pets_train_only", data_dir=tmp_path, download=True)
    assert (len(data.train.labels), len(data.test.labels)) == (2, 1)
    assert "1 of 3 samples are held out" in " ".join(data.notes)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tiny_pets_test_only", "has the splits test;"),
        ("tiny_pets_no_label", "has the features image, size; only sets"),
        ("tiny_pets_unequal", r"images of 2 shapes, such as \(5, 6, 1\) and \(6, 6"),
        ("tiny_pets_needs_more", "needs the package a_package_that_is_not_there"),
    ],
)
def test_tfds_sets_that_cannot_be_used(builders, tmp_path, name, words):
    with pytest.raises(InputError, match=words) as caught:
        from_tfds(name, data_dir=tmp_path, download=True)
    assert "\n" not in str(caught.value)


def test_tfds_set_without_random_access(builders, tmp_path):
    from_tfds("tiny_pets", data_dir=tmp_path, download=True)
    # As TFDS leaves it where nobody asked for array_record.
    folder = tmp_path / "tiny_pets" / "1.0.0"
    for path in folder.iterdir():
        if path.suffix == ".json":
            text = path.read_text().replace("array_record", "tfrecord")
            path.write_text(text)
        elif "array_record" in path.name:
            path.rename(folder / path.name.replace("array_record", "tfrecord"))
    with pytest.raises(InputError, match="prepared as tfrecord, which has no random"):
        from_tfds("tiny_pets", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["", "a b", "../etc", "kaggle:mnist", "mnist/", "a\n"])
def test_tfds_names_that_cannot_be(name):
    with pytest.raises(InputError, match="must look like cifar10"):
        from_tfds(name)


def test_tfds_unknown_and_unprepared_names(builders, tmp_path):
    with pytest.raises(InputError, match="'cifar1O'; did you mean 'cifar10'"):
        from_tfds("cifar1O", data_dir=tmp_path)
    with pytest.raises(InputError, match="'cifar1O'; did you mean 'cifar10'"):
        from_tfds("cifar1O", data_dir=tmp_path, download=True)
    with pytest.raises(InputError, match="tfds build cifar10 --file_format=array_rec"):
        from_tfds("cifar10", data_dir=tmp_path)


def test_parts_of_a_data_set_are_joined_in_their_order():
    whole = digits()
    halves = [
        whole._replace(train=Examples(*(array[part] for array in whole.train)))
        for part in (slice(0, 600), slice(600, None))
    ]
    both = joined(halves)
    assert fingerprint(both) == fingerprint(whole)
    # another test set is no repetition
    other = whole._replace(test=Examples(*(array[:9] for array in whole.test)))
    assert len(joined([whole, other]).test.labels) == len(whole.test.labels) + 9


def test_parts_of_different_data_sets_are_not_joined():
    whole = digits()
    small = shrink(whole, 2)
    with pytest.raises(InputError, match=r"\(4, 4, 1\).*unlike digits"):
        joined([whole, small])
    with pytest.raises(InputError, match="one or more"):
        joined([])
