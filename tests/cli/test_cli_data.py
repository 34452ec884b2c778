"""Data of every kind through the commands: trained on, and read again to forget."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from small import refused

from jax_unlearn.cli import main
from jax_unlearn.data import digest, digits, load
from jax_unlearn.lab.store import load_model

SIZE, TEST = 60, 20
FULL = digits()
X, Y = FULL.train.inputs[:SIZE], FULL.train.labels[:SIZE]
XT, YT = FULL.test.inputs[:TEST], FULL.test.labels[:TEST]
RGB = np.repeat(X, 3, axis=-1)
NAMES = np.array(
    ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
)
USERS = np.array([f"u{n}" for n in range(SIZE)])
QUICK = ["--network", "linear", "--epochs", "1", "--batch-size", "30"]
FORGET = ["--method", "finetune", "--epochs", "1", "--batch-size", "30"]


def archive(**changes):
    """Return what writes an npz file of digits, with changes; None leaves out."""

    def write(folder):
        arrays = {"x_train": X, "y_train": Y, "x_test": XT, "y_test": YT}
        arrays |= {"user_train": USERS, **changes}
        np.savez(
            folder / "data.npz", **{k: v for k, v in arrays.items() if v is not None}
        )
        return folder / "data.npz", "user", USERS

    return write


def medical(folder):
    """Write arrays as MedMNIST names them."""
    arrays = {"train_images": RGB, "train_labels": Y[:, None], "train_user": USERS}
    arrays |= {"val_images": RGB[:9], "val_labels": Y[:9, None]}
    arrays |= {"test_images": RGB[:TEST], "test_labels": Y[:TEST, None]}
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz", "user", USERS


def in_folders(folder):
    """Write images in a folder a class."""
    for number, (image, label) in enumerate(zip(X, Y, strict=True)):
        place = folder / "images" / NAMES[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(place / f"{number}.png")
    return folder / "images", "file", [f"{NAMES[y]}/{n}.png" for n, y in enumerate(Y)]


def beside_a_table(folder):
    """Write images in one folder and a table that says what they are."""
    place = folder / "set" / "images"
    place.mkdir(parents=True)
    lines = ["file,label"]
    for number, (image, label) in enumerate(zip(X, Y, strict=True)):
        Image.fromarray(image[..., 0]).save(place / f"{number}.png")
        lines.append(f"{number}.png,{NAMES[label]}")
    (folder / "set" / "labels.csv").write_text("\n".join(lines))
    return folder / "set", "file", [f"{n}.png" for n in range(SIZE)]


def people():
    """Return columns of numbers and categories, some of them missing."""
    ages = [None if n % 7 == 3 else 20 + n for n in range(SIZE)]
    cities = [None if n % 9 == 4 else ("Rome", "Oslo")[n % 2] for n in range(SIZE)]
    return {"user_id": USERS.tolist(), "age": ages, "city": cities, "label": Y % 2}


def as_csv(folder):
    columns = people()
    rows = zip(*columns.values(), strict=True)
    lines = [",".join("" if v is None else str(v) for v in row) for row in rows]
    (folder / "data.csv").write_text("\n".join([",".join(columns), *lines]))
    return folder / "data.csv", "user_id", USERS


def as_parquet(folder):
    pq.write_table(pa.table(people()), folder / "data.parquet")
    return folder / "data.parquet", "user_id", USERS


def as_arrow(folder):
    """Write a set as Hugging Face's save_to_disk does."""
    images = []
    for image in X:
        stream = io.BytesIO()
        Image.fromarray(image[..., 0]).save(stream, "PNG")
        images.append({"bytes": stream.getvalue(), "path": None})
    table = pa.table({"image": images, "label": Y, "user_id": USERS.tolist()})
    root = folder / "set"
    root.mkdir()
    with pa.ipc.new_stream(str(root / "data-00000-of-00001.arrow"), table.schema) as to:
        to.write_table(table)
    (root / "state.json").write_text("{}")
    return root, "user_id", USERS


UNIT = np.float32(1 / 255)
KINDS = {
    "no test part": (archive(x_test=None, y_test=None), "no test part: 12 of 60"),
    "medical": (medical, "labels of shape [N, 1] are read as [N]"),
    "channels first": (
        archive(
            x_train=RGB.transpose(0, 3, 1, 2), x_test=RGB[:TEST].transpose(0, 3, 1, 2)
        ),
        "have their channels first: transposed",
    ),
    "floats to 255": (archive(x_train=X * 1.0, x_test=XT * 1.0), ""),
    "standardised": (archive(x_train=X * UNIT * 3 - 1, x_test=XT * UNIT * 3 - 1), ""),
    "text": (
        archive(y_train=NAMES[Y], y_test=NAMES[YT]),
        "labels are text: 10 classes",
    ),
    "one-hot": (archive(y_train=np.eye(10)[Y], y_test=np.eye(10)[YT]), "by argmax"),
    "folder a class": (in_folders, "10 classes of images"),
    "folder and table": (beside_a_table, "images are the files that column 'file'"),
    "csv": (
        as_csv,
        "missing values, read as the mean or as no category: age (9)",
    ),
    "parquet": (as_parquet, "categories, one-hot: city (2)"),
    "hugging face": (as_arrow, "labels are the column 'label'"),
}


def run(*words):
    main([str(word) for word in words])


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_data_is_trained_on_and_forgotten_by_key(kind, tmp_path, capsys):
    write, note = KINDS[kind]
    path, column, keys = write(tmp_path)
    data = ["--data", path, "--key-column", column]
    run("train", *data, *QUICK, "--out", tmp_path / "made")
    assert note in capsys.readouterr().out
    (tmp_path / "del.txt").write_text("\n".join(keys[:12]))
    asked = ["--checkpoint", tmp_path / "made", "--forget", tmp_path / "del.txt"]
    run("unlearn", *data, *asked, *FORGET, "--out", tmp_path / "out")
    held = load(path).columns[column]
    trained = load_model(tmp_path / "made").ids
    wanted = trained[np.isin(held[trained], keys[:12])]
    assert len(wanted) > 5
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    assert record["forgotten_sha256"] == digest(wanted)
    apart = len(np.setdiff1d(keys[:12], held))  # no row of the training part has these
    assert len(record["request"].get("in_test", ())) == apart
    told = f"; {apart} of the keys name test samples alone"
    assert (told in capsys.readouterr().out) == bool(apart)


def test_data_of_one_class_or_without_labels_are_refused(tmp_path, capsys):
    path, _, _ = beside_a_table(tmp_path)
    train = ["train", "--data", path, *QUICK, "--out", tmp_path / "out"]
    (path / "labels.csv").write_text("name,label\n0,cat\n1,dog\n")
    assert "set has images, and no column names them" in refused(capsys, train)
    (path / "labels.csv").unlink()
    assert "set has the classes ['images']; give data of two" in refused(capsys, train)
    assert not (tmp_path / "out").exists()


def test_keys_of_test_samples_alone_are_nothing_to_forget(tmp_path, capsys):
    path, _, keys = as_csv(tmp_path)
    (tmp_path / "del.txt").write_text(
        "\n".join(set(keys) - set(load(path).columns["user_id"]))
    )
    split = ["split", "--data", path, "--ids", tmp_path / "del.txt"]
    line = refused(capsys, [*split, "--key-column", "user_id"])
    assert "12 keys of del.txt in column 'user_id' of the test part alone" in line
