"""Results of generation, made up: every number is told apart from the others."""

import numpy as np

from jax_unlearn.lab.modalities.diffusion.figures import to_png

NAMES = ["cat", "dog", "cow"]
KEYS = ("original", "retrain", "null", "SalUn", "LTU <b>")


def made_generation(runs=2, keys=KEYS):
    rng = np.random.default_rng(0)

    def figures(place):
        return {
            "ua": 10.0 + place,
            "retained_accuracy": 90.0 - place,
            "frechet": 1.5 + place,
            "forget_error": 0.1 + place / 100,
            "unseen_error": 0.2 + place / 100,
            "retain_error": 0.3 + place / 100,
        }

    rows = {
        key: {
            name: {"mean": value, "std": 0.25 if runs > 1 else None}
            for name, value in {**figures(i), "seconds": 4.0 + i}.items()
        }
        for i, key in enumerate(keys)
    }
    attack = {"auc": 0.512, "standard_error": 0.01, "better_than_chance": False}
    found = [
        {
            "seed": 3,
            "class": run,
            "forget_images": 9,
            "rows": {
                key: {
                    **figures(i),
                    "by_class": [100.0, None, 33.0],
                    "seconds": {"prepare": 1.0, "run": 3.0, "compile": 99.0},
                    **(
                        {"details": {"attacks": {"logistic": attack}}}
                        if key.startswith("LTU")
                        else {}
                    ),
                }
                for i, key in enumerate(keys)
            },
            "grids": {
                key: to_png(rng.integers(0, 255, (3, 2, 4, 4, 1)).astype(np.uint8))
                for key in keys
            },
        }
        for run in range(runs)
    ]
    return {
        "kind": "generation",
        "format": 1,
        "plan": {
            "title": "Forget a pet",
            "note": "made up",
            "methods": {"SalUn": {"keep": 0.5, "steps": 9}, "LTU <b>": {"steps": 9}},
            "sampling": {"eta": 0.0},
        },
        "dataset": {"name": "pets", "classes": NAMES},
        "environment": {"device": "cpu", "cores": 2, "versions": {"jax": "1.2"}},
        "judge": {"accuracy": 97.25, "by_class": [97.0, 98.0, 96.75]},
        "floor": {"frechet": 0.125},
        "rows": rows,
        "runs": found,
    }
