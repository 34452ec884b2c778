"""The objectives of language models by role, and what each needs of the original."""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_unlearn import membership, objectives, weights
from jax_unlearn.cards import Learned
from jax_unlearn.data import Examples, queries
from jax_unlearn.drivers import memory
from jax_unlearn.errors import InputError
from jax_unlearn.lab.modalities.language.measured import mean_losses, scores_of
from jax_unlearn.lab.modality import checked_attacks, chosen
from jax_unlearn.language import tokens
from jax_unlearn.language.refusals import REFUSALS
from jax_unlearn.language.text import Scored, Text
from jax_unlearn.membership import Observed
from jax_unlearn.methods.ltu import Ltu
from jax_unlearn.types import LossFn, Model

__all__ = ["ROLES", "learn", "objective"]

ANSWERS = 5  # alternatives drawn for a question, as published for AltPO
WORDS = 1024  # dimensions in which texts are near each other
CLUSTERS = 8  # of the strategy "feature_cluster"
COLUMNS = ("alternative_answer", "perturbed_answer")


def objective(lab: Any, role: str, **options: Any) -> LossFn:
    """Return the loss of a role; of forget texts, reduced and weighted as was asked."""
    if role not in _MADE:
        raise InputError(f"role={role!r}: language models have {', '.join(_MADE)}")
    return _MADE[role](lab, **options)


def _ascend(lab: Any, token_weight: Any = None) -> LossFn:
    told: dict[str, Any] = {
        "token_weight": token_weight or _token_weight(lab),
        **_reduction(lab),
    }
    return objectives.next_token_ascent(lab.model, **told)


def _remember(lab: Any) -> LossFn:
    return objectives.next_token(lab.model, **_reduction(lab))


def _wga(lab: Any, *, beta: float) -> LossFn:
    return _ascend(lab, weights.wga(beta=beta))


def _satimp(lab: Any, **powers: float) -> LossFn:
    return _ascend(lab, weights.satimp(**powers))


def _alternative(lab: Any, *, alternatives: str = "refusals") -> LossFn:
    rows = _other_answers(lab, alternatives)
    return objectives.alternative(lab.model, rows, **_reduction(lab))


def _npo(lab: Any, *, beta: float) -> LossFn:
    told = {"beta": beta, "token_weight": _token_weight(lab)}
    return objectives.npo(lab.model, lab.loss_table(total=True), **told)


def _simnpo(lab: Any, *, beta: float, delta: float) -> LossFn:
    told = {"beta": beta, "delta": delta, "token_weight": _token_weight(lab)}
    return objectives.simnpo(lab.model, **told)


def _dpo(lab: Any, *, beta: float, alternatives: str) -> LossFn:
    rows = _other_answers(lab, alternatives)
    forget = lab.ids("forget")
    flat = rows.tokens.shape[-1]
    own = jax.tree.map(lambda leaf: leaf[forget].reshape(-1, flat), rows)
    found = scores_of(lab.subject.model, lab.original, Examples(own, forget))  # type: ignore[arg-type]
    table = np.zeros(rows.tokens.shape[:-1], np.float32)
    table[forget] = np.asarray(found.nll).sum(1).reshape(table[forget].shape)
    before = lab.loss_table(total=True)
    told = {"alternative_reference": jnp.asarray(table), "beta": beta}
    return objectives.dpo(lab.model, before, rows, **told)


def _rmu(lab: Any, *, layer: int, coefficient: float) -> LossFn:
    told: dict[str, Any] = {"coefficient": coefficient, "key": jax.random.key(lab.seed)}
    told |= _reduction(lab)
    return objectives.rmu(lab.model, _hidden(lab, layer), **told)


def _hold(lab: Any, *, layer: int) -> LossFn:
    given = lab.model, _hidden(lab, layer), _teacher(lab)
    return objectives.hold_hidden(*given, **_reduction(lab))


def _of_logits(make: Callable[..., LossFn], *, taught: bool = False) -> Any:
    """Return the maker of an objective that reads logits, perhaps of a teacher too."""

    def made(lab: Any, **options: Any) -> LossFn:
        model = _switched(lab.subject.built.logits, lab.setting)
        given = (_teacher(lab),) if taught else ()
        return make(model, *given, **options, **_reduction(lab))

    return made


_MADE: dict[str, Callable[..., Any]] = {
    "remember": _remember,
    "next_token": _remember,
    "evaluate": lambda lab: _remember(lab)._replace(train=False),  # type: ignore
    "ascend": _ascend,
    "next_token_ascent": _ascend,
    "wga": _wga,
    "satimp": _satimp,
    "relabel": _alternative,
    "alternative": _alternative,
    "npo": _npo,
    "simnpo": _simnpo,
    "dpo": _dpo,
    "rmu": _rmu,
    "hold_hidden": _hold,
    "kl_to_teacher": _of_logits(objectives.kl_to_teacher, taught=True),
    "undial": _of_logits(objectives.undial, taught=True),
    "ceu": _of_logits(objectives.ceu),
    "max_entropy": _of_logits(objectives.max_entropy),
    "pdu_forget": _of_logits(objectives.pdu_forget),
}

ROLES = frozenset((*_MADE, "nonmember", "tokens"))
"""What methods and weightings may ask of a language model."""


def _reduction(lab: Any) -> dict[str, Any]:
    return {"reduction": lab.setting.modality_options.reduction}


def _token_weight(lab: Any) -> Any:
    """Return the weights of tokens that the weighting asked for has, if any."""
    setting = lab.setting
    weigh = setting.weighting_card.tokens
    return None if weigh is None else weigh(setting.weighting_options)


def _teacher(lab: Any) -> objectives.Teacher:
    return objectives.Teacher(*lab.original)


@functools.lru_cache(maxsize=8)
def _economical(model: Model, remat: bool, microbatch: int) -> Model:
    model = memory.rematerialised(model) if remat else model
    return memory.microbatched(model, microbatch) if microbatch else model


def _switched(model: Model, setting: Any) -> Model:
    """Return a model beside the usual one, with the same memory switches."""
    return _economical(model, setting.remat, setting.microbatch)


@functools.lru_cache(maxsize=8)
def _states(network: Any, layer: int, parts: Any) -> Model:
    from jax_unlearn.language.model import decoder

    how = {"layer": layer, "dtype": np.dtype(network.dtype)}
    model = decoder(network.config, outputs="hidden", **how)
    return model if parts is None else parts.model(model)


def _hidden(lab: Any, layer: int) -> Model:
    """Return the model of a layer's states, of the last one in smaller networks."""
    network = lab.subject.network
    layer = min(layer, network.config.layers - 1)
    parts = lab.modality.division(lab.setting)
    return _switched(_states(network, layer, parts), lab.setting)


def _other_answers(lab: Any, source: str) -> Text:
    """Return other answers by id of the text, tokens `i32[N, A, T]`; 0 if not asked."""
    forget = lab.ids("forget")
    questions = lab.subject.dataset.train.inputs[forget, 0]
    if source == "refusals":
        draws = np.random.default_rng(lab.seed)
        answers = [[REFUSALS[i]] for i in draws.integers(0, len(REFUSALS), len(forget))]
    elif source == "column":
        answers = _column(lab, forget)
    else:
        answers = _drawn(lab, questions)
    several = min(map(len, answers))
    pairs = [
        (q, answer)
        for q, own in zip(questions, answers, strict=True)
        for answer in own[:several]
    ]
    network = lab.subject.network
    asked, told = zip(*pairs, strict=True)
    # longer than the texts trained on, perhaps, as far as the network reads
    text, sizes = tokens.encode(asked, told, network.tokenizer)
    if (longest := int(sizes.max())) > network.config.length:
        raise InputError(
            f"alternatives={source!r}: the longest has {longest} tokens with its "
            f"question, and the model reads {network.config.length}; shorten it"
        )
    total = len(lab.examples.labels)

    def by_id(leaf: Any) -> Any:
        table = np.zeros((total, several, leaf.shape[-1]), leaf.dtype)
        table[forget] = np.asarray(leaf).reshape(len(forget), several, -1)
        return jnp.asarray(table[:, 0] if several == 1 else table)

    # by segments, so that nothing lays them out anew
    text = text._replace(segments=np.asarray(text.real, np.int32))  # type: ignore
    return jax.tree.map(by_id, text)


def _column(lab: Any, forget: np.ndarray) -> list[list[str]]:
    """Return the other answers that the data hold."""
    columns = lab.subject.dataset.columns
    name = next((name for name in COLUMNS if name in columns), None)
    if name is None:
        raise InputError(
            f"alternatives='column': {lab.subject.dataset.name} has no column "
            f"{' or '.join(COLUMNS)}; give --alternatives refusals or generated"
        )
    answers = []
    for place in forget:
        given = columns[name][place]
        own = [given] if isinstance(given, str) else list(given or [])
        if not own or not all(isinstance(a, str) and a.strip() for a in own):
            raise InputError(
                f"{name} of text {place} is {given!r}: give an answer, or a list, or "
                "--alternatives refusals"
            )
        answers.append(own)
    return answers


def _drawn(lab: Any, questions: np.ndarray) -> list[list[str]]:
    """Return answers of the original at temperature 1, five a question."""
    from jax_unlearn.language.generate import generate
    from jax_unlearn.language.tokens import encode_prompts

    tokenizer, built = lab.subject.network.tokenizer, lab.subject.built
    asked = [q for q in questions for _ in range(ANSWERS)]
    prompts = encode_prompts(asked, tokenizer)
    text = lab.examples.inputs
    longest = int(np.asarray(text.targets)[lab.ids("forget")].sum(axis=1).max())
    whole = lab.subject.network.length - prompts.tokens.shape[1]
    told: dict[str, Any] = {
        "max_new_tokens": max(min(longest, whole), 1),
        "temperature": 1.0,
    }
    told |= {"real": prompts.real, "eos": tokenizer.eos, "pad": tokenizer.pad}
    found = generate(
        built.logits,
        lab.original[0],
        lab.original[1],
        prompts.tokens,
        key=lab.key,
        **told,
    )
    answers = []
    for row in np.asarray(found):
        ends = np.flatnonzero(row == tokenizer.eos)
        kept = row[: ends[0]] if ends.size else row
        words = tokenizer.engine.decode(kept.tolist()).strip()
        answers.append(words or REFUSALS[0])
    return [answers[i : i + ANSWERS] for i in range(0, len(answers), ANSWERS)]


def learn(lab: Any, options: Ltu) -> Learned:
    """Train LTU's attacks on losses of retain and unseen texts; set up its queries."""
    if len(lab.request.unseen) < 4:
        raise InputError(
            f"{len(lab.request.unseen)} unseen texts: the attacks of ltu learn from "
            "texts the model was not trained on; hold some out"
        )
    seen, means = [], {}
    for part in ("retain", "unseen"):
        ids = lab.ids(part)
        found = scores_of(lab.subject.model, lab.original, lab.examples.at(ids))
        means[part] = mean_losses(found)
        scores = Scored(jnp.asarray(found.nll), jnp.asarray(found.counted))
        seen.append(Observed(scores, jnp.asarray(lab.examples.labels[ids])))  # type: ignore[arg-type]
    labels = lab.labels("retain")
    near = {"clusters": min(CLUSTERS, len(labels)), "seed": lab.seed}
    words = _words(lab)
    kinds = {attack.name: attack for attack in membership.token_attacks()}
    features = kinds["logistic"].features
    attacks, strategies = chosen(
        lab,
        options,
        attacks={
            "logistic": lambda: kinds["logistic"],
            "softmax_mlp": lambda: kinds["quantile_mlp"],
            "entropy_mlp": lambda: membership.entropy_mlp()._replace(features=features),
            "gaussian_ratio": lambda: kinds["gaussian_ratio"],
        },
        strategies={
            "uniform": partial(queries.uniform, len(labels)),
            "class_skewed": partial(
                queries.class_skewed, labels, classes=min(2, len(np.unique(labels)))
            ),
            "feature_cluster": partial(
                queries.feature_cluster, words("retain"), **near
            ),
            "hard": lambda: queries.hard(np.exp(-means["retain"])),
            "nearest": partial(queries.nearest, words("retain"), words("forget")),
        },
    )
    params, infos = membership.train_attacks(attacks, seen[0], seen[1], lab.key)
    audits = tuple(
        objectives.token_nonmember(lab.model, a, params[a.name]) for a in attacks
    )
    size = min(options.query_size, len(labels))
    return Learned(tuple(strategies), size, audits, checked_attacks(infos, options))


def _words(lab: Any) -> Callable[[str], np.ndarray]:
    """Return `part -> f32[n, 1024]`, TF-IDF of the tokens, folded, of length one."""
    text = lab.examples.inputs
    real = np.asarray(text.real)
    rows = np.broadcast_to(np.arange(len(real))[:, None], real.shape)
    counts = np.zeros((len(real), WORDS), np.float32)
    np.add.at(counts, (rows[real], np.asarray(text.tokens)[real] % WORDS), 1.0)
    often = np.log((1 + len(real)) / (1 + (counts > 0).sum(axis=0)))
    found = counts * often
    found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    return lambda part: found[lab.ids(part)]
