"""Commands that ask a language model: for answers, and for scores of anyone's texts."""

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import tyro

from jax_unlearn import _validate, audit, data
from jax_unlearn.audit.language import (
    logged,
    mean_nll,
    perplexity,
    probability,
    write_results,
)
from jax_unlearn.cards import Variables
from jax_unlearn.cli import console as consoles
from jax_unlearn.cli.habits import asked_options
from jax_unlearn.cli.sources import DataSource, Source, refuse_existing
from jax_unlearn.data import write_atomic
from jax_unlearn.errors import InputError, check_seed
from jax_unlearn.lab.modalities.language import foreign, networks
from jax_unlearn.lab.modalities.language.measured import attack_scores, scores_of
from jax_unlearn.lab.results import environment, to_json
from jax_unlearn.lab.store import load_model
from jax_unlearn.lab.subject import Subject, described
from jax_unlearn.language.generate import generate
from jax_unlearn.language.tokens import encode_prompts, until_end

__all__ = ["Asked", "ask", "model_at", "score"]


class Asked(NamedTuple):
    """A language model on disk."""

    built: networks.LanguageModel
    at: Variables


def model_at(path: Path) -> Asked:
    """Return the language model of a checkpoint or of a Hugging Face folder."""
    if (path / "record.json").is_file():
        stored = load_model(path, modality="language")
        return Asked(stored.built, stored.trained[:2])
    network, digest = foreign.network_in(str(path))
    return Asked(networks.build(network), foreign.weights_in(str(path), digest))


def ask(
    questions: Annotated[tuple[str, ...], tyro.conf.Positional],
    checkpoint: Path,
    max_tokens: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
) -> dict[str, Any]:
    """Ask a language model, and print its answers.

    Example: `jax-unlearn ask "Where was Ada born?" --checkpoint model`, where `model`
    is of `jax-unlearn train --modality language --data texts.jsonl --out model`

    Args:
      questions: questions, each in quotes.
      checkpoint: checkpoint of a language model, or a Hugging Face folder.
      max_tokens: largest number of tokens in an answer.
      temperature: 0 takes the most likely token each time; with larger values tokens
        are drawn at random.
      seed: seed of the random draws.
    """
    if not questions or not all(q.strip() for q in questions):
        raise InputError("questions: give one or more, in quotes")
    _validate.at_least("max_tokens", max_tokens, 1, "try 64")
    check_seed(seed)
    built, at = model_at(checkpoint)
    network = built.network
    prompts = encode_prompts(questions, network.tokenizer)
    longest = prompts.tokens.shape[1]
    if longest + max_tokens > network.config.length:
        raise InputError(
            f"max_tokens={max_tokens} and the {longest} tokens of the question are "
            f"more than the {network.config.length} that the model reads; give "
            f"--max-tokens {max(network.config.length - longest, 1)} or a shorter "
            "question"
        )
    how = {"real": prompts.real, "eos": network.ends, "pad": network.tokenizer.pad}
    how |= {"temperature": temperature, "key": jax.random.key(seed)}
    made = generate(built.logits, *at, prompts.tokens, max_new_tokens=max_tokens, **how)
    rows = np.asarray(made)
    answers = [
        network.tokenizer.decode(until_end(row, network.ends)).strip() for row in rows
    ]
    for question, answer in zip(questions, answers, strict=True):
        print(answer if len(questions) == 1 else f"{question}\n  {answer}")
    return {"questions": list(questions), "answers": answers}


def score(
    source: DataSource,
    checkpoint: Path,
    unseen: Path | None = None,
    reference: Path | None = None,
    logs: Path | None = None,
    out: Path = Path("scores.json"),
    overwrite: bool = False,
) -> dict[str, Any]:
    """Score anyone's texts by anyone's model: the membership attacks alone.

    Each text gets its loss and the scores of attacks; a high score says that the model
    was probably trained on it. With --unseen, texts that it never saw, the AUC of each
    attack is printed.

    Example: `jax-unlearn score --data texts.jsonl --unseen others.jsonl --checkpoint
    model`

    Args:
      source: The texts.
      checkpoint: checkpoint of a language model, or a Hugging Face folder.
      unseen: texts of the same kind that the model was not trained on, a file like
        --data.
      reference: another model, a checkpoint or Hugging Face folder, whose losses are
        subtracted.
      logs: folder for CHECKPOINT_EVAL.json, the figures in open-unlearning's format,
        with the texts as the forget set.
      out: path of the results, .json.
      overwrite: replace the file if it exists.
    """
    refuse_existing(out, overwrite=overwrite)
    texts = Source(**{**vars_of(source), "texts": True}).load()
    built, at = model_at(checkpoint)
    other = None if reference is None else model_at(reference)
    parts = {"texts": texts}
    if unseen is not None:
        how = {**vars_of(source), "data": unseen, "dataset": None, "texts": True}
        parts["unseen"] = Source(**how).load()
    found: dict[str, Any] = {}
    with consoles.status(consoles.open_console(), "running the model over the texts"):
        for name, dataset in parts.items():
            inputs = [dataset.train.inputs[:, n].tolist() for n in (0, 1)]
            subject = _subject(built, dataset)
            nll, more = _losses(built, at, subject.examples), None
            if other is not None:
                own = _subject(other.built, dataset)
                more = _losses(*other, own.examples)
            scores = attack_scores(built, at, subject.examples, inputs[1], more)
            found[name] = {
                "loss": mean_nll(nll).tolist(),
                "tokens": [len(row) for row in nll],
                "perplexity": perplexity(nll),
                "probability": float(probability(nll).mean()),
                "scores": {key: own.tolist() for key, own in scores.items()},
            }
    results = {"format": 1, "kind": "scores", **found}
    if unseen is not None:
        pair = found["texts"]["scores"], found["unseen"]["scores"]
        results["auc"] = {
            key: float(audit.roc_auc(np.array(pair[0][key]), np.array(pair[1][key])))
            for key in pair[0]
        }
    results |= {"environment": environment(), **asked_options()}
    write_atomic(out, to_json(results), overwrite=overwrite)
    for name, own in found.items():
        print(
            f"{name}: {len(own['loss'])}, probability {own['probability']:.3f}, "
            f"perplexity {own['perplexity']:.2f}"
        )
    areas = results.get("auc", {})
    for key, area in areas.items():
        print(f"AUC of {key}: {area:.3f}")
    print(f"wrote {out}")
    if logs is not None:
        own = found["texts"]
        figures = {"forget_probability": own["probability"]}
        figures |= {f"auc_{key}": area for key, area in areas.items()}
        by_text = {"forget_probability": np.exp(-np.array(own["loss"]))}
        file = logs / f"{checkpoint.resolve().name}_EVAL.json"
        write_results(file, logged(figures, by_text))
        print(f"wrote {file}")
    return {"out": str(out), **results}


def vars_of(source: Source) -> dict[str, Any]:
    """Return the options of a source."""
    return {name: getattr(source, name) for name in Source.__dataclass_fields__}


def _subject(built: networks.LanguageModel, dataset: data.Dataset) -> Subject:
    from jax_unlearn.lab.modalities import modality_named

    return described(modality_named("language"), built.network, dataset)


def _losses(built: Any, at: Variables, examples: Any) -> list[np.ndarray]:
    """Return the losses of the tokens of texts, ragged."""
    found = scores_of(built.model, at, examples)
    pairs = zip(np.asarray(found.nll), np.asarray(found.counted), strict=True)
    return [row[of] for row, of in pairs]
