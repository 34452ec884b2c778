"""The job on data and files: settings by name, stages, whole experiments, results."""

from jax_unlearn.pipeline.bench import Bench as Bench
from jax_unlearn.pipeline.bench import draw_request as draw_request
from jax_unlearn.pipeline.experiment import experiment as experiment
from jax_unlearn.pipeline.plan import Plan as Plan
from jax_unlearn.pipeline.settings import Training as Training
from jax_unlearn.pipeline.settings import Unlearning as Unlearning
from jax_unlearn.pipeline.stages import Request as Request
