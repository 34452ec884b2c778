"""The command that draws: images of a diffusion model."""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from jax_unlearn import _validate, data
from jax_unlearn.cli.console import Reporter, open_console
from jax_unlearn.cli.sources import refuse_existing
from jax_unlearn.errors import InputError, check_seed
from jax_unlearn.lab import store
from jax_unlearn.lab.modalities.diffusion.figures import png_bytes
from jax_unlearn.lab.modalities.diffusion.networks import draw, sampler_of
from jax_unlearn.lab.modalities.diffusion.settings import Sampling
from jax_unlearn.lab.requests import class_id

__all__ = ["sample"]


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

    Args:
      sampling: how the images are drawn.
      checkpoint: of `jax-unlearn train --modality diffusion`, or `unlearn`.
      classes: names or numbers; default all.
      prompts: of a model of captions, instead of classes.
      count: images of each.
      out: png file, or npz for the bare arrays (images, asked).
      seed: of all noise.
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
    else:
        names = generator.network.class_names
        ids = [class_id(name, names) for name in classes] or range(len(names))
        rows = [names[i] for i in ids]
        conditions = generator.prompts(np.asarray(list(ids)))
    wanted = np.repeat(conditions, count, axis=0)
    with Reporter(open_console(), 1) as progress:
        given = generator, stored.trained, wanted, sampling
        images = draw(*given, seed=seed, progress=progress)
    if out.suffix == ".png":
        grid = images.reshape(len(rows), count, *images.shape[1:])
        content = png_bytes(grid, enlarge=max(1, 64 // images.shape[1]))
    else:
        named = np.repeat(np.asarray(rows), count)
        content = functools.partial(np.savez, images=images, asked=named)
    data.write_atomic(out, content, overwrite=overwrite)
    print(f"drew {count} images of each of {', '.join(rows)}; wrote {out}")
    return {"out": str(out), "rows": rows, "images": len(wanted)}
