"""Damaged and hostile files: a clear error, no pickle run, no memory taken on trust."""

import io
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_files import BAD_IDS
from good_files import altered, outputs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toys import small_plan

from jax_unlearn import audit
from jax_unlearn.data import check_ids, from_npz, load_ids, load_manifest, read_json
from jax_unlearn.data.files import read_npz
from jax_unlearn.drivers import checkpoint
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Training, Unlearning
from jax_unlearn.lab.arrays import load_outputs
from jax_unlearn.lab.ensembles import Files as EnsembleFiles
from jax_unlearn.lab.ensembles import Kept
from jax_unlearn.lab.plan import plan_of, slug
from jax_unlearn.lab.requests import Request
from jax_unlearn.lab.store import load_model
from jax_unlearn.report import load_results, write

MEMORY = 64 * 2**20  # bytes that no small file may make a loader take


def bounded(examples: int) -> Any:
    """Return the settings of a property: the same examples each time."""
    every: Any = list(HealthCheck)
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=every,
    )


MUTATIONS = st.lists(
    st.tuples(
        st.sampled_from(["cut", "flip", "put", "drop", "repeat"]),
        st.floats(0, 1),
        st.binary(min_size=1, max_size=9),
    ),
    min_size=1,
    max_size=4,
)


def mutated(content: bytes, mutations) -> bytes:
    """Return bytes changed at places given as shares of their length."""
    for kind, share, extra in mutations:
        at = round(share * len(content))
        until = at + len(extra)
        if kind == "cut":
            content = content[:at]
        elif kind == "flip":
            changed = bytes(
                a ^ b for a, b in zip(content[at:until], extra, strict=False)
            )
            content = content[:at] + changed + content[at + len(changed) :]
        elif kind == "put":
            content = content[:at] + extra + content[at:]
        elif kind == "drop":
            content = content[:at] + content[until:]
        else:
            content = content[:until] + content[at:]
    return content


def clear(error: InputError, path: Path) -> None:
    """Assert that a message is one short line of more than a value."""
    said = str(error).replace(str(path), "")
    assert "\n" not in said
    assert len(said) < 400
    assert len(said.split()) > 3


def refused(load: Callable[[Path], Any], path: Path) -> str:
    """Return the message of a file that must be refused."""
    with pytest.raises(InputError) as caught:
        load(path)
    clear(caught.value, path)
    return str(caught.value)


def _ids(path: Path) -> None:
    check_ids(load_ids(path), num_samples=60)


def _report(path: Path) -> None:
    write(load_results(path), path.with_suffix(".html"), overwrite=True)


def _weights(path: Path) -> None:
    audit.load_inception(path)


LOADERS: dict[str, tuple[str, str, Callable[[Path], Any]]] = {
    "data": ("data", "x.npz", from_npz),
    "outputs": ("arrays", "x.npz", load_outputs),
    "weights": ("arrays", "x.npz", _weights),
    "split": ("split", "x.json", load_manifest),
    "ids of a split": ("split", "x.json", _ids),
    "ids": ("ids", "x.csv", _ids),
    "results": ("results", "x.json", load_results),
    "audit": ("audit", "x.json", load_results),
    "generation": ("generation", "x.json", load_results),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_damaged_files(kind, good, tmp_path):
    name, file, load = LOADERS[kind]
    content = getattr(good, name).read_bytes()
    path = tmp_path / file
    seen = {"read": 0, "refused": 0}

    @bounded(60)
    @given(MUTATIONS)
    def damage(mutations):
        path.write_bytes(mutated(content, mutations))
        try:
            load(path)
            seen["read"] += 1
        except InputError as error:
            clear(error, path)
            seen["refused"] += 1

    damage()
    assert seen["refused"] > 20
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", LOADERS)
def test_any_bytes_at_all(kind, tmp_path):
    _, file, load = LOADERS[kind]
    path = tmp_path / file

    @bounded(30)
    @given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
    def try_bytes(content):
        path.write_bytes(content)
        try:
            load(path)
        except InputError as error:
            clear(error, path)

    try_bytes()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.just(10**400)
    | st.floats(allow_nan=True)
    | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=5,
)


def places(value: Any, at: tuple = ()) -> list[tuple]:
    """Return the path of every value in a JSON document; of lists the first alone."""
    found = [at] if at else []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += places(inner, (*at, key))
    elif isinstance(value, list) and value:
        found += places(value[0], (*at, 0))
    return found


def replaced(document: Any, at: tuple, value: Any) -> Any:
    """Return a copy of a document with one value changed."""
    copy = json.loads(json.dumps(document))
    holder = copy
    for key in at[:-1]:
        holder = holder[key]
    holder[at[-1]] = value
    return copy


def changed(source: Path, path: Path, load: Callable, times: int) -> None:
    """Change one value of a document at a time; what is refused is refused clearly."""
    document = json.loads(source.read_text())
    where = places(document)

    @bounded(times)
    @given(st.sampled_from(where), JSON)
    def change(at, value):
        path.write_text(json.dumps(replaced(document, at, value)))
        try:
            load(path)
        except InputError as error:
            clear(error, path)

    change()


@pytest.mark.parametrize("kind", ["split", "ids of a split", "results", "audit"])
def test_a_document_with_one_value_changed(kind, good, tmp_path):
    name, file, load = LOADERS[kind]
    changed(getattr(good, name), tmp_path / file, load, 80)


@pytest.mark.parametrize("name", ["results", "audit", "generation"])
def test_results_that_are_read_can_be_drawn(name, good, tmp_path):
    changed(getattr(good, name), tmp_path / "x.json", _report, 25)


class Payload:
    """Writes a file where it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_pickles_are_never_run(good, tmp_path):
    marker = tmp_path / "marker"
    payload = pickle.dumps(Payload(marker))
    pickle.loads(payload)
    assert marker.exists()  # it works
    marker.unlink()
    objects = np.empty(1, object)
    objects[0] = Payload(marker)
    archive, single = io.BytesIO(), io.BytesIO()
    names = ["x_train", "ours/forget", "fc.bias", "record"]
    savez: Any = np.savez  # the stubs take keywords for other options
    savez(archive, **dict.fromkeys(names, objects))
    np.save(single, objects)
    member = io.BytesIO()
    with zipfile.ZipFile(member, "w") as file:
        for name in names:
            file.writestr(f"{name}.npy", payload)
    for number, content in enumerate(
        (payload, archive.getvalue(), single.getvalue(), member.getvalue())
    ):
        for file, load in {
            "x.npz": from_npz,
            "y.npz": load_outputs,
            "z.npz": _weights,
            "x.npy": _ids,
            "x.json": _ids,
            "x.csv": _ids,
            "y.json": load_results,
            "x.safetensors": _weights,
            "x.pth": _weights,
            "x.pt": _weights,
        }.items():
            path = tmp_path / f"{number}{file}"
            path.write_bytes(content)
            if path.suffix == ".pth":
                pytest.importorskip("torch")
            refused(load, path)
            assert not marker.exists(), path


def header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    """Return the beginning of an .npy file."""
    stream = io.BytesIO()
    about = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, about)
    return stream.getvalue()


def taken(load: Callable[[Path], Any], path: Path) -> int:
    """Return the most memory that a refusal took, in bytes."""
    tracemalloc.start()
    try:
        refused(load, path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "shape", [(10**9, 10), (10**30,), (2**62, 4), (2**31, 2**31, 2**31), (-5,)]
)
def test_shapes_that_are_declared_but_not_there(shape, tmp_path):
    content = header(shape) + b"\0" * 40
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as file:
        for name in ("x_train", "y_train", "x_test", "y_test", "a/forget", "fc.bias"):
            file.writestr(f"{name}.npy", content)
    for load in (from_npz, load_outputs, _weights):
        assert taken(load, path) < MEMORY
    (tmp_path / "x.npy").write_bytes(header(shape, "<i8") + b"\0" * 40)
    refused(_ids, tmp_path / "x.npy")


def test_archives_that_swell(tmp_path):
    path, size = tmp_path / "x.npz", 300 * 2**20
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file,
        file.open("x_train.npy", "w") as member,
    ):
        member.write(header((size,), "|u1"))
        for _ in range(300):
            member.write(bytes(2**20))
    assert path.stat().st_size < 2**20
    for load in (from_npz, load_outputs, _weights):
        assert taken(load, path) < MEMORY
    assert "bomb" in refused(from_npz, path)


def test_a_directory_that_lies_about_sizes(good, tmp_path):
    content, path = bytearray(good.data.read_bytes()), tmp_path / "x.npz"
    at = content.index(b"PK\x01\x02")
    content[at + 20 : at + 28] = struct.pack("<II", 2**31, 2**31)
    path.write_bytes(content)
    assert taken(from_npz, path) < MEMORY


def test_names_in_an_archive_are_only_names(tmp_path):
    path, array = tmp_path / "in" / "x.npz", io.BytesIO()
    path.parent.mkdir()
    np.save(array, np.zeros((2, 3)))
    evil = ["../../out", "/tmp/out", "C:\\out", "..\\out", "a/../../b", "\x1b[31m"]
    with zipfile.ZipFile(path, "w") as file:
        for name in evil:
            file.writestr(f"{name}.npy", array.getvalue())
        link = zipfile.ZipInfo("link.npy")
        link.external_attr = 0o120777 << 16  # a symbolic link
        file.writestr(link, "/etc/passwd")
    assert refused(from_npz, path)
    assert refused(load_outputs, path)
    found = read_npz(path, wanted=evil)
    assert set(found) == set(evil)
    assert [file.name for file in tmp_path.rglob("*")] == ["in", "x.npz"]


def test_a_name_that_is_there_twice(tmp_path):
    path, array = tmp_path / "x.npz", io.BytesIO()
    np.save(array, np.zeros(2))
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x_train.npy", array.getvalue())
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("x_train.npy", array.getvalue())
    assert "twice" in refused(from_npz, path)


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        (b"\xef\xbb\xbfid\r\n7\r\n3\r\n", [7, 3]),
        (b"\xef\xbb\xbf7\r\n\r\n3", [7, 3]),
        (b'"7"\n 3 \n', [7, 3]),
        (b"+7\n03\n", [7, 3]),
        (b"ID,why\n7,\xc3\xa9\n3,\n", [7, 3]),
    ],
)
def test_what_spreadsheets_write_is_read(tmp_path, content, ids):
    (tmp_path / "x.csv").write_bytes(content)
    assert load_ids(tmp_path / "x.csv").tolist() == ids


@bounded(60)
@given(st.lists(st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=4)))
def test_ids_are_read_right_or_refused(tmp_path_factory, values):
    path = tmp_path_factory.getbasetemp() / "ids.json"
    path.write_text(json.dumps(values))
    try:
        found = load_ids(path).tolist()
    except InputError as error:
        clear(error, path)
        assert any(not isinstance(v, int) or not -(2**63) <= v < 2**63 for v in values)
    else:
        assert found == values


def test_duplicate_keys_do_not_contradict_the_digest(good, tmp_path):
    text = good.split.read_text().rstrip()
    path = tmp_path / "x.json"
    path.write_text(text[:-1] + ', "forget": [1, 2]}')
    assert "forget_sha256 does not match" in refused(load_manifest, path)


def test_nested_too_deep(tmp_path):
    for opening in ("[", '{"a":'):
        (tmp_path / "x.json").write_text(opening * 10**5)
        for load in (read_json, _ids, load_manifest, load_results):
            refused(load, tmp_path / "x.json")


# Checkpoints


def record_of(path: Path) -> dict[str, Any]:
    return json.loads((path / "record.json").read_text())


def test_every_file_of_a_checkpoint_is_checked(good, tmp_path):
    files = sorted(
        p.relative_to(good.model) for p in good.model.rglob("*") if p.is_file()
    )
    assert len(files) > 4
    for number, name in enumerate(files):
        copy = tmp_path / str(number)
        shutil.copytree(good.model, copy)
        content = bytearray((copy / name).read_bytes())
        if not content:
            continue
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(content)
        refused(load_model, copy)
        (copy / name).unlink()
        refused(load_model, copy)


def test_digests_that_name_files_elsewhere(good, tmp_path):
    (tmp_path / "secret").write_text("secret")
    for number, name in enumerate(("../secret", str(tmp_path / "secret"), "record")):
        copy = tmp_path / str(number)
        shutil.copytree(good.model, copy)
        digests = json.loads((copy / "digests.json").read_text())
        digests[name] = "0" * 64
        (copy / "digests.json").write_text(json.dumps(digests))
        assert "damaged" in refused(load_model, copy)


@pytest.mark.parametrize(
    "content",
    ["[]", "null", "{}", '{"record.json": []}', "[" * 10**5, '{"a": NaN}', ""],
)
@pytest.mark.parametrize("name", ["digests.json", "record.json"])
def test_records_that_are_none(good, tmp_path, name, content):
    copy = tmp_path / "copy"
    shutil.copytree(good.model, copy)
    (copy / name).write_text(content)
    refused(load_model, copy)
    if name == "record.json":  # the same with digests that agree
        (copy / "digests.json").write_text(json.dumps(checkpoint._digests(copy)))
        refused(load_model, copy)


def test_links_in_a_checkpoint(good, tmp_path):
    outside = tmp_path / "outside"
    shutil.copytree(good.model / "arrays", outside)
    for number, name in enumerate(("record.json", "arrays", "arrays/_METADATA")):
        copy = tmp_path / str(number)
        shutil.copytree(good.model, copy)
        target = copy / name
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink()
        elsewhere = good.model / name if name == "record.json" else outside
        target.symlink_to(elsewhere / "_METADATA" if "/" in name else elsewhere)
        assert "link" in refused(load_model, copy)
    (tmp_path / "model").symlink_to(good.model)  # a link to a whole one is the user's
    assert load_model(tmp_path / "model").ids.size


def test_a_file_of_digests_further_down_is_checked_too(good, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(good.model, copy)
    (copy / "arrays" / "digests.json").write_text("{}")
    assert "arrays/digests.json" in refused(load_model, copy)


@pytest.mark.parametrize("kind", ["model", "generator"])
def test_a_record_with_one_value_changed(kind, good, tmp_path):
    whole = getattr(good, kind)
    where = [at for at in places(record_of(whole)) if at[0] != "training"]
    number = 0

    @bounded(40)
    @given(st.sampled_from(where), JSON)
    def change(at, value):
        nonlocal number
        number += 1
        copy = tmp_path / str(number)

        def put(record):
            record.update(replaced(record, at, value))

        altered(whole, copy, put)
        try:
            load_model(copy)
        except InputError as error:
            clear(error, copy)
        shutil.rmtree(copy)

    change()


def test_arrays_that_are_not_what_orbax_wrote():
    """In a process of its own: a read that failed is told by asyncio much later."""
    alone = Path(__file__).with_name("orbax_arrays.py")
    # Rewriting assertions parses modules that are imported late, and Python 3.11 fails
    # in that if what is left of a read is collected meanwhile.
    options = ["-n0", "--assert=plain", "-p", "no:unraisableexception"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(alone)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTEST_ADDOPTS": ""},
    )
    assert done.returncode == 0, done.stdout


# What an ensemble keeps


def ensemble(folder: Path, dataset, say) -> EnsembleFiles:
    plan = small_plan(unseen=10, training=Training(network="mlp", width=4, epochs=1))
    ids = np.arange(60)
    request = Request(ids[:10], ids[10:50], ids[50:])
    return EnsembleFiles(folder, plan, dataset, request, {"RL": Unlearning.of()}, say)


def test_damaged_models_of_an_ensemble_are_made_again(good, tmp_path):
    said: list[str] = []
    files = ensemble(tmp_path, from_npz(good.data), said.append)
    logits = {part: np.zeros((3, 3), np.float32) for part in ("forget", "retain")}
    logits |= {part: np.zeros((2, 3), np.float32) for part in ("unseen", "test")}
    model: Any = None  # of which only an original's is kept
    files.write("retrain", 0, model, Kept(logits, 1.5, {"int8": 0.5}))
    found = files.read("retrain", 0)
    assert found is not None
    assert (found.seconds, found.probes) == (1.5, {"int8": 0.5})
    assert set(found.logits) == {"forget", "retain", "unseen", "test"}
    path = tmp_path / "models" / "retrain" / "0000.npz"
    content = path.read_bytes()
    marker = tmp_path / "marker"
    objects = np.empty(1, object)
    objects[0] = Payload(marker)
    np.savez(path, record=objects)
    assert files.read("retrain", 0) is None

    @bounded(60)
    @given(MUTATIONS)
    def damage(mutations):
        path.write_bytes(mutated(content, mutations))
        try:
            files.read("retrain", 0)
        except InputError as error:
            clear(error, path)

    damage()
    assert len(said) > 20
    assert all("making the model again" in line for line in said)
    assert not marker.exists()


@pytest.mark.parametrize("record", [None, [], {}, {"told": 3}, {"told": {}}, "x"])
def test_records_of_an_ensemble_that_tell_nothing(good, tmp_path, record):
    files = ensemble(tmp_path, from_npz(good.data), lambda line: None)
    path = tmp_path / "models" / "rl" / "0003.npz"
    path.parent.mkdir(parents=True)
    text = np.frombuffer(json.dumps(record).encode(), np.uint8)
    np.savez(path, record=text, **dict.fromkeys(("forget", "test"), np.zeros(2)))
    assert files.read("RL", 3) is None


# Names that become folders, and names that become markup


@bounded(200)
@given(st.text(max_size=12) | st.sampled_from(["..", ".", "../../x", "/etc", "a\0b"]))
def test_a_label_never_leaves_its_folder(label):
    name = slug(label)
    assert not set(name) & set("/\\\0")
    assert name not in (".", "..")
    assert os.path.normpath(os.path.join("run", name)).startswith("run")


@bounded(60)
@given(JSON)
def test_a_run_without_a_plan(record):
    for whole in (record, {"plan": record}, {"plan": {"training": record}}):
        with pytest.raises(InputError) as caught:
            plan_of(whole, name="run")
        clear(caught.value, Path("run"))


HOSTILE = ["../../x", "<script>alert(1)</script>", "a\" onload='x'", "&lt;", "\x1b[31m"]


@pytest.mark.parametrize("label", HOSTILE)
def test_labels_are_text_in_the_report(good, tmp_path, label):
    results = json.loads(good.results.read_text())
    results["rows"][next(iter(results["rows"]))]["label"] = label
    results["plan"]["title"] = label
    audited = json.loads(good.audit.read_text())
    first = next(iter(audited["audit"]["figures"]))
    for holder in ("figures", "details", "models"):
        inside = audited["audit"][holder]
        audited["audit"][holder] = {
            (label if key == first else key): value for key, value in inside.items()
        }
    for number, document in enumerate((results, audited)):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "x.json").write_text(json.dumps(document))
        page = write(load_results(folder / "x.json"), folder / "page.html")
        text = page.read_text()
        assert "<script>alert" not in text
        assert "onload='x'" not in text
        assert sorted(p.name for p in folder.iterdir()) == ["page.html", "x.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0", "1"]


def test_an_audit_of_methods_with_hostile_names(tmp_path, monkeypatch, capsys):
    from jax_unlearn.cli import main

    arrays = outputs()
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in HOSTILE:
        named = {
            (name + key.removeprefix("ours") if key.startswith("ours") else key): value
            for key, value in arrays.items()
        }
        np.savez("outputs.npz", allow_pickle=False, **named)
        main(["audit", "--arrays", "outputs.npz", "--resamples", "2", "--overwrite"])
        main(["report", "--overwrite"])
        assert "<script>alert" not in Path("report.html").read_text()
    capsys.readouterr()
    names = ["audit.json", "outputs.npz", "report.html"]
    assert sorted(p.name for p in folder.iterdir()) == names
    assert [p.name for p in tmp_path.iterdir()] == ["here"]


def test_there_are_many_kinds_of_bad_ids():
    assert len(BAD_IDS) > 30
