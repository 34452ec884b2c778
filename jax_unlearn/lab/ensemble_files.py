"""Files of an ensemble: one a model, written whole, with the setting it came from.

Each is an `.npz` without pickles: the logits by part, `f32[n, K]`; of an original its
arrays too; and a JSON record as bytes.
"""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_unlearn.data import (
    Dataset,
    digest,
    fingerprint,
    read_file,
    read_json,
    write_atomic,
)
from jax_unlearn.data.files import read_npz
from jax_unlearn.lab.job import Trained
from jax_unlearn.lab.plan import Plan, check_labels, slug
from jax_unlearn.lab.requests import Request
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.store import partial_of, refused, same

NUMBERS = "numbers.json"
ORIGINAL, RETRAIN = "original", "retrain"
PARTS = ("forget", "retain", "unseen", "test")
FORMAT = 1

Logits = dict[str, np.ndarray]
"""By part."""


class Files:
    """The models of one request on disk: `models/<role>/0007.npz`.

    Args:
      folder: which holds `models`.
      plan: its training made the originals and the retrained models.
      dataset: its data.
      request: the parts.
      methods: settings by label.
      say: told of files that are damaged.

    Raises:
      InputError: labels that name one folder, or none.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        dataset: Dataset,
        request: Request,
        methods: dict[str, Unlearning],
        say: Callable[[str], None],
    ):
        names = {label: slug(label) for label in methods}
        check_labels(names)
        self.roles = {ORIGINAL: ORIGINAL, RETRAIN: RETRAIN, **names}
        self._folder, self._methods, self._say = folder, methods, say
        self._told = {
            "format": FORMAT,
            "data": fingerprint(dataset),
            "request": [digest(ids) for ids in request],
            "training": vars(plan.training),
        }

    def read(self, role: str, number: int) -> tuple[Logits, float] | None:
        """Return the logits of a model and its seconds; None where it must be made.

        Raises:
          InputError: it was made with another setting, seed, request or data set.
        """
        path = self.path(role, number)
        if not path.exists():
            return None
        try:
            record, arrays = _unpack(read_file(path))
            logits = {part: arrays[part] for part in PARTS}
            told, seconds = record["told"], float(record["seconds"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            self._say(f"{path} is damaged ({error}): making the model again")
            return None
        if not same(told, self._record(role, number)):
            raise refused(path)
        return logits, seconds

    def write(
        self, role: str, number: int, model: Trained, logits: Logits, seconds: float
    ) -> None:
        """Write what is kept of a model.

        Raises:
          InputError: the folder cannot be written to.
        """
        record = {"told": self._record(role, number), "seconds": seconds}
        text = np.frombuffer(json.dumps(record).encode(), np.uint8)
        arrays = dict(logits)
        if role == ORIGINAL:
            arrays |= {
                f"array-{i}": np.asarray(leaf)
                for i, leaf in enumerate(jax.tree.leaves(model[:2]))
            }
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, record=text, **arrays)
        path = self.path(role, number)
        write_atomic(path, buffer.getvalue(), overwrite=True)

    def original(self, number: int, like: Trained) -> Trained:
        """Return an original that `read` found whole, or `write` wrote.

        Args:
          number: which.
          like: a model of its network.
        """
        _, arrays = _unpack(read_file(self.path(ORIGINAL, number)))
        structure = jax.tree.structure(like[:2])
        leaves = [
            jnp.asarray(arrays[f"array-{i}"]) for i in range(structure.num_leaves)
        ]
        params, state = jax.tree.unflatten(structure, leaves)
        return Trained(params, state, {})

    def path(self, role: str, number: int) -> Path:
        """Return the file of a model."""
        return self._folder / "models" / self.roles[role] / f"{number:04d}.npz"

    def told(self, role: str, numbers: Sequence[int], how: str) -> dict[str, Any]:
        """Return what models made together are, while they are being made.

        Args:
          role: of all of them.
          numbers: which.
          how: they are run.
        """
        record = self._record(role, numbers[0])
        return {**record, "numbers": list(numbers), "how": how}

    def together(self, role: str, begin: int) -> list[int]:
        """Return the models being made together when a run ended, if there were any.

        Args:
          role: of all of them.
          begin: first number of their chunk.
        """
        path = partial_of(self.path(role, begin)) / NUMBERS
        return [int(i) for i in read_json(path)] if path.exists() else []

    def begin(self, role: str, begin: int, numbers: Sequence[int]) -> None:
        """Write which models are being made together: as many of them fix the bits."""
        path = partial_of(self.path(role, begin)) / NUMBERS
        write_atomic(path, json.dumps(list(numbers)), overwrite=True)

    def forget(self, role: str, begin: int) -> None:
        """Undo `begin`, where nothing was saved yet."""
        (partial_of(self.path(role, begin)) / NUMBERS).unlink(missing_ok=True)

    def way(self, asked: str) -> str:
        """Return how the models here were run, where it is not asked for."""
        path = self._folder / "models" / "how.json"
        return str(read_json(path)) if asked == "auto" and path.exists() else asked

    def keep_way(self, how: str) -> None:
        """Write how the models here are run, for models made later."""
        write_atomic(
            self._folder / "models" / "how.json", json.dumps(how), overwrite=True
        )

    def _record(self, role: str, number: int) -> dict[str, Any]:
        record = {**self._told, "role": self.roles[role], "seed": number}
        if role in self._methods:
            record["unlearning"] = self._methods[role].record()
        return record


def _unpack(content: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return record and arrays, the checksum of each looked at."""
    arrays = read_npz(io.BytesIO(content))
    record = json.loads(arrays.pop("record").tobytes())
    if not isinstance(record, dict) or not isinstance(record.get("told"), dict):
        raise ValueError("its record tells nothing")
    return record, arrays
