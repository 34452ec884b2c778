import json

import numpy as np
import pytest

from jax_unlearn.data import (
    digest,
    forget_split,
    holdout,
    load_ids,
    load_manifest,
    save_manifest,
    to_ids,
)
from jax_unlearn.errors import InputError

LABELS = np.arange(60) % 5


@pytest.fixture
def saved(tmp_path):
    train, unseen = holdout(LABELS, count=10)
    split = to_ids(forget_split(LABELS[train], kind="long_tailed"), train)
    return save_manifest(tmp_path / "split.json", split, unseen=unseen), split, unseen


def test_round_trip(saved):
    path, split, unseen = saved
    loaded, again = load_manifest(path, labels=LABELS)
    np.testing.assert_array_equal(loaded.forget, split.forget)
    np.testing.assert_array_equal(loaded.retain, split.retain)
    np.testing.assert_array_equal(again, unseen)
    assert loaded.manifest == {**split.manifest, "unseen_sha256": digest(unseen)}
    np.testing.assert_array_equal(load_ids(path), split.forget)


def test_a_loaded_split_saves_to_the_same_bytes(saved, tmp_path):
    path, _, _ = saved
    loaded, unseen = load_manifest(path)
    second = save_manifest(tmp_path / "again.json", loaded, unseen=unseen)
    assert second.read_bytes() == path.read_bytes()


def test_an_existing_file_is_kept(saved):
    path, split, unseen = saved
    before = path.read_bytes()
    with pytest.raises(InputError, match="overwrite=True"):
        save_manifest(path, split)
    assert path.read_bytes() == before
    save_manifest(path, split, overwrite=True)
    assert load_manifest(path)[1].tolist() == []
    assert len(unseen) == 10


def test_other_labels_are_noticed(saved):
    path, split, _ = saved
    other = LABELS.copy()
    other[split.forget[0]] += 1
    with pytest.raises(InputError, match="other labels"):
        load_manifest(path, labels=other)
    with pytest.raises(InputError, match="names id"):
        load_manifest(path, labels=LABELS[:20])


def test_a_wrong_split_is_not_saved(saved, tmp_path):
    _, split, unseen = saved
    path = tmp_path / "wrong.json"
    with pytest.raises(InputError, match="in both forget and unseen"):
        save_manifest(path, split, unseen=[*unseen, split.forget[0]])
    with pytest.raises(InputError, match="forget_sha256"):
        save_manifest(path, split._replace(forget=split.forget[1:]))
    assert not path.exists()


KEYS = [
    "version",
    "kind",
    "seed",
    "num_samples",
    "forget_counts",
    "class_order",
    "labels_sha256",
    "forget_sha256",
    "forget",
    "retain",
    "unseen",
    "unseen_sha256",
]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("damage", ["missing", "text", "object", "true"])
def test_missing_and_mistyped_keys(saved, key, damage):
    path, _, _ = saved
    record = json.loads(path.read_text())
    if damage == "missing":
        del record[key]
    else:
        values = {"text": "a\n" * 50, "object": {"a": 1}, "true": True}
        record[key] = values[damage]
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match=key) as caught:
        load_manifest(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.update(version=2), "version=2 must be 1"),
        (lambda r: r["forget"].pop(), "forget_sha256 does not match"),
        (lambda r: r["forget"].append(r["forget"][0]), "not strictly increasing"),
        (lambda r: r["forget"].reverse(), "not strictly increasing"),
        (lambda r: r["forget"].__setitem__(0, 1.0), r"forget\[0\]='1.0' is not an id"),
        (lambda r: r["retain"].__setitem__(0, -1), r"retain\[0\]='-1' is not an id"),
        (lambda r: r["retain"].__setitem__(0, True), "is not an id"),
        (lambda r: r["retain"].__setitem__(0, 2**63), "is not an id"),
        (lambda r: r.update(num_samples=51), "num_samples=51"),
        (lambda r: r.update(num_classes=6), "forget_counts"),
        (lambda r: r["forget_counts"].__setitem__(0, 50), "forget_counts"),
        (
            lambda r: r.update(forget=r["retain"], forget_sha256=r["retain_sha256"]),
            "is in both forget and retain",
        ),
        (
            lambda r: r.update(unseen=r["retain"], unseen_sha256=r["retain_sha256"]),
            "is in both retain and unseen",
        ),
    ],
)
def test_damaged_files_are_refused(saved, change, words):
    path, _, _ = saved
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match=words):
        load_manifest(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b"{", b"\xff"])
def test_files_of_another_kind(tmp_path, content):
    path = tmp_path / "split.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"split\.json"):
        load_manifest(path)


def test_every_cut_of_the_file_is_refused(saved):
    path, _, _ = saved
    content = path.read_bytes()
    for length in range(0, len(content) - 2, 37):
        path.write_bytes(content[:length])
        with pytest.raises(InputError):
            load_manifest(path)
