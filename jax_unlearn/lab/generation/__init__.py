"""The job on diffusion models: train, unlearn, sample, judge, compare."""

from jax_unlearn.lab.generation.methods import prepare as prepare
from jax_unlearn.lab.generation.models import Generator as Generator
from jax_unlearn.lab.generation.models import build as build
from jax_unlearn.lab.generation.models import describe as describe
from jax_unlearn.lab.generation.models import draw as draw
from jax_unlearn.lab.generation.models import load_generator as load_generator
from jax_unlearn.lab.generation.models import save_generator as save_generator
from jax_unlearn.lab.generation.settings import (
    GeneratorTraining as GeneratorTraining,
)
from jax_unlearn.lab.generation.settings import (
    GeneratorUnlearning as GeneratorUnlearning,
)
from jax_unlearn.lab.generation.settings import Sampling as Sampling
from jax_unlearn.lab.generation.study import GenerationPlan as GenerationPlan
from jax_unlearn.lab.generation.study import phases as phases
from jax_unlearn.lab.generation.study import study as study
from jax_unlearn.lab.generation.train import GeneratorTrainer as GeneratorTrainer
