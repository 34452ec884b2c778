"""What a lab found out of a request: membership models, and an order of samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # the core imports nothing heavy
    import numpy as np

__all__ = ["Learned", "Ranked"]


class Learned(NamedTuple):
    """Membership models of a lab, and the queries of what goes with them.

    Attributes:
      strategies: one a query batch, see `jax_unlearn.data.queries`.
      query_size: samples of each query.
      audits: losses of the attacks, which are to call samples unseen.
      details: JSON-able: "attacks" by name (held-out AUC, its error, whether that is
        better than chance), and perhaps "gaps" by strategy.
    """

    strategies: tuple[Any, ...]
    query_size: int
    audits: tuple[Any, ...]
    details: dict[str, Any]


class Ranked(NamedTuple):
    """How easily forget samples would be predicted unseen, `[F]`, larger is easier.

    `ease` is that of forget and unseen samples for a model that saw neither.
    """

    scores: np.ndarray
    ease: tuple[np.ndarray, np.ndarray] | None = None
