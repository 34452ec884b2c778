"""Lists of ids and keys in files of every kind, and the samples that they name."""

import json
import re

import numpy as np
import pytest

from jax_unlearn.data import (
    digits,
    forget_split,
    ids_of_keys,
    load_ids,
    load_request,
    save_manifest,
)
from jax_unlearn.data.sources import with_columns
from jax_unlearn.errors import InputError

SMALL = digits()
USERS = np.array([f"u{n // 10}" for n in range(1000)])
NUMBERS = np.arange(1000) // 10
DATA = with_columns(SMALL, {"user_id": USERS, "number": NUMBERS})
OF_U7 = list(range(70, 80))


def parquet(path, **columns):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    write_table(pyarrow.table(columns), path)


def written(folder, name, content):
    path = folder / name
    if callable(content):
        content(path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", "id\twhy\n7\tasked\n# later\n\n3\tasked\n12\tasked\n"),
        ("a.txt", b"\xef\xbb\xbf# of Monday\r\n7\r\n\r\n3\r\n12"),
        ("a.txt", "id\n7\n3\n12\n"),
        ("a.csv", "id;why\n7;asked\n3;asked\n12;asked\n"),
        ("a.jsonl", "7\n\n3\n12\n"),
        ("a.jsonl", '{"id": 7, "why": 1}\n{"id": 3}\n{"why": 2, "id": 12}\n'),
        ("a.json", '[{"index": 7}, {"index": 3}, {"index": 12}]'),
        ("a.json", '{"why": "asked", "numbers": [7, 3, 12]}'),
        ("a.npz", lambda path: np.savez(path, whatever=[7, 3, 12])),
        ("a.npz", lambda path: np.savez(path, id=[7, 3, 12], of=[1, 2])),
        ("a.parquet", lambda path: parquet(path, any=[7, 3, 12])),
        ("a.parquet", lambda path: parquet(path, why=["x"] * 3, id=[7, 3, 12])),
    ],
)
def test_more_files_that_hold_ids(tmp_path, name, content):
    assert load_ids(written(tmp_path, name, content)).tolist() == [7, 3, 12]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", "# nobody\n\n", "holds no ids"),
        ("a.csv", "id\n", "holds no ids below its header"),
        ("a.txt", "7\n3 4\n", "row 2: '3 4'"),
        ("a.csv", "user_id\nu7\n", "row 1: 'user_id' .*--key-column user_id"),
        ("a.csv", "user,why\nu7,x\n", r"2 columns \('user', 'why'\)"),
        ("a.jsonl", "7\n{\n", "line 2 is not JSON"),
        ("a.jsonl", "\n", "holds no ids"),
        ("a.jsonl", '{"a": 7, "b": 1}\n', r"entry 0 has 2 columns \('a', 'b'\)"),
        ("a.jsonl", '7\n{"id": 1}\n', "entry 0 is 7, others are objects"),
        ("a.npz", lambda path: np.savez(path, a=[1], b=[2]), r"columns \('a', 'b'\)"),
        ("a.npz", "no zip", "not a usable .npz"),
        ("a.npz", lambda path: np.savez(path, a=[1.0]), "whole numbers"),
        ("a.parquet", "no table", "not a .parquet"),
        ("a.parquet", lambda path: parquet(path, id=[1, None]), r"ids\[1\]=None"),
        ("a.parquet", lambda path: parquet(path, id=[1.5]), r"ids\[0\]=1.5"),
    ],
)
def test_files_that_do_not(tmp_path, name, content, words):
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    with pytest.raises(InputError, match=words) as caught:
        load_ids(written(tmp_path, name, content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "user_id,asked\nu7,Monday\n"),
        ("a.csv", "asked,USER_ID\nMonday, u7\n"),
        ("a.csv", "asked,id\nMonday,u7\n"),
        ("a.csv", "u7\n"),
        ("a.csv", b"\xef\xbb\xbfuser_id\r\nu7\r\n"),
        ("a.txt", "# of Monday\nu7\n"),
        ("a.json", '["u7"]'),
        ("a.json", '{"user_id": ["u7"]}'),
        ("a.jsonl", '{"user_id": "u7", "asked": 1}\n'),
        ("a.npy", lambda path: np.save(path, np.array(["u7"]))),
        ("a.npy", lambda path: np.save(path, np.array([b"u7"]))),
        ("a.parquet", lambda path: parquet(path, user_id=["u7"], of=[1])),
    ],
)
def test_keys_of_text(tmp_path, name, content):
    request = load_request(written(tmp_path, name, content), DATA, key_column="user_id")
    assert request.ids.tolist() == OF_U7
    told = {"file": name, "key_column": "user_id", "count": 1}
    assert told.items() <= request.record.items()
    assert [key.strip() for key in request.record["keys"]] == ["u7"]
    assert re.fullmatch("[0-9a-f]{64}", request.record["sha256"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "number\n7\n"),
        ("a.csv", "007\n"),
        ("a.json", "[7]"),
        ("a.json", '["7"]'),
        ("a.npy", lambda path: np.save(path, np.array([7], np.uint8))),
    ],
)
@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float64, object])
def test_keys_of_numbers(tmp_path, name, content, dtype):
    column = NUMBERS.astype(dtype)
    path = written(tmp_path, name, content)
    data = with_columns(SMALL, {"number": column})
    found = load_request(path, data, key_column="number_train")  # the array's name
    assert found.ids.tolist() == OF_U7


def test_a_missing_key_is_nobodys():
    column = np.array([1.0, np.nan, 2.0, 1.0])
    assert ids_of_keys([1], column).tolist() == [0, 3]
    assert ids_of_keys(["x"], np.array(["x", None, "x"], object)).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("keys", "column", "words"),
    [
        (["u7", "u8", "u7"], USERS, "1 key named twice: 'u7'"),
        (["7", "07"], NUMBERS, "1 key named twice: '07'"),
        (["u7", "x1", "x2"], USERS, "2 of 3 keys not in column .*'x1', 'x2'; take"),
        (
            [f"x{n}" for n in range(9)],
            USERS,
            "none of 9 keys .*'x3', 'x4' and 4 more; they are text such as 'x0', the "
            "column holds text such as 'u0'",
        ),
        (["ann"], NUMBERS, "are text such as 'ann', the column holds whole numbers"),
        ([7], USERS, "are whole numbers such as 7, the column holds text"),
        (["7"], np.array([0.5, 1.0]), "holds float64"),
        (["7"], np.array([True, False]), "holds bool"),
        (["7"], np.zeros((3, 2)), r"of shape \(3, 2\)"),
    ],
)
def test_keys_that_name_nobody(keys, column, words):
    with pytest.raises(InputError, match=words) as caught:
        ids_of_keys(keys, column)
    assert "\n" not in str(caught.value)


def test_a_column_of_one_row_a_sample():
    assert ids_of_keys([1], np.array([[1], [2]])).tolist() == [0]


def test_unknown_keys_may_be_passed_over(tmp_path):
    path = written(tmp_path, "a.txt", "x1\nu7\n")
    words = r"1 of 2 keys of a\.txt.*--skip-unknown.*a header, let it say user_id"
    with pytest.raises(InputError, match=words):
        load_request(path, DATA, key_column="user_id")
    found = load_request(path, DATA, key_column="user_id", skip_unknown=True)
    assert found.ids.tolist() == OF_U7
    assert found.record["unknown"] == ["x1"]
    path = written(tmp_path, "b.txt", "x1\nx2\n")
    with pytest.raises(InputError, match="none of 2 keys"):
        load_request(path, DATA, key_column="user_id", skip_unknown=True)


@pytest.mark.parametrize(
    ("content", "column", "words"),
    [
        ("[7, 3, 7, 3]", None, r"ids\[2\]=7 repeats ids\[0\].*also 3"),
        ("[7, -1, -2]", None, r"ids\[1\]=-1 is negative.*also -2"),
        ("[1000, 7, 1001]", None, r"ids\[0\]=1000 is out of range.*also 1001"),
        ("[0.5]", None, "is not a whole number"),
        ("[]", None, "ids is empty"),
        ("[]", "user_id", "holds no keys"),
        ('["u7", ""]', "user_id", r"keys\[1\]: '' is no key"),
        ('["u7", 7.5]', "user_id", r"keys\[1\]: 7.5 is no key"),
        ('{"forget": [7, 3, 8], "retain": [8, 3]}', None, "2 ids are in both"),
        ('{"forget": ["u7"], "unseen": ["u7"]}', "user_id", "both forget and unseen"),
        ('["u7"]', "user", "unknown key column 'user'; did you mean 'user_id'"),
    ],
)
def test_requests_that_are_refused(tmp_path, content, column, words):
    path = written(tmp_path, "a.json", content)
    with pytest.raises(InputError, match=words) as caught:
        load_request(path, DATA, key_column=column)
    assert "\n" not in str(caught.value)


def test_data_without_columns(tmp_path):
    path = written(tmp_path, "a.txt", "u7\n")
    with pytest.raises(InputError, match="add the array user_id_train to its .npz"):
        load_request(path, SMALL, key_column="user_id")


def test_a_split_names_its_forget_set_whatever_the_column(tmp_path):
    split = forget_split(SMALL.train.labels, fraction=0.01)
    path = save_manifest(tmp_path / "split.json", split)
    for column in (None, "user_id"):
        found = load_request(path, DATA, key_column=column)
        np.testing.assert_array_equal(found.ids, split.forget)
    damaged = json.loads(path.read_text())
    damaged["forget"][0] += 1
    path.write_text(json.dumps(damaged))
    with pytest.raises(InputError, match="forget"):
        load_request(path, DATA)


def test_a_split_carries_the_request_it_came_from(tmp_path):
    split = forget_split(SMALL.train.labels, fraction=0.01)
    told = {"file": "del.csv", "key_column": "user_id", "keys": ["u7"], "count": 1}
    split = split._replace(manifest={**split.manifest, "request": told})
    path = save_manifest(tmp_path / "split.json", split)
    assert load_request(path, DATA).record == told
