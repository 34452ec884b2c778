"""What a job is about: a kind of model, its network, and the data."""

from typing import Any, NamedTuple

from jax_unlearn.data import Dataset, Examples
from jax_unlearn.lab.modalities import modality_of
from jax_unlearn.lab.modality import Modality
from jax_unlearn.types import Model


class Subject(NamedTuple):
    """A network and its data.

    Attributes:
      modality: the kind of model.
      built: the network, as the modality builds it.
      dataset: its data.
      examples: the training samples as the objectives read them.
    """

    modality: Modality
    built: Any
    dataset: Dataset
    examples: Examples

    @property
    def model(self) -> Model:
        """The network's functions."""
        return self.built.model

    @property
    def network(self) -> Any:
        """The network's description."""
        return self.built.network


def subject_of(training: Any, dataset: Dataset) -> Subject:
    """Return the network that a training setting asks for, with its data.

    >>> from jax_unlearn.data import digits
    >>> from jax_unlearn.lab import Training
    >>> subject_of(Training(), digits()).network.num_classes
    10
    """
    modality = modality_of(training)
    return described(modality, modality.describe(training, dataset), dataset)


def described(modality: Modality, network: Any, dataset: Dataset) -> Subject:
    """Return the network of a description, with its data."""
    built = modality.build(network)
    examples = modality.samples(built, dataset.train)
    return Subject(modality, built, dataset, examples)
