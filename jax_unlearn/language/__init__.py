"""Language models: texts, tokens, checkpoints."""

from jax_unlearn.language.contrasted import contrasted as contrasted
from jax_unlearn.language.contrasted import contrasted_logits as contrasted_logits
from jax_unlearn.language.equations import ceu_loss as ceu_loss
from jax_unlearn.language.equations import entropy_gap as entropy_gap
from jax_unlearn.language.equations import flatness as flatness
from jax_unlearn.language.equations import preference_loss as preference_loss
from jax_unlearn.language.equations import simnpo_loss as simnpo_loss
from jax_unlearn.language.equations import steering_loss as steering_loss
from jax_unlearn.language.equations import undial_loss as undial_loss
from jax_unlearn.language.generate import generate as generate
from jax_unlearn.language.lora import lora as lora
from jax_unlearn.language.lora import lora_variables as lora_variables
from jax_unlearn.language.lora import merge_lora as merge_lora
from jax_unlearn.language.model import decoder as decoder
from jax_unlearn.language.packing import pack as pack
from jax_unlearn.language.plan import MemoryPlan as MemoryPlan
from jax_unlearn.language.plan import plan as plan
from jax_unlearn.language.pretrained import Pretrained as Pretrained
from jax_unlearn.language.pretrained import load_pretrained as load_pretrained
from jax_unlearn.language.pretrained import read_config as read_config
from jax_unlearn.language.pretrained import save_pretrained as save_pretrained
from jax_unlearn.language.reference import reference_nll as reference_nll
from jax_unlearn.language.refusals import REFUSALS as REFUSALS
from jax_unlearn.language.text import Scored as Scored
from jax_unlearn.language.text import Text as Text
from jax_unlearn.language.text import answered as answered
from jax_unlearn.language.text import scored as scored
from jax_unlearn.language.text import text_losses as text_losses
from jax_unlearn.language.texts import Texts as Texts
from jax_unlearn.language.texts import read_texts as read_texts
from jax_unlearn.language.texts import text_dataset as text_dataset
from jax_unlearn.language.tokens import Encoded as Encoded
from jax_unlearn.language.tokens import Tokenizer as Tokenizer
from jax_unlearn.language.tokens import encode as encode
from jax_unlearn.language.tokens import encode_prompts as encode_prompts
from jax_unlearn.language.tokens import load_tokenizer as load_tokenizer
from jax_unlearn.language.tokens import save_tokenizer as save_tokenizer
from jax_unlearn.language.tokens import train_tokenizer as train_tokenizer

__all__ = ["REFUSALS", "Encoded", "MemoryPlan", "Pretrained", "Scored", "Text"]
__all__ += ["Texts", "Tokenizer", "answered", "ceu_loss", "contrasted"]
__all__ += ["contrasted_logits", "decoder", "encode", "encode_prompts", "entropy_gap"]
__all__ += ["flatness", "generate", "load_pretrained", "load_tokenizer", "lora"]
__all__ += ["lora_variables", "merge_lora", "pack", "plan", "preference_loss"]
__all__ += ["read_config", "read_texts", "reference_nll", "save_pretrained"]
__all__ += ["save_tokenizer", "scored", "simnpo_loss", "steering_loss", "text_dataset"]
__all__ += ["text_losses", "train_tokenizer", "undial_loss"]
