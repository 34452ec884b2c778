"""Results of made-up models, put together by the pipeline's own table."""

import json
from types import SimpleNamespace
from unittest import mock

import numpy as np

from jax_unlearn.data import Dataset, Examples
from jax_unlearn.lab import Request, Unlearning
from jax_unlearn.lab.job import Trained
from jax_unlearn.lab.modalities.classification import figures
from jax_unlearn.lab.modalities.classification.figures import Outputs, Table
from jax_unlearn.lab.results import environment, to_json

TRAIN, TEST, UNSEEN = 240, 60, 40


def outputs(labels, classes, skill, rng):
    """Return softmax outputs that favour the true class by `skill`, one a sample."""
    logits = rng.normal(size=(len(labels), classes))
    logits[np.arange(len(labels)), labels] += skill
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def _outputs_of(subject, trained):
    """Return the outputs, which are all there is of a made-up model."""
    del subject
    return trained.params


def points_of(rng):
    """Return losses and weights as a weighting method notes them."""
    losses = np.round(rng.exponential(size=30), 5).tolist()
    return {
        "first_losses": [0.0, *losses],
        "first_weights": [1.0, *losses],
        "last_losses": losses,
        "last_weights": losses,
    }


def notes_of(setting, seed):
    """Return what a run of LTU notes: attacks, gaps, conflict; of others, nothing.

    Attacks are those of the setting, the logistic one too weak at seed 0; what is
    learned depends on the seed and on what LTU learns from, as it does in a run.
    """
    if setting.method != "ltu":
        return {}
    rng = np.random.default_rng(round(1000 * setting.rho) + seed)
    errors, noise = 0.02 + 0.001 * rng.random(9), 0.0004 * rng.random(9)
    options = setting.options
    weak = seed == 0 and options.attacks[0] == "logistic"
    attacks = {
        name if name not in options.attacks[:n] else f"{name} {n + 1}": {
            "auc": 0.53 if weak and n == 0 else 0.6 + 0.03 * n,
            "standard_error": errors[n],
            "better_than_chance": not (weak and n == 0),
        }
        for n, name in enumerate(options.attacks)
    }
    gaps = {
        name if name not in options.strategies[:n] else f"{name} {n + 1}": {
            "labels": 0.3 + 0.1 * n,
            "features": 0.02 * n - noise[n],
        }
        for n, name in enumerate(options.strategies)
    }
    gaps["support"] = {"labels": 0.28, "features": 0.0004}
    steps = 10 * setting.epochs
    rng = np.random.default_rng(steps + 1000 * options.first_order)
    cosines = 0.25 * np.sin(np.arange(steps) / 3) + 0.1 * rng.normal(size=steps)
    conflict = np.round(cosines, 5).tolist()
    return {"attacks": attacks, "gaps": gaps, "conflict": conflict}


def made_results(
    *,
    seeds=3,
    classes=6,
    methods=None,
    retrain=True,
    null=True,
    forgotten=None,
    skill=None,
):
    """Return results as `results.json` holds them.

    Args:
      seeds: how many.
      classes: how many.
      methods: settings by label; default one.
      retrain, null: whether there are such models.
      forgotten: classes that forget samples come from; default all.
      skill: how sure each method is of the forget samples, by label; the original
        has 6, Retrain 2. Default 5.5 for the first, one less for each further.
    """
    methods = {"FT": Unlearning.of(method="finetune")} if methods is None else methods
    rng = np.random.default_rng(5)
    # The tail is drawn less often, so that ranks differ in their counts.
    odds = 1 / np.arange(1, classes + 1)
    labels = rng.choice(classes, size=TRAIN, p=odds / odds.sum()).astype(np.int32)
    labels[:classes] = np.arange(classes)
    test_labels = (np.arange(TEST) % classes).astype(np.int32)
    images = np.zeros((1, 1, 1), np.uint8)
    dataset = Dataset(
        "made",
        Examples(np.broadcast_to(images, (TRAIN, 1, 1, 1)), labels),
        Examples(np.broadcast_to(images, (TEST, 1, 1, 1)), test_labels),
        classes,
        tuple(f"class {n}" for n in range(classes)),
    )
    ids = np.arange(TRAIN - UNSEEN)
    allowed = np.isin(labels[ids], forgotten if forgotten is not None else labels)
    table = Table(SimpleNamespace(dataset=dataset))  # type: ignore[arg-type]
    for seed in range(seeds):
        draw = rng.permutation(ids[allowed])
        forget = np.sort(draw[: max(len(draw) // 3, 2)])
        request = Request(
            forget, np.setdiff1d(ids, forget), np.arange(TRAIN - UNSEEN, TRAIN)
        )

        def model(on_forget, request=request):
            sure = np.full(TRAIN, 6.0)
            sure[request.unseen] = 2.0
            sure[request.forget] = on_forget
            return Outputs(
                outputs(labels, classes, sure, rng),
                outputs(test_labels, classes, np.full(TEST, 2.0), rng),
            )

        def seconds(run):
            return {"compile": 3.0, "prepare": 0.5, "run": run + rng.random()}

        target = Trained(model(2.0), (), seconds(20.0)) if retrain else None
        with mock.patch.object(figures, "outputs_of", _outputs_of):
            table.start(request, target, seed)
            if target is not None:
                table.add("retrain", "Retrain", target)
            if null:
                made = Trained(model(2.0), (), seconds(20.0))
                table.add("null", "Null (Retrain, other seed)", made)
            made = Trained(model(6.0), (), {})
            table.add("original", "Original (nothing done)", made)
            for number, (label, setting) in enumerate(methods.items()):
                made = model(5.5 - number if skill is None else skill[label])
                notes = notes_of(setting, seed)
                if setting.weighting != "uniform":
                    notes["scatter"] = points_of(np.random.default_rng(number))
                made = Trained(made, (), seconds(1.0))
                table.add(f"m{number}", label, made, setting, notes)
    settings = {label: setting.record() for label, setting in methods.items()}
    results = {
        "format": 1,
        "plan": {
            "title": "Made up",
            "kind": "long_tailed",
            "fraction": 0.3,
            "gamma": 1.5,
            "unseen": UNSEEN,
            "training": {"network": "mlp", "epochs": 2},
            "methods": settings,
            "seeds": list(range(seeds)),
            "note": "Settings were not searched for.",
        },
        "dataset": {
            "name": "made",
            "fingerprint": "f" * 64,
            "train": TRAIN,
            "test": TEST,
            "classes": list(dataset.class_names),
        },
        "environment": environment(),
        **table.summary(),
    }
    return json.loads(to_json(results))
