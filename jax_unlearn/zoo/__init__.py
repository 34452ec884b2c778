"""Networks for the experiments, as `flax.nnx` modules to be given to `from_nnx`."""

from jax_unlearn.zoo.classifiers import MLP as MLP
from jax_unlearn.zoo.classifiers import VGG16 as VGG16
from jax_unlearn.zoo.classifiers import BasicBlock as BasicBlock
from jax_unlearn.zoo.classifiers import ResNet as ResNet
from jax_unlearn.zoo.classifiers import ResNet18 as ResNet18
from jax_unlearn.zoo.classifiers import SmallCNN as SmallCNN
from jax_unlearn.zoo.convolution import in_parts as in_parts
from jax_unlearn.zoo.patches import WhitenedCNN as WhitenedCNN
from jax_unlearn.zoo.patches import whitened as whitened
from jax_unlearn.zoo.patches import whitening as whitening
from jax_unlearn.zoo.text import TextEncoder as TextEncoder
from jax_unlearn.zoo.text import TextUNet as TextUNet
from jax_unlearn.zoo.unet import AttentionBlock as AttentionBlock
from jax_unlearn.zoo.unet import ResBlock as ResBlock
from jax_unlearn.zoo.unet import UNet as UNet
from jax_unlearn.zoo.unet import timestep_embedding as timestep_embedding
