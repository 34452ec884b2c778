"""Files that cannot be used, each with what is wrong as its name."""

import json
import shutil
from pathlib import Path

import numpy as np
from good_files import Files, altered, images, outputs

HELD_OUT = "an id that was held out"


def bad_data() -> dict[str, dict[str, np.ndarray]]:
    """Return changes of the good data set that make it unusable."""
    good = images()
    x, y = good["x_train"], good["y_train"]
    return {
        "float-labels": {"y_train": y + 0.5},
        "negative-labels": {"y_train": y - 1},
        "huge-labels": {"y_train": y.astype(np.int64) + 2**40},
        "text-labels": {"y_train": y.astype("U")},
        "labels-of-two-axes": {"y_train": np.stack([y, y], axis=1)},
        "too-few-labels": {"y_train": y[:-1]},
        "no-test-labels": {"y_test": y[:0]},
        "nan": {"x_train": np.full(x.shape, np.nan, np.float32)},
        "inf": {"x_test": np.full(good["x_test"].shape, np.inf, np.float32)},
        "overflow": {"x_train": np.full(x.shape, 1e300)},
        "records": {"x_train": np.zeros(len(x), [("a", np.uint8)])},
        "complex": {"x_train": x.astype(np.complex64)},
        "bool": {"x_train": x > 9},
        "text": {"x_train": x.astype("U")},
        "dates": {"x_train": x.astype("M8[D]")},
        "scalar": {"x_train": np.uint8(3)},
        "vectors": {"x_train": x.reshape(60, -1)},
        "no-images": {"x_train": x[:0], "y_train": y[:0]},
        "no-pixels": {"x_train": x[:, :0]},
        "five-axes": {"x_train": x[..., None]},
        "other-test-shape": {"x_test": np.zeros((30, 5, 5, 1), np.uint8)},
        "other-test-type": {"x_test": np.zeros((30, 4, 4, 1), np.float32)},
        "pickled": {"x_train": np.array([{}] * 60, dtype=object)},
        "too-few-names": {"class_names": np.array(["a", "b"])},
        "numbers-for-names": {"class_names": np.arange(3)},
        "names-of-two-axes": {"class_names": np.array([["a", "b", "c"]])},
    }


def bad_outputs() -> dict[str, dict[str, np.ndarray]]:
    """Return changes of the good outputs that make them unusable."""
    good = outputs()
    ours, labels = good["ours/forget"], good["labels/forget"]
    return {
        "nan": {"ours/forget": np.full_like(ours, np.nan)},
        "inf": {"retrained/test": np.full_like(good["retrained/test"], np.inf)},
        "other-classes": {"ours/forget": ours[..., :2]},
        "other-samples": {"ours/forget": ours[:, :5]},
        "other-models": {"ours/forget": ours[:1]},
        "no-models": {"ours/forget": ours[:0]},
        "one-class": {k: v[..., :1] for k, v in good.items() if v.ndim == 3},
        "four-axes": {"ours/forget": ours[None]},
        "text": {"ours/forget": ours.astype("U")},
        "complex": {"ours/forget": ours.astype(complex)},
        "negative-labels": {"labels/forget": labels - 1},
        "large-labels": {"labels/forget": labels + 7},
        "float-labels": {"labels/forget": labels + 0.5},
        "labels-of-two-axes": {"labels/forget": labels[:, None]},
        "no-labels": {"labels/forget": labels[:0]},
        "unknown-part": {"ours/forgotten": ours},
        "no-name": {"forget": ours},
        "a-method-without-parts": {"theirs/forget": ours},
        "pickled": {"ours/forget": np.array([{}], dtype=object)},
    }


BAD_IDS = {
    "empty.csv": b"",
    "header-only.csv": b"id\n",
    "words.csv": b"seven\n",
    "float.csv": b"1.5\n",
    "nan.csv": b"nan\n",
    "negative.csv": b"-1\n",
    "out-of-range.csv": b"60\n",
    "huge.csv": b"9" * 30 + b"\n",
    "twice.csv": b"1\n1\n",
    "two-columns.csv": b"1,2\n3,4\n",
    "two-headers.csv": b"id,index\n1,2\n",
    "lost-cell.csv": b"name,id\na\n",
    "open-quote.csv": b'id\n"1\n',
    "utf-16.csv": "1\n2\n".encode("utf-16"),
    "bytes.csv": bytes(range(128, 256)),
    "nul.csv": b"1\x002\n",
    "list.json": b"[]",
    "object.json": b"{}",
    "both-keys.json": b'{"forget": [1], "ids": [2]}',
    "nested.json": b"[[1], [2]]",
    "deep.json": b"[" * 100_000,
    "nan.json": b"[NaN]",
    "infinity.json": b"[Infinity]",
    "true.json": b"[true]",
    "text.json": b'["1"]',
    "null.json": b"[null]",
    "number.json": b"7",
    "huge.json": b"[1" + b"0" * 5000 + b"]",
    "cut.json": b"[1, 2",
    "latin.json": b'["\xe9"]',
    "text.npy": b"1 2 3",
    "cut.npy": b"\x93NUMPY\x01\x00",
    "ids.txt": b"1\n",
    "ids": b"1\n",
}


def write_bad(folder: Path, good: Files) -> None:
    """Write all of them into folders `data`, `outputs`, `ids`, `splits`, ...."""
    for name in ("data", "outputs", "ids", "splits", "models", "results"):
        (folder / name).mkdir(parents=True)
    for name, change in bad_data().items():
        _npz(folder / "data" / name, {**images(), **change})
    for name, change in bad_outputs().items():
        _npz(folder / "outputs" / name, {**outputs(), **change})
    for kind, whole in (("data", good.data), ("outputs", good.arrays)):
        content = whole.read_bytes()
        _damaged(folder / kind, content, "npz")
        with np.load(whole) as file:
            lacking = dict(list(file.items())[1:])
        _npz(folder / kind / "lacking", lacking)
        (folder / kind / "folder.npz").mkdir()
    _npz(
        folder / "outputs" / "no-method",
        {k: v for k, v in outputs().items() if not k.startswith("ours")},
    )
    for name, content in BAD_IDS.items():
        (folder / "ids" / name).write_bytes(content)
    np.save(folder / "ids" / "float.npy", np.array([1.0, 2.0]))
    np.save(folder / "ids" / "mask.npy", np.array([True, False]))
    np.save(folder / "ids" / "two-axes.npy", np.array([[1], [2]]))
    np.save(folder / "ids" / "pickled.npy", np.array([{}], dtype=object))
    (folder / "ids" / "folder.json").mkdir()
    _splits(folder / "splits", good)
    _results(folder / "results", good)
    _checkpoints(folder / "models", good)


def _npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(path.with_suffix(".npz"), **arrays)


def _damaged(folder: Path, content: bytes, suffix: str) -> None:
    middle = len(content) // 2
    flipped = bytes([content[middle] ^ 255])
    for name, damaged in {
        "empty": b"",
        "text": b"hello\n",
        "cut": content[: middle * 2 - 30],
        "half": content[:middle],
        "flipped": content[:middle] + flipped + content[middle + 1 :],
    }.items():
        (folder / f"{name}.{suffix}").write_bytes(damaged)


def _splits(folder: Path, good: Files) -> None:
    """Write splits that contradict themselves."""
    split = json.loads(good.split.read_text())
    forget, retain = split["forget"], split["retain"]
    changes = {
        "version": {"version": 99},
        "kind": {"kind": "radnom"},
        "kind-of-number": {"kind": 3},
        "seed-of-text": {"seed": "one"},
        "forget-of-text": {"forget": "all"},
        "forget-empty": {"forget": []},
        "forget-of-floats": {"forget": [float(i) for i in forget]},
        "forget-reversed": {"forget": forget[::-1]},
        "forget-in-retain": {"retain": sorted([*retain, forget[0]])},
        "forget-lost": {"forget": forget[1:]},
        "negative": {"forget": [-1, *forget[1:]]},
        "huge": {"forget": [*forget[:-1], 10**30]},
        "counts": {"forget_counts": [0, 0, 1]},
        "digest": {"forget_sha256": "0" * 64},
        "labels": {"labels_sha256": "0" * 64},
        "labels-no-digest": {"labels_sha256": "../../x"},
        "num-samples": {"num_samples": 3},
    }
    for name, change in changes.items():
        (folder / f"{name}.json").write_text(json.dumps({**split, **change}))
    (folder / "lacking.json").write_text(json.dumps({"version": split["version"]}))
    (folder / "list.json").write_text("[]")
    _damaged(folder, good.split.read_bytes(), "json")


def _results(folder: Path, good: Files) -> None:
    """Write results that no page can be drawn of."""
    results = json.loads(good.results.read_text())
    audit = json.loads(good.audit.read_text())
    generation = json.loads(good.generation.read_text())
    few = dict(list(audit["audit"]["details"].items())[:1])  # not of every method
    changes = {
        "format": {**results, "format": 2},
        "format-true": {**results, "format": True},
        "no-rows": {"format": 1},
        "empty-rows": {**results, "rows": {}},
        "rows-list": {**results, "rows": []},
        "row-number": {**results, "rows": {"retrain": 3}},
        "scatter": {**results, "scatter": {"nobody": {}}},
        "conflict": {**results, "conflict": {"retrain": [2.0]}},
        "plan": {**results, "plan": [1]},
        "audit-list": {**audit, "audit": [1]},
        "audit-empty": {**audit, "audit": {"figures": {}}},
        "audit-level": {**audit, "audit": {**audit["audit"], "level": 2}},
        "audit-lacking": {**audit, "audit": {**audit["audit"], "details": few}},
        "generation-plan": {**generation, "plan": {}},
        "generation-runs": {**generation, "runs": []},
        "generation-judge": {**generation, "judge": {"accuracy": 1e9}},
        "kind": {"format": 1, "kind": "other"},
        "number": 7,
        "null": None,
    }
    for name, value in changes.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    text = json.dumps(results)
    (folder / "nan.json").write_text(text.replace('"mean": ', '"mean": NaN, "x": ', 1))
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "latin.json").write_bytes(b'{"format": "\xe9"}')
    _damaged(folder, good.results.read_bytes()[:5000], "json")


def _checkpoints(folder: Path, good: Files) -> None:
    """Write checkpoints that are damaged, or whole and of nothing that is known."""
    for name in ("record.json", "digests.json", "arrays"):
        lost = folder / f"lost-{name.split('.')[0]}"
        shutil.copytree(good.model, lost)
        if (lost / name).is_dir():
            shutil.rmtree(lost / name)
        else:
            (lost / name).unlink()
    (folder / "empty").mkdir()
    (folder / "file").write_text("no folder")
    shutil.copytree(good.model, folder / "more")
    (folder / "more" / "more.txt").write_text("mine")
    shutil.copytree(good.model, folder / "edited")
    record = folder / "edited" / "record.json"
    record.write_text(record.read_text().replace("mlp", "vgg16"))
    for name, change in record_changes().items():
        altered(good.model, folder / name, change)
    for name, change in generator_changes().items():
        altered(good.generator, folder / f"generator-{name}", change)


def record_changes():
    """Return changes of a model's record, with its digests written anew."""

    def network(**fields):
        return lambda record: record["network"].update(fields)

    return {
        "no-network": lambda record: record.pop("network"),
        "network-list": lambda record: record.update(network=[1]),
        "network-more": network(more=1),
        "network-name": network(name="resnet9"),
        "network-name-number": network(name=3),
        "network-width": network(width=-1),
        "network-width-huge": network(width=10**9),
        "network-width-text": network(width="four"),
        "network-dtype": network(dtype="float31"),
        "network-augment": network(augment="blur"),
        "network-classes": network(num_classes=0),
        "network-shape": network(input_shape=[4, 4]),
        "network-shape-text": network(input_shape="4x4"),
        "network-shape-huge": network(input_shape=[10**6, 10**6, 10**6]),
        "network-mean": network(mean=["a"]),
        "network-std": network(std=[0.0]),
        "ids-negative": lambda record: record.update(num_ids=-1),
        "ids-text": lambda record: record.update(num_ids="many"),
        "ids-huge": lambda record: record.update(num_ids=10**30),
        "ids-other": lambda record: record.update(num_ids=3),
        "format": lambda record: record.update(format=2),
        "dataset": lambda record: record.update(dataset=3),
    }


def generator_changes():
    """Return changes of a diffusion model's record, with its digests written anew."""

    def generator(**fields):
        return lambda record: record["generator"].update(fields)

    return {
        "none": lambda record: record.pop("generator"),
        "list": lambda record: record.update(generator=[1]),
        "lacking": lambda record: record["generator"].pop("widths"),
        "widths": generator(widths=[]),
        "widths-text": generator(widths="4"),
        "widths-zero": generator(widths=[0]),
        "layers": generator(layers=-1),
        "attention": generator(attention=[1, 1, 1]),
        "condition": generator(condition="clss"),
        "dtype": generator(dtype="float31"),
        "timesteps": generator(timesteps=0),
        "timesteps-huge": generator(timesteps=10**12),
        "prediction": generator(prediction="x0"),
        "noise": generator(noise="pink"),
        "drop": generator(drop="some"),
        "names": generator(class_names=[]),
        "shape": generator(image_shape=[4]),
        "text": generator(condition="text"),
        "reduce": lambda record: record.update(reduce="two"),
        "reduce-zero": lambda record: record.update(reduce=0),
    }
