"""Ensembles: many models of one request, made here and audited."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro
from rich.console import Console

from jax_unlearn import audit as audits
from jax_unlearn import report as reports
from jax_unlearn._validate import at_least, one_of
from jax_unlearn.audit.groups import check_divided
from jax_unlearn.cli.attacks import print_audit, print_groups
from jax_unlearn.cli.console import (
    Reporter,
    open_console,
    say,
    status,
)
from jax_unlearn.cli.habits import asked_options, asked_words
from jax_unlearn.cli.sources import DataSource, Source
from jax_unlearn.data import Dataset, check_ids, digits, fingerprint
from jax_unlearn.data.files import check_writable, read_json, write_atomic
from jax_unlearn.drivers.ensemble import HOWS, local_mesh
from jax_unlearn.errors import MAX_SEED, InputError, OtherRun
from jax_unlearn.lab.arrays import save_outputs
from jax_unlearn.lab.ensemble_models import RETRAIN
from jax_unlearn.lab.ensembles import (
    NOTHING,
    Ensembles,
    audit_of,
    figures_of,
    run_ensembles,
)
from jax_unlearn.lab.ensembles import join as joined
from jax_unlearn.lab.modalities.classification.probes import PROBES
from jax_unlearn.lab.parts import (
    CHUNK,
    Complete,
    EnsemblePart,
    chunk_of,
    keep,
    recorded,
)
from jax_unlearn.lab.plan import Plan, plan_of
from jax_unlearn.lab.requests import left_out
from jax_unlearn.lab.results import head, to_json
from jax_unlearn.lab.service import recommended
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.store import SECONDS, load_model, origin_of
from jax_unlearn.recipes.digits import digits_plan

__all__ = ["DIVIDERS", "By", "Probes", "asked_of_parts", "audited", "conclude"]
__all__ += ["ensemble", "made"]

DIVIDERS = (*audits.DIVISIONS, *audits.PROXIES)
Probes = Annotated[
    tuple[str, ...], tyro.conf.arg(metavar=f"{{{','.join(PROBES)}}} ...")
]
By = Annotated[tuple[str, ...], tyro.conf.arg(metavar=f"{{{','.join(DIVIDERS)}}} ...")]


def ensemble(
    source: DataSource,
    run: Path | None = None,
    original: Path | None = None,
    forget: str | None = None,
    models: int | None = None,
    methods: tuple[str, ...] | None = None,
    chunk: int | None = None,
    how: Annotated[str, tyro.conf.arg(metavar=f"{{auto,{','.join(HOWS)}}}")] = "auto",
    resamples: int = 20,
    by: By = (),
    probes: Probes = (),
    part: str | None = None,
    join: tuple[Path, ...] = (),
    all_figures: bool = False,
    out: Path = Path("runs/ensemble"),
    save_every: float = SECONDS,
) -> dict[str, Any]:
    """Train, unlearn and audit many models of one request; go on where it stopped.

    Several machines or jobs can share the work: `--part 1/8` to `--part 8/8` each make
    a part of the models, in one folder or in several. `jax-unlearn audit --parts
    DIR...`, or `--join` here, then audits the models of all parts, or names those that
    are missing.

    Example, after that of `train`: `jax-unlearn ensemble --dataset digits --original
    original --forget 3 --models 8`

    Args:
      source: The data; digits where none are given.
      run: folder of a run whose plan is used (the request of its first seed). Default:
        the plan of the demo.
      original: checkpoint to train the models like, instead of a run: with the settings
        in its record and as many samples held out.
      forget: samples to forget, instead of those of the plan: a file that lists them by
        position, or with --key-column by key; a manifest of `split`; or a class.
      models: number of Retrains, and of unlearned models of each method. Default: 16,
        or as many as the parts have. The attack U-LiRA needs 8.
      methods: methods to make models of, by their labels in the plan; with --original
        by their names. Default: all of the plan; with --original that of `jax-unlearn
        forget`.
      chunk: number of models that are trained together in one program; more need more
        memory. They are spread over all devices if the numbers divide. Default: 16, and
        less for a part. The same --chunk and --how give the same bits on like machines.
      how: how the models of a chunk are computed: "vmap", "map", "loop", or "auto" for
        the fastest here (for parts: "loop" on CPUs, "vmap" elsewhere).
      resamples: number of random divisions of the Retrains, from which the null comes.
      by: groups of the forget samples for which figures are given, too: "memorisation"
        (low, medium, high), "vulnerability" (as RULI: by U-LiRA on the originals), or
        "confidence" (an approximation of memorisation by the originals alone). For the
        first two, half of the models form the groups and the others are audited: give
        --models 16 or more. No further model is trained.
      probes: further tests of every model; `jax-unlearn audit --help` explains each.
        Their means stand beside those of the Retrains. Models that were made without
        these tests are made again.
      part: make a part of the models, and audit nothing: "3/8" is the third of eight
        parts.
      join: folders of the parts, to audit the models of all of them.
      all_figures: print all figures, not only the main ones. The page and the file
        always hold all.
      out: folder of the models; those that it holds are not made again. With --join, a
        .json file may be given: then only that is written.
      save_every: least seconds between two saves from which a killed run goes on; 0
        saves every step.
    """
    share = None if part is None else EnsemblePart.of(part)
    if share is not None and join:
        raise InputError(f"part={part} makes models, join={join[0]} audits: give one")
    at_least("resamples", resamples, 2, "try 20")
    if methods is not None and not methods:
        raise InputError("methods=(): name one or more, or leave it out for all")
    one_of("how", how, ("auto", *HOWS))
    if share is None:  # goes on as the parts that are there began
        there = join or ((out,) if (out / "models").is_dir() else ())
        shared = recorded(there)[0]
        if shared is not None:
            models = shared.models if models is None else models
            methods = tuple(shared.methods) if methods is None else methods
            chunk = shared.chunk if chunk is None else chunk
            how = shared.how if how == "auto" else how
    elif how == "auto":  # what is measured differs by machine
        how = "loop" if jax.default_backend() == "cpu" else "vmap"
    models = 16 if models is None else models
    chunk = chunk_of(models, share) if chunk is None else chunk
    for name in by:
        one_of("by", name, DIVIDERS)
        check_divided(name, models)
    if not join and out.suffix == ".json":
        raise InputError(f"out={out}: name a folder for the models")
    check_writable(out if join and out.suffix == ".json" else out / "outputs.npz")
    if original is None:
        plan, dataset = _planned(source, run)
    else:
        plan, dataset = _like(source, original, run, forget, methods)
    plan = dataclasses.replace(plan, probes=probes)
    if forget is not None:
        ids = left_out((forget,), dataset, source.keys).ids
        check_ids(ids, num_samples=len(dataset.train.labels))
        plan = dataclasses.replace(plan, kind="given", given=tuple(ids.tolist()))
    for name in methods or ():
        one_of("method", name, plan.methods)
    chosen = plan.methods if methods is None else methods
    own = {name: plan.methods[name] for name in chosen}
    console, at = open_console(), (plan, dataset)
    if join:
        told = {"count": models, "methods": own, "say": functools.partial(say, console)}
        try:
            found = joined(*at, join, **told)
        except OtherRun as error:
            if shared is not None:
                raise
            raise _made_whole(join[0]) from error
    else:
        options = {"chunk": chunk, "how": how, "save_every": save_every, "part": share}
        found = made(console, *at, out, count=models, methods=own, **options)
    if share is None:
        told = {"resamples": resamples, "by": by, "every": all_figures}
        return conclude(console, *at, out, found, **told)
    words = asked_words("part", "join")
    complete = Complete(share.parts, models, chunk, how, list(chosen), words)
    keep(out, share, complete)
    mine = share.numbers(models, chunk)
    are = f"models {mine[0]} to {mine[-1]} of {models} are"
    are = are if len(mine) > 1 else f"model {mine[0]} of {models} is"
    say(
        console,
        f"part {share}: {are} in {out}; when all parts are made, audit them by: "
        f"jax-unlearn audit --parts {out} (and the folders of the others, if they have "
        "their own)",
    )
    return {"out": str(out), "part": str(share), "models": list(mine)}


def asked_of_parts(words: Sequence[str]) -> list[str]:
    """Return the words of an audit of parts, with those that the parts were made by."""
    if "--parts" not in words or {"-h", "--help"} & set(words):
        return [*words]
    after = words[words.index("--parts") + 1 :]
    folders = list(itertools.takewhile(lambda word: word[:1] != "-", after))
    shared = recorded([Path(folder) for folder in folders])[0]
    given = [word.partition("=")[0].removeprefix("--") for word in words]
    return [*([] if shared is None else shared.asked(*given)), *words]


def _made_whole(folder: Path) -> InputError:
    """Return the error of a folder without parts, whose models are of another plan."""
    results = folder / "results.json"
    if results.is_file():
        again = f"jax-unlearn ensemble --config {results} --out {folder}"
    else:
        again = "the command that made them, once more"
    return InputError(
        f"{folder} was made without --part, and nothing in it tells --parts which data "
        f"and request its models are of; audit them by: {again} (trains none anew)"
    )


def _results(out: Path) -> Path:
    """Return the file of an audit's results: itself, or one in a folder."""
    return out if out.suffix == ".json" else out / "results.json"


def _planned(source: Source, run: Path | None) -> tuple[Plan, Dataset]:
    """Return the plan of a run, or the demo's, and its data."""
    given = source.dataset is not None or source.data is not None
    dataset = source.load() if given else digits()
    if run is None:
        if given:
            raise InputError(
                "run=None: the models are those of the demo, on its own data; leave "
                "--data and --dataset out, or give --original or --run"
            )
        return digits_plan(), dataset
    record = read_json(run / "config.json")
    found = record.get("dataset") if isinstance(record, dict) else None
    found = found if isinstance(found, dict) else {}
    if found.get("fingerprint") != fingerprint(dataset):
        raise InputError(
            f"run={run} is of data set {found.get('name')!r}, not of these data; "
            "give --data or --dataset of that run"
        )
    return plan_of(record, name=f"run={run}"), dataset


def _like(
    source: Source,
    original: Path,
    run: Path | None,
    forget: str | None,
    methods: Sequence[str] | None,
) -> tuple[Plan, Dataset]:
    """Return the plan of models like an original, and the data."""
    if run is not None or forget is None:
        raise InputError(
            f"original={original}, run={run}, forget={forget}: give an original and "
            "--forget, or a run"
        )
    dataset = source.load_for(original)
    stored = load_model(original, dataset)
    origin, kind = origin_of(stored), stored.modality
    if origin is None:
        raise InputError(
            f"original={original}: its record does not say how it was trained, so that "
            "no models like it can be; give one of `jax-unlearn train`"
        )
    names = methods or (recommended(kind, stored.record),)
    settings = {n: Unlearning.of(method=n, modality=kind.name) for n in names}
    plan = Plan(
        title=f"{dataset.name}: {original.name}",
        kind="random",
        fraction=0.1,
        gamma=1.0,
        unseen=len(stored.unseen) or 0.1,
        training=origin.training,
        methods=settings,
        seeds=(origin.seed, (origin.seed + 1) % MAX_SEED),
    )
    return plan, dataset


def audited(
    console: Console,
    plan: Plan,
    dataset: Dataset,
    out: Path,
    *,
    methods: Iterable[str],
    models: int,
    resamples: int = 20,
    **options: Any,
) -> dict[str, Any]:
    """Make models for a plan's first seed as `ensemble` does, audit them, and tell."""
    options |= {"methods": {name: plan.methods[name] for name in methods}}
    found = made(console, plan, dataset, out, count=models, **options)
    return conclude(console, plan, dataset, out, found, resamples=resamples)


def made(
    console: Console,
    plan: Plan,
    dataset: Dataset,
    out: Path,
    *,
    count: int,
    methods: dict[str, Unlearning],
    chunk: int = CHUNK,
    how: str = "auto",
    **options: Any,
) -> Ensembles:
    """Make models for a plan's first seed and show how it goes."""
    part = options.get("part")
    own = count if part is None else len(part.numbers(count, max(chunk, 1)))
    phases = -(-own // max(chunk, 1)) * (2 + len(methods))
    with Reporter(console, phases) as progress:
        return run_ensembles(
            plan,
            dataset,
            out,
            count=count,
            methods=methods,
            chunk=chunk,
            how=how,
            mesh=None if how == "loop" else local_mesh(math.gcd(count, chunk)),
            progress=progress,
            say=functools.partial(say, console),
            **options,
        )


def conclude(
    console: Console,
    plan: Plan,
    dataset: Dataset,
    out: Path,
    made: Ensembles,
    *,
    resamples: int,
    by: Sequence[str] = (),
    every: bool = False,
) -> dict[str, Any]:
    """Audit models that were made; write outputs, results and report, and tell."""
    models = len(next(iter(made.logits[RETRAIN].values())))
    with status(console, "auditing"):
        found, given = audit_of(made, plan.training, resamples=resamples)
        original = given[0][NOTHING]
        shown = figures_of(plan.training, audits.OF_GROUPS)
        how = {"figures": shown, "resamples": resamples}
        groups = audits.divided(by, given, original, kind="logits", **how)
    told = {
        **plan.record(),
        "title": f"{plan.title}: {models} model{'s' * (models != 1)}",
        "seeds": [plan.seeds[0]],
        "forgotten": found.forgotten,
    }
    record = audits.to_record(found)
    results = {**head(told, dataset), **asked_options()}
    results |= {"seconds": made.seconds, "audit": record}
    results |= {"groups": groups} if by else {}
    write_atomic(_results(out), to_json(results), overwrite=True)
    print_audit(console, found, every=every)
    print_groups(console, groups)
    if _results(out) == out:
        say(console, f"wrote {out}")
    else:
        file = save_outputs(out / "outputs.npz", *given)
        page = reports.write(results, out / "report.html", overwrite=True)
        say(console, f"outputs: {file}\nreport: {page}")
    return {"out": str(out), **results}
