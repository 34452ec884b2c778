"""Data of every kind that `load` reads, and what it says of them."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jax_unlearn.data import fingerprint, load
from jax_unlearn.data.checks import numbered
from jax_unlearn.errors import InputError

SIZE = 20
LABELS = np.arange(SIZE) % 4
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (SIZE, 6, 6, 3), np.uint8)


def saved(folder, name="a.npz", **arrays):
    path = folder / name
    np.savez(path, **arrays)
    return path


def with_labels(folder, train, test=None, **more):
    """Return what is read of images with such labels."""
    test = train[:8] if test is None else test
    arrays = {"x_train": IMAGES, "x_test": IMAGES[:8], "y_train": train, "y_test": test}
    return load(saved(folder, **arrays, **more))


def notes_of(data):
    return "; ".join(data.notes)


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("X_train", "Y_train", "X_test", "Y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("images_train", "labels_train", "images_val", "labels_val"),
        ("Xtrain", "ytrain", "Xtest", "ytest"),
        ("images", "labels", "test_images", "test_labels"),
        ("train_x", "train_y", "valid_x", "valid_y"),
        ("train_data", "train_target", "test_data", "test_target"),
    ],
)
def test_arrays_by_their_usual_names(tmp_path, names):
    arrays = (IMAGES, LABELS, IMAGES[:8], LABELS[:8])
    data = load(saved(tmp_path, **dict(zip(names, arrays, strict=True))))
    np.testing.assert_array_equal(data.train.inputs, IMAGES)
    np.testing.assert_array_equal(data.train.labels, LABELS)
    np.testing.assert_array_equal(data.test.labels, LABELS[:8])
    assert "row" not in data.columns


def test_medical_images_by_their_names(tmp_path):
    parts = {"train": slice(None), "val": slice(4), "test": slice(8)}
    arrays = {f"{part}_images": IMAGES[own] for part, own in parts.items()}
    arrays |= {f"{part}_labels": LABELS[own, None] for part, own in parts.items()}
    data = load(saved(tmp_path, **arrays))
    assert len(data.test.labels) == 8
    np.testing.assert_array_equal(data.train.labels, LABELS)
    assert "val_images is left out" in notes_of(data)
    assert "[N, 1]" in notes_of(data)


@pytest.mark.parametrize("names", ["x y", "images labels", "data target", "X Y"])
def test_a_share_is_held_out_where_there_is_no_test_part(tmp_path, names):
    images, labels = names.split()
    users = np.arange(SIZE) // 2
    path = saved(tmp_path, **{images: IMAGES, labels: LABELS, "user_id": users})
    data = load(path)
    rows = data.columns["row"]
    assert np.bincount(data.test.labels).tolist() == [1] * 4
    np.testing.assert_array_equal(data.train.inputs, IMAGES[rows])
    np.testing.assert_array_equal(data.columns["user_id"], users[rows])
    assert "4 of 20 samples are held out" in notes_of(data)
    assert fingerprint(load(path)) == fingerprint(data)
    tested = {"x_test": IMAGES[:8], "y_test": LABELS[:8]}
    data = load(saved(tmp_path, x_train=IMAGES, y_train=LABELS, u=users, **tested))
    np.testing.assert_array_equal(data.columns["u"], users)  # as long as they alone


def test_names_that_are_not_known(tmp_path):
    path = saved(tmp_path, foo=IMAGES, bar=LABELS)
    with pytest.raises(InputError, match=r"its arrays are foo, bar; expected are x_tr"):
        load(path)
    with pytest.raises(InputError, match="no such file or folder"):
        load(tmp_path / "nothing.npz")
    np.save(tmp_path / "a.npy", IMAGES)
    with pytest.raises(
        InputError, match=r"of no format that can be read; give \.npz, \.c"
    ):
        load(tmp_path / "a.npy")
    with pytest.raises(InputError, match="label_column='a' is not used for"):
        load(path, label_column="a")


WORDS = np.array(["ant", "bee", "cat", "dog"])
LABEL_FORMS = {
    "text": (WORDS[LABELS], WORDS, "labels are text: 4 classes, ant, bee, cat, dog"),
    "bytes": (WORDS[LABELS].astype("S"), WORDS, "text"),
    "column": (LABELS[:, None], "0123", "[N, 1]"),
    "one-hot": (np.eye(4, dtype=int)[LABELS], "0123", "argmax"),
    "one-hot floats": (np.eye(4, dtype=np.float32)[LABELS], "0123", "argmax"),
    "one-hot truths": (np.eye(4, dtype=bool)[LABELS], "0123", "argmax"),
    "whole floats": (LABELS.astype(np.float64), "0123", "floats, all whole"),
    "from 1 on": (LABELS + 1, "1234", "numbered 0 to 3; the names of the classes stay"),
    "with gaps": (LABELS * 10 - 7, ["-7", "3", "13", "23"], "labels -7, 3, 13, 23 are"),
    "numbers as text": (LABELS.astype(str), "0123", "text"),
    "huge": (LABELS.astype(np.uint64) + 2**63, None, "numbered"),
}


@pytest.mark.parametrize("form", LABEL_FORMS)
def test_labels_of_any_form(tmp_path, form):
    given, names, note = LABEL_FORMS[form]
    data = with_labels(tmp_path, given)
    assert data.train.labels.tolist() == LABELS.tolist()
    assert data.test.labels.tolist() == LABELS[:8].tolist()
    assert data.num_classes == 4
    assert names is None or data.class_names == tuple(names)
    assert note in notes_of(data)


def test_truth_values_and_given_names(tmp_path):
    data = with_labels(tmp_path, LABELS > 1)
    assert (data.class_names, data.num_classes) == (("False", "True"), 2)
    assert data.train.labels.tolist() == (LABELS > 1).astype(int).tolist()
    named = np.array(["d", "c", "b", "a"])
    data = with_labels(tmp_path, named[LABELS], class_names=named)
    assert data.train.labels.tolist() == LABELS.tolist()
    data = with_labels(tmp_path, LABELS + 1, class_names=named)
    assert data.class_names == tuple("dcba")
    assert data.train.labels.tolist() == LABELS.tolist()
    assert not with_labels(tmp_path, LABELS, class_names=named).notes


def test_numbers_as_text_are_in_order_of_size(tmp_path):
    labels = np.array(["10", "9"] * 10)
    assert with_labels(tmp_path, labels).class_names == ("9", "10")


# What cannot be a class, and what the message says to do, which then works.
REMEDIES = [
    (np.linspace(0, 3, SIZE), "np.digitize", lambda y: np.digitize(y, [0.9, 1.9])),
    (RNG.dirichlet(np.ones(4), SIZE), "argmax", lambda y: y.argmax(axis=1)),
    (
        np.stack([LABELS > 0, LABELS > 1, LABELS > 2], axis=1).astype(int),
        r"labels\[:, 0\]",
        lambda y: y[:, 0],
    ),
    (
        np.array([1, 2] * 10, "M8[D]"),
        r"labels.astype\(str\)",
        lambda y: y.astype(str),
    ),
    (
        np.array(["cat", 3] * 10, object),
        r"y_train.astype\(str\)",
        lambda y: y.astype(str),
    ),
    (np.array([0, 1] * 10, object), "y_train.tolist", lambda y: np.array(y.tolist())),
]


@pytest.mark.parametrize("case", range(len(REMEDIES)))
def test_remedies_for_labels_work(tmp_path, case):
    labels, words, remedy = REMEDIES[case]
    with pytest.raises(InputError, match=words) as caught:
        with_labels(tmp_path, labels)
    assert "\n" not in str(caught.value)
    data = with_labels(tmp_path, remedy(labels))
    assert data.num_classes >= 2


@pytest.mark.parametrize(
    "labels",
    [WORDS[LABELS], LABELS * 1.0, LABELS > 1, LABELS[:, None], np.eye(4)[LABELS]],
)
def test_code_that_numbers_labels_works(labels):
    made = eval(numbered(labels), {"np": np, "labels": labels})
    assert made.dtype.kind == "i"
    assert made.shape == (SIZE,)


@pytest.mark.parametrize(
    ("train", "test", "words"),
    [
        (WORDS[LABELS], LABELS[:8], "of one part are .* and of the other"),
        (LABELS + 1, LABELS[:8] - 1, "the test labels -1, 0 are not among .* 1, 2, 3,"),
        (WORDS[LABELS % 2], WORDS[:4], "test labels cat, dog are not among"),
        (np.where(LABELS, WORDS[LABELS], " "), None, r"labels\[0\] is empty"),
        (np.where(LABELS, LABELS, np.nan), None, r"labels\[0\]=nan .*drop the sample"),
        (np.zeros((SIZE, 2, 2)), None, "labels of shape"),
    ],
)
def test_labels_that_are_no_classes(tmp_path, train, test, words):
    test = train[:8] if test is None else test
    x = {"x_train": IMAGES, "x_test": IMAGES[: len(test)]}
    with pytest.raises(InputError, match=words):
        load(saved(tmp_path, **x, y_train=train, y_test=test))


@pytest.mark.parametrize(
    ("images", "shape", "note"),
    [
        (IMAGES.transpose(0, 3, 1, 2), (6, 6, 3), "[N, 3, 6, 6] have their channels"),
        (IMAGES[..., :1].transpose(0, 3, 1, 2), (6, 6, 1), "channels first"),
        (np.zeros((SIZE, 13, 32, 32), np.uint8), (32, 32, 13), "channels first"),
        (np.zeros((SIZE, 3, 3, 3), np.uint8), (3, 3, 3), ""),
        (np.zeros((SIZE, 5, 6, 4), np.uint8), (5, 6, 4), ""),
        (IMAGES[..., 0], (6, 6, 1), ""),
        (IMAGES.reshape(SIZE, -1), (1, 1, 108), "rows of a table of 108 numbers"),
    ],
)
def test_channels_and_rows(tmp_path, images, shape, note):
    data = load(saved(tmp_path, x_train=images, y_train=LABELS, x=IMAGES))
    assert data.train.inputs.shape[1:] == shape
    assert note in notes_of(data)
    if note.startswith("[N, 3"):
        np.testing.assert_array_equal(data.train.inputs, IMAGES[data.columns["row"]])
    assert data.is_table == (shape == (1, 1, 108))


@pytest.mark.parametrize(
    ("dtype", "becomes"),
    [
        (np.int64, np.uint8),
        (np.uint16, np.uint8),
        (bool, np.float32),
        (np.float64, np.float32),
        (np.float16, np.float32),
    ],
)
def test_types_of_pixels(tmp_path, dtype, becomes):
    data = load(saved(tmp_path, x=IMAGES.astype(dtype), y=LABELS))
    rows = data.columns["row"]
    assert data.train.inputs.dtype == becomes
    np.testing.assert_array_equal(data.train.inputs, IMAGES[rows].astype(dtype))


def test_integers_beyond_bytes_stay_as_they_are(tmp_path):
    wide = IMAGES.astype(np.int32) * 16
    data = load(saved(tmp_path, x=wide, y=LABELS))
    np.testing.assert_array_equal(data.train.inputs, wide[data.columns["row"]])
    assert "int32 are read as float32" in notes_of(data)


# ---- folders of images


def folder_of(root, classes=("cat", "dog"), count=5, size=(6, 5), mode="RGB"):
    for place, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.full((size[1], size[0], 3), 40 * place + number, np.uint8)
            image = Image.fromarray(pixels).convert(mode)
            image.save(root / name / f"{number}.png")
    return root


def test_a_folder_a_class(tmp_path):
    root = folder_of(tmp_path / "pets", ("dog", "cat"))
    (root / "cat" / "notes.txt").write_text("x")
    (root / ".hidden").mkdir()
    data = load(root)
    assert (data.name, data.class_names) == ("pets", ("cat", "dog"))
    assert data.train.inputs.shape == (8, 5, 6, 3)
    assert data.test.inputs.shape == (2, 5, 6, 3)
    values = data.train.inputs[:, 0, 0, 0]
    for value, label, file in zip(
        values, data.train.labels, data.columns["file"], strict=True
    ):
        assert file == f"{('cat', 'dog')[label]}/{value % 40}.png"
        assert value // 40 == 1 - label
    assert data.columns["file"].tolist() == sorted(data.columns["file"].tolist())
    assert "1 files in" in notes_of(data)
    assert fingerprint(load(root)) == fingerprint(data)


@pytest.mark.parametrize("part", ["test", "val", "validation", "Testing"])
def test_folders_of_parts(tmp_path, part):
    folder_of(tmp_path / "train", ("1", "10", "9"))
    folder_of(tmp_path / part, ("1", "9"), count=2)
    data = load(tmp_path)
    assert data.class_names == ("1", "9", "10")
    assert (len(data.train.labels), data.test.labels.tolist()) == (15, [0, 0, 1, 1])
    assert data.columns["file"][0] == "train/1/0.png"
    assert data.test_columns["file"][0] == f"{part}/1/0.png"
    assert "row" not in data.columns


def test_a_class_called_train_is_a_class(tmp_path):
    assert load(folder_of(tmp_path / "a", ("car", "train"))).class_names == (
        "car",
        "train",
    )


def test_sizes_that_differ_and_the_remedy(tmp_path):
    root = folder_of(tmp_path / "pets")
    Image.new("RGB", (9, 7)).save(root / "dog" / "big.jpg")
    with pytest.raises(InputError, match=r"dog/big\.jpg has 9 x 7 .* image_size=5$"):
        load(root)
    data = load(root, image_size=5)
    assert data.train.inputs.shape[1:] == (5, 5, 3)
    assert "resized to 5 x 5" in notes_of(data)
    with pytest.raises(InputError, match="image_size=0"):
        load(root, image_size=0)


def test_modes_of_pictures(tmp_path):
    grey = load(folder_of(tmp_path / "grey", mode="L"))
    assert grey.train.inputs.shape[1:] == (5, 6, 1)
    root = folder_of(tmp_path / "mixed")
    Image.new("L", (6, 5), 7).save(root / "cat" / "grey.png")
    Image.new("RGBA", (6, 5), (9, 9, 9, 0)).save(root / "cat" / "clear.png")
    Image.fromarray(np.full((5, 6), 257 * 33, np.uint16)).save(root / "cat" / "x.png")
    Image.new("P", (6, 5), 3).save(root / "cat" / "pal.gif")
    Image.new("CMYK", (6, 5)).save(root / "cat" / "ink.jpg")
    Image.new("1", (6, 5), 1).save(root / "cat" / "bit.png")
    data = load(root)
    said = notes_of(data)
    assert "1 images with transparency are laid on white" in said
    assert "1 images of 16 bits are made bytes" in said
    assert "3 grey images among coloured ones get three channels" in said
    pixel = dict(zip(data.columns["file"], data.train.inputs[:, 0, 0, 0], strict=True))
    for file, value in (("grey", 7), ("clear", 255), ("x", 33), ("bit", 255)):
        assert pixel.get(f"cat/{file}.png", value) == value


def test_folders_that_cannot_be_used(tmp_path):
    root = folder_of(tmp_path / "pets")
    bad = root / "dog" / "0.png"
    bad.write_bytes(bad.read_bytes()[:40])
    with pytest.raises(InputError, match=r"dog/0\.png cannot be read as an image"):
        load(root)
    bad.unlink()
    load(root)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no images; put the images of each"):
        load(tmp_path / "none")
    Image.new("L", (4, 4)).save(tmp_path / "none" / "a.png")
    with pytest.raises(InputError, match="holds 1 images, none of them in a folder"):
        load(tmp_path / "none")


def test_images_that_a_table_names(tmp_path):
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        names = [f"{n}.png" for n in range(4)]
        for number, file in enumerate(names):
            Image.new("L", (4, 4), number).save(tmp_path / part / file)
        rows = [f"{part}/{file},{'ab'[n % 2]}" for n, file in enumerate(names)]
        (tmp_path / f"{part}.csv").write_text("\n".join(["id,label", *rows]))
    data = load(tmp_path)
    assert data.train.inputs[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert data.class_names == ("a", "b")
    assert data.columns["id"][0] == "train/0.png"
    assert data.test_columns["id"][0] == "test/0.png"
    rows = (tmp_path / "train.csv").read_text()
    for old, words in (("train/", "lies in 2 folders"), ("train/0", "'x.png' is not")):
        (tmp_path / "train.csv").write_text(rows.replace(old, "x" * (old[-1] == "0")))
        with pytest.raises(InputError, match=words):
            load(tmp_path)


# ---- tables

ROWS = """user_id,age,city,paid,label
u1,30,Rome,true,no
u2,50,Oslo,false,yes
u3,40,Rome,true,no
u4,,Oslo,false,yes
u5,45,,true,no
"""


def table(folder, text=ROWS * 1, name="people.csv", rows=4):
    head, *lines = text.strip().split("\n")
    path = folder / name
    path.write_text("\n".join([head, *(lines * rows)]) + "\n")
    return path


def test_a_table_of_numbers_and_categories(tmp_path):
    data = load(table(tmp_path))
    assert data.class_names == ("no", "yes")
    assert data.is_table
    assert (len(data.train.labels), len(data.test.labels)) == (16, 4)
    rows = data.train.inputs[:, 0, 0, :]
    assert rows.shape == (16, 4)  # age, two cities, paid
    np.testing.assert_allclose(rows[:, [0, 3]].mean(axis=0), 0, atol=0.2)
    kept = data.columns["row"] % 5
    there = kept != 3  # the one without an age
    ages = np.array([30, 50, 40, 0, 45])[kept][there]
    mean, std = ages.mean(), ages.std()
    np.testing.assert_allclose(rows[there, 0], (ages - mean) / std, rtol=1e-5)
    assert not rows[~there, 0].any()
    np.testing.assert_array_equal(rows[:, 1], np.isin(kept, [1, 3]))  # Oslo
    np.testing.assert_array_equal(rows[:, 2], np.isin(kept, [0, 2]))
    assert data.columns["user_id"].tolist() == [f"u{n + 1}" for n in kept]
    assert "city" in data.columns
    said = notes_of(data)
    for words in ("age", "city (2)", "missing values", "no inputs, but columns: user_"):
        assert words in said


def test_columns_that_are_asked_for(tmp_path):
    path = table(tmp_path)
    data = load(path, label_column="paid", exclude=["user_id", "city"])
    assert data.class_names == ("False", "True")
    assert data.train.inputs.shape[-1] == 3  # age and label's two
    for wrong, words in (
        ({"label_column": "agee"}, "column 'agee'; did you mean 'age'"),
        ({"exclude": ["cty"]}, "column 'cty'; did you mean 'city'"),
        ({"image_size": 8}, "image_size=8: people has no images; leave it out"),
    ):
        with pytest.raises(InputError, match=words):
            load(path, **wrong)


def test_labels_of_a_table_that_are_not_named(tmp_path):
    text = ROWS.replace("label", "outcome")
    with pytest.raises(InputError, match="which of them are the labels") as caught:
        load(table(tmp_path, text))
    assert "label_column='outcome'" in str(caught.value)
    assert load(table(tmp_path, text), label_column="outcome").num_classes == 2


def test_missing_labels_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"label\[1\] is missing; drop the row"):
        load(table(tmp_path, ROWS.replace("false,yes\nu3", "false,\nu3")))


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("2020-01-0{}", "is of dates, neither numbers nor text; give exclude="),
        ("name{}", "different texts, over the 20 .* give exclude="),
        ("{}.5", "has \\? among its numbers; leave such cells empty, or give exclude="),
    ],
)
def test_columns_that_are_no_inputs_and_the_remedy(tmp_path, column, words):
    lines = [f"{n},{column.format(n)},{n % 2}" for n in range(1, 10)]
    if "name" in column:
        lines = [f"{n},{column.format(n)},{n % 2}" for n in range(60)]
    if "5" in column:
        lines = [f"{n},{'?' if n == 7 else n + 0.5},{n % 2}" for n in range(60)]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["age,other,y", *lines]))
    with pytest.raises(InputError, match=words) as caught:
        load(path)
    assert str(caught.value).count("exclude=['other']") == 1
    data = load(path, exclude=["other"])
    assert data.train.inputs.shape[-1] == 1
    assert data.columns["other"].dtype.kind == "U"
    lines = [f"{line},u{n}" for n, line in enumerate(lines)]
    path.write_text("\n".join(["age,other,y,user_id", *lines]))
    with pytest.raises(InputError, match=r"exclude=\['user_id', 'other'\]"):
        load(path)  # or the users would become inputs with it


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"1,2,3\n4,5,6\n", "begins with numbers .*; put a first line with the names"),
        (b"a,b,y\n1,2\n", "cannot be read as csv"),
        (b"a,a,y\n1,2,0\n", "has two columns 'a'"),
        (b"a,y\nM\xfcnchen,1\n", "is not UTF-8 .*; save it as UTF-8"),
        (b"", "begins with an empty line"),
        (b"a,y\n", "has no rows|has 0 samples|no rows"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, content, words):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_separators(tmp_path, mark):
    name = "a.tsv" if mark == "\t" else "a.csv"
    text = "\ufeff" + "age,label\n1.5,no\n2.5,yes\n".replace(",", mark)
    (tmp_path / name).write_text(text * 1, encoding="utf-8")
    data = load(tmp_path / name)
    assert data.columns["age"][0] in (1.5, 2.5)
    (tmp_path / name).write_text(text.replace(".", ",").lstrip("\ufeff"))
    if mark == ";":
        assert load(tmp_path / name).columns["age"][0] in (1.5, 2.5)


def test_parts_of_a_table(tmp_path):
    both = tmp_path / "both"
    both.mkdir()
    table(both, name="train.csv")
    table(both, name="test.csv", rows=1)
    data = load(both)
    assert (len(data.train.labels), len(data.test.labels)) == (20, 5)
    lines = ROWS.strip().split("\n")
    parts = ["train", "train", "train", "test", "test"]
    path = tmp_path / "one.csv"
    marked = [f"{a},{b}" for a, b in zip(lines, ["split", *parts], strict=True)]
    path.write_text("\n".join(marked))
    data = load(path)
    assert data.columns["row"].tolist() == [0, 1, 2]
    assert len(data.test.labels) == 2
    assert "split" not in data.columns


def test_parquet(tmp_path):
    import pyarrow.csv

    read = pyarrow.csv.read_csv(table(tmp_path))
    pq.write_table(read, tmp_path / "people.parquet")
    data = load(tmp_path / "people.parquet")
    assert fingerprint(data) == fingerprint(load(tmp_path / "people.csv"))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="cannot be read as parquet"):
        load(tmp_path / "broken.parquet")


# ---- Hugging Face sets


def png(value, size=(4, 4)):
    stream = io.BytesIO()
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


FEATURES = {
    "image": {"_type": "Image"},
    "label": {"names": ["ham", "spam"], "_type": "ClassLabel"},
    "who": {"dtype": "string", "_type": "Value"},
}


def hugging_face(folder, count, features=FEATURES):
    """Write what `save_to_disk` writes, without the package."""
    folder.mkdir(parents=True)
    images = [{"bytes": png(n), "path": None} for n in range(count)]
    columns = {"image": images, "label": [n % 2 for n in range(count)]}
    columns["who"] = [f"w{n}" for n in range(count)]
    content = json.dumps({"info": {"features": features}})
    read = pa.table(columns).replace_schema_metadata({"huggingface": content})
    half = count // 2
    for number, part in enumerate((read.slice(0, half), read.slice(half))):
        path = folder / f"data-{number:05d}-of-00002.arrow"
        with (
            pa.OSFile(str(path), "wb") as sink,
            pa.ipc.new_stream(sink, read.schema) as w,
        ):
            w.write_table(part)
    (folder / "state.json").write_text("{}")
    return read


def test_a_hugging_face_set(tmp_path):
    root = tmp_path / "mail"
    read = hugging_face(root / "train", 10)
    hugging_face(root / "test", 4)
    (root / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    data = load(root)
    assert data.class_names == ("ham", "spam")
    assert data.train.inputs[:, 0, 0, 0].tolist() == list(range(10))
    assert data.test.labels.tolist() == [0, 1, 0, 1]
    assert data.columns["who"].tolist() == [f"w{n}" for n in range(10)]
    alone = load(root / "train")
    assert alone.train.inputs[:, 0, 0, 0].tolist() == alone.columns["row"].tolist()
    (tmp_path / "hub").mkdir()
    pq.write_table(read, tmp_path / "hub" / "train-00000-of-00001.parquet")
    hub = load(tmp_path / "hub")
    assert fingerprint(hub) == fingerprint(alone)


def test_a_hugging_face_set_by_the_package(tmp_path):
    import datasets

    features = datasets.Features(
        {
            "img": datasets.Image(),
            "fine": datasets.ClassLabel(names=["a", "b"]),
            "coarse": datasets.ClassLabel(names=["c", "d", "e"]),
        }
    )
    rows = {
        "img": [Image.fromarray(np.full((4, 4), n, np.uint8)) for n in range(6)],
        "fine": [0, 1] * 3,
        "coarse": [0, 1, 2] * 2,
    }
    made = datasets.Dataset.from_dict(rows, features=features)
    made.save_to_disk(str(tmp_path / "one"))
    with pytest.raises(InputError, match="label_column='coarse'"):
        load(tmp_path / "one")
    data = load(tmp_path / "one", label_column="coarse")
    assert data.class_names == ("c", "d", "e")
    assert data.train.inputs.shape == (5, 4, 4, 1)
    arrays = datasets.Features(
        {"x": datasets.Array2D((3, 3), "float32"), "y": datasets.Value("string")}
    )
    rows = {"x": [np.eye(3, dtype=np.float32)] * 4, "y": ["p", "q"] * 2}
    made = datasets.Dataset.from_dict(rows, features=arrays)
    made.save_to_disk(str(tmp_path / "two"))
    data = load(tmp_path / "two")
    assert data.class_names == ("p", "q")
    assert data.train.inputs.shape == (3, 3, 3, 1)
    np.testing.assert_array_equal(data.train.inputs[0, ..., 0], np.eye(3))
