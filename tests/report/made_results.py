"""Results of made-up models, put together by the pipeline's own table."""

import json

import numpy as np

from jax_unlearn.data import Dataset, Examples
from jax_unlearn.pipeline import Request, Unlearning
from jax_unlearn.pipeline.results import Table, environment, to_json
from jax_unlearn.pipeline.stages import Outputs

TRAIN, TEST, UNSEEN = 240, 60, 40


def outputs(labels, classes, skill, rng):
    """Return softmax outputs that favour the true class by `skill`, one a sample."""
    logits = rng.normal(size=(len(labels), classes))
    logits[np.arange(len(labels)), labels] += skill
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def made_results(
    *, seeds=3, classes=6, methods=None, retrain=True, null=True, forgotten=None
):
    """Return results as `results.json` holds them.

    Args:
      seeds: how many.
      classes: how many.
      methods: settings by label; default one.
      retrain, null: whether there are such models.
      forgotten: classes that forget samples come from; default all.
    """
    methods = {"FT": Unlearning(method="finetune")} if methods is None else methods
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
    table = Table(dataset)
    for seed in range(seeds):
        draw = rng.permutation(ids[allowed])
        forget = np.sort(draw[: max(len(draw) // 3, 2)])
        request = Request(
            forget, np.setdiff1d(ids, forget), np.arange(TRAIN - UNSEEN, TRAIN)
        )

        def model(on_forget, request=request):
            skill = np.full(TRAIN, 6.0)
            skill[request.unseen] = 2.0
            skill[request.forget] = on_forget
            return Outputs(
                outputs(labels, classes, skill, rng),
                outputs(test_labels, classes, np.full(TEST, 2.0), rng),
            )

        def seconds(run):
            return {"compile": 3.0, "prepare": 0.5, "run": run + rng.random()}

        target = model(2.0) if retrain else None
        table.start(request, target, seed)
        if target is not None:
            table.add("retrain", "Retrain", target, seconds(20.0))
        if null:
            table.add("null", "Null (Retrain, other seed)", model(2.0), seconds(20.0))
        table.add("original", "Original (nothing done)", model(6.0), {})
        for number, (label, setting) in enumerate(methods.items()):
            made = model(5.5 - number)
            table.add(f"m{number}", label, made, seconds(1.0), setting)
    losses = np.round(rng.exponential(size=30), 5).tolist()
    points = {
        "first_losses": [0.0, *losses],
        "first_weights": [1.0, *losses],
        "last_losses": losses,
        "last_weights": losses,
    }
    settings = {label: vars(setting) for label, setting in methods.items()}
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
        "rows": table.summary(),
        "scatter": {
            f"m{number}": points
            for number, setting in enumerate(methods.values())
            if setting.weighting != "uniform"
        },
    }
    return json.loads(to_json(results))
