"""Networks for the experiments, as `flax.nnx` modules to be given to `from_nnx`."""

from jax_unlearn.zoo.classifiers import MLP as MLP
from jax_unlearn.zoo.classifiers import VGG16 as VGG16
from jax_unlearn.zoo.classifiers import SmallCNN as SmallCNN
from jax_unlearn.zoo.convolution import in_parts as in_parts
from jax_unlearn.zoo.decoder import Adapted as Adapted
from jax_unlearn.zoo.decoder import Continuation as Continuation
from jax_unlearn.zoo.decoder import Decoder as Decoder
from jax_unlearn.zoo.decoder_config import DecoderConfig as DecoderConfig
from jax_unlearn.zoo.decoder_config import RopeScaling as RopeScaling
from jax_unlearn.zoo.decoder_config import decoder_config as decoder_config
from jax_unlearn.zoo.patches import WhitenedCNN as WhitenedCNN
from jax_unlearn.zoo.patches import whitened as whitened
from jax_unlearn.zoo.patches import whitening as whitening
from jax_unlearn.zoo.residual import BasicBlock as BasicBlock
from jax_unlearn.zoo.residual import Bottleneck as Bottleneck
from jax_unlearn.zoo.residual import ResNet as ResNet
from jax_unlearn.zoo.residual import ResNet18 as ResNet18
from jax_unlearn.zoo.residual import ResNet34 as ResNet34
from jax_unlearn.zoo.residual import ResNet50 as ResNet50
from jax_unlearn.zoo.text import TextEncoder as TextEncoder
from jax_unlearn.zoo.text import TextUNet as TextUNet
from jax_unlearn.zoo.unet import AttentionBlock as AttentionBlock
from jax_unlearn.zoo.unet import ResBlock as ResBlock
from jax_unlearn.zoo.unet import UNet as UNet
from jax_unlearn.zoo.unet import timestep_embedding as timestep_embedding
from jax_unlearn.zoo.vit import TransformerBlock as TransformerBlock
from jax_unlearn.zoo.vit import ViT as ViT
from jax_unlearn.zoo.vit import ViTBase as ViTBase
from jax_unlearn.zoo.vit import ViTSmall as ViTSmall
from jax_unlearn.zoo.vit import ViTTiny as ViTTiny
from jax_unlearn.zoo.vit import usual_patch as usual_patch
from jax_unlearn.zoo.weights import from_torch as from_torch
from jax_unlearn.zoo.weights import resampled_positions as resampled_positions
from jax_unlearn.zoo.weights import to_torch as to_torch

__all__ = [
    "MLP",
    "VGG16",
    "Adapted",
    "AttentionBlock",
    "BasicBlock",
    "Bottleneck",
    "Continuation",
]
__all__ += ["Decoder", "DecoderConfig", "ResBlock", "ResNet", "ResNet18", "ResNet34"]
__all__ += ["ResNet50", "RopeScaling", "SmallCNN", "TextEncoder", "TextUNet"]
__all__ += ["TransformerBlock", "UNet", "ViT", "ViTBase", "ViTSmall", "ViTTiny"]
__all__ += ["WhitenedCNN", "decoder_config", "from_torch", "in_parts"]
__all__ += ["resampled_positions", "timestep_embedding", "to_torch", "usual_patch"]
__all__ += ["whitened", "whitening"]
