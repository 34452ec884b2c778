"""Models of one network in every form, read: their outputs on the parts of a request.

Shapes: N training samples, M test samples, K classes.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jax_unlearn import _validate, programs
from jax_unlearn.adapters import variables_of
from jax_unlearn.audit import PartLabels
from jax_unlearn.audit.evidence import Evidence, ModelOutputs, evidence
from jax_unlearn.data import Split, given_split
from jax_unlearn.data.batches import take
from jax_unlearn.data.checks import check_labels
from jax_unlearn.data.sources import Dataset, Examples
from jax_unlearn.data.splits import ordered_digest
from jax_unlearn.drivers.loop import predict
from jax_unlearn.errors import InputError, one_line
from jax_unlearn.types import Model

__all__ = ["Candidates", "examples_of", "parts_of"]

KEYS = ("x_train", "y_train", "x_test", "y_test")


class Candidates:
    """Read models of one network: their outputs on the parts of a request."""

    def __init__(
        self,
        model: Model,
        train: Examples,
        test: Examples,
        parts: Mapping[str, np.ndarray],
        batch_size: int,
    ):
        _validate.at_least("batch_size", batch_size, 1, "try 512")
        self._model, self._train, self._test = model, train, test
        self._parts, self._batch = parts, batch_size
        labels = {name: train.labels[ids] for name, ids in parts.items()}
        self.labels = PartLabels(**labels, test=test.labels)
        self._few = take(train, np.zeros(2, np.int64)).inputs
        try:  # what tells parameters from a pair, or from a list of models
            form = jax.eval_shape(model.init, jax.random.key(0), self._few)
            self._form = tuple(map(jax.tree.structure, form))
        except Exception:  # a model made of a module has no `init`
            self._form = None

    def __call__(self, name: str, given: Any) -> list[ModelOutputs]:
        """Return the outputs of each of the models that a name stands for."""
        many = type(given) in (list, tuple) and not self._fits(given)
        if not many or self._is_pair(given):
            return [self._outputs(name, given)]
        if not given:
            raise InputError(f"{name}={given} holds no model; leave it out")
        named = ((f"{name}[{i}]", one) for i, one in enumerate(given))
        return [self._outputs(*one) for one in named]

    def evidence(self, name: str, outputs: list[ModelOutputs]) -> Evidence:
        """Return what the figures read of some models."""
        stacks = (
            None if part[0] is None else np.stack(part)
            for part in zip(*outputs, strict=True)
        )
        return evidence(name, ModelOutputs(*stacks), self.labels)

    def _fits(self, tree: Any) -> bool:
        return self._form is not None and jax.tree.structure(tree) == self._form[0]

    def _is_pair(self, given: Any) -> bool:
        """Return whether a list or tuple is (params, model_state), not two models."""
        if type(given) is not tuple or len(given) != 2 or _is_whole(given[0]):
            return False
        return type(given[0]) is not tuple or self._fits(given[0]) or not self._form

    def _variables(self, given: Any) -> tuple[Any, Any]:
        if hasattr(given, "params") and hasattr(given, "model_state"):
            return given.params, given.model_state
        if _is_whole(given):
            return variables_of(given)
        if not self._fits(given) and self._is_pair(given):
            return given
        empty = {} if self._form is None else self._form[1].unflatten([])
        return given, empty

    def _outputs(self, name: str, given: Any) -> ModelOutputs:
        try:
            if (
                self._form is not None
                and self._form[1].num_leaves
                and self._fits(given)
            ):
                raise InputError(
                    "the network carries a state beside its parameters; give the pair "
                    "(params, model_state)"
                )
            params, state = self._variables(given)
            form = jax.eval_shape(
                lambda p, s, x: self._model.apply(p, s, x, train=False)[0],
                *(params, state, self._few),
            )
        except Exception as error:
            told = one_line(error)
            remedy = (
                "give parameters of this model, (params, model_state), or a state of "
                "ju.run"
            )
            said = told if isinstance(error, InputError) else f"{told}; {remedy}"
            raise InputError(f"{name} does not fit the model: {said}") from error
        if getattr(form, "ndim", 0) != 2:
            shape = getattr(form, "shape", type(form).__name__)
            raise InputError(
                f"{name}: outputs of two samples have the form {shape}, not [2, "
                "classes]: ju.compare is for classifiers; `jax-unlearn audit` serves "
                "the other kinds of model"
            )
        trained = self._predict(params, state, self._train)
        parts = {part: trained[ids] for part, ids in self._parts.items()}
        return ModelOutputs(**parts, test=self._predict(params, state, self._test))

    def _predict(self, params: Any, state: Any, examples: Examples) -> np.ndarray:
        """Return the outputs on all samples, read a pass at a time."""
        count = len(examples.labels)
        size = min(self._batch, max(len(self._train.labels), len(self._test.labels)))
        passes = []
        for rows in programs.pieces(count, size):
            inputs = take(examples, rows).inputs  # of a stream, only these are read
            passes.append(predict(self._model, params, state, inputs, batch_size=size))
        return np.concatenate(passes)[:count]


def _is_whole(given: Any) -> bool:
    """Return whether an object holds parameters and state: a state, or a module."""
    if hasattr(given, "params"):
        return True
    modules = ("flax.nnx", "equinox", "flax.linen")
    return any(c.__module__.startswith(modules) for c in type(given).__mro__) and (
        not isinstance(given, Mapping)
    )


def examples_of(data: Any) -> tuple[Examples, Examples]:
    """Return training and test samples of any form in which data are given."""
    if isinstance(data, Dataset):
        return data.train, data.test
    if isinstance(data, Mapping) or hasattr(data, "files"):  # an npz file
        missing = [key for key in KEYS if key not in data]
        if missing:
            raise InputError(
                f"data: {', '.join(missing)} missing; give the arrays {', '.join(KEYS)}"
            )
        arrays = [data[key] for key in KEYS]
    elif isinstance(data, tuple | list) and len(data) == 4:
        arrays = list(data)
    elif isinstance(data, tuple | list) and [*map(_length, data)] == [2, 2]:
        arrays = [*data[0], *data[1]]
    else:
        raise InputError(
            f"data of type {type(data).__name__} must be a ju.data.Dataset or "
            "(x_train, y_train, x_test, y_test)"
        )
    parts = []
    for name, inputs, labels in (("train", *arrays[:2]), ("test", *arrays[2:])):
        labels = check_labels(labels)[0].astype(np.int32)
        inputs = (
            inputs if hasattr(inputs, "source") else jax.tree.map(np.asarray, inputs)
        )
        rows = {_length(leaf) for leaf in jax.tree.leaves(inputs)}
        if rows != {len(labels)}:
            raise InputError(
                f"data: x_{name} has {', '.join(map(str, sorted(rows)))} samples, "
                f"y_{name} {len(labels)}; give one label a sample"
            )
        parts.append(Examples(inputs, labels))
    return parts[0], parts[1]


def _length(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") else -1


def parts_of(split: Any, train: Examples) -> dict[str, np.ndarray]:
    """Return ids of the parts of a request; of unseen samples where there are any."""
    count = len(train.labels)
    if not isinstance(split, Split):
        split = given_split(train.labels, split)
    last = max(int(np.max(ids)) for ids in split[:2] if len(ids))
    if last >= count:
        raise InputError(
            f"split holds id {last} and data {count} training samples; give the data "
            "that the split was drawn from"
        )
    told = split.manifest
    digest = told.get("labels_sha256")  # of all samples, or of a part that was split
    whole = digest is not None and told.get("num_samples") == count
    if whole and digest != ordered_digest(train.labels):
        raise InputError(
            "split was drawn from other labels than those of data; give the data that "
            "it was drawn from, in their order"
        )
    unseen = np.setdiff1d(np.arange(count), np.concatenate(split[:2]))
    parts = {"forget": split.forget, "retain": split.retain}
    return parts | ({"unseen": unseen} if len(unseen) else {})
