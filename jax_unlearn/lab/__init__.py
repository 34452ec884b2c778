"""The job on data and files: settings by name, stages, whole experiments, results."""

from jax_unlearn.lab.bench import Bench as Bench
from jax_unlearn.lab.bench import draw_request as draw_request
from jax_unlearn.lab.experiment import experiment as experiment
from jax_unlearn.lab.plan import Plan as Plan
from jax_unlearn.lab.settings import Training as Training
from jax_unlearn.lab.settings import Unlearning as Unlearning
from jax_unlearn.lab.stages import Request as Request
