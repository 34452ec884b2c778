"""The job on data and files: settings by name, stages, whole experiments, results."""

from jax_unlearn.lab.bench import Bench as Bench
from jax_unlearn.lab.experiment import experiment as experiment
from jax_unlearn.lab.modalities.classification.networks import Training as Training
from jax_unlearn.lab.plan import Plan as Plan
from jax_unlearn.lab.requests import Request as Request
from jax_unlearn.lab.requests import draw_request as draw_request
from jax_unlearn.lab.settings import Unlearning as Unlearning

__all__ = ["Bench", "Plan", "Request", "Training", "Unlearning", "draw_request"]
__all__ += ["experiment"]
