"""Data sets of files with columns: csv, parquet, and Hugging Face sets on the disk."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jax_unlearn.data import columns as tables
from jax_unlearn.data.archives import part_of
from jax_unlearn.data.files import read_file, read_json, text_of
from jax_unlearn.data.labels import listed
from jax_unlearn.data.pictures import any_pictures
from jax_unlearn.data.sources import ROW, Dataset
from jax_unlearn.errors import InputError, one_line

__all__ = ["TABLES", "from_huggingface", "from_table"]

TEXTS = (".csv", ".tsv")
TABLES = (*TEXTS, ".parquet", ".arrow")
SPLIT = "split"  # column that says which part a row is of


def from_table(
    path: str | os.PathLike[str],
    *,
    label_column: str | None = None,
    exclude: Sequence[str] | None = None,
    image_size: int | None = None,
) -> Dataset:
    r"""Return the rows of a .csv, .tsv, .parquet or .arrow file, named after it.

    Numbers are standardised by mean and deviation over the training rows, missing ones
    get the mean; texts are categories, a 0/1 input each. The labels are the column
    `label_column`, else that called label, target, class or y. `exclude` names columns
    that are no inputs; unless given, those called id, *_id, uuid, index or key. All
    columns but the labels are in `columns`. A folder may hold train.csv and test.csv,
    or parquet files that begin so; a column "split" says train or test; else a share is
    held out. Columns of images (bytes, as Hugging Face writes them, or names of
    image files) or of lists of numbers are the inputs alone.

    Raises:
      InputError: a file that cannot be read, a column that is no input, or no labels.

    >>> import tempfile
    >>> text = "age,city,label\n30,Rome,no\n50,Oslo,yes\n40,Rome,no\n"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "people.csv"
    ...     _ = file.write_text(text)
    ...     data = from_table(file)
    >>> data.class_names, data.train.inputs.shape, data.columns["city"].tolist()
    (('no', 'yes'), (2, 1, 1, 3), ['Rome', 'Oslo'])
    """
    root = Path(path)
    files = [root]
    if root.is_dir():
        files = table_files(root)
    if not files or not root.exists():
        raise InputError(f"path={root}: no such file; check the path")
    parts: dict[str, list[Path]] = {}
    for file in files:
        part = _part(file) if root.is_dir() else ""
        parts.setdefault(part or "train", []).append(file)
    read = {
        part: _joined([_read(file) for file in some]) for part, some in parts.items()
    }
    folder = root if root.is_dir() else root.parent
    choice = tables.Choice(label_column, exclude, image_size, folder)
    choice = choice._replace(pictures=root.is_dir() and any_pictures(root))
    return _dataset(root.stem, read, choice)


def from_huggingface(
    path: str | os.PathLike[str],
    *,
    label_column: str | None = None,
    exclude: Sequence[str] | None = None,
    image_size: int | None = None,
) -> Dataset:
    """Return a Hugging Face set that `save_to_disk` wrote, one part or several.

    Its arrow files are read as they are; the package `datasets` is not needed. Images
    are decoded, the names of a ClassLabel kept; all else is as in `from_table`.

    Raises:
      InputError: as `from_table`, or files that are missing.
    """
    root = Path(path)
    parts = {"train": root}
    if (root / "dataset_dict.json").exists():
        record = read_json(root / "dataset_dict.json")
        names = record.get("splits", []) if isinstance(record, dict) else []
        parts = {}
        for name in map(str, names):
            part, rest = part_of(name)
            parts[part if part and not rest else name] = root / name
    read = {}
    for part, folder in parts.items():
        files = sorted(folder.glob("*.arrow"))
        if not files:
            raise InputError(
                f"path={folder} has no .arrow files; write the set anew with "
                "save_to_disk"
            )
        read[part] = _joined([_read(file) for file in files])
    return _dataset(
        root.resolve().name, read, tables.Choice(label_column, exclude, image_size)
    )


def table_files(root: Path) -> list[Path]:
    """Return the tables in a folder or in its folders, of the kind there is most of."""
    found = [f for f in sorted(root.rglob("*")) if f.suffix.lower() in TABLES]
    found = [f for f in found if f.is_file() and not f.name.startswith(".")]
    kinds = [f.suffix.lower() for f in found]
    return [f for f in found if f.suffix.lower() == max(set(kinds), key=kinds.count)]


def _part(file: Path) -> str:
    """Return the part that a file's name, or that of its folder, begins with."""
    for name in (file.stem, file.parent.name):
        part, rest = part_of(name.replace(".", "-").split("-")[0])
        if part and not rest:
            return part
    return ""


def _dataset(name: str, parts: dict[str, Any], choice: tables.Choice) -> Dataset:
    """Return the data set of tables by part."""
    notes = []
    if list(parts) == ["train"]:
        parts = _split(parts["train"])
    if "train" not in parts:
        raise InputError(
            f"{name} has the parts {', '.join(parts)}; call one of them train"
        )
    test = next((part for part in ("test", "validation") if part in parts), None)
    left = [part for part in parts if part not in ("train", test)]
    if left:
        notes.append(f"{listed(left)}: left out, beside train and {test}")
    given = parts["train"], parts[test] if test else None
    return tables.read(name, *given, choice, notes)


def _split(table: Any) -> dict[str, Any]:
    """Return a table by the parts that its column "split" names, if it has one."""
    name = next((n for n in table.column_names if n.lower() == SPLIT), None)
    if name is None:
        return {"train": table}
    values = [str(value) for value in table[name].to_pylist()]
    parts = np.array([p if p and not r else "" for p, r in map(part_of, values)])
    if not (parts != "").all() or "train" not in parts:
        return {"train": table}
    table = table.drop_columns([name])
    if ROW not in table.column_names:
        table = table.append_column(ROW, [np.arange(len(parts))])
    return {part: table.filter(parts == part) for part in dict.fromkeys(parts.tolist())}


def _joined(parts: Sequence[Any]) -> Any:
    """Return tables one after the other, if they have the same columns."""
    import pyarrow as pa

    try:
        return pa.concat_tables(parts)
    except pa.ArrowInvalid as error:
        raise InputError(
            f"files of one part differ in their columns ({one_line(error)}); give one "
            "file"
        ) from error


def _read(path: Path) -> Any:
    """Return a file as an arrow table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    suffix = path.suffix.lower()
    try:
        if suffix in TEXTS:
            return _read_text(path)
        if suffix == ".parquet":
            return pq.ParquetFile(path).read()
        with pa.memory_map(str(path)) as source:
            try:
                return pa.ipc.open_stream(source).read_all()
            except pa.ArrowInvalid:
                return pa.ipc.open_file(source).read_all()
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"path={path} cannot be read as {suffix[1:]} ({one_line(error)}); write "
            "the file anew"
        ) from error


def _read_text(path: Path) -> Any:
    """Return a csv or tsv file, its separator and types found out."""
    import pyarrow.csv as arrow_csv

    content = read_file(path)
    text = text_of(path, content)
    first = text.split("\n", 1)[0].rstrip("\r")
    if not first.strip():
        raise InputError(f"path={path} begins with an empty line; give it a header")
    mark = "\t" if path.suffix.lower() == ".tsv" else max(",;\t|", key=first.count)
    names = [name.strip() for name in next(csv.reader([first], delimiter=mark))]
    if all(_number(name) for name in names):
        raise InputError(
            f"path={path} begins with numbers ({first[:40]}); put a first line with "
            "the names of the columns"
        )
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(
            f"path={path} has two columns {twice[0]!r}; name each column once"
        )
    commas = mark == ";" and "," in text and "." not in text
    return arrow_csv.read_csv(
        path,
        read_options=arrow_csv.ReadOptions(
            block_size=min(max(len(content), 2**20), 2**31 - 1),
            column_names=names,
            skip_rows=1,
        ),
        parse_options=arrow_csv.ParseOptions(delimiter=mark, newlines_in_values=True),
        convert_options=arrow_csv.ConvertOptions(
            strings_can_be_null=True, decimal_point="," if commas else "."
        ),
    )


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
