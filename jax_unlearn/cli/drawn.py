"""The commands of diffusion models: draw images, and compare models by theirs."""

import functools
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from jax_unlearn import _validate
from jax_unlearn import report as reports
from jax_unlearn.cli import console as consoles
from jax_unlearn.cli.audit import read_models
from jax_unlearn.cli.choices import Kind
from jax_unlearn.cli.habits import asked_options
from jax_unlearn.cli.sources import DataSource, refuse_existing
from jax_unlearn.data import write_atomic
from jax_unlearn.errors import InputError, check_seed
from jax_unlearn.lab import advice, store
from jax_unlearn.lab.modalities.classification.networks import Training
from jax_unlearn.lab.modalities.diffusion.figures import ImageTable, png_bytes
from jax_unlearn.lab.modalities.diffusion.networks import draw, sampler_of
from jax_unlearn.lab.modalities.diffusion.settings import Judging, Sampling
from jax_unlearn.lab.requests import class_id, said_of
from jax_unlearn.lab.results import LABELS, head, to_json

__all__ = ["audit_images", "audited", "sample"]

NO_CLASS = ["any class"]  # what models without conditions draw


def sample(
    sampling: Sampling,
    checkpoint: Path,
    classes: tuple[str, ...] = (),
    prompts: tuple[str, ...] = (),
    count: int = 8,
    out: Path = Path("samples.png"),
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Draw images of a diffusion model as one grid, a row for each class or prompt.

    Example: `jax-unlearn train --modality diffusion --dataset digits --widths 16 32
    --steps 400 --out drawer`, then `jax-unlearn sample --checkpoint drawer`

    Args:
      sampling: How the images are drawn.
      checkpoint: checkpoint of a diffusion model, from `jax-unlearn train --modality
        diffusion` or `unlearn`.
      classes: classes to draw, names or numbers. Default: all.
      prompts: prompts to draw, for a model with captions, instead of classes.
      count: number of images of each class or prompt.
      out: path of the image, .png; or .npz for the arrays (images, asked).
      seed: seed of the noise.
      overwrite: replace the file if it exists.
    """
    check_seed(seed)
    stored = store.load_model(checkpoint, modality="diffusion")
    generator = stored.built
    sampler_of(generator, sampling)  # refused before the work
    if out.suffix not in (".png", ".npz"):
        raise InputError(f"out={out}: write a .png or an .npz file")
    refuse_existing(out, overwrite=overwrite)
    _validate.at_least("count", count, 1)
    if prompts:
        rows = list(prompts)
        conditions = generator.tokens(rows)
    elif generator.network.condition == "none":
        if classes:
            raise InputError(
                f"classes={classes}: this model was trained without conditions, so no "
                "class can be asked for; leave them out"
            )
        rows, conditions = NO_CLASS, generator.prompts(np.zeros(1, np.int32))
    else:
        names = generator.network.class_names
        ids = [class_id(name, names) for name in classes] or range(len(names))
        rows = [names[i] for i in ids]
        conditions = generator.prompts(np.asarray(list(ids)))
    wanted = np.repeat(conditions, count, axis=0)
    with consoles.Reporter(consoles.open_console(), 1) as progress:
        given = generator, stored.trained, wanted, sampling
        images = draw(*given, seed=seed, progress=progress)
    if out.suffix == ".png":
        grid = images.reshape(len(rows), count, *images.shape[1:])
        content = png_bytes(grid, enlarge=max(1, 64 // images.shape[1]))
    else:
        named = np.repeat(np.asarray(rows), count)
        content = functools.partial(np.savez, images=images, asked=named)
    write_atomic(out, content, overwrite=overwrite)
    told = f" of each of {', '.join(rows)}" if rows != NO_CLASS else ""
    print(f"drew {count} images{told}; wrote {out}")
    return {"out": str(out), "rows": rows, "images": len(wanted)}


def audit_images(
    source: DataSource,
    judge: Training,
    sampling: Sampling,
    original: Path,
    forget: str,
    unlearned: tuple[Path, ...] = (),
    retrained: tuple[Path, ...] = (),
    null: Path | None = None,
    per_class: int = 50,
    inception: Path | None = None,
    out: Path = Path("generation.json"),
    modality: Kind = "diffusion",
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Compare diffusion models by the images they draw; write figures and a report.

    A classifier trained here on real images judges: UA (share of images of the
    forgotten class that it does not recognise), accuracy of the other classes, and the
    Fréchet distance of the other classes in its features. Retrain's values are the
    target; the null is Retrain of another seed.

    Example: `jax-unlearn audit --dataset digits --original drawer --forget 3
    --unlearned unlearned`

    Args:
      source: The data that the models were trained on.
      judge: How the classifier is trained.
      sampling: How images are drawn, from every model alike.
      original: checkpoint of the original model.
      forget: class (name or number) that was to be forgotten, or a file that lists
        single images. Single images are noised and denoised; how near they come back
        takes the place of UA.
      unlearned: checkpoints after unlearning.
      retrained: checkpoints of models trained without the class, each from another
        seed. The first is the target, the second the null; no images of more are drawn.
      null: the second model trained without the class, if it is not given above.
      per_class: number of images of each class.
      inception: weights of the standard network of FID (the file of pytorch-fid, or its
        arrays as .npz). With them FID is computed too; published values use 10,000
        images.
      out: path of the results, .json; the report is written beside it as .html.
      modality: kind of model. Default: that of the original.
      seed: seed of the noise.
      overwrite: replace the files if they exist.
    """
    del modality
    results = audited(**locals())
    console = consoles.open_console()
    consoles.say(console, "\n".join(results["advice"]))
    consoles.say(console, f"report: {out.with_suffix('.html')}")
    return results


def audited(
    source: DataSource,
    judge: Training,
    sampling: Sampling,
    original: Path,
    *,
    forget: str,
    unlearned: tuple[Path, ...],
    retrained: tuple[Path, ...],
    per_class: int,
    out: Path,
    seed: int,
    overwrite: bool,
    null: Path | None = None,
    inception: Path | None = None,
) -> dict[str, Any]:
    """Audit the models of `audit_images`; print the table, write figures and a page."""
    check_seed(seed)
    if out.suffix != ".json":
        raise InputError(f"out={out}: name a .json file; the page is put beside it")
    for path in (out, page := out.with_suffix(".html")):
        refuse_existing(path, overwrite=overwrite)
    paths: dict[str, Path] = {}
    for path in unlearned:
        if path.name in (*paths, *LABELS):
            raise InputError(
                f"unlearned={path}: the name {path.name!r} is taken by another model; "
                "rename the folder"
            )
        paths[path.name] = path
    judging = Judging(judge, sampling, per_class, per_class)
    models = read_models(source, original, forget, paths, retrained, null)
    dataset = models.subject.dataset
    if models.named.concept is not None and forget not in dataset.class_names:
        raise InputError(
            f"forget={forget!r}: the audit's classifier knows the classes "
            f"{', '.join(dataset.class_names)}, and no other word; name one of them, "
            "or look at images of `jax-unlearn sample`"
        )
    if models.named.record:  # a list
        forgotten = f"{len(models.request.forget)} images"
    else:
        forgotten = repr(dataset.class_names[class_id(forget, dataset.class_names)])
    for stored in models.rows.values():
        sampler_of(stored.built, sampling)
    console = consoles.open_console()
    phases = 1 + len(models.rows) + (inception is not None)
    with consoles.Reporter(console, phases) as progress:
        options = {"inception": inception, "progress": progress}
        table = ImageTable(models.subject, judging, **options)
        models.measure(table, seed, noted=True)
    weights = inception and sha256(inception.read_bytes()).hexdigest()
    own = [(key, one.record) for key, one in models.rows.items() if key not in LABELS]
    told = {"sampling": vars(sampling), "judge": vars(judge), "per_class": per_class}
    plan = {
        "title": f"{dataset.name}: forget {forgotten}",
        **told,
        "inception": inception and {"file": inception.name, "sha256": weights},
        "methods": {k: r["unlearning"] for k, r in own if "unlearning" in r},
    }
    found = table.summary()
    found["advice"] = advice.pictured(found["rows"], forgotten, original, forget)
    if record := models.named.record:
        plan |= {"request": record, "note": said_of(record)}
    text = to_json({**head(plan, dataset), **asked_options(), **found})
    write_atomic(out, text, overwrite=overwrite)
    results = json.loads(text)
    reports.write(results, page, overwrite=overwrite)
    consoles.print_generation(console, results)
    return {"out": str(out), **results}
