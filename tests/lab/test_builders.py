"""Every method of the catalog: a card of its own, settings, a model it moves."""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np
import pytest
from jax.extend import core
from toys import three_digits

from jax_unlearn import losses, methods, oneshot
from jax_unlearn.data import Dataset, Examples, forget_split, holdout, to_ids
from jax_unlearn.drivers.loop import predict, run
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Request, Training, Unlearning
from jax_unlearn.lab.catalog import METHODS, WEIGHTINGS
from jax_unlearn.lab.job import Trained, execute
from jax_unlearn.lab.modalities import MODALITIES
from jax_unlearn.lab.modalities.classification import CLASSIFICATION
from jax_unlearn.lab.prepare import Preparer, accessible
from jax_unlearn.lab.refusals import check_unseen
from jax_unlearn.lab.rewinds import Origin
from jax_unlearn.lab.subject import Subject, Trainer, subject_of

SEED = 1  # of the originals
TRAININGS = {
    "mlp": Training(network="mlp", width=6, epochs=20, batch_size=100),
    "linear": Training(network="linear", epochs=30, batch_size=128, momentum=0.0),
}
SERVED = tuple(n for n, c in METHODS.items() if set(c.roles) <= CLASSIFICATION.roles)
READ = [n for n, c in WEIGHTINGS.items() if c.reads != "tokens"]  # of texts alone
# below; ltu in test_prepare.py, the resets in methods/test_reset.py
# ct asks for convolutions
OWN = (
    "amnesiac",
    "deltagrad",
    "retrain",
    "ltu",
    "partial_reset",
    "short_retrain",
    "rewind",
    "ct",
    "auto",
)
DEEP = (  # on the mlp; the others on the linear network, which compiles faster
    *("finetune", "random_label", "endpoint_transport", "scrub", "bad_teacher"),
    *("boundary_shrink", "boundary_expand"),
)
QUICK = {
    "influence": {"samples": 20},
    "rewind": {"rewind_to": 0},
    "unsir": {"noise_steps": 5},
    "certified": {"noise_steps": 1, "epochs": 2},
    "ltu": {
        "allow_weak": True,
        "query_size": 8,
        "strategies": ("uniform", "hard"),
        "attacks": ("gaussian_ratio", "gaussian_ratio"),
    },
}


class World(NamedTuple):
    """One original model and a request to it."""

    subject: Subject
    origin: Origin
    original: Trained
    request: Request
    preparer: Preparer

    @property
    def dataset(self) -> Dataset:
        return self.subject.dataset

    @property
    def model(self):
        return self.subject.model

    def job(self, method: str, *, request=None, original=None, seed=3, **options):
        """Prepare a method, one epoch of one batch unless told otherwise."""
        quick = {"epochs": 1, "batch_size": 128, "learning_rate": 0.1}
        told = {**quick, **QUICK.get(method, {}), **options}
        setting = Unlearning.of(method=method, **told)
        return self.preparer(
            setting,
            request or self.request,
            original or self.original,
            seed=seed,
            origin=self.origin,
        )

    def execute(self, job) -> Trained:
        at = self.original.params, self.original.model_state
        return execute(job, at, jax.random.key(0))


@pytest.fixture(scope="module")
def worlds():
    """Train an original of each network, when it is first asked for."""
    made = {}
    dataset = three_digits(140, 30)
    trained, unseen = holdout(dataset.train.labels, count=40, seed=0)
    split = forget_split(dataset.train.labels[trained], fraction=0.2, seed=0)
    split = to_ids(split, trained)
    request = Request(split.forget, split.retain, unseen)

    def world(name: str) -> World:
        if name not in made:
            training = TRAININGS[name]
            subject = subject_of(training, dataset)
            original = Trainer(subject, training)(trained, seed=SEED)
            preparer, origin = Preparer(subject), Origin(training, SEED)
            made[name] = World(subject, origin, original, request, preparer)
        return made[name]

    return world


def leaves(trained) -> list[np.ndarray]:
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(trained[0])]


def ids_of(batch) -> np.ndarray:
    return np.asarray(batch.index)[np.asarray(batch.mask)]


def values_of(trained) -> np.ndarray:
    return np.concatenate([leaf.ravel() for leaf in leaves(trained)])


def distance(a, b) -> float:
    pairs = zip(leaves(a), leaves(b), strict=True)
    return float(np.sqrt(sum(np.square(x - y).sum() for x, y in pairs)))


def products(jaxpr, inside: bool = False) -> int:
    """Return how many matrix products stand in a program's branches."""
    found = 0
    for equation in jaxpr.eqns:
        found += inside and equation.primitive.name == "dot_general"
        branch = inside or equation.primitive.name == "cond"
        for inner in core.jaxprs_in_params(equation.params):
            found += products(inner, branch)
    return found


def test_every_method_of_the_catalog_has_a_card_of_its_own():
    assert all(card.name == name for name, card in METHODS.items())
    assert {*oneshot.CARDS, *methods.CARDS} == set(METHODS.values())
    one_shot = {name for name, card in METHODS.items() if card.kind == "one-shot"}
    # a task vector is trained, and then subtracted at once
    assert {card.name for card in oneshot.CARDS} == one_shot | {"task_vector"}
    for words in ("label", "title"):
        assert len({getattr(card, words) for card in METHODS.values()}) == len(METHODS)
    kinds = {card.kind for card in METHODS.values()}
    assert kinds == {"steps", "one-shot", "training"}
    reads = {name for card in METHODS.values() for name in card.reads}
    assert reads == {"forget", "retain", "unseen", "original", "training"}


def test_the_options_of_the_catalog_are_settings():
    common = {field.name for field in dataclasses.fields(Unlearning)}
    for name, card in METHODS.items():
        own = {field.name for field in dataclasses.fields(card.options)}
        assert not own & common
        assert set(card.search) <= own | common
        kind = next(m.name for m in MODALITIES if set(card.roles) <= m.roles)
        assert set(Unlearning.of(method=name, modality=kind).flat()) >= own


@pytest.mark.parametrize("method", [m for m in SERVED if m not in OWN])
def test_every_method_moves_the_parameters(worlds, method):
    world = worlds("mlp" if method in DEEP else "linear")
    before = leaves(world.original)
    job = world.job(method)
    found = world.execute(job)
    assert (job.transform is None) == (METHODS[method].kind != "one-shot")
    assert job.prepare_seconds > 0
    assert set(found.seconds) == {"prepare", "compile", "run"}
    assert jax.tree.structure(found.params) == jax.tree.structure(world.original.params)
    for after, old, kept in zip(
        leaves(found), before, leaves(world.original), strict=True
    ):
        assert after.shape == old.shape
        assert np.isfinite(after).all()
        np.testing.assert_array_equal(old, kept)  # the original is left alone
    assert distance(found, world.original) > 1e-4
    if job.transform is None:
        start = job.start or (world.original.params, world.original.model_state)
        given = job.unlearner.init(*start), job.schedule[0], jax.random.key(0)
        step = jax.make_jaxpr(job.unlearner.step)(*given)
        # in a branch, XLA's gradients of convolutions are slow on CPUs; a forward pass,
        # of a product a layer, is not
        assert products(step.jaxpr) <= (2 if method in DEEP else 1)


def test_sfron_has_forget_batches_where_it_climbs_alone(worlds):
    told = {"epochs": 2, "batch_size": 10}
    zipped = worlds("linear").job("neggrad_plus", schedule="zipped", **told)
    job = worlds("linear").job("sfron", forget_every=3, **told)
    assert len(job.schedule) == len(zipped.schedule) > 6
    for step, (own, other) in enumerate(
        zip(job.schedule, zipped.schedule, strict=True)
    ):
        assert (own.forget is not None) == (step % 3 == 0)
        np.testing.assert_array_equal(ids_of(own.retain), ids_of(other.retain))
        if own.forget is not None:
            np.testing.assert_array_equal(ids_of(own.forget), ids_of(other.forget))


# auto and rum are other methods, which compile their own steps; fcs promises none
STEPWISE = tuple(
    n
    for n in SERVED
    if METHODS[n].kind != "one-shot" and n not in ("auto", "ct", "rum", "fcs")
)
SHARED = [
    *((name, {}) for name in STEPWISE),
    *(("gradient_ascent", {"weighting": name}) for name in READ),
    *(
        ("gradient_ascent", {"weighting": "falw", "estimator": name})
        for name in ("every", "streaming", "anchored")
    ),
    ("gradient_ascent", {"salient": True}),
]
BEFOREHAND = {
    "endpoint_transport": {"ranking": "el2n"},
    "reset_transport": {"lead": 0.5, "rate": 1.0, "shrink": 0.7, "sharpen": 1.5},
}


def test_other_values_of_what_is_read_beforehand_are_tried_here():
    declared = {n: {*card.beforehand} for n, card in METHODS.items() if card.beforehand}
    assert declared == {name: {*values} for name, values in BEFOREHAND.items()}


@pytest.mark.parametrize(
    ("method", "options"),
    SHARED,
    ids=["-".join([n, *map(str, o.values())]) for n, o in SHARED],
)
def test_a_shared_program_is_the_one_that_the_task_would_have_had(
    worlds, method, options
):
    world = worlds("mlp" if method in DEEP else "linear")
    rng = np.random.default_rng(0)
    both = rng.permutation(np.union1d(world.request.forget, world.request.retain))
    size = len(world.request.forget) - 3
    others = Request(np.sort(both[:size]), np.sort(both[size:]), world.request.unseen)
    moved = world.original._replace(
        params=jax.tree.map(lambda leaf: 1.1 * leaf, world.original.params)
    )
    fresh = Preparer(world.subject)
    theirs = world._replace(preparer=fresh, origin=world.origin._replace(seed=9))
    away = {"learning_rate": 0.7, "seed": 8, **BEFOREHAND.get(method, {})}
    if "length" not in (METHODS[method].step_reads or ()):
        away |= {"epochs": 2}
    shared = theirs.job(method, request=others, original=moved, **(options | away))
    own = world._replace(preparer=Preparer(world.subject)).job(method, **options)
    same = world._replace(preparer=fresh).job(method, **options)
    assert same.unlearner.step is shared.unlearner.step
    # equal trainings are one program in the whole process
    trains = method in ("partial_reset", "short_retrain", "retrain", "rewind")
    assert (own.unlearner.step is shared.unlearner.step) == trains
    at = own.start or (world.original.params, world.original.model_state)
    state, batch = own.unlearner.init(*at), own.schedule[0]
    texts = [
        jax.jit(job.unlearner.step).lower(state, batch, jax.random.key(0)).as_text()
        for job in (own, same)
    ]
    assert texts[0] == texts[1]


def test_salient_moves_the_weights_of_large_forget_gradients_only(worlds):
    world = worlds("mlp")
    inputs, labels = (part[world.request.forget] for part in world.dataset.train)

    def loss(params):
        state = world.original.model_state
        logits, _ = world.model.apply(params, state, inputs, train=False)
        return losses.cross_entropy(logits, labels).mean()

    sizes = np.abs(values_of([jax.jit(jax.grad(loss))(world.original.params)]))
    before = values_of(world.original)
    masked = world.execute(world.job("random_label", salient=True, keep=0.3))
    moved = values_of(masked) != before
    assert 0.2 < moved.mean() <= 0.31
    assert sizes[moved].min() >= sizes[~moved].max() * (1 - 1e-4)
    free = values_of(world.execute(world.job("random_label"))) != before
    assert free.sum() > 1.5 * moved.sum()


def test_scrub_with_rewind_keeps_the_epoch_that_errs_as_on_unseen_samples(worlds):
    world = worlds("mlp")
    options = {"epochs": 4, "forget_epochs": 4, "learning_rate": 0.03}
    job = world.job("scrub", rewind=True, **options)
    assert job.rewind.ends == (2, 4, 6, 8)  # a forget and a retain batch an epoch
    key = jax.random.key(0)
    found = world.execute(job)
    labels = world.dataset.train.labels

    def wrong(state, ids):
        logits = predict(
            world.model,
            state.params,
            state.model_state,
            world.dataset.train.inputs[ids],
        )
        return logits.argmax(axis=1) != labels[ids]

    forget, unseen = world.request.forget, world.request.unseen
    state = job.unlearner.init(world.original.params, world.original.model_state)
    states, errors = [], []
    for begin in (0, 2, 4, 6):
        part = [job.schedule[step] for step in (begin, begin + 1)]
        state = run(job.unlearner, state, part, key)
        states.append(state)
        errors.append(100 * wrong(state, forget).mean())
    missed = wrong(states[-1], unseen)
    counts = np.bincount(labels[forget], minlength=3)
    by_class = [missed[labels[unseen] == c].mean() for c in range(3)]
    goal = 100 * np.dot(counts, by_class) / counts.sum()
    best = methods.rewind(errors, goal)
    assert best < 3  # the last one would be kept without rewinding
    assert distance(found, states[best]) == 0
    last = world.execute(world.job("scrub", **options))
    assert distance(last, states[-1]) == 0
    assert distance(found, last) > 0


def test_scrub_with_rewind_needs_unseen_samples(worlds):
    world = worlds("mlp")
    alone = world.request._replace(unseen=world.request.unseen[:1])
    setting = Unlearning.of(method="scrub", rewind=True)
    with pytest.raises(InputError, match="method='scrub' .*there are 1"):
        check_unseen(world.dataset, alone, setting)
    check_unseen(world.dataset, alone, Unlearning.of(method="scrub"))


def test_amnesiac_subtracts_the_updates_of_batches_with_forget_samples(worlds):
    base = worlds("linear")
    training = Training(network="linear", epochs=2, batch_size=10)
    trainer = Trainer(subject_of(training, base.dataset), training)
    ids = np.union1d(base.request.forget, base.request.retain)
    job, _ = trainer.job(ids, seed=SEED)
    assert job.start is not None
    assert job.schedule is not None
    places = [jax.tree.map(np.asarray, job.start[0])]
    original = trainer(
        ids,
        seed=SEED,
        callback=lambda step, state, info: places.append(
            jax.tree.map(np.array, state.params)
        ),
    )
    forget = base.request.forget[:2]
    request = Request(forget, np.setdiff1d(ids, forget), base.request.unseen)
    touched = [
        step
        for step in range(job.steps)
        if np.isin(ids_of(job.schedule[step].retain), forget).any()
    ]
    assert 2 <= len(touched) <= 4  # of 20
    assert len(places) == 21
    expected = jax.tree.map(lambda p: np.asarray(p, np.float64), original.params)
    for step in touched:
        expected = jax.tree.map(
            lambda total, after, before: total - (np.float64(after) - before),
            expected,
            places[step + 1],
            places[step],
        )
    world = base._replace(origin=Origin(training, SEED), original=original)
    found = world.execute(world.job("amnesiac", request=request))
    scale = distance(found, original)
    assert scale > 0
    assert distance(found, [expected]) < 1e-4 * scale


def test_deltagrad_is_much_nearer_to_retraining_than_the_original(worlds):
    world = worlds("linear")
    trainer = Trainer(world.subject, world.origin.training)
    retrained = trainer(world.request.retain, seed=SEED)
    found = world.execute(world.job("deltagrad", burn_in=4, period=5))
    before = distance(world.original, retrained)
    assert before > 0.01
    assert distance(found, retrained) < 0.1 * before


def test_retrain_is_the_training_without_the_forget_samples(worlds):
    world = worlds("linear")
    preparer = Preparer(world.subject)
    for rate, rho in ((0.1, 1.0), (0.01, 1.0), (0.1, 0.5)):
        training = dataclasses.replace(world.origin.training, learning_rate=rate)
        origin = Origin(training, SEED)
        asked = world._replace(preparer=preparer, origin=origin)
        found = asked.execute(asked.job("retrain", rho=rho))
        ids = accessible(world.dataset, world.request, rho, 3).retain
        expected = Trainer(world.subject, training)(ids, seed=3)
        assert distance(found, expected) == 0
        assert not np.isin(ids, world.request.forget).any()


@pytest.mark.parametrize(
    "method",
    ["amnesiac", "deltagrad", "retrain", "short_retrain", "partial_reset", "rewind"],
)
def test_methods_that_go_through_the_training_need_its_record(worlds, method):
    unknown = worlds("linear")._replace(origin=None)
    with pytest.raises(InputError, match=f"'{method}' goes through .* no record"):
        unknown.job(method)


@pytest.mark.parametrize("method", ["amnesiac", "deltagrad"])
def test_a_training_that_ends_elsewhere_is_no_path_to_the_original(worlds, method):
    world = worlds("linear")
    params = jax.tree.map(lambda leaf: 1.01 * leaf, world.original.params)
    with pytest.raises(InputError, match="gone through again, ends .*train it anew"):
        world.job(method, original=world.original._replace(params=params))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"network": "mlp"}, "not --network mlp"),
        ({"momentum": 0.9}, "--momentum 0.9"),
        ({"batch_size": 32}, "--batch-size 100 .*not .*--batch-size 32"),
        ({"augment": "flip"}, "--augment none, not .*--augment flip"),
    ],
)
def test_deltagrad_needs_full_batches_of_a_linear_network(worlds, changes, words):
    world = worlds("linear")
    training = dataclasses.replace(world.origin.training, **changes)
    with pytest.raises(InputError, match=words):
        world._replace(origin=Origin(training, SEED)).job("deltagrad")


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_noise_of_unsir_stands_where_the_forget_samples_stood(worlds, dtype):
    world = worlds("linear")
    images, labels = world.dataset.train
    if dtype == np.float32:
        floats = Examples(images.astype(np.float32) / 255, labels)
        subject = world.subject._replace(
            dataset=world.dataset._replace(train=floats), examples=floats
        )
        world = world._replace(subject=subject, preparer=Preparer(subject))
    job = world.job("unsir", impair_epochs=2, epochs=3)
    batches = list(job.schedule)
    assert [batch.forget is not None for batch in batches] == [True] * 2 + [False] * 3
    noise = batches[0].forget
    assert noise.inputs.dtype == dtype
    assert noise.index.min() >= len(labels)  # no sample of the training set
    size = len(world.request.forget)
    assert noise.mask.sum() == size
    drawn = noise.labels[noise.mask]
    forgotten = labels[world.request.forget]
    np.testing.assert_array_equal(np.sort(drawn), np.sort(forgotten))
    top = 255 if dtype == np.uint8 else 1
    assert noise.inputs.max() <= top
    assert noise.inputs.max() > top / 2
    assert noise.inputs.std() > top / 10

    def loss(inputs, truth):
        at = world.original.params, world.original.model_state
        logits = jax.numpy.asarray(predict(world.model, *at, inputs))
        return float(losses.cross_entropy(logits, truth).mean())

    real = world.dataset.train.inputs[world.request.forget]
    assert loss(noise.inputs[noise.mask], drawn) > loss(real, forgotten) + 1
    for batch in batches:
        kept = np.sort(ids_of(batch.retain))
        np.testing.assert_array_equal(kept, world.request.retain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "sfron", "forget_every": 0}, "forget_every=0 must be at least 1"),
        ({"method": "scrub", "forget_epochs": 0}, "forget_epochs=0 must be at least 1"),
        ({"method": "unsir", "impair_epochs": 0}, "impair_epochs=0 must be at least 1"),
        ({"method": "unsir", "noise_steps": 0}, "noise_steps=0 must be at least 1"),
        ({"method": "influence", "samples": 0}, "samples=0 must be at least 1"),
        ({"method": "deltagrad", "period": 0}, "period=0 must be at least 1"),
        ({"method": "deltagrad", "history": 0}, "history=0 must be at least 1"),
        ({"method": "deltagrad", "burn_in": 1}, "burn_in=1 must be at least 2"),
        (
            {"method": "influence", "form": "exakt"},
            "unknown form 'exakt'; did you mean 'exact'",
        ),
        ({"method": "boundary_shrink", "bound": 0.0}, "bound=0.0 must be positive"),
        ({"method": "sfron", "ascent_clip": -1.0}, "ascent_clip=-1.0 must be positive"),
        ({"method": "ssd", "selection": 0.0}, "selection=0.0 must be positive"),
        (
            {"method": "ssd", "dampening": float("nan")},
            "dampening=nan must be positive",
        ),
        ({"method": "sfron", "peak": -1.0}, "peak=-1.0 must not be negative"),
        (
            {"method": "scrub", "distill_share": -1.0},
            "distill_share=-1.0 must not be negative",
        ),
        (
            {"method": "scrub", "task_share": float("inf")},
            "task_share=inf must not be negative",
        ),
        (
            {"method": "fisher_forgetting", "noise": -1e-6},
            "noise=-1e-06 must not be negative",
        ),
        (
            {"method": "influence", "strength": float("nan")},
            "strength=nan must not be negative",
        ),
        (
            {"method": "scrub", "teacher_temperature": 0.0},
            "teacher_temperature=0.0 must be positive",
        ),
        ({"method": "ssd", "salient": True}, "salient=True: ssd takes no steps"),
        ({"method": "retrain", "salient": True}, "salient=True: retrain takes no"),
        ({"method": "unsir", "weighting": "falw"}, "weighting='falw': unsir has no"),
        ({"method": "influence", "weighting": "el2n"}, "influence has no loss"),
        (
            {"method": "scrub", "schedule": "zipped", "harmonizer": "one_way"},
            "harmonizer='one_way' needs",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_settings_of_the_new_methods_that_make_no_sense_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        Unlearning.of(**options)


def test_the_weighting_that_a_method_comes_with():
    found = {name: Unlearning.of(method=name).weighting for name in SERVED}
    assert found.pop("sfron") == "sfron"
    assert set(found.values()) == {"uniform"}
    assert Unlearning.of(method="sfron", weighting="uniform").weighting == "uniform"
    resolved = Unlearning.of(method="sfron")
    assert Unlearning.of(**resolved.flat()) == resolved
    assert Unlearning.read(resolved.record()) == resolved


def test_salun_soft_falls_as_published_or_stays(worlds):
    world = worlds("linear")
    usual = {"learning_rate": 0.05, "epochs": 3}
    jobs = [world.job("salun_soft", **usual, **o) for o in ({}, {"threshold": 1e-4})]
    falling, fixed = (
        job.unlearner.init(world.original.params, world.original.model_state)
        for job in jobs
    )
    held = np.asarray(falling.opt_state.held)
    size, steps = int(falling.opt_state.epoch_steps), len(jobs[0].schedule)
    weights = sum(leaf.size for leaf in jax.tree.leaves(world.original.params))
    assert size * 3 == steps
    done = np.arange(3) * size + 1
    assert held.tolist() == [int(0.5 * ((steps - d) / steps * weights)) for d in done]
    assert not hasattr(fixed.opt_state, "held")
    assert distance(world.execute(jobs[0]), world.execute(jobs[1])) > 1e-4
    told = Unlearning.of(method="salun_soft", held=0.3)
    assert Unlearning.read(told.record()) == told


@pytest.mark.parametrize("method", ["random_label", "salun", "salun_soft"])
def test_labels_are_drawn_once_or_at_every_step(worlds, method):
    world = worlds("linear")
    at = world.original.params, world.original.model_state
    jobs = [world.job(method, **o) for o in ({}, {"redraw": True, "any_label": True})]
    fixed, drawn = (job.unlearner.init(*at).objective_state[0] for job in jobs)
    assert jax.tree.leaves(fixed)  # the key of the labels
    assert not jax.tree.leaves(drawn)
    assert jobs[0].unlearner.step is not jobs[1].unlearner.step
    assert distance(world.execute(jobs[0]), world.execute(jobs[1])) > 1e-4
    with pytest.raises(InputError, match="leave redraw and any_label out"):
        Unlearning.of(modality="diffusion", method=method, redraw=True)
