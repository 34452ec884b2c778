"""Negative guidance (ESD): lead a diffusion model away from a condition."""

import dataclasses

from jax_unlearn import _validate
from jax_unlearn.cards import Card, Job, Lab
from jax_unlearn.methods.assemble import assemble


@dataclasses.dataclass(frozen=True)
class Esd:
    """Options of ESD.

    Attributes:
      guidance: η, how far past the unconditioned prediction the target lies.
    """

    guidance: float = 1.0

    def __post_init__(self):
        _validate.not_negative("guidance", self.guidance)


def _esd(lab: Lab, options: Esd) -> Job:
    unlearner = assemble(
        lab.model,
        lab.optimizer(),
        forget=lab.objective("guide", strength=options.guidance),
        retain=lab.objective("remember"),
        **lab.joint(),
    )
    return Job(unlearner, lab.schedule("both"))


ESD = Card(
    name="esd",
    label="ESD",
    title="Negative guidance (ESD)",
    build=_esd,
    reads=("forget", "retain", "original"),
    cost="5/3·E·F + E·R",
    source="arXiv 2303.07345",
    options=Esd,
    roles=("guide", "remember"),
    schedule=True,
    step_reads=(),
)
