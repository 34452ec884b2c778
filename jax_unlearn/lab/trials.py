"""Trials of a search in optuna's storage, made by any number of processes at once.

A study a method. A worker asks for a trial, makes it seed by seed, and tells; whoever
opens the same storage, on this machine or on another, is one more worker. A worker that
was killed leaves a trial that runs on for ever: it shows no sign of life, and the next
one takes it over, with the seeds that it had made.
"""

import contextlib
import json
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import qmc

from jax_unlearn.errors import InputError, one_line
from jax_unlearn.lab.results import difference, to_json
from jax_unlearn.lab.space import Space
from jax_unlearn.lab.store import same

__all__ = ["ENDED", "Found", "Spread", "begun", "distributions", "seeds_of"]
__all__ += ["storage_of", "values_of", "work"]

STARTS = 10  # trials that are spread evenly, before any is chosen by those before it
BEAT, GRACE = 10.0, 120.0  # seconds between signs of life; without one: it is dead
POLL = 0.5  # seconds between two looks at what others make
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)

Found = dict[str, float]
"""What is measured of a trial on one seed; what is minimised comes first."""


def storage_of(study: str | Path) -> BaseStorage:
    """Return the storage of a URL of a database, or else of a journal, made if missing.

    Raises:
      InputError: it cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        if "://" in str(study):
            lite = str(study).startswith("sqlite")
            waits = {"connect_args": {"timeout": 60}} if lite else {}
            return RDBStorage(str(study), engine_kwargs=waits)
        path = Path(study)
        path.parent.mkdir(parents=True, exist_ok=True)
        _mend(path)
        return JournalStorage(JournalFileBackend(str(path)))
    except Exception as error:  # of drivers, of the network, of other formats
        raise InputError(
            f"study={study} cannot be opened ({type(error).__name__}: "
            f"{one_line(error)}); give sqlite:///FILE.db, another URL of SQLAlchemy, "
            "or the path of a journal"
        ) from error


def _mend(path: Path) -> None:
    """Cut off the half line that a process killed while it wrote left in a journal."""
    if not path.exists():
        return
    lock = JournalFileSymlinkLock(str(path))
    lock.acquire()
    try:
        with path.open("rb+") as file:
            content = file.read()
            if content and not content.startswith(b'{"op_code"'):
                raise ValueError("it is no journal of optuna")
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                file.truncate(whole)
    finally:
        lock.release()


class Spread(BaseSampler):
    """A trial's values by its number and the trials before it, whoever makes it.

    The middle of what the cards name comes first, then points of a Halton sequence,
    then what TPE suggests: a few dozen trials in one to three dimensions, some of them
    choices, some pruned, many at once, which Gaussian processes serve badly and random
    starts cover badly. Each number has a seed of its own, so that a study that is
    gone on with makes the trials that an uninterrupted one makes, and workers that
    begin together begin apart. A space of few settings is tried one by one. Our choice.
    """

    def __init__(self, space: Space, seed: int):
        self._space, self._seed = space, seed
        self.distributions = distributions(space)
        self._every = space.every()
        self._own: tuple[int, BaseSampler] | None = None

    def count(self, trials: int) -> int:
        """Return how many trials there are to make: no more than settings."""
        return min(trials, len(self._every)) if self._every else trials

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the whole space."""
        return self.distributions

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Return the values of a trial."""
        number, every = trial.number, self._every
        if every is not None and number < len(every):
            return {k: self._stored(k, v) for k, v in every[number].items()}
        if number == 0:
            return {k: self._stored(k, v) for k, v in self._space.first.items()}
        if number < STARTS:
            halton = qmc.Halton(len(search_space), scramble=False)
            shift = np.random.default_rng(self._seed).random(len(search_space))
            point = (halton.fast_forward(number).random(1)[0] + shift) % 1
            pairs = zip(search_space.items(), point, strict=True)
            return {name: _at(one, float(u)) for (name, one), u in pairs}
        return self._tpe(number).sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return one value, where too few trials have ended for TPE."""
        own = self._tpe(trial.number)
        return own.sample_independent(study, trial, param_name, param_distribution)

    def _stored(self, name: str, value: Any) -> Any:
        return _text(value) if name in self._space.choices else value

    def _tpe(self, number: int) -> BaseSampler:
        if self._own is None or self._own[0] != number:
            options = {"n_startup_trials": 4, "multivariate": True}
            seed = (self._seed * 1_000_003 + number) % 2**32
            self._own = number, TPESampler(seed=seed, **options)
        return self._own[1]


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Return a space as optuna has it; choices are their JSON."""
    found: dict[str, BaseDistribution] = {}
    for name, (low, high, whole) in space.ranges.items():
        if whole:
            found[name] = IntDistribution(int(low), int(high))
        else:
            found[name] = FloatDistribution(low, high, log=True)
    for name, values in space.choices.items():
        found[name] = CategoricalDistribution([_text(value) for value in values])
    return dict(sorted(found.items()))


def values_of(space: Space, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a trial, as its setting has them."""
    found = {}
    for name, value in params.items():
        own = {_text(choice): choice for choice in space.choices.get(name, ())}
        found[name] = own.get(value, space.rounded(name, value)) if own else value
        found[name] = space.rounded(name, found[name])
    return found


def _text(value: Any) -> str:
    return json.dumps(value)


def _at(one: Any, u: float) -> Any:
    """Return the value at a share of a distribution."""
    if isinstance(one, CategoricalDistribution):
        return one.choices[min(int(u * len(one.choices)), len(one.choices) - 1)]
    if isinstance(one, IntDistribution):
        return min(one.low + int(u * (one.high - one.low + 1)), one.high)
    low, high = math.log(one.low), math.log(one.high)
    return min(max(math.exp(low + u * (high - low)), one.low), one.high)


def begun(
    storage: BaseStorage,
    name: str,
    record: Mapping[str, Any],
    sampler: BaseSampler,
    *,
    where: object,
) -> optuna.Study:
    """Return the study of a name, begun with this record or gone on with.

    Raises:
      InputError: the study there is of another record; names what differs.
    """
    # After its first seeds a trial that is worse than the median of those before it is
    # stopped: a test against the best, such as Wilcoxon's, has no power with 3 seeds.
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_min_trials=2)
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        sampler=sampler,
        pruner=pruner,
        direction="minimize",
        load_if_exists=True,
    )
    wanted = json.loads(to_json(record))
    found = study.user_attrs.get("record")
    if found is None:
        study.set_user_attr("record", wanted)
    elif not same(found, wanted):
        raise InputError(
            f"{where} holds a search of {name} with other settings "
            f"({difference(found, wanted)}); give those again, or choose another "
            "--out and --study"
        )
    return study


def work(
    study: optuna.Study,
    space: Space,
    wanted: int,
    seeds: Sequence[int],
    measure: Callable[[dict[str, Any], int], Found | None],
    *,
    look: Callable[[], Any] = lambda: None,
) -> None:
    """Make trials until there are as many as wanted, those of others included.

    `measure(values, seed)` makes one seed of a trial; None where it diverged. `look` is
    called when a trial has ended, and while others are waited for.
    """
    while True:
        _revive(study)
        states = [trial.state for trial in study.get_trials(deepcopy=False)]
        waiting = states.count(TrialState.WAITING)
        if len(states) - states.count(TrialState.FAIL) >= wanted and not waiting:
            look()
            if not states.count(TrialState.RUNNING):
                return
            time.sleep(POLL)
            continue
        trial = study.ask(distributions(space))
        if _rank(study, trial.number) >= wanted:  # another worker was first
            study.tell(trial, state=TrialState.FAIL)
            continue
        try:
            with _alive(study, trial):
                _make(study, trial, space, seeds, measure)
        except UpdateFinishedTrialError:
            pass  # this process slept so long that another took the trial over
        except BaseException:
            _pass_on(study, trial._trial_id)
            raise
        look()


def _make(
    study: optuna.Study,
    trial: optuna.Trial,
    space: Space,
    seeds: Sequence[int],
    measure: Callable[[dict[str, Any], int], Found | None],
) -> None:
    """Make a trial seed by seed, and stop it where it shows no promise."""
    values, found = values_of(space, trial.params), []
    known = {**_twin(study, space, values, trial.number), **trial.user_attrs}
    trial.set_user_attr("values", values)
    for step, seed in enumerate(seeds):
        key = f"seed {seed}"
        own = known[key] if key in known else measure(values, seed)
        trial.set_user_attr(key, own)
        if own is None:
            study.tell(trial, state=TrialState.PRUNED)  # the worst there is
            return
        found.append(next(iter(own.values())))
        trial.report(sum(found) / len(found), step)
        if step < len(seeds) - 1 and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return
    study.tell(trial, sum(found) / len(found))


def _twin(
    study: optuna.Study, space: Space, values: dict[str, Any], number: int
) -> dict[str, Any]:
    """Return the seeds that an equal trial has made."""
    for other in study.get_trials(deepcopy=False, states=ENDED):
        if other.number != number and values_of(space, other.params) == values:
            return seeds_of(other)
    return {}


def seeds_of(trial: FrozenTrial) -> dict[str, Any]:
    """Return what a trial found on each seed."""
    return {k: v for k, v in trial.user_attrs.items() if k.startswith("seed ")}


def _rank(study: optuna.Study, number: int) -> int:
    """Return how many trials that count come before one."""
    trials = study.get_trials(deepcopy=False)
    return sum(t.number < number and t.state != TrialState.FAIL for t in trials)


def _here() -> list[Any]:
    """Return what tells this process from those of other machines and containers."""
    with contextlib.suppress(OSError):
        return [socket.gethostname(), os.stat("/proc/self/ns/pid").st_ino]
    return [socket.gethostname(), 0]


@contextlib.contextmanager
def _alive(study: optuna.Study, trial: optuna.Trial) -> Iterator[None]:
    """Show signs of life of a trial while the body runs."""
    ended = threading.Event()

    def sign() -> None:
        told = {"here": _here(), "pid": os.getpid(), "at": time.time()}
        study._storage.set_trial_user_attr(trial._trial_id, "alive", told)

    def beat() -> None:
        with contextlib.suppress(UpdateFinishedTrialError):
            while not ended.wait(BEAT):
                sign()

    sign()
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _dead(trial: FrozenTrial) -> bool:
    """Return whether whoever made a trial has ended."""
    told = trial.user_attrs.get("alive")
    if told is None:  # killed between two calls, or about to sign
        begun = trial.datetime_start
        return begun is not None and time.time() - begun.timestamp() > GRACE
    if time.time() - told["at"] > GRACE:
        return True
    if told["here"] != _here():
        return False
    try:
        os.kill(told["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # of another user
    return False


def _revive(study: optuna.Study) -> None:
    """Take over the trials of workers that were killed."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for trial in running:
        if _dead(trial):
            _pass_on(study, trial._trial_id)


def _pass_on(study: optuna.Study, number: int) -> None:
    """Let another worker make a trial, with the seeds that were made of it."""
    storage = study._storage
    try:  # whoever comes first
        storage.set_trial_state_values(number, TrialState.FAIL)
    except UpdateFinishedTrialError:
        return
    trial = storage.get_trial(number)
    if trial.params:
        study.enqueue_trial(trial.params, user_attrs=seeds_of(trial))
