import csv
import io
import json
import pickle

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given, settings

from jax_unlearn.data import check_ids, load_ids
from jax_unlearn.errors import InputError


def _written(folder, suffix, content):
    path = folder / f"forget{suffix}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".csv", "7\n3\n12\n"),
        (".csv", "id\n7\n3\n12"),
        (".csv", "Index\r\n7\r\n\r\n 3 \r\n12\r\n"),
        (".csv", b"\xef\xbb\xbfid\n7\n3\n12\n"),
        (".csv", 'name,id,label\n"a,b",7,0\nc,3,1\nd,12,1\n'),
        (".CSV", "+7\n03\n12\n"),
        (".json", "[7, 3, 12]"),
        (".json", '{"ids": [7, 3, 12]}'),
        (".json", '{"forget": [7, 3, 12], "retain": [1]}'),
    ],
)
def test_files_that_hold_ids(tmp_path, suffix, content):
    ids = load_ids(_written(tmp_path, suffix, content))
    assert ids.dtype == np.int64
    assert ids.tolist() == [7, 3, 12]


@pytest.mark.parametrize("dtype", ["<i8", ">i4", "u1", "<u8"])
def test_npy_of_any_integer_type(tmp_path, dtype):
    np.save(tmp_path / "a.npy", np.array([7, 3, 12], dtype))
    ids = load_ids(tmp_path / "a.npy")
    assert ids.dtype == np.dtype(np.int64)
    assert ids.tolist() == [7, 3, 12]


@pytest.mark.parametrize(
    ("suffix", "content", "words"),
    [
        (".csv", "", "no ids"),
        (".csv", "\n\n", "no ids"),
        (".csv", "7\n3.0\n", "row 2: '3.0'"),
        (".csv", "7\nNaN\n", "row 2: 'NaN'"),
        (".csv", "7\n1_000\n", "row 2: '1_000'"),
        (".csv", "id\n7\ntrue\n", "row 3: 'true'"),
        (".csv", "７\n", "row 1"),
        (".csv", "7\n" + "9" * 30, "row 2"),
        (".csv", "7,3,12\n", "3 columns"),
        (".csv", "7\n3,12\n", "row 2: '3,12'"),
        (".csv", "id,index\n1,2\n", "2 are named id or index"),
        (".csv", "name,id\na\n", "row 2"),
        (".csv", b"\xff\xfe7\x00", "not a CSV"),
        (".csv", '"7\n', "not a CSV"),
        (".csv", "\x00\n", "row 1"),
        (".json", "[1, 2.0]", r"ids\[1\]=2.0 is not a whole number"),
        (".json", "[NaN]", r"ids\[0\]=nan is not"),
        (".json", "[true]", r"ids\[0\]=True is not"),
        (".json", '["1"]', r"ids\[0\]='1' is not"),
        (".json", "[[1]]", r"ids\[0\]=a list is not"),
        (".json", "[null]", r"ids\[0\]=None is not"),
        (".json", "[1e999]", r"ids\[0\]=inf is not"),
        (".json", f"[1, {10**30}]", r"ids\[1\]=0x"),
        (".json", f"[{2**63}]", r"ids\[0\]=9223372036854775808 is no id"),
        (".json", "3", "holds 3; write a list"),
        (".json", '"7"', "write a list"),
        (".json", "{}", "0 of them"),
        (".json", '{"ids": [1], "forget": [2]}', "2 of them"),
        (".json", '{"ids": 1}', "write a list"),
        (".json", "[1,", "is not JSON"),
        (".npy", b"", "not a .npy"),
        (".npy", b"\x93NUMPY\x01\x00", "not a .npy"),
        (".md", "7\n", r"must end in .csv, .tsv, .txt, .json"),
    ],
)
def test_files_that_do_not(tmp_path, suffix, content, words):
    with pytest.raises(InputError, match=words) as caught:
        load_ids(_written(tmp_path, suffix, content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([1.0, 2.5]), r"ids\[1\]=2.5 is of type float64"),
        (np.array([1.0, 2.0]), r"ids\[0\]=1.0 is of type float64"),
        (np.array([True]), "flatnonzero"),
        (np.array(["1"]), "ids is of type <U1"),
        (np.array([[1, 2]]), r"shape \(1, 2\)"),
        (np.array(3), r"shape \(\)"),
        (np.array([2**63], np.uint64), r"ids\[0\]=9223372036854775808"),
        (np.array(["2020-01-01"], "M8[ns]"), "datetime64"),
        (np.zeros(2, [("id", "i8")]), "is of type"),
    ],
)
def test_npy_of_another_type(tmp_path, array, words):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match=words):
        load_ids(tmp_path / "a.npy")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        load_ids(tmp_path / "a.npy")


class _Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def test_no_pickle_is_loaded(tmp_path):
    array = np.empty(1, object)
    array[0] = _Bomb()
    np.save(tmp_path / "a.npy", array)
    plain = _written(tmp_path, ".npy", pickle.dumps(_Bomb()))
    for path in (tmp_path / "a.npy", plain):
        with pytest.raises(InputError, match=r"not a \.npy file of integers"):
            load_ids(path)


def _npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


SEEDS = [
    b"id\n7\n3\n",
    b'a,id\n"x",7\n',
    json.dumps({"forget": [1, 2], "x": [[1]]}).encode(),
    b"[1, 2, 3]",
    _npy(np.arange(3)),
    _npy(np.arange(3.0)),
    _npy(np.array(["a"])),
]


@given(
    st.sampled_from([".csv", ".json", ".npy"]),
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 200), st.binary(max_size=3)), max_size=4),
    st.binary(max_size=40),
    st.booleans(),
)
@example(".npy", SEEDS[-1], [(len(SEEDS[-1]) - 1, b"\xff")], b"", False)  # no character
@settings(max_examples=400, deadline=None)
def test_malformed_bytes_give_ids_or_an_input_error(
    tmp_path_factory, suffix, seed, edits, noise, only_noise
):
    content = bytearray(seed)
    for place, piece in edits:
        content[place % len(content) : place % len(content) + len(piece)] = piece
    path = tmp_path_factory.getbasetemp() / f"fuzz{suffix}"
    path.write_bytes(noise if only_noise else bytes(content))
    try:
        ids = check_ids(load_ids(path), num_samples=10)
    except InputError as error:
        message = str(error)
    else:
        message = ""
        _assert_forget_set(ids)
    assert "\n" not in message


def _assert_forget_set(ids):
    assert ids.dtype == np.int64
    assert np.all(np.diff(ids) > 0)
    assert 0 < len(ids) < 10
    assert ids[0] >= 0
    assert ids[-1] < 10


@given(st.sets(st.integers(0, 99), min_size=1, max_size=99), st.randoms())
def test_good_ids_come_back_sorted(ids, random):
    shuffled = list(ids)
    random.shuffle(shuffled)
    expected = sorted(ids)
    for given_ids in (shuffled, np.array(shuffled, np.uint8), tuple(shuffled)):
        checked = check_ids(given_ids, num_samples=100)
        assert checked.dtype == np.int64
        assert checked.tolist() == expected
    with io.StringIO() as text:
        csv.writer(text).writerows([[value] for value in shuffled])
        assert text.getvalue().count("\n") == len(ids)


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([], "empty"),
        (np.array([]), "empty"),
        ([3, 1.5], r"ids\[1\]=1.5 is not a whole number"),
        ([3.0], r"ids\[0\]=3.0"),
        (np.array([1.0, np.nan]), r"ids\[1\]=nan"),
        (np.array([1.0, np.inf]), r"ids\[1\]=inf"),
        (["3"], r"ids\[0\]='3'"),
        ([3, True], r"ids\[1\]=True"),
        (np.array([True, False]), "flatnonzero"),
        ([3, None], r"ids\[1\]=None"),
        (np.array([3, "a"], object), r"ids\[1\]='a'"),
        ("37", "'37' is not a list"),
        (3, "3 is not a list"),
        ([3, -1], r"ids\[1\]=-1 is negative"),
        ([3, 10], r"ids\[1\]=10 is out of range; the 10"),
        ([10**5000], r"ids\[0\]=0x.* is out of range"),
        ([-(10**30)], r"ids\[0\]=-0x.* is negative"),
        (np.array([2**64 - 1], np.uint64), "out of range"),
        ([3, 4, 5, 4], r"ids\[3\]=4 repeats ids\[1\]"),
        (range(10), "all 10 training samples"),
        (np.array([[1]]), "shape"),
    ],
)
def test_mistakes_are_named(ids, words):
    with pytest.raises(InputError, match=words) as caught:
        check_ids(ids, num_samples=10)
    assert "\n" not in str(caught.value)


def test_ids_must_have_been_trained_on():
    trained = np.array([1, 3, 5])
    assert check_ids([5, 1], num_samples=10, trained_ids=trained).tolist() == [1, 5]
    with pytest.raises(InputError, match=r"ids\[1\]=4 is not among the 3"):
        check_ids([5, 4], num_samples=10, trained_ids=trained)
    with pytest.raises(InputError, match="all 3 training samples"):
        check_ids([5, 1, 3], num_samples=10, trained_ids=trained)
