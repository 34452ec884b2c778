"""Cards of one's own, as objects and by path: run, and never on another's program."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import small_plan, three_digits

import jax_unlearn as ju
from jax_unlearn.cards import Card, Job, Lab, WeightingCard
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Plan, Request, Training, Unlearning
from jax_unlearn.lab.bench import Bench
from jax_unlearn.lab.catalog import METHODS, load, method_card, weighting_card
from jax_unlearn.lab.ensembles import run_ensembles
from jax_unlearn.lab.job import Trained, execute
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.subject import Trainer, subject_of
from jax_unlearn.types import Unlearner, UnlearnInfo, UnlearnState, Weighting

TRAINING = Training(network="linear", epochs=1, batch_size=60)
QUICK = {"epochs": 1, "batch_size": 60, "learning_rate": 0.1, "weight_decay": 0.0}


DATA = three_digits(90, 20)
SUBJECT = subject_of(TRAINING, DATA)
ASKED = Request(np.arange(10), np.arange(10, 80), np.arange(80, 90))


@dataclasses.dataclass(frozen=True)
class Push:
    """Options of the method.

    Attributes:
      by: how far each step moves every weight.
      names: something that JSON holds as a list.
    """

    by: float = 0.5
    names: tuple[str, ...] = ("a",)

    def __post_init__(self):
        if not self.by > 0:
            raise InputError(f"by={self.by} must be positive; try 0.5")


def pushing(distance: float) -> Unlearner:
    """Return an unlearner whose step moves every weight by a constant in it."""

    def init(params, model_state):
        return UnlearnState(params, model_state, (), (), (), jnp.int32(0))

    def step(state, batch, key):
        del batch, key
        moved = jax.tree.map(lambda leaf: leaf + jnp.float32(distance), state.params)
        zero = jnp.float32(0.0)
        info = UnlearnInfo(zero, zero, None, None, None, zero, zero)
        return state._replace(params=moved, step=state.step + 1), info

    return Unlearner(init, step)


def distance(setting, request, original, seed) -> float:
    """Return how far a step goes: something of all that a step could depend on."""
    mean = float(jnp.mean(original[0]["head"]["kernel"]))
    told = setting.options.by + setting.learning_rate + setting.epochs
    return told + len(request.forget) / 7 + mean + seed / 3


def build(lab: Lab, options: Push) -> Job:
    del options
    forget = Request(lab.ids("forget"), lab.ids("retain"), lab.ids("unseen"))
    return Job(
        pushing(distance(lab.setting, forget, lab.original, lab.seed)),
        lab.schedule("forget"),
    )


MINE = Card(
    name="push",
    label="Push",
    title="Push every weight",
    build=build,
    reads=("forget",),
    options=Push,
    roles=(),
)


def ones(lab: Lab, options) -> Weighting:
    del lab, options

    def update(sample, state, *, reference=None):
        return sample.losses, state

    return Weighting(lambda: (), update)


OWN = WeightingCard(name="losses", label="losses", title="the losses", build=ones)
HERE = f"{__file__}:MINE"


def original(scale: float = 1.0) -> Trained:
    made = jax.jit(SUBJECT.model.init)(jax.random.key(0), DATA.train.inputs[:2])
    params, state = jax.tree.map(lambda leaf: scale * leaf + 0.1, made)
    return Trained(params, state, {})


def moved(found: Trained, before: Trained) -> float:
    """Return by how much all weights moved alike."""
    pairs = zip(*map(jax.tree.leaves, (found.params, before.params)), strict=True)
    values = np.concatenate([np.ravel(after - old) for after, old in pairs])
    np.testing.assert_allclose(values, values[0], rtol=1e-5)
    return float(values[0])


@pytest.mark.parametrize("method", [MINE, HERE], ids=["object", "path"])
def test_a_run_is_that_of_its_own_setting_request_model_and_seed(method):
    preparer, first = Preparer(SUBJECT), Unlearning.of(method=method, **QUICK)
    fewer = ASKED._replace(forget=ASKED.forget[:5])
    runs = [
        (first, ASKED, original(), 0),
        (first, fewer, original(), 0),
        (first, ASKED, original(1.5), 0),
        (first, ASKED, original(), 1),
        (first.but(learning_rate=0.5), ASKED, original(), 0),
        (first.but(epochs=2), ASKED, original(), 0),
        (first.but(by=2.0), ASKED, original(), 0),
    ]
    for setting, request, start, seed in runs:
        job = preparer(setting, request, start, seed=seed)
        found = execute(job, start[:2], jax.random.key(0))
        expected = job.steps * distance(setting, request, start, seed)
        np.testing.assert_allclose(moved(found, start), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("reads", "alike", "rates", "lengths"),
    [
        (None, False, False, False),
        (("learning_rate", "length"), True, False, False),
        (("learning_rate",), True, False, True),
        (("length",), True, True, False),
        ((), True, True, True),
    ],
    ids=str,
)
def test_a_step_is_shared_where_the_card_says_so(reads, alike, rates, lengths):
    card = dataclasses.replace(MINE, step_reads=reads)
    preparer, first = Preparer(SUBJECT), Unlearning.of(method=card, **QUICK)

    def step(setting, request=ASKED, start=None, seed=0):
        job: Any = preparer(setting, request, start or original(), seed=seed)
        return job.unlearner.step

    own = step(first)
    fewer = ASKED._replace(forget=ASKED.forget[:5])
    assert (step(first, fewer, original(2.0), seed=1) is own) is alike
    assert (step(first.but(rho=0.5)) is own) is alike
    assert (step(first.but(learning_rate=0.5)) is own) is rates
    assert (step(first.but(epochs=2)) is own) is lengths
    for change in ({"by": 2.0}, {"momentum": 0.5}, {"batch_size": 30}, {"clip": 1.0}):
        assert step(first.but(**change)) is not own
    before = dataclasses.replace(card, beforehand=("by",))
    first = Unlearning.of(method=before, **QUICK)
    assert (step(first.but(by=2.0)) is step(first)) is alike
    assert step(first.but(momentum=0.5)) is not step(first)
    other = dataclasses.replace(card, title="of the same name")
    assert step(Unlearning.of(method=other, **QUICK)) is not own
    library = Unlearning.of(method="gradient_ascent", weighting="loreun", **QUICK)
    assert step(library) is step(library.but(learning_rate=0.5))


@pytest.mark.parametrize("shared", [False, True])
def test_a_weighting_says_whether_its_step_may_be_shared(shared):
    card = dataclasses.replace(OWN, shared=shared)
    setting = Unlearning.of(method="gradient_ascent", weighting=card, **QUICK)
    preparer = Preparer(SUBJECT)

    def step(setting, seed):
        job: Any = preparer(setting, ASKED, original(), seed=seed)
        return job.unlearner.step

    first = step(setting, 0)
    assert (first is step(setting, 1)) is shared
    other = dataclasses.replace(OWN, shared=shared)
    same = Unlearning.of(method="gradient_ascent", weighting=other, **QUICK)
    assert step(same, 0) is not first


def plan(**methods) -> Plan:
    return small_plan(title="own", unseen=10, training=TRAINING, methods=methods)


BOTH = pytest.mark.parametrize(
    ("name", "method"), [("object", MINE), ("path", HERE)], ids=["object", "path"]
)


@BOTH
def test_every_model_of_an_ensemble_has_a_step_of_its_own(name, method, tmp_path):
    setting = Unlearning.of(method=method, **QUICK)
    made = run_ensembles(
        plan(), DATA, tmp_path, count=3, methods={name: setting}, how="vmap"
    )
    ids, expected = np.union1d(made.request.forget, made.request.retain), []
    trainer, preparer = Trainer(SUBJECT, TRAINING), Preparer(SUBJECT)
    for number in range(3):
        start = trainer(ids, seed=number)
        job = preparer(setting, made.request, start, seed=number)
        found = execute(job, start[:2], jax.random.key(0))
        expected.append(ju.predict(SUBJECT.model, *found[:2], DATA.test.inputs))
    np.testing.assert_allclose(
        made.logits[name]["test"], expected, rtol=1e-3, atol=1e-3
    )


@BOTH
def test_a_kept_model_of_an_own_card_is_read_again(name, method, tmp_path):
    told = []
    bench = Bench(plan(), DATA, lambda *said: told.append(said), folder=tmp_path)
    case, setting = bench.case(0), Unlearning.of(method=method, **QUICK)
    start = bench.original(0)
    made = bench.unlearn(name, setting, case, start)
    told.clear()
    found = bench.unlearn(name, setting, case, start)
    assert told == [(name, 0, 1), (name, 1, 1)]
    assert moved(found.trained, made.trained) == 0
    bench.check(0)
    with pytest.raises(InputError, match=f"{name} was made with another setting"):
        bench.unlearn(name, setting.but(by=2.0), case, start)


def test_records_name_own_cards_by_path():
    setting = Unlearning.of(
        method=HERE, weighting=f"{__file__}:OWN", by=0.25, names=["b", "c"]
    )
    record = json.loads(json.dumps(setting.record()))
    assert record["method"] == HERE
    assert record["weighting"] == f"{__file__}:OWN"
    assert record["options"] == {"by": 0.25, "names": ["b", "c"]}
    found = Unlearning.read(record)
    assert found == setting
    assert found.card is setting.card is load(HERE)
    assert found.options.names == ("b", "c")
    assert found.but(by=3.0).card is load(HERE)
    assert found.but(method="salun").method == "salun"


def test_records_of_cards_without_a_path_need_the_cards():
    setting = Unlearning.of(method=MINE, weighting=OWN, by=0.25)
    assert (setting.method, setting.weighting) == ("push", "losses")
    record = json.loads(json.dumps(setting.record()))
    with pytest.raises(InputError, match="unknown method 'push'"):
        Unlearning.read(record)
    with pytest.raises(InputError, match="unknown weighting 'losses'"):
        Unlearning.read(record, cards=[MINE])
    found = Unlearning.read(record, cards=[MINE, OWN])
    assert found == setting
    assert found.card is MINE
    assert found.weighting_card is OWN
    changed = found.but(learning_rate=0.5)
    assert changed.card is MINE
    assert changed.weighting_card is OWN
    assert changed.options.by == 0.25


def test_options_of_own_cards_are_checked_as_those_of_the_library():
    with pytest.raises(InputError, match="by=-1.0 must be positive; try 0.5"):
        Unlearning.of(method=HERE, by=-1.0)
    with pytest.raises(InputError, match="unknown setting 'by'"):
        Unlearning.of(method="scrub", by=2.0)
    with pytest.raises(InputError, match="rewind=True: push has no such option, scrub"):
        Unlearning.of(method=MINE, rewind=True)
    with pytest.raises(InputError, match="unknown setting 'bi'; did you mean 'by'"):
        Unlearning.of(method=MINE, bi=1.0)
    with pytest.raises(InputError, match="options is a Push, not a Scrub"):
        Unlearning.of(method="scrub", options=Push())
    with pytest.raises(InputError, match="salient=True: push takes no steps"):
        Unlearning.of(
            method=dataclasses.replace(MINE, kind="one-shot", weighs=False),
            salient=True,
        )


def test_a_default_that_may_change_is_refused():
    @dataclasses.dataclass(frozen=True)
    class Sized(Push):
        sizes: list[int] = dataclasses.field(default_factory=list)

    with pytest.raises(InputError, match="'sizes' of push has a default_factory; give"):
        Unlearning.of(method=MINE.but(options=Sized))


def test_what_is_no_card_is_refused_in_one_line(tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("MINE = 1 / 0")
    for asked, words in (
        (f"{tmp_path}/none.py:MINE", "there is no file .*none.py; check the path"),
        (f"{broken}:MINE", "broken.py does not run .ZeroDivisionError: .*; mend it"),
        (f"{__file__}:MIEN", "unknown name in .*'MIEN'; did you mean 'MINE'"),
        (f"{__file__}:OWN", "is a WeightingCard, no ju.cards.Card"),
        (f"{__file__}:plan", "is a function, no ju.cards.Card"),
        ("scrubb", "unknown method 'scrubb'; did you mean 'scrub'"),
        (dataclasses.replace(MINE, name="scrub"), "'scrub' has the name of one of the"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            method_card(asked)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="is a Card, no ju.cards.WeightingCard"):
        weighting_card(HERE)
    assert method_card(METHODS["scrub"]) is METHODS["scrub"]
