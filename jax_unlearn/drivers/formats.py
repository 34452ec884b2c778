"""Files of named arrays, as other programs write their parameters; no code is run.

Read are folders of orbax (of a tree, of a `CheckpointManager`: its newest step), files
of flax's msgpack, `.npz`, `.safetensors` (one file, or shards with their index) and
PyTorch's state dicts. Written are the three formats that need no framework to be read.
"""

import contextlib
import hashlib
import logging
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_unlearn.data.files import read_file, read_json, read_npz, write_atomic
from jax_unlearn.drivers import signals
from jax_unlearn.errors import InputError, one_line

__all__ = ["SUFFIXES", "WRITTEN", "Arrays", "digest", "name_of", "read", "write"]

SUFFIXES = {
    ".npz": "npz",
    ".safetensors": "safetensors",
    ".msgpack": "msgpack",
    ".flax": "msgpack",
    **dict.fromkeys((".pt", ".pth", ".bin", ".ckpt", ".tar"), "PyTorch"),
}
"""Formats of files by suffix; others are told by how they begin."""

WRITTEN = ("safetensors", "npz", "msgpack")
"""Formats that are written."""

_STEP = re.compile(r"(?:.*[_\-])?(\d+)")
_ORBAX = ("_METADATA", "checkpoint")  # one of them is in each folder of a tree
_INDEX = ".index.json"  # of shards, as Hugging Face names it
_TYPES = {  # of safetensors
    **{f"F{n}": f"float{n}" for n in (16, 32, 64)},
    **{f"I{n}": f"int{n}" for n in (8, 16, 32, 64)},
    **{f"U{n}": f"uint{n}" for n in (8, 16, 32, 64)},
    **{"BOOL": "bool", "C64": "complex64", "BF16": "bfloat16"},
    **{"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"},
}


class Arrays(NamedTuple):
    """What a file holds: arrays by name, its parts joined by "/", and the format."""

    arrays: dict[str, np.ndarray]
    format: str


def read(path: str | os.PathLike[str]) -> Arrays:
    """Return the arrays of a file or a folder of parameters, on the host, as stored.

    The parts of a name are joined by "/", where files have "." too. Numbers (a step, an
    epoch) are arrays without axes; text is left out.

    Raises:
      InputError: it does not exist, is of no known format, is damaged, or is of PyTorch
        where that is not installed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write(Path(folder) / "a.npz", {"body/w": np.ones(2, np.float32)})
    ...     read(path)
    Arrays(arrays={'body/w': array([1., 1.], dtype=float32)}, format='npz')
    """
    path = Path(path).absolute()
    if not path.exists():
        raise InputError(f"params={path} does not exist; check the path")
    if path.is_dir():
        return _of_folder(path)
    if path.name.endswith(_INDEX):
        return _sharded(path)
    kind = SUFFIXES.get(path.suffix.lower()) or _sniffed(path)
    with _blamed(path, kind):
        arrays = _READERS[kind](path)
    return Arrays({_plain(name): array for name, array in arrays.items()}, kind)


def write(
    path: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray],
    *,
    format: str = "",
    overwrite: bool = False,
) -> Path:
    """Write arrays by name, whole or not at all; return the path.

    The format is that of the suffix, if none is given. A `.npz` cannot say bfloat16: it
    holds float32, which loses nothing.

    Raises:
      InputError: the file exists, cannot be written, or is of a format not known.
    """
    path = Path(path)
    kind = format or SUFFIXES.get(path.suffix.lower(), "")
    if kind not in WRITTEN:
        raise InputError(
            f"out={path}, format={format!r}: give one of the formats "
            f"{', '.join(WRITTEN)}, or name the file so"
        )
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    whole = {n: a.reshape(np.shape(arrays[n])) for n, a in whole.items()}
    return write_atomic(path, _WRITERS[kind](whole), overwrite=overwrite)


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of arrays by name, of their types, shapes and bytes.

    >>> digest({"a": np.zeros(1)}) == digest({"b": np.zeros(1)})
    False
    """
    whole = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        whole.update(f"{name} {array.dtype} {array.shape}\n".encode())
        whole.update(np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()


def name_of(keys: tuple[Any, ...]) -> str:
    """Return a path in a pytree as a name."""
    return _plain(jax.tree_util.keystr(keys, simple=True, separator="/"))


def _plain(name: str) -> str:
    return str(name).replace(".", "/")


@contextlib.contextmanager
def _blamed(path: Path, kind: str) -> Iterator[None]:
    """Say in one line what cannot be read."""
    try:
        yield
    except InputError:
        raise
    except ImportError as error:
        package = "torch" if kind == "PyTorch" else str(error.name)
        raise InputError(
            f"params={path} is a file of {kind}, which needs a package that is missing "
            f"here: `pip install {package}`, or turn it into .npz where it is installed"
        ) from error
    except Exception as error:  # the formats' libraries name no set of errors
        reason = one_line(error, 120)
        remedy = "write it anew"
        if kind == "PyTorch":
            reason = type(error).__name__  # what it says is long, with its own advice
            remedy = (
                "only tensors are read, no code: write them with "
                "torch.save(model.state_dict(), PATH)"
            )
        elif kind == "npz":
            remedy = "write one array a name: np.savez(path, **{'body/kernel': array})"
        raise InputError(
            f"params={path} is no readable {kind} of parameters ({reason}); {remedy}"
        ) from error


def _sniffed(path: Path) -> str:
    """Return the format of a file by how it begins."""
    with path.open("rb") as stream:
        begin = stream.read(16)
    if begin[:2] == b"PK" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            torch = any(name.endswith("data.pkl") for name in archive.namelist())
        return "PyTorch" if torch else "npz"
    if begin[8:9] == b"{" and 0 < int.from_bytes(begin[:8], "little") < 2**32:
        return "safetensors"
    if begin[:1] and (0x81 <= begin[0] <= 0x8F or begin[0] in (0xDE, 0xDF)):
        return "msgpack"
    known = ", ".join(sorted(SUFFIXES))
    raise InputError(
        f"params={path} is of no known format (an orbax folder, {known}); write its "
        "arrays as .npz: np.savez(path, **{'body/kernel': array})"
    )


def _of_folder(path: Path) -> Arrays:
    """Return the arrays of the newest tree in a folder."""
    if any((path / name).is_file() for name in _ORBAX):
        # a signal inside would be told as a damaged folder
        with _blamed(path, "orbax folder"), signals.held():
            return Arrays(_orbax(path), "orbax")
    if (path / "record.json").is_file() and (path / "arrays").is_dir():
        return _of_folder(path / "arrays")  # a checkpoint of this library
    entries = sorted(entry for entry in path.iterdir() if entry.name[0] not in "._")
    if indices := [entry for entry in entries if entry.name.endswith(_INDEX)]:
        return _sharded(indices[0])
    for kind in ("safetensors", "msgpack", "PyTorch", "npz"):
        files = [entry for entry in entries if SUFFIXES.get(entry.suffix) == kind]
        if len(files) == 1 or (files and kind == "safetensors"):
            found = _joined({file.name: read(file) for file in files}, path)
            told = files[0].name if len(files) == 1 else f"{len(files)} files"
            return found._replace(format=f"{found.format}, {told}")
        if files:
            names = ", ".join(file.name for file in files[:4])
            raise InputError(
                f"params={path} holds {len(files)} files of {kind} ({names}); name one"
            )
    trees = [e for e in entries if any((e / name).is_file() for name in _ORBAX)]
    steps = {e: int(m[1]) for e in entries if (m := _STEP.fullmatch(e.name))}
    if steps and set(trees) <= set(steps):  # of a manager: the newest is meant
        newest = read(max(steps, key=lambda entry: steps[entry]))
        return newest._replace(format=f"{newest.format}, step {max(steps.values())}")
    if trees:  # the items of one step
        whole = {}
        for tree in trees:
            front = f"{_plain(tree.name)}/" if len(trees) > 1 else ""
            whole |= {front + name: a for name, a in _of_folder(tree).arrays.items()}
        return Arrays(whole, "orbax")
    raise InputError(
        f"params={path} holds no parameters that are known here (a folder of orbax, of "
        ".safetensors, or of steps); name the folder or the file that holds them"
    )


def _joined(parts: Mapping[str, Arrays], path: Path) -> Arrays:
    """Return the arrays of shards, no name twice."""
    whole: dict[str, np.ndarray] = {}
    for file, part in parts.items():
        if twice := sorted(whole.keys() & part.arrays.keys()):
            raise InputError(
                f"params={path}: {twice[0]!r} is in {file} and in another file there; "
                "name one file"
            )
        whole |= part.arrays
    return Arrays(whole, next(iter(parts.values())).format)


def _sharded(index: Path) -> Arrays:
    """Return the arrays of all shards that an index names."""
    record = read_json(index)
    names = record.get("weight_map") if isinstance(record, dict) else None
    if not isinstance(names, dict) or not names:
        raise InputError(f"params={index} has no weight_map; take another copy")
    files = sorted({str(name) for name in names.values()})
    for file in files:
        if Path(file).name != file or not (index.parent / file).is_file():
            raise InputError(
                f"params={index} names {file!r}, which is not beside it; copy all "
                f"{len(files)} shards there"
            )
    found = _joined({file: read(index.parent / file) for file in files}, index)
    if missing := sorted({_plain(name) for name in names} - found.arrays.keys()):
        raise InputError(
            f"params={index}: its shards lack {missing[0]!r}; take another copy"
        )
    return found


def _orbax(path: Path) -> dict[str, np.ndarray]:
    import orbax.checkpoint as ocp

    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns of what other versions did not write
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            described: Any = checkpointer.metadata(path)
            described = getattr(described, "item_metadata", described)
            described = getattr(described, "tree", described)
            # as arrays of the host: on a device float64 would be rounded
            kinds = jax.tree.map(
                lambda leaf: ocp.RestoreArgs(
                    restore_type=np.ndarray if hasattr(leaf, "shape") else str
                ),
                described,
            )
            options = {} if described is None else {"restore_args": kinds}
            tree = checkpointer.restore(path, args=ocp.args.PyTreeRestore(**options))
    finally:
        logger.setLevel(level)
    return _flat(tree)


def _msgpack(path: Path) -> dict[str, np.ndarray]:
    from flax import serialization

    tree = serialization.msgpack_restore(read_file(path))
    if not isinstance(tree, dict):
        raise ValueError(f"it holds a {type(tree).__name__}, no tree of arrays")
    return _flat(tree)


def _npz(path: Path) -> dict[str, np.ndarray]:
    arrays = read_npz(path)
    # NumPy writes bfloat16 as two bytes without a meaning
    return {
        name: array.view(jnp.bfloat16) if array.dtype == np.dtype("V2") else array
        for name, array in arrays.items()
    }


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    import safetensors

    return {
        name: np.frombuffer(bytes(told["data"]), jnp.dtype(_TYPES[told["dtype"]]))
        .reshape(told["shape"])
        .copy()
        for name, told in safetensors.deserialize(read_file(path))
    }


def _torch(path: Path) -> dict[str, np.ndarray]:
    import torch  # pyright: ignore[reportMissingImports]

    def host(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        leaf = leaf.detach().cpu().contiguous()
        if leaf.dtype == torch.bfloat16:  # which NumPy does not know
            return leaf.view(torch.int16).numpy().view(jnp.bfloat16)
        return leaf.numpy()

    stored = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(stored, Mapping):
        raise ValueError(f"it holds a {type(stored).__name__}, no state dict")
    return _flat(stored, host)


def _flat(tree: Any, host: Callable[[Any], Any] = lambda leaf: leaf) -> dict[str, Any]:
    """Return arrays and numbers by name; what is neither is left out."""
    found: dict[str, Any] = {}

    def walk(value: Any, name: str) -> None:
        if isinstance(value, Mapping | list | tuple):
            pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
            for key, inner in pairs:
                walk(inner, f"{name}/{key}" if name else str(key))
            return
        value = host(value)
        if isinstance(value, np.ndarray | np.generic | bool | int | float | jax.Array):
            array = np.asarray(value)
            if array.dtype.kind not in "OUS":
                found[name] = array

    walk(tree, "")
    return found


_READERS: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
    "npz": _npz,
    "safetensors": _safetensors,
    "msgpack": _msgpack,
    "PyTorch": _torch,
}


def _as_npz(arrays: Mapping[str, np.ndarray]) -> Callable[[IO[bytes]], Any]:
    wide = {
        n: a.astype(np.float32) if a.dtype == jnp.bfloat16 else a
        for n, a in arrays.items()
    }
    return lambda stream: np.savez(stream, **wide)  # type: ignore[arg-type]


def _as_safetensors(arrays: Mapping[str, np.ndarray]) -> bytes:
    from safetensors.numpy import save

    return save({name.replace("/", "."): array for name, array in arrays.items()})


def _as_msgpack(arrays: Mapping[str, np.ndarray]) -> bytes:
    from flax import serialization

    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *folders, last = name.split("/")
        inner = tree
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[last] = array
    return serialization.to_bytes(tree)


_WRITERS: dict[str, Callable[[Mapping[str, np.ndarray]], Any]] = {
    "npz": _as_npz,
    "safetensors": _as_safetensors,
    "msgpack": _as_msgpack,
}
