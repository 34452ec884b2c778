"""Runnable recipes, one study a file; `recipes.toml` names them and says their cost.

A new one is a file with a `Recipe` (of requests and searched settings: with a `Study`)
and an entry there and here. Its settings stand in `settings/` once they were searched,
its results in `results/`; `jax-unlearn recipe --table` writes its page by `templates/`.
"""

from jax_unlearn.recipes import (
    choice,
    defaults,
    digits,
    frontier,
    frontier_ensembles,
    full,
    generation,
    ideas,
    language,
    learned,
    ltu,
    proxies,
    tables,
)

__all__ = ["RECIPES"]

RECIPES = (
    *(digits.DEMO_DIGITS, digits.FIELD_DIGITS, digits.CHAIN_DIGITS),
    *(defaults.DEFAULTS_DIGITS, choice.CHOICE_DIGITS),
    *(frontier.DIGITS, frontier.FASHION, frontier.CIFAR10),
    *(ideas.IDEAS_DIGITS, ideas.IDEAS_FASHION),
    frontier_ensembles.ENSEMBLES_DIGITS,
    *(ltu.LTU_DIGITS, ltu.LTU_CIFAR10),
    *(generation.GENERATION_DIGITS, generation.GENERATION_FASHION),
    *(generation.GENERATION_CIFAR10, generation.GENERATION_CIFAR10_FULL),
    generation.IMAGES_DIGITS,
    *(language.LANGUAGE_SMOKE, language.LANGUAGE_TOFU),
    *(tables.FASHION, tables.CIFAR10, tables.CIFAR10_FULL, tables.CIFAR10_VGG),
    *(tables.CIFAR100_FULL, tables.TINY_IMAGENET_FULL),
    *(proxies.PROXIES_FASHION, proxies.PROXIES_CIFAR10, proxies.LIRA_FASHION),
    *(learned.LEARNED_FASHION, learned.LEARNED_CIFAR10),
    *(full.FULL_CIFAR10, full.FULL_CIFAR10_SMALL),
)
"""All of them, in the order of the list."""
