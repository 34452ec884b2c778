import os

import numpy as np
import pytest

from jax_unlearn.data import read_file, read_json, write_atomic
from jax_unlearn.data.files import read_npz
from jax_unlearn.errors import InputError


def test_writes_text_and_bytes_and_makes_folders(tmp_path):
    path = tmp_path / "a" / "b.txt"
    assert write_atomic(path, "µ") == path
    assert read_file(path) == "µ".encode()
    write_atomic(path, b"\x00\xff", overwrite=True)
    assert read_file(path) == b"\x00\xff"
    assert os.listdir(path.parent) == ["b.txt"]


def test_a_function_writes_as_it_goes_or_leaves_nothing(tmp_path):
    path = tmp_path / "a.npz"
    write_atomic(path, lambda file: np.savez(file, ids=[1, 2]))
    assert read_npz(path)["ids"].tolist() == [1, 2]

    def fail(file):
        file.write(b"half of it")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write_atomic(path, fail, overwrite=True)
    assert read_npz(path)["ids"].tolist() == [1, 2]
    assert os.listdir(tmp_path) == ["a.npz"]


def test_refuses_to_overwrite(tmp_path):
    path = tmp_path / "a.txt"
    write_atomic(path, "first")
    with pytest.raises(InputError, match="exists; pass overwrite=True"):
        write_atomic(path, "second")
    assert path.read_text() == "first"
    with pytest.raises(InputError, match="is a folder"):
        write_atomic(tmp_path, "third", overwrite=True)
    with pytest.raises(InputError, match=r"cannot write path=.*choose another folder"):
        write_atomic(path / "below_a_file.txt", "fourth")


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path, monkeypatch, call
):
    path = tmp_path / "a.txt"
    write_atomic(path, "old")

    def fail(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, "new", overwrite=True)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_file_has_the_usual_permissions(tmp_path):
    write_atomic(tmp_path / "a", "")
    (tmp_path / "b").write_text("")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[1,]", b"[" * 100_000, b"1" * 5000, b"\x00"],
)
def test_read_json_refuses_what_is_not_json(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not JSON") as caught:
        read_json(path)
    assert "\n" not in str(caught.value)


def test_read_file_of_a_folder(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        read_file(tmp_path)
