"""Checkpoints: a folder of orbax arrays and a json record, written whole or not at all.

A checkpoint holds `arrays/` (orbax), `record.json` (what the caller says of it) and
`digests.json` (SHA-256 of every other file, checked before anything is read). The
processes of one run write one folder together, on a disk that all of them see.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jax_unlearn.drivers import signals
from jax_unlearn.drivers.stacking import is_key
from jax_unlearn.errors import InputError, one_line
from jax_unlearn.types import PyTree

__all__ = ["identity", "in_first", "largest", "load", "read_record", "save"]

FORMAT = 1


def save(path: str | os.PathLike, tree: PyTree, record: dict[str, Any]) -> Path:
    """Write a pytree of arrays and a record as a new checkpoint; return its path.

    Everything is written beside the folder to make, which must not exist, and moved
    there in one step. The tree is of dicts, lists and tuples, such as an
    `UnlearnState`; the record is JSON-able, its key "format" is taken. The processes of
    one run must all call it, with the same record.

    Raises:
      InputError: the folder exists, or cannot be written; a tree without arrays; a
        record that json cannot write, or with a "format".

    >>> import jax.numpy as jnp
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save(Path(folder) / "c", {"w": jnp.arange(2.0)}, {"model": "toy"})
    ...     print(read_record(path)["model"], load(path, {"w": jnp.zeros(2)})["w"])
    toy [0. 1.]
    """
    import orbax.checkpoint as ocp

    path = Path(path).absolute()
    if not jax.tree.leaves(tree):
        raise InputError("tree has no arrays; a checkpoint needs at least one")
    if "format" in record:
        raise InputError(f"record format={record['format']!r}: rename this key")
    try:
        text = json.dumps({"format": FORMAT, **record}, indent=1, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"record={record!r} is not JSON-able ({error}); use numbers, strings, lists"
        ) from error
    partial = Path(in_first(lambda: _folder_beside(path)))
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(partial / "arrays", jax.tree.map(_stored, tree))
        in_first(lambda: _complete(partial, path, text))
    except (OSError, ValueError, RuntimeError) as error:  # orbax's and the system's
        reason = getattr(error, "strerror", None) or one_line(error)
        raise InputError(
            f"cannot write checkpoint {path}: {reason[:200]}; free some space or "
            "choose another folder"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return path


def in_first(action: Callable[[], str | None]) -> str:
    """Do what one process alone may do; return what it gave, in all of them.

    All processes must call it, and none goes on before it is done. What the action
    gives has at most 4000 bytes.

    Raises:
      InputError: raised by the action, and then in all processes.

    >>> in_first(lambda: "made")
    'made'
    """
    if jax.process_count() == 1:
        return action() or ""
    told = b""
    if jax.process_index() == 0:
        try:
            told = b"=" + (action() or "").encode()
        except (InputError, OSError) as error:
            told = b"!" + (getattr(error, "strerror", None) or str(error)).encode()
    row = np.zeros(4001, np.uint8)
    row[: len(told)] = np.frombuffer(told[: len(row)], np.uint8)
    row = np.asarray(multihost_utils.broadcast_one_to_all(row))
    text = row.tobytes().rstrip(b"\0").decode(errors="ignore")
    if text.startswith("!"):
        raise InputError(text[1:])
    return text[1:]


def largest(*values: int) -> tuple[int, ...]:
    """Return the largest of each number over all processes, which must all call it.

    >>> largest(True, 15)
    (1, 15)
    """
    if jax.process_count() == 1:
        return tuple(int(value) for value in values)
    everywhere = multihost_utils.process_allgather(np.array(values, np.int32))
    return tuple(np.max(everywhere, axis=0).tolist())


def read_record(path: str | os.PathLike) -> dict[str, Any]:
    """Return the record given to `save`, with its `format`; all files are checked.

    Raises:
      InputError: missing, truncated or altered checkpoint, or one of another format.
    """
    path = Path(path).absolute()
    if not path.exists():
        raise InputError(f"checkpoint {path} does not exist; check the path")
    if not any((path / name).exists() for name in ("record.json", "digests.json")):
        raise InputError(
            f"{path} is there, but is no checkpoint of jax_unlearn; where it holds "
            "parameters of another program, `jax-unlearn import --params "
            f"{path.name} --network FILE.py:NAME --data DATA` makes one of them"
        )
    found = _digests(path)
    try:
        expected = json.loads((path / "digests.json").read_text())
        record = json.loads((path / "record.json").read_text())
        wrong = sorted(set(found.items()) ^ set(expected.items()))
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise InputError(
            f"checkpoint {path} lost its record.json or digests.json, or they are "
            "damaged; take another copy"
        ) from error
    if wrong:
        raise InputError(
            f"checkpoint {path} is damaged: {wrong[0][0]} is missing or not as it was "
            "written; take another copy"
        )
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise InputError(f"checkpoint {path} has another format than {FORMAT}")
    return record


def identity(path: str | os.PathLike) -> str:
    """Return the SHA-256 of all that a checkpoint holds, by its list of digests.

    Raises:
      InputError: missing or damaged checkpoint.
    """
    read_record(path)
    return hashlib.sha256((Path(path) / "digests.json").read_bytes()).hexdigest()


def load(path: str | os.PathLike, template: PyTree) -> PyTree:
    """Return the arrays of a checkpoint, on the default device, like the template.

    The template is a pytree of arrays or `jax.ShapeDtypeStruct`s of the model that is
    expected, for example `jax.eval_shape(model.init, key, inputs)`.

    Raises:
      InputError: missing or damaged checkpoint, or arrays of another model.
    """
    import orbax.checkpoint as ocp

    read_record(path)
    path = Path(path).absolute()
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            np.shape(leaf), jax.dtypes.canonicalize_dtype(leaf.dtype), sharding=sharding
        ),
        jax.eval_shape(lambda tree: jax.tree.map(_words, tree), template),
    )
    with ocp.StandardCheckpointer() as checkpointer:
        stored = _shapes(_orbax(path, checkpointer.metadata))
        expected = _shapes(wanted)
        if stored != expected:
            name = min(set(stored.items()) ^ set(expected.items()))[0]
            raise InputError(
                f"checkpoint {path} is of another model: {name} is "
                f"{stored.get(name, 'absent')} there, {expected.get(name, 'absent')} "
                "expected; give the architecture it was trained with"
            )
        restored = _orbax(path, checkpointer.restore, wanted)
    return jax.tree.map(_typed, restored, template)


def _folder_beside(path: Path) -> str:
    """Make a folder to write a checkpoint in before it gets its name."""
    if path.exists():
        raise InputError(f"checkpoint {path} exists already; choose another path")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise InputError(
            f"cannot write checkpoint {path}: {error.strerror}; choose another folder"
        ) from error


def _complete(partial: Path, path: Path, text: str) -> None:
    """Write the record and the digests beside the arrays, and give it its name."""
    (partial / "record.json").write_text(text + "\n")
    digests = json.dumps(_digests(partial), indent=1, sort_keys=True)
    (partial / "digests.json").write_text(digests + "\n")
    os.chmod(partial, 0o755)
    os.replace(partial, path)


def _orbax(path: Path, read: Callable[..., Any], *more: Any) -> Any:
    try:
        with signals.held():  # one inside would be told as damaged arrays
            return read(path / "arrays", *more)
    except Exception as error:  # orbax names no set of errors
        raise InputError(
            f"checkpoint {path}: its arrays cannot be read ({type(error).__name__}: "
            f"{one_line(error, 80)}); take another copy"
        ) from error


def _stored(leaf: Any) -> Any:
    """Return a leaf as orbax takes it, the same in every process."""
    leaf = _words(leaf)
    own = jax.process_count() > 1 and getattr(leaf, "is_fully_addressable", False)
    return np.asarray(leaf) if own else leaf


def _words(leaf: Any) -> Any:
    """Return a random key as its integers, other arrays as they are."""
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def _typed(leaf: Any, like: Any) -> Any:
    """Undo `_words`."""
    if not is_key(like):
        return leaf
    kinds = []  # key_impl reads arrays and tracers, not ShapeDtypeStructs
    jax.eval_shape(lambda key: kinds.append(jax.random.key_impl(key)), like)
    return jax.random.wrap_key_data(leaf, impl=kinds[0])


def _shapes(tree: PyTree) -> dict[str, tuple]:
    """Return shape and dtype of every leaf by its path."""
    tree = getattr(tree, "item_metadata", tree)
    tree = getattr(tree, "tree", tree)
    shapes = {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(keys, simple=True, separator="/")
        dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
        shapes[name] = tuple(leaf.shape), str(dtype)
    return shapes


def _digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file but the list of digests itself."""
    digests = {}
    for file in sorted(folder.rglob("*")):
        if file.is_symlink():  # what it leads to is no part of the checkpoint
            raise InputError(
                f"checkpoint {folder} holds a link, {file.name}; copy the file it "
                "leads to in its place"
            )
        if file.is_file() and file != folder / "digests.json":
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            digests[file.relative_to(folder).as_posix()] = digest
    return digests
