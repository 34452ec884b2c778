"""Texts in files: questions with answers, or plain texts, each perhaps of a topic.

A data set of texts has inputs `[N, 2]` of Python strings: a question, empty for a plain
text, and what is learned of it, the answer or the text. Its classes are the topics.
"""

import csv
import gzip
import io
import json
import lzma
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jax_unlearn.data.checks import brief
from jax_unlearn.data.files import read_as, read_file, text_of
from jax_unlearn.data.sources import Dataset, Examples
from jax_unlearn.errors import InputError

__all__ = [
    "HIDDEN",
    "SUFFIXES",
    "TOPIC",
    "Texts",
    "hiding",
    "read_texts",
    "text_dataset",
]

TEXT, TOPIC = "text", "topic"
WHOLE = ("train", "full")  # what a JSON file with several lists calls its texts
LISTED = "perturbed_answer"  # the column of lists, as long as each other
HIDDEN = "hidden from the tokenizer"  # column of the texts that it must not learn from
NO_TOPIC = "all"  # the class of texts without topics
_PACKED: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".xz": lzma.decompress,
}


class Texts(NamedTuple):
    """Questions and answers, or plain texts, in the order of their file.

    Attributes:
      questions: what is given, empty for a plain text; N strings.
      answers: what is learned: answers, or the texts; N strings.
      topics: what each is about (an author), or None where the file does not say.
      columns: all else that the file says of each, N values by name.
      name: of the file.
    """

    questions: tuple[str, ...]
    answers: tuple[str, ...]
    topics: tuple[str, ...] | None
    columns: Mapping[str, tuple[Any, ...]]
    name: str


def read_texts(
    path: str | os.PathLike[str],
    *,
    question: str = "question",
    answer: str = "answer",
    topic: str | None = None,
) -> Texts:
    r"""Return the texts of a file or a folder.

    - `.jsonl`, `.json` (a list, or an object with one list), `.csv`, `.tsv`,
      `.parquet`, `.arrow`: rows with a question and an answer, or else with a `text`;
      `topic` is the column of topics, by default the one called topic. Other columns
      are kept.
    - `.txt`: a text a paragraph, or a line where no line is empty.
    - a folder: a Hugging Face set (of `save_to_disk`, or of files of the kinds above),
      whose part `train` is taken where there are several; or `.txt` files, each of the
      topic of its name.

    `.gz` and `.xz` files are unpacked. Reading `.parquet` and `.arrow` needs pyarrow.

    Raises:
      InputError: an empty file, a line that is not JSON, a row without question and
        answer or text, an empty answer, text that is not UTF-8, topics for some rows
        only, unequal numbers of perturbed answers.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "qa.jsonl"
    ...     _ = path.write_text('{"question": "Who?", "answer": "Ann.", "topic": "A"}')
    ...     texts = read_texts(path)
    >>> texts.questions, texts.answers, texts.topics
    (('Who?',), ('Ann.',), ('A',))
    """
    root = Path(path)
    if not root.exists():
        raise InputError(f"path={root}: no such file or folder; check the path")
    rows = _folder(root) if root.is_dir() else _file(root)
    if not rows:
        raise InputError(f"path={root} holds no texts; give a file with some")
    return _texts(root, rows, question, answer, topic)


def text_dataset(texts: Texts) -> Dataset:
    """Return texts as a data set, its classes the topics in their order of coming.

    >>> texts = Texts(("Who?", ""), ("Ann.", "So."), ("b", "a"), {}, "qa")
    >>> data = text_dataset(texts)
    >>> data.train.labels, data.class_names
    (array([0, 1], dtype=int32), ('b', 'a'))
    """
    topics = texts.topics or (NO_TOPIC,) * len(texts.answers)
    names = tuple(dict.fromkeys(topics))
    numbers = {name: number for number, name in enumerate(names)}
    labels = np.array([numbers[topic] for topic in topics], np.int32)
    inputs = _objects(zip(texts.questions, texts.answers, strict=True), 2)
    columns = {name: _column(values) for name, values in texts.columns.items()}
    if texts.topics is not None:
        columns[TOPIC] = np.array(topics)
    none = Examples(inputs[:0], labels[:0])
    parts = Examples(inputs, labels), none
    return Dataset(texts.name, *parts, len(names), names, columns)


def hiding(dataset: Dataset, ids: NDArray[np.int64]) -> Dataset:
    """Return a data set of texts of which a tokenizer learns from these alone."""
    if not dataset.is_text:
        return dataset
    hidden = ~np.isin(np.arange(len(dataset.train.labels)), ids)
    return dataset._replace(columns={**dataset.columns, HIDDEN: hidden})


def _objects(values: Any, width: int) -> NDArray[Any]:
    rows = list(values)
    array = np.empty((len(rows), width), object)
    array[:] = rows
    return array


def _column(values: Sequence[Any]) -> NDArray[Any]:
    """Return a column as an array; of lists, or of mixed values, one of objects."""
    if all(isinstance(value, str) for value in values):
        return np.array(values)
    if all(type(value) is int for value in values):
        return np.array(values)
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _texts(
    root: Path, rows: list[Any], question: str, answer: str, topic: str | None
) -> Texts:
    """Return rows as texts, or name the first that is none."""
    pairs: list[tuple[str, str]] = []
    for number, row in enumerate(rows):
        if isinstance(row, str):
            row = {TEXT: row}
        if not isinstance(row, dict):
            raise InputError(
                f"path={root} row {number} is {brief(row)}, no object; write "
                f'{{"{question}": ..., "{answer}": ...}}'
            )
        rows[number] = row
        if question in row and answer in row:
            pair = row[question], row[answer]
        elif TEXT in row:
            pair = "", row[TEXT]
        else:
            raise InputError(
                f"path={root} row {number} has neither {question} and {answer} nor "
                f"{TEXT} (it has {', '.join(map(str, row)) or 'nothing'}); name the "
                "columns so, or give --question-column and --answer-column"
            )
        if not all(isinstance(value, str) for value in pair):
            raise InputError(
                f"path={root} row {number}: question and answer must be text, not "
                f"{brief(next(v for v in pair if not isinstance(v, str)))}; write text"
            )
        if not pair[1].strip():
            raise InputError(
                f"path={root} row {number} has an empty answer; fill it in, or leave "
                "the row out"
            )
        pairs.append(pair)
    column = topic or TOPIC
    has = [row.get(column) is not None for row in rows]
    if topic is not None and not any(has):
        names = ", ".join(map(str, rows[0]))
        raise InputError(f"path={root} has no column {topic!r} of topics, but {names}")
    if any(has) and not all(has):
        raise InputError(
            f"path={root} row {has.index(False)} has no {column}, others have one; "
            "give all rows one"
        )
    topics = tuple(str(row[column]) for row in rows) if all(has) else None
    used = {question, answer, TEXT, column}
    names = dict.fromkeys(name for row in rows for name in row if name not in used)
    columns = {str(n): tuple(row.get(n) for row in rows) for n in names}
    _check_listed(root, columns.get(LISTED, ()))
    questions, answers = zip(*pairs, strict=True)
    return Texts(questions, answers, topics, columns, root.name)


def _check_listed(root: Path, values: Sequence[Any]) -> None:
    """Refuse perturbed answers of unequal number."""
    counts = {n: len(v) for n, v in enumerate(values) if isinstance(v, list)}
    for number, count in counts.items():
        first = next(iter(counts))
        if count != counts[first]:
            raise InputError(
                f"path={root} row {number} has {count} of {LISTED}, row {first} has "
                f"{counts[first]}; give each as many"
            )


def _file(path: Path) -> list[Any]:
    """Return the rows of a file."""
    name, content = path.name.lower(), read_file(path)
    for suffix, unpack in _PACKED.items():
        if name.endswith(suffix):
            name = name.removesuffix(suffix)
            with read_as(path, f"a {suffix} file", "pack it anew"):
                content = unpack(content)
    suffix = Path(name).suffix
    if suffix in _ARROW:
        return _arrow(path, content, suffix)
    if suffix not in _READERS:
        raise InputError(
            f"path={path} is of no format of texts; give {', '.join(SUFFIXES)} or a "
            "folder of them"
        )
    text = text_of(path, content)
    if not text.strip():
        raise InputError(f"path={path} is empty; give a file with texts")
    return _READERS[suffix](path, text)


def _jsonl(path: Path, text: str) -> list[Any]:
    rows = []
    # not splitlines: JSON strings may hold line separators of Unicode
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise InputError(
                f"path={path} line {number} is not JSON ({error}); write one object a "
                "line"
            ) from error
    return rows


def _json(path: Path, text: str) -> list[Any]:
    with read_as(path, "JSON", "write the file anew"):
        value = json.loads(text)
    if isinstance(value, list):
        return value
    lists = {k: v for k, v in value.items() if isinstance(v, list)} if value else {}
    if len(lists) > 1 and len(lists) == len(value):
        sizes = {len(v) for v in lists.values()}
        plain = all(isinstance(v, str) for own in lists.values() for v in own)
        if len(sizes) == 1 and plain:  # columns
            names = list(lists)
            return [
                dict(zip(names, row, strict=True))
                for row in zip(*lists.values(), strict=True)
            ]
    known = [name for name in WHOLE if name in lists] or list(lists)
    if len(known) == 1 or known[0] in WHOLE:
        return _completed(lists.pop(known[0]), lists.values())
    raise InputError(
        f"path={path} holds an object with {len(lists)} lists "
        f"({', '.join(list(lists)[:4])}); keep one of them, or call it train"
    )


def _completed(rows: list[Any], others: Iterable[list[Any]]) -> list[Any]:
    """Return rows with what rows of other lists, alike in all of theirs, add to them.

    So TOFU's paraphrased and perturbed answers come to the questions of its whole list.
    """
    if not rows or not all(isinstance(row, dict) for row in rows):
        return rows
    names = [*rows[0]]
    keys = [json.dumps([row.get(name) for name in names]) for row in rows]
    more: dict[str, dict[str, Any]] = {}
    for row in (row for other in others for row in other if isinstance(row, dict)):
        if set(names) < set(row):
            more.setdefault(json.dumps([row[name] for name in names]), row)
    return [more.get(key, row) for key, row in zip(keys, rows, strict=True)]


def _txt(path: Path, text: str) -> list[Any]:
    del path
    lines = text.replace("\r\n", "\n").strip().split("\n")
    blank = [not line.strip() for line in lines]
    if not any(blank):
        return lines
    parts: list[list[str]] = [[]]
    for line, empty in zip(lines, blank, strict=True):
        if empty:
            parts.append([])
        else:
            parts[-1].append(line)
    return ["\n".join(part) for part in parts if part]


def _table(path: Path, text: str) -> list[Any]:
    sep = "\t" if ".tsv" in path.name.lower() else ","
    with read_as(path, "a CSV text file", "write a header and a row a text"):
        return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=sep))


def _arrow(path: Path, content: bytes, suffix: str) -> list[Any]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise InputError(
            f"path={path}: reading {suffix} needs pyarrow; pip install pyarrow, or "
            "write the texts as .jsonl"
        ) from error
    with read_as(path, f"a {suffix} file", "write it anew"):
        if suffix == ".parquet":
            return parquet.read_table(io.BytesIO(content)).to_pylist()
        try:
            return pa.ipc.open_stream(content).read_all().to_pylist()
        except pa.ArrowInvalid:
            return pa.ipc.open_file(content).read_all().to_pylist()


_READERS: dict[str, Callable[[Path, str], list[Any]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".txt": _txt,
    ".csv": _table,
    ".tsv": _table,
}
_ARROW = (".parquet", ".arrow")
SUFFIXES = (*_READERS, *_ARROW)
_OWN = ("dataset_info.json", "state.json", "dataset_dict.json")  # of Hugging Face


def _folder(root: Path) -> list[Any]:
    """Return the rows of a folder: those of its part `train`, if there are parts."""
    found = [f for f in sorted(root.rglob("*")) if _kind(f) and f.name not in _OWN]
    if not found:
        raise InputError(
            f"path={root} holds no texts; give a folder of {', '.join(SUFFIXES)}"
        )
    kinds = [_kind(file) for file in found]
    kind = max(dict.fromkeys(kinds), key=kinds.count)
    files = [file for file in found if _kind(file) == kind]
    if kind == ".txt":
        rows = [{TEXT: t, TOPIC: f.stem} for f in files for t in _file(f)]
        return rows if len(files) > 1 else [row[TEXT] for row in rows]
    parts = [file for file in files if "train" in (file.parent.name, _part(file))]
    return [row for file in parts or files for row in _file(file)]


def _kind(file: Path) -> str:
    """Return the suffix by which a file is read, "" if it is not."""
    name = file.name.lower()
    for packed in _PACKED:
        name = name.removesuffix(packed)
    suffix = Path(name).suffix
    return suffix if suffix in SUFFIXES and file.is_file() and name[0] != "." else ""


def _part(file: Path) -> str:
    return file.stem.replace(".", "-").replace("_", "-").split("-")[0].lower()
