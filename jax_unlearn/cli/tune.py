"""The command that searches settings on a user's own data and model, by workers too."""

import contextlib
import functools
import importlib.util
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from jax_unlearn._validate import at_least
from jax_unlearn.cli import console as consoles
from jax_unlearn.cli.config import merged
from jax_unlearn.cli.habits import asked_options, asked_words
from jax_unlearn.cli.recipe import screen_of
from jax_unlearn.cli.sources import DataSource, Source, asked
from jax_unlearn.cli.splitting import imbalance
from jax_unlearn.data import check_writable, write_atomic
from jax_unlearn.data.splits import WORST
from jax_unlearn.errors import InputError, check_seed
from jax_unlearn.lab import Unlearning, tuning
from jax_unlearn.lab.plan import slug
from jax_unlearn.lab.results import to_json
from jax_unlearn.lab.space import Space
from jax_unlearn.lab.space import told as told_of
from jax_unlearn.lab.store import SECONDS, load_model
from jax_unlearn.lab.surrogates import Likeness
from jax_unlearn.recipes.digits import DEMO_DIGITS
from jax_unlearn.recipes.recipe import Asked

__all__ = ["Look", "run_workers", "tune"]


def tune(
    source: DataSource,
    setting: tuple[Unlearning, ...],
    checkpoint: Path | None = None,
    forget: str | None = None,
    kind: str | None = None,
    fraction: float | None = None,
    gamma: float | None = None,
    trials: int = 20,
    seeds: tuple[int, ...] = (100, 101, 102),
    without_retrain: bool = False,
    workers: int = 1,
    study: str | None = None,
    out: Path = Path("tuned"),
    seed: int = 0,
    overwrite: bool = False,
    save_every: float = SECONDS,
) -> dict[str, Any] | None:
    """Search the settings of methods on your data and model; equal trials for each.

    For each seed a request like yours is drawn, and two models are trained as the
    checkpoint was: one on all samples, and one without that request. A trial unlearns
    these requests with one setting, and is stopped early if it is not promising. The
    search tries values of the options that matter for the method and its weighting;
    options that you give are kept. No trial reads the samples of --forget, the test set
    or the checkpoint's model. With --without-retrain nothing is trained: requests like
    yours are made to the checkpoint's model, and compared with unseen samples.

    Give the command again to go on after a stop, or with more --trials. Give it on
    several machines with one --study to share the work. Without a checkpoint the models
    are those of the demo, on seeds that the demo does not use.

    Example, after that of `train`: `jax-unlearn tune salun --dataset digits
    --checkpoint original --forget 3 --trials 5`

    Args:
      source: The data that the model was trained on.
      setting: What all trials share; --method takes several.
      checkpoint: checkpoint of the model, from `jax-unlearn train` or `import`.
      forget: the request to be served, as for `unlearn`. The search draws requests with
        as many samples of each class from the other samples.
      kind: kind of the request, without --forget: "random", "class", "long_tailed",
        "near" or "far".
      fraction: share of the samples to forget. Default: 0.1; for "class" the whole
        class.
      gamma: imbalance between the classes, for "long_tailed". Default: 1.
      trials: number of trials of each method, earlier ones included.
      seeds: seeds of the models and requests of the search, two or more.
      without_retrain: train no model; judge trials by comparing forget with unseen
        samples.
      workers: number of processes on this machine.
      study: where trials are stored, so that machines can share them: a URL such as
        sqlite:///FILE.db, or the path of a journal. Default: study.journal in the
        folder.
      out: folder of trials.csv, tuning.json, best.toml (for `unlearn --config`) and the
        models.
      seed: seed of the search.
      overwrite: start anew in a folder that holds a search.
      save_every: least seconds between two saves from which a killed run goes on; 0
        saves every step.
    """
    console = consoles.open_console()
    show = functools.partial(consoles.say, console)
    at_least("trials", trials, 1, "try 20")
    at_least("workers", workers, 1, "try 2")
    check_seed(seed)
    if checkpoint is None:
        if source != Source() or setting != (Unlearning.of(),):
            raise InputError(
                "checkpoint=None searches the settings of the demo, which brings "
                "data and methods; give --checkpoint MODEL for your own"
            )
        _check_folder(out)
        screen = screen_of(console)
        DEMO_DIGITS.run(Asked(screen, out=out, tune=True))
        return None
    if importlib.util.find_spec("optuna") is None:
        raise InputError(tuning.MISSING)
    if forget is not None and (kind, fraction) != (None, None):
        raise InputError(
            f"forget={forget!r} says what requests are like; leave --kind and "
            "--fraction out"
        )
    if kind in WORST:
        raise InputError(
            f"kind={kind!r} is searched on one model, and a search of settings makes "
            "many; choose random, class, long_tailed, near or far"
        )
    law = imbalance(gamma, kind or ("random" if forget is None else "forget"))
    for own in setting:
        Space.of(own)  # refused before anything is read or written
    _check_folder(out)
    dataset = source.load_for(checkpoint)
    method = setting[0].modality
    if forget is None:
        stored, request = load_model(checkpoint, dataset, modality=method), None
        share = (1.0 if kind == "class" else 0.1) if fraction is None else fraction
        like = Likeness(kind or "random", share, law)
    else:
        stored, _, request, named = asked(source, checkpoint, forget, method)
        if named.concept is not None:
            raise InputError(
                f"forget={forget!r} is a word, and no other request is like it; leave "
                "--forget out and say --kind and --fraction"
            )
        like = Likeness.like(dataset, request)
    phases = consoles.Reporter(console, 2 * len(seeds))
    search = tuning.Search(
        stored,
        dataset,
        like,
        request,
        checkpoint=checkpoint,
        seeds=seeds,
        without_retrain=without_retrain,
        folder=out / "models",
        save_every=save_every,
        progress=phases,
    )
    for own in setting:
        search.check(own)
    if search.assumes:
        show(search.assumes)
    if overwrite and out.exists():  # after all that is refused before the work
        shutil.rmtree(out)

    from jax_unlearn.lab.trials import storage_of

    place = study or str(out / tuning.JOURNAL)
    storage = storage_of(place)
    told = {"trials": trials, "seed": seed, "where": place}
    studies = [tuning.study_of(search, own, storage, **told) for own in setting]
    notes = {"study": place, "without_retrain": without_retrain}
    if not (out / tuning.RESULTS).exists():  # whose folder this is
        write_atomic(out / tuning.RESULTS, to_json(notes), overwrite=True)
    look = Look(studies, show)
    if workers > 1:
        first = "" if without_retrain else "train models for the seeds, then "
        show(f"{workers} workers {first}make trials; the study is {place}")
        words = [*asked_words("workers"), "--workers=1", f"--out={out}"]
        run_workers(words, workers, look)
    else:
        with contextlib.nullcontext() if without_retrain else phases:
            for one in studies:
                one.work(look)
    look()
    notes |= asked_options()
    found = tuning.conclude(studies, out, dataset=dataset, **notes)
    _tell(found, search.by, out, show)
    return {"settings": {k: told_of(own) for k, (own, _) in found.items()}}


class Look:
    """Tell of each trial once it has ended."""

    def __init__(self, studies: Sequence[tuning.Tuning], show: Callable[[str], None]):
        self._studies, self._show = studies, show
        self._shown: set[tuple[str, int]] = set()

    def __call__(self) -> None:
        """Tell of those that ended since the last call."""
        for study in self._studies:
            by, names = study.search.by, (*study.space.ranges, *study.space.choices)
            for row in study.rows():
                key = study.label, row["trial"]
                if key in self._shown:
                    continue
                self._shown.add(key)
                number = sum(label == study.label for label, _ in self._shown)
                values = ", ".join(f"{name}={row[name]}" for name in names)
                score = f"{by} {row[by]:.3f}" if by in row else ""
                state = "" if row["state"] == "complete" else row["state"]
                told = ", ".join(word for word in (score, state) if word)
                self._show(f"{study.label} {number}/{study.wanted}: {values}: {told}")


def _check_folder(out: Path) -> None:
    """Refuse a folder of something else than a search."""
    if out.exists() and not out.is_dir():
        raise InputError(f"out={out} is a file; name a folder")
    check_writable(out / tuning.RESULTS)
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not any((out / name).is_file() for name in (tuning.RESULTS, "settings.json")):
        raise InputError(
            f"out={out} holds files and no search of settings; choose another --out"
        )


def _tell(
    found: dict[str, tuple[Unlearning, dict[str, Any]]],
    by: str,
    out: Path,
    show: Callable[[str], None],
) -> None:
    """Write the best settings as files of options; print them and the command."""
    options = asked_options()["options"]
    names = ("checkpoint", "forget", *vars(Source()))
    where = {k: v for k, v in options.items() if k.replace("-", "_") in names}
    if where.get("reduce") == 1:
        del where["reduce"]
    for label, (setting, row) in found.items():
        name = f"best-{slug(label)}.toml" if len(found) > 1 else "best.toml"
        files = {name, "best.toml"} if label == next(iter(found)) else {name}
        for file in sorted(files):
            config = {"config": str(out / file), **where}
            config.setdefault("forget", "FORGET.csv")
            words = merged([], config, "unlearn", placed=False)
            command = shlex.join(["jax-unlearn", "unlearn", *words])
            told = f"{by} {row[by]:.3f} on seeds of a search; {command}"
            text = tuning.toml_of(setting, told)
            write_atomic(out / file, text, overwrite=True)
        values = ", ".join(f"{k}={v}" for k, v in told_of(setting).items())
        show(f"best: {label}, {by} {row[by]:.3f}: {values}")
        if "best.toml" in files:
            best = command
    show(f"trials: {out / 'trials.csv'}\nunlearn by the best: {best}")


POLL, PATIENCE = 0.5, 20.0  # seconds between two looks, and of a worker to end in


def run_workers(words: Sequence[str], count: int, look: Callable[[], Any]) -> None:
    """Run a command in so many processes; `look` is called while they run.

    Raises:
      InputError: one of them failed; the others are ended, and it is said what it said.
    """
    environments = [_environment(number, count) for number in range(count)]
    command = [sys.executable, "-m", "jax_unlearn", *words]
    with tempfile.TemporaryFile("w+") as said:
        options: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": said}
        made: list[subprocess.Popen] = []
        try:
            for own in environments:
                made.append(subprocess.Popen(command, env=own, **options))
            while any(one.poll() is None for one in made):
                look()
                if any(one.poll() for one in made):
                    break
                time.sleep(POLL)
            failed = next((one for one in made if one.poll()), None)
        finally:
            _end(made)
        if failed is not None:
            said.seek(0)
            lines = said.read().strip().splitlines() or ["it said nothing"]
            flaw = lines[-1].removeprefix("jax-unlearn: ")
            raise InputError(f"a worker ended with status {failed.returncode}: {flaw}")


def _end(made: Sequence[subprocess.Popen]) -> None:
    """End the processes that still run, and let them save what they have."""
    running = [one for one in made if one.poll() is None]
    for one in running:
        one.send_signal(signal.SIGTERM)
    for one in running:
        try:
            one.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            one.kill()
            one.wait()


def _environment(number: int, count: int) -> dict[str, str]:
    """Return the environment of a worker, with its share of the accelerators."""
    # who starts the workers computes nothing, and is to leave them the memory
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    found = dict(os.environ)
    if jax.default_backend() == "tpu" and count > 1:
        raise InputError(
            f"workers={count}: a TPU serves one process; give --workers 1 here, and "
            "the same command with --study on other machines"
        )
    if jax.default_backend() == "gpu":
        devices = len(jax.local_devices())
        seen = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(
            map(str, range(devices))
        )
        names = seen.split(",")
        found["CUDA_VISIBLE_DEVICES"] = names[number % len(names)]
        sharing = -(-count // len(names))
        found["XLA_PYTHON_CLIENT_PREALLOCATE"] = "true"
        found["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.85 / sharing:.3f}"
    return found
