"""Columns of a table to inputs and labels: numbers, categories, lists, images."""

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jax_unlearn.data.archives import LABELS
from jax_unlearn.data.labels import listed, natural, read_classes
from jax_unlearn.data.pictures import ENDINGS, named_pictures, stacked
from jax_unlearn.data.sources import ROW, Dataset, assembled, set_apart
from jax_unlearn.errors import InputError, unknown_name

__all__ = ["Choice", "read"]

# names of columns that say who a row is of, not what he is like
KEYS = re.compile(r"(?:.*[\s_.-])?(?:id|uuid|guid|key)|index|row|unnamed.*|", re.I)
CAMEL = re.compile(r".*[a-z](?:Id|ID|Key)")
NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?\s*", re.I)
CATEGORIES = (20, 1000)  # so many are always taken, and so many at most
TYPES = {  # of arrow, by what they are read as
    "number": ("integer", "floating", "boolean", "decimal"),
    "text": ("string", "large_string", "string_view"),
    "time": ("temporal",),
    "list": ("list", "large_list", "fixed_size_list"),
    "bytes": ("binary", "large_binary"),
    "empty": ("null",),
}
Column = NDArray[Any]
Arrays = list[NDArray[Any]]


class Parts(NamedTuple):
    """The columns of the training part, and of the test part if there is one."""

    name: str
    columns: list[dict[str, Any]]
    features: Mapping[str, Any]  # what Hugging Face says of the columns
    choice: "Choice"
    notes: list[str]

    def of(self, kind: str, used: list[str]) -> str | None:
        """Return the one column of a kind; None where there is none."""
        own = self.columns[0]
        if kind == "images":
            found = [n for n in used if _is_picture(own[n], self.features.get(n, {}))]
        else:
            found = [n for n in used if _is("list", own[n])]
        if len(found) > 1:
            raise InputError(
                f"{self.name} has {len(found)} columns of {kind}, {listed(found)}: "
                f"give exclude={found[1:]}"
            )
        return found[0] if found else None


class Choice(NamedTuple):
    """What a user says of the columns."""

    label_column: str | None = None
    exclude: Sequence[str] | None = None  # None: those named like keys
    image_size: int | None = None
    folder: Path = Path()  # where files lie that a column names
    pictures: bool = False  # whether there are images in it


def read(
    name: str, train: Any, test: Any, choice: Choice, notes: Sequence[str]
) -> Dataset:
    """Return the data set of one or two arrow tables with the same columns."""
    features, known = _features(train), list(train.column_names)
    label = _label(name, known, features, choice.label_column)
    missing = [n for n in known if test is not None and n not in test.column_names]
    if missing not in ([], [ROW]):
        raise InputError(f"{name}: the test part has no column {missing[0]!r}; add it")
    if not train.num_rows or (test is not None and not test.num_rows):
        raise InputError(f"{name}: a part has no rows; give some")
    names, labels, held = features.get(label, {}).get("names"), [], []
    if test is None:  # before the numbers are standardised by the training rows
        whole = _classes(name, label, _values(train[label]))
        numeric = isinstance(names, list) and whole.dtype.kind in "iu"
        classes = read_classes(name, [whole], names if numeric else None)
        names = classes.names
        kept, apart, note = set_apart(name, classes.parts[0])
        held += [*classes.notes, note]
        labels = [classes.parts[0][ids] for ids in (kept, apart)]
        train, test = train.take(kept), train.take(apart)
        if ROW not in known:
            train, test = (
                part.append_column(ROW, [ids])
                for part, ids in ((train, kept), (test, apart))
            )
            known.append(ROW)
    left = _left_out(known, choice.exclude)
    used = [n for n in known if n != label and n not in left]
    columns = [
        {n: _values(table[n]) for n in known if n in table.column_names}
        for table in (train, test)
    ]
    said = [*notes, f"labels are the column {label!r}"]
    given = [n for n in known if n != label and n not in (choice.exclude or ())]
    both = Parts(name, columns, features, choice, said)
    arrays = _pictures(both, given)
    try:
        if arrays is None:
            arrays = _table(both, used)
    except InputError as error:  # a column more is left out beside those that are
        also = "".join(f"{one!r}, " for one in left if one != ROW)
        told = str(error).replace("exclude=[", f"exclude=[{also}")
        raise InputError(told) from error
    if left:
        said.append(f"no inputs, but columns: {listed(left)}")
    labels = labels or [_classes(name, label, own[label]) for own in columns]
    plain, plain_test = (
        {
            n: array
            for n, c in own.items()
            if n != label and (array := _plain(c)) is not None
        }
        for own in columns
    )
    given = zip(arrays, labels, strict=True)
    is_names = names is not None and labels[0].dtype.kind in "iu"
    told = {"class_names": names if is_names else None, "columns": plain}
    return assembled(
        name, *given, **told, test_columns=plain_test, notes=[*said, *held]
    )


def _table(parts: Parts, used: list[str]) -> Arrays:
    """Return what is no image: the one column of lists, or rows."""
    name, choice = parts.name, parts.choice
    if choice.image_size is not None:
        raise InputError(
            f"image_size={choice.image_size}: {name} has no images; leave it out"
        )
    if choice.pictures:
        raise InputError(
            f"{name} has images, and no column names them; put the images of each "
            "class in a folder of its name, or add their file names to the table: "
            "file,label and below 1.png,cat"
        )
    if not used:
        raise InputError(
            f"{name} has no column for inputs beside labels and keys; give exclude=[] "
            "to read the keys, or add columns"
        )
    place = parts.of("lists", used)
    return _rows(parts, used) if place is None else _lists(parts, place)


def _features(table: Any) -> Mapping[str, Any]:
    """Return what Hugging Face says of a table's columns."""
    content = (table.schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        found = json.loads(content)["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {n: f for n, f in found.items() if isinstance(f, dict)}


def _label(
    name: str, known: list[str], features: Mapping[str, Any], wanted: str | None
) -> str:
    """Return the name of the column of labels."""
    if wanted is not None:
        if wanted not in known:
            raise unknown_name(f"{name}: column", wanted, known)
        return wanted
    told = [n for n in known if features.get(n, {}).get("_type") == "ClassLabel"]
    usual = [n for n in known if n.lower() in LABELS]
    for found in (told, usual):
        if len(found) == 1:
            return found[0]
    raise InputError(
        f"{name} has the columns {listed(known)}: which of them are the labels? give "
        f"label_column={(told or usual or known)[-1]!r}"
    )


def _left_out(known: list[str], exclude: Sequence[str] | None) -> list[str]:
    """Return the columns that are no inputs."""
    if exclude is None:
        return [n for n in known if KEYS.fullmatch(n) or CAMEL.fullmatch(n)]
    for one in exclude:
        if one not in known:
            raise unknown_name("column", one, known)
    # the number of a row is nobody's trait
    return [n for n in known if n in exclude or n == ROW]


def _values(column: Any) -> Any:
    """Return an arrow column without extension types and dictionaries, in one piece."""
    import pyarrow as pa

    column = column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # of no or of too many bytes
        column = pa.concat_arrays(column.chunks)
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column


def _is(kind: str, column: Any) -> bool:
    from pyarrow import types

    return any(getattr(types, f"is_{own}")(column.type) for own in TYPES[kind])


def _is_picture(column: Any, feature: Mapping[str, Any]) -> bool:
    import pyarrow as pa

    if feature.get("_type") == "Image" or _is("bytes", column):
        return True
    if _is("text", column):
        values = [value for value in column.to_pylist() if value]
        return bool(values) and all(v.lower().endswith(ENDINGS) for v in values)
    own = column.type
    names = [own.field(i).name for i in range(own.num_fields)]
    return pa.types.is_struct(own) and {"bytes", "path"} <= set(names)


def _pictures(parts: Parts, used: list[str]) -> Arrays | None:
    """Return the images of the one column of images; None where there is none."""
    place = parts.of("images", used)
    if place is None:
        return None
    given = [
        named_pictures(parts.name, place, own[place].to_pylist(), parts.choice.folder)
        for own in parts.columns
    ]
    if _is("text", parts.columns[0][place]):
        parts.notes.append(f"images are the files that column {place!r} names")
    every = (one for part in given for one in part)
    images, said = stacked(every, parts.choice.image_size)
    parts.notes.extend(said)
    size = len(given[0])
    return [images[:size], images[size:]][: len(given)]


def _lists(parts: Parts, place: str) -> Arrays:
    """Return a column of lists of numbers as arrays."""
    arrays = []
    for own in parts.columns:
        try:
            array = np.array(own[place].to_pylist())
        except ValueError:
            array = np.array(None)
        if array.dtype.kind not in "biuf":
            raise InputError(
                f"{parts.name}: column {place!r} has lists that are not of one length "
                f"and of numbers; mend them, or give exclude={[place]}"
            )
        arrays.append(array)
    return arrays


def _rows(both: Parts, used: list[str]) -> Arrays:
    """Return rows `f32[N, 1, 1, d]`: numbers, standardised, and categories, one-hot."""
    name, columns, notes = both.name, both.columns, both.notes
    blocks: list[Arrays] = [[] for _ in columns]
    numbers, kinds, filled, new = [], [], [], []
    for place in used:
        parts = [own[place] for own in columns]
        if _is("number", parts[0]):
            made, gaps = _standardised(name, place, parts)
            numbers.append(place)
        elif _is("text", parts[0]):
            made, gaps, count, unmet = _one_hot(name, place, parts)
            kinds.append(f"{place} ({count})")
            new += [place] * bool(unmet)
        elif _is("empty", parts[0]):
            notes.append(f"column {place!r} is empty: left out")
            continue
        else:
            what = "dates" if _is("time", parts[0]) else f"type {parts[0].type}"
            raise InputError(
                f"{name}: column {place!r} is of {what}, neither numbers nor text; "
                f"give exclude={[place]}, or make numbers of it"
            )
        filled += [f"{place} ({gaps})"] * bool(gaps)
        for block, array in zip(blocks, made, strict=True):
            block.append(array)
    for what, some in (
        ("numbers, standardised", numbers),
        ("categories, one-hot", kinds),
        ("missing values, read as the mean or as no category", filled),
        ("the test part has categories of its own, all 0", new),
    ):
        notes += [f"{what}: {listed(some)}"] if some else []
    if not blocks[0]:
        raise InputError(f"{name} has no column with values beside the labels")
    return [np.concatenate(block, axis=1)[:, None, None] for block in blocks]


def _standardised(name: str, place: str, parts: list[Any]) -> tuple[Arrays, int]:
    """Return numbers `f32[N, 1]` of mean 0 and deviation 1 over the training rows."""
    import pyarrow as pa

    arrays = [
        np.array(part.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
        for part in parts
    ]
    for array in arrays:
        for row in np.flatnonzero(np.isinf(array)):
            raise InputError(
                f"{name}: {place}[{row}] is infinite; mend it, or give "
                f"exclude={[place]}"
            )
    gaps = sum(int(np.isnan(array).sum()) for array in arrays)
    there = arrays[0][~np.isnan(arrays[0])]
    mean, std = (there.mean(), there.std()) if there.size else (0.0, 1.0)
    made = [
        np.nan_to_num((array - mean) / (std if std > 0 else 1.0)) for array in arrays
    ]
    return [array[:, None].astype(np.float32) for array in made], gaps


def _one_hot(name: str, place: str, parts: list[Any]) -> tuple[Arrays, int, int, int]:
    """Return texts as categories `f32[N, c]`, how many are missing, c, and new ones."""
    texts = [part.to_pylist() for part in parts]
    found = natural(sorted({text for text in texts[0] if text}))
    least, most = CATEGORIES
    limit = min(max(least, len(texts[0]) // 10), most)
    if len(found) > limit:
        strange = [text for text in found if not NUMBER.fullmatch(text)]
        if 2 * len(strange) < len(found):
            raise InputError(
                f"{name}: column {place!r} has {listed(strange)} among its numbers; "
                f"leave such cells empty, or give exclude={[place]}"
            )
        raise InputError(
            f"{name}: column {place!r} has {len(found)} different texts, over the "
            f"{limit} that are read as categories; give exclude={[place]}"
        )
    number = {text: at for at, text in enumerate(found)}
    gaps, unmet, made = 0, 0, []
    for part in texts:
        array = np.zeros((len(part), len(found)), np.float32)
        for row, text in enumerate(part):
            if not text:
                gaps += 1
            elif text in number:
                array[row, number[text]] = 1
            else:
                unmet += 1
        made.append(array)
    return made, gaps, len(found), unmet


def _classes(name: str, label: str, column: Any) -> NDArray[Any]:
    """Return the labels, none of them missing."""
    values = column.to_pylist()
    for row, value in enumerate(values):
        if value is None:
            raise InputError(
                f"{name}: {label}[{row}] is missing; drop the row or give it a class"
            )
    return _array(values)


def _plain(column: Any) -> Column | None:
    """Return a column of plain values as an array; None where it has none."""
    if not any(_is(kind, column) for kind in ("number", "text", "time")):
        return None
    values = column.to_pylist()
    if any(value is None for value in values) and not _is("number", column):
        values = ["" if value is None else str(value) for value in values]
    return _array([float("nan") if value is None else value for value in values])


def _array(values: list[Any]) -> NDArray[Any]:
    first = values[0]
    if isinstance(first, (str, datetime.date, datetime.time)):
        values = [str(value) for value in values]
    array = np.array(values)
    return array.astype(np.str_) if array.dtype == object else array
