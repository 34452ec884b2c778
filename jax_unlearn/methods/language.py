"""Cards of methods for language models: γ·(forget loss) + α·(retain loss) of texts.

All are `assemble(model, optimizer, forget=..., retain=...)` of `ju.objectives`; what
the cards add are published factors and what each loss needs of the lab: tables of the
original's losses, the original as a teacher, other answers.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jax_unlearn import harmonize
from jax_unlearn.cards import Card, Job, Lab
from jax_unlearn.errors import InputError
from jax_unlearn.masks import masked
from jax_unlearn.methods.assemble import assemble
from jax_unlearn.methods.language_options import (
    Halves,
    Powered,
    Preferred,
    Saturated,
    Shares,
    Sharp,
    Simple,
    Skipping,
    Steered,
    Undone,
)
from jax_unlearn.types import LossFn, Params, PyTree

__all__ = ["ALTPO", "CEU", "DPO", "GRAD_DIFF", "IDK_DPO", "IDK_NLL", "KL_MIN"]
__all__ += ["LANGUAGE_CARDS", "MAX_ENTROPY", "NPO", "RMU", "SATIMP", "SIMNPO", "UNDIAL"]
__all__ += ["WGA", "joined", "named_leaves"]


def joined(lab: Lab, forget: LossFn, retain: str, options: Any, **told: Any) -> Job:
    """Return the job of γ·forget + α·retain; without retain texts where α is 0."""
    gamma, alpha = options.forget_share, options.retain_share
    own = lab.joint()
    join = own.pop("harmonizer") or harmonize.add()
    own["harmonizer"] = harmonize.scaled(join, forget=gamma, retain=alpha)
    optimizer = told.pop("optimizer", None) or lab.optimizer()
    if alpha:
        told["retain"] = lab.objective(retain, **told.pop("held", {}))
    told.pop("held", None)
    unlearner = assemble(lab.model, optimizer, forget=forget, **told, **own)
    return Job(unlearner, lab.schedule("both" if alpha else "forget"))


def named_leaves(params: Params, pattern: str) -> PyTree:
    """Return which leaves have a path, joined by "/", in which a pattern occurs.

    Raises:
      InputError: a pattern that is none, or occurs nowhere.

    >>> named_leaves({"layers": {"0": 1.0, "1": 2.0}}, "layers/1")
    {'layers': {'0': False, '1': True}}
    """
    try:
        rule = re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"only={pattern!r} is no regular expression: {error}"
        ) from None

    def hit(path: Any, leaf: Any) -> bool:
        del leaf
        return bool(rule.search(jax.tree_util.keystr(path, simple=True, separator="/")))

    found = jax.tree_util.tree_map_with_path(hit, params)
    if not any(jax.tree.leaves(found)):
        first = jax.tree_util.tree_flatten_with_path(params)[0][0][0]
        name = jax.tree_util.keystr(first, simple=True, separator="/")
        raise InputError(
            f"only={pattern!r} is in no parameter's name; they are such as {name}"
        )
    return found


def _grad_diff(lab: Lab, options: Shares) -> Job:
    return joined(lab, lab.objective("next_token_ascent"), "next_token", options)


def _kl_min(lab: Lab, options: Shares) -> Job:
    return joined(lab, lab.objective("next_token_ascent"), "kl_to_teacher", options)


def _idk_nll(lab: Lab, options: Halves) -> Job:
    forget = lab.objective("alternative", alternatives="refusals")
    return joined(lab, forget, "next_token", options)


def _dpo(lab: Lab, options: Preferred) -> Job:
    return _preferring(lab, options, options.alternatives)


def _idk_dpo(lab: Lab, options: Sharp) -> Job:
    return _preferring(lab, options, "refusals")


def _altpo(lab: Lab, options: Sharp) -> Job:
    return _preferring(lab, options, "generated")


def _preferring(lab: Lab, options: Sharp, alternatives: str) -> Job:
    """Return the job of DPO with answers of a source."""
    told = {"beta": options.beta, "alternatives": alternatives}
    return joined(lab, lab.objective("dpo", **told), "next_token", options)


def _npo(lab: Lab, options: Sharp) -> Job:
    return joined(lab, lab.objective("npo", beta=options.beta), "next_token", options)


def _simnpo(lab: Lab, options: Simple) -> Job:
    forget = lab.objective("simnpo", beta=options.beta, delta=options.delta)
    return joined(lab, forget, "next_token", options)


def _wga(lab: Lab, options: Powered) -> Job:
    forget = lab.objective("wga", beta=options.beta)
    return joined(lab, forget, "next_token", options)


def _satimp(lab: Lab, options: Saturated) -> Job:
    told = {"saturation": options.saturation, "importance": options.importance}
    return joined(lab, lab.objective("satimp", **told), "next_token", options)


def _ceu(lab: Lab, options: Skipping) -> Job:
    return joined(lab, lab.objective("ceu", skip=options.skip), "next_token", options)


def _undial(lab: Lab, options: Undone) -> Job:
    forget = lab.objective("undial", strength=options.strength)
    return joined(lab, forget, "next_token", options)


def _max_entropy(lab: Lab, options: Shares) -> Job:
    return joined(lab, lab.objective("max_entropy"), "next_token", options)


def _rmu(lab: Lab, options: Steered) -> Job:
    held = {"layer": options.layer}
    forget = lab.objective("rmu", coefficient=options.coefficient, **held)
    told: dict[str, Any] = {"held": held}
    if options.only:
        params = lab.original[0]
        moves = named_leaves(params, options.only)
        mask = jax.tree.map(lambda x, own: jnp.full(x.shape, own), params, moves)
        wrapped: optax.GradientTransformation = masked(lab.optimizer(), mask)
        told["optimizer"] = wrapped
    return joined(lab, forget, "hold_hidden", options, **told)


def _card(build: Any, label: str, title: str, source: str, roles: tuple) -> Card:
    """Return the card of a method of two losses."""
    made = Card.of(build, label, title, source).but(roles=roles, schedule=True)
    return made.but(cost="E·(R + F)", step_reads=()).tries(
        learning_rate=(1e-5, 3e-5, 1e-4, 3e-4), epochs=(3, 10)
    )


_TEACHES: dict[str, Any] = {"reads": ("forget", "retain", "original")}

GRAD_DIFF = _card(
    _grad_diff,
    "GradDiff",
    "Gradient difference",
    "arXiv 2401.06121",
    ("next_token_ascent", "next_token"),
).but(
    suits="Good for a first try on texts: ascent on those to forget, descent on the "
    "others. Nothing bounds the ascent: take few epochs and small rates."
)

KL_MIN = _card(
    _kl_min,
    "KL-min",
    "KL minimisation",
    "arXiv 2401.06121",
    ("next_token_ascent", "kl_to_teacher"),
).but(
    **_TEACHES,
    cost="E·(4/3·R + F)",
    suits="Good where predictions on other texts should stay as they are: ascent, "
    "while the distribution on retain texts is kept near the original's.",
)

IDK_NLL = _card(
    _idk_nll,
    "IdkNLL",
    "Refusals (IdkNLL)",
    "arXiv 2401.06121",
    ("alternative", "next_token"),
).but(
    suits="Good where the model should say that it does not know. It may still know "
    "what it refuses to say, so look at the attacks and at relearning.",
    cost="E·(R + 4/3·F)",
)

DPO = _card(
    _dpo, "DPO", "Preference (DPO)", "arXiv 2305.18290", ("dpo", "next_token")
).but(
    **_TEACHES,
    cost="E·(R + 2·F) + 2/3·F",
    suits="Good if there is another answer to each question: the model learns to "
    "prefer it to the true one, measured against the original.",
)

IDK_DPO = DPO.but(
    name="idk_dpo",
    label="IdkDPO",
    title="Preference for refusals (IdkDPO)",
    source="arXiv 2401.06121",
    build=_idk_dpo,
    options=Sharp,
    suits="Good where the model should refuse and otherwise stay near the original.",
)

ALTPO = DPO.but(
    name="altpo",
    label="AltPO",
    title="Alternate preference (AltPO)",
    source="arXiv 2409.13474",
    build=_altpo,
    options=Sharp,
    suits="Good where answers should stay plausible: other answers of the model itself "
    "are preferred to the true one. The paper takes two epochs.",
)

NPO = (
    _card(
        _npo,
        "NPO",
        "Negative preference (NPO)",
        "arXiv 2404.05868",
        ("npo", "next_token"),
    )
    .but(
        **_TEACHES,
        cost="E·(R + F) + 1/3·F",
        suits="Good as the usual choice for texts: ascent that fades out as a text "
        "becomes less likely than under the original.",
    )
    .tries(beta=(0.05, 0.1, 0.5), learning_rate=(1e-5, 3e-5, 1e-4, 3e-4))
)

SIMNPO = (
    _card(_simnpo, "SimNPO", "Simple NPO", "arXiv 2410.07163", ("simnpo", "next_token"))
    .but(
        suits="Good for texts of different lengths: NPO with the mean loss by token, "
        "without the original.",
    )
    .tries(beta=(2.5, 4.5), learning_rate=(1e-5, 3e-5, 1e-4, 3e-4))
)

WGA = _card(
    _wga, "WGA", "Weighted ascent (WGA)", "arXiv 2502.19301", ("wga", "next_token")
).but(
    suits="Good for ascent that fades out token by token: likely tokens have the "
    "largest weights, as with LoReUn.",
)

SATIMP = _card(
    _satimp,
    "SatImp",
    source="arXiv 2505.11953",
    title="Saturation and importance",
    roles=("satimp", "next_token"),
).but(
    suits="Good where WGA is; tokens that are almost certain, which say little about "
    "the text, have small weights, too."
)

CEU = _card(
    _ceu, "CE-U", "Cross-entropy unlearning", "arXiv 2503.01224", ("ceu", "next_token")
).but(
    suits="Good for a bounded loss without the original: the target is the model's own "
    "prediction without the true token."
)

UNDIAL = _card(
    _undial,
    "UNDIAL",
    "Self-distillation (UNDIAL)",
    "arXiv 2402.10052",
    ("undial", "next_token"),
).but(
    **_TEACHES,
    cost="E·(R + 4/3·F)",
    suits="Good without retain texts: the target is the original's prediction with a "
    "lower logit for the true token. It is stable over many epochs.",
)

MAX_ENTROPY = _card(
    _max_entropy,
    "ME",
    "Maximal entropy",
    "arXiv 2410.08109",
    ("max_entropy", "next_token"),
).but(
    suits="Good where no answer is wanted at all: predictions become uniform, which "
    "shows that something was forgotten."
)

RMU = _card(
    _rmu, "RMU", "Misdirected states (RMU)", "arXiv 2403.03218", ("rmu", "hold_hidden")
).but(
    **_TEACHES,
    cost="E·(4/3·R + 4/3·F)",
    suits="Good for knowledge rather than single texts: hidden states of one layer are "
    "moved to a random direction, those of retain texts are kept.",
)

LANGUAGE_CARDS = (GRAD_DIFF, KL_MIN, IDK_NLL, DPO, IDK_DPO, ALTPO, NPO, SIMNPO, WGA)
LANGUAGE_CARDS += (SATIMP, CEU, UNDIAL, MAX_ENTROPY, RMU)
