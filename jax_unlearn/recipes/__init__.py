"""Runnable studies, one in each file; `recipes.toml` has their names, titles and costs.

A new recipe is a file with a `Recipe` (with a `Study`, if it has requests and searched
settings), an entry in `recipes.toml` and one here. Searched settings are stored in
`settings/`, results in `results/`; `jax-unlearn recipe --table` writes the pages of
results from `templates/`.
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
    *frontier_ensembles.ENSEMBLES,
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
