"""Every method against its published update, written from its description in float64.

What a card's job does to a network with BatchNorm, by SGD with momentum and decay, is
walked beside float64 numpy over the same batches; the difference is relative to how far
the parameters moved. `WHERE` names the test of every card.
"""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published import (
    CLASSES,
    FALWS,
    FORGET,
    KEY,
    MERGED,
    ORIGINAL,
    REQUEST,
    RETAIN,
    SALUNS,
    SEED,
    UNSEEN,
    WIDTH,
    Adam,
    At,
    Sgd,
    add,
    cross,
    drawn,
    flat,
    follows,
    forward,
    job_of,
    labels_drawn,
    mean_gradient,
    one,
    onehot,
    relabelled,
    rows_of,
    subject,
    true,
    two,
    union,
    walk,
    wide,
)
from toys import softmax64

import jax_unlearn as ju

HERE = "methods/test_published.py::"
WEIGHTS = "methods/test_published_weights.py::"
TRAIN = "methods/test_published_training.py::"
ONCE = "methods/test_published_oneshot.py::"
WALKED = "methods/test_published_language.py::test_"
WHERE = {  # of each card, its test; tests elsewhere are as independent
    "finetune": HERE + "test_finetune",
    "gradient_ascent": HERE + "test_gradient_ascent",
    "random_label": HERE + "test_random_labels_as_in_the_code_of_salun",
    "salun": HERE + "test_salun",
    "salun_soft": r"test_masks.py::test_(falling_threshold|soft_threshold_equals)\w*",
    "neggrad_plus": HERE + "test_neggrad_plus",
    "l1_sparse": HERE + "test_l1_sparse",
    "endpoint_transport": HERE + "test_endpoint_transport",
    "ltu": "methods/test_ltu.py::test_steps_with_momentum_and_decay_in_float64",
    "boundary_shrink": HERE + "test_boundary_shrink",
    "boundary_expand": HERE + "test_boundary_expand",
    "sfron": WEIGHTS + "test_sfron",
    "scrub": HERE + "test_scrub",
    "bad_teacher": HERE + "test_bad_teacher",
    "amnesiac_relabel": HERE + "test_random_labels_as_in_falw_and_amnesiac",
    "unsir": HERE + "test_unsir",
    "esd": "objectives/test_diffusion_objectives.py::"
    "test_steps_of_salun_with_a_retain_weight_of_sums_and_of_esd_in_float64",
    "partial_reset": TRAIN + "test_partial_reset",
    "reset_transport": TRAIN + "test_reset_transport",
    "auto": "methods/test_auto.py::test_it_starts_as_partial_reset_does_in_float64",
    "short_retrain": TRAIN + "test_retraining",
    "retrain": TRAIN + "test_retraining",
    "ct": TRAIN + "test_ct",
    "msg": TRAIN + "test_msg",
    "delete": HERE + "test_delete",
    "regun": HERE + "test_regun",
    "amun": "methods/test_adversarial.py::test_steps_in_float64",
    "rewind": "lab/test_rewinds.py::test_every_step_is_the_published_one_in_float64",
    "fcs": "methods/test_contrastive.py::test_steps_in_float64",
    "rum": "methods/test_rum.py::test_it_is_its_methods_one_after_the_other",
    "siss": "methods/test_siss.py::test_steps_are_those_of_the_paper",
    "lotus": "methods/test_lotus.py::test_steps_in_float64",
    "influence": "oneshot/test_oneshot_influence.py::"
    "test_influence_takes_the_step_of_the_dense_algebra",
    "ssd": ONCE + "test_ssd",
    "fisher_forgetting": ONCE + "test_fisher_forgetting",
    "amnesiac": ONCE + "test_amnesiac",
    "deltagrad": ONCE + "test_deltagrad",
    "uniform": HERE + "test_gradient_ascent",
    "loreun": WEIGHTS + "test_weightings",
    "loreun_static": WEIGHTS + "test_weightings",
    "falw": WEIGHTS + "test_falw",
    "weights.sfron": WEIGHTS + "test_weightings",
    "el2n": WEIGHTS + "test_weightings",
    "margin": WEIGHTS + "test_weightings",
    "pdu": WALKED + "steps_of_pdu_raise_the_price_as_described",
    "task_vector": WALKED + "the_task_vector_goes_back_by_what_steps_have_learned",
}
TEXTS = "objectives/test_language_objectives.py::"
LANGUAGE = "grad_diff", "kl_min", "idk_nll", "dpo", "idk_dpo", "altpo", "npo", "simnpo"
LANGUAGE += "wga", "satimp", "ceu", "undial", "max_entropy", "rmu"
WHERE |= dict.fromkeys(
    LANGUAGE, TEXTS + "test_each_objective_is_what_its_description_says"
)
WHERE |= dict.fromkeys(
    ("grad_diff", "npo", "simnpo", "wga", "idk_dpo", "ceu", "undial", "rmu"),
    WALKED + "steps_of_a_method_are_those_of_its_description",
)
WHERE |= dict.fromkeys(
    ("npo_weights", "simnpo_weights", "wga_weights", "by_length"),
    TEXTS + "test_npo_simnpo_and_wga_are_weighted_ascents",
)
WHERE["loreun_tokens"] = TEXTS + "test_token_weights_have_mean_one_within_each_text"


def place_of(card):
    """Return the file of a card's test, and its name as a pattern."""
    own = f"methods/test_{card}.py::test_\\w*_in_float64"
    told = WHERE.get(card, own)
    file, name = told.split("::")
    return Path(__file__).parents[1] / file, name


def test_every_card_has_a_test_of_its_published_update():
    cards = [card.name for card in ju.methods.CARDS + ju.oneshot.CARDS]
    names = {card.name for card in ju.weights.CARDS}
    cards += [f"weights.{name}" if name in cards else name for name in names]
    missing = []
    for card in cards:
        file, name = place_of(card)
        text = file.read_text("utf-8") if file.is_file() else ""
        if not re.search(rf"def {name}\(", text):
            missing.append(card)
    remedy = "write their published updates in float64, and name the tests in WHERE"
    assert not missing, f"{remedy}: {missing}"


# --- along the labels ---------------------------------------------------------------


def test_finetune():
    walk(job_of("finetune"), one("retain", true))


def test_gradient_ascent():
    walk(job_of("gradient_ascent"), one("forget", true, sign=-1.0))


def test_l1_sparse():
    job = job_of("l1_sparse", penalty=0.01)
    steps = len(job.schedule)

    def penalty(t, at):
        return 0.01 * (1 - t / steps), jax.tree.map(np.sign, at.params)

    walk(job, one("retain", true, extra=penalty))


def test_neggrad_plus():
    job = job_of("neggrad_plus", alpha=0.7, schedule="zipped")
    walk(job, two(true, join=lambda f, r: add((-0.3, f), (0.7, r))))


def test_random_labels_as_in_the_code_of_salun():
    job = job_of("random_label", redraw=True, any_label=True, schedule="sequential")
    parts = ["r" if b.forget is None else "f" for b in job.schedule]
    assert "".join(parts) == "ffrrrr" * 2  # all of one, then all of the other
    labels = [labels_drawn(rows_of(FORGET), t, **SALUNS) for t in range(2)]
    assert np.any(labels[0] != labels[1])
    assert np.any(labels[0] == rows_of(FORGET).labels)
    walk(job, two(relabelled(**SALUNS)))


def test_random_labels_as_in_falw_and_amnesiac():
    labels = [labels_drawn(rows_of(FORGET), t, **FALWS) for t in range(2)]
    np.testing.assert_array_equal(*labels)
    assert np.all(labels[0] != rows_of(FORGET).labels)
    for method in ("random_label", "amnesiac_relabel"):
        walk(job_of(method, **MERGED), union(relabelled(**FALWS)))


class Masked(Sgd):
    """SGD that leaves unmarked weights where they are."""

    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def __call__(self, params, grads):
        def kept(mask, new, old):
            return np.where(mask, new, old)

        grads = jax.tree.map(np.multiply, self.mask, grads)
        return jax.tree.map(kept, self.mask, super().__call__(params, grads), params)


def test_salun():
    """The mask is of the largest |∇| of the forget set, and nothing else moves."""
    forget = rows_of(FORGET)
    grads, _ = mean_gradient(ORIGINAL, forget, cross(forget.labels), train=False)
    sizes = np.sort(np.abs(flat(grads)))[::-1]
    least = sizes[len(sizes) // 3 - 1]  # a whole number of weights
    mask = jax.tree.map(lambda leaf: np.abs(leaf) >= least, grads)
    job = job_of("salun", keep=1 / 3, **MERGED)
    end = walk(job, union(relabelled(**FALWS), optimizer=Masked(mask)))
    still = flat(add((1, end.params), (-1, ORIGINAL.params)))[~flat(mask)]
    assert not still.any()


# --- after teachers -----------------------------------------------------------------


def teacher(t, at, samples):
    return follows(forward(ORIGINAL, samples.inputs, train=False).logits)


def test_scrub():
    """Max epochs: −T²·KL on D_f; min epochs: γ·CE + α·T²·KL on D_r."""

    def away(t, at, samples):
        logits = forward(ORIGINAL, samples.inputs, train=False).logits
        return lambda own: -follows(logits, 4.0)(own)

    def stay(t, at, samples):
        logits = forward(ORIGINAL, samples.inputs, train=False).logits
        pulls = follows(logits, 4.0), cross(samples.labels)
        return lambda own: 0.2 * pulls[0](own) + 0.9 * pulls[1](own)

    told = {"distill_share": 0.2, "task_share": 0.9, "forget_epochs": 2}
    job = job_of("scrub", epochs=3, **told)
    parts = ["r" if b.forget is None else "f" for b in job.schedule]
    assert "".join(parts) == "ffrrrr" * 2 + "rrrr"
    walk(job, two(away, stay))


def test_bad_teacher():
    """One pass over both; Adam; the public code also divides by K."""
    incompetent = At.of(
        jax.jit(subject().model.init)(
            jax.random.fold_in(jax.random.key(SEED), 1), subject().examples.inputs[:2]
        )
    )

    def after(who):
        def towards(t, at, samples):
            error = follows(forward(who, samples.inputs, train=False).logits)
            return lambda own: error(own) / CLASSES

        return towards

    adam = {"optimizer": "adam", "weight_decay": 0.0, "learning_rate": 0.01}
    update = union(after(incompetent), after(ORIGINAL), optimizer=Adam(0.01, 0.0))
    walk(job_of("bad_teacher", **adam, **MERGED), update, tolerance=2e-4)


def test_delete():
    def others(t, at, samples):
        logits = forward(ORIGINAL, samples.inputs, train=False).logits
        probs = softmax64(logits) * (1 - onehot(samples.labels))
        return cross(probs / probs.sum(1, keepdims=True))

    walk(job_of("delete"), one("forget", others))


def unseen():
    """Return what the original says of unseen samples, and their labels."""
    batch = rows_of(UNSEEN)
    logits = forward(ORIGINAL, batch.inputs, train=False).logits
    return softmax64(logits), batch.labels


def test_regun():
    q, y = unseen()

    def matched(t, at, samples):
        row = np.mean([q[y == c].mean(0) for c in samples.labels], axis=0)
        return cross(np.broadcast_to(row, (len(samples.labels), CLASSES)))

    job = job_of("regun", retain_share=0.5)
    walk(job, two(matched, join=lambda f, r: add((1, f), (0.5, r))))


def test_endpoint_transport():
    """Of the forget samples of a class the i-th least sure gets the i-th of F/U."""
    q, y = unseen()
    forget = rows_of(FORGET)
    probs = softmax64(forward(ORIGINAL, forget.inputs, train=False).logits)
    table = np.zeros((len(FORGET), CLASSES))
    for c in range(CLASSES):
        mine = np.flatnonzero(forget.labels == c)
        order = sorted(mine, key=lambda i: probs[i, c])
        there = sorted(np.flatnonzero(y == c), key=lambda u: q[u, c])
        for place, i in enumerate(order):
            table[i] = q[there[int((place + 0.5) * len(there) / len(order))]]

    def sent(t, at, samples):
        return cross(table[samples.index])

    walk(job_of("endpoint_transport", **MERGED), union(sent))


# --- boundaries and noise -----------------------------------------------------------


def test_boundary_shrink():
    """Labels: the likeliest other class a step of 0.1 up the loss, by signs."""
    forget = rows_of(FORGET)
    run = forward(ORIGINAL, forget.inputs, train=False)
    slope = run.pull(cross(forget.labels)(run.logits))[1]
    near = run.rows + 0.1 * np.sign(slope)
    logits = forward(ORIGINAL, near, train=False).logits
    wrong = np.where(onehot(forget.labels), -np.inf, logits).argmax(1)

    def towards(t, at, samples):
        return cross(wrong[samples.index])

    walk(job_of("boundary_shrink"), one("forget", towards))


def test_boundary_expand():
    """A neuron more, towards which the forget samples go; it is dropped after."""
    job = job_of("boundary_expand")
    start = wide(job.unlearner.init(*drawn(0)).objective_state.neuron)
    assert np.abs(flat(start)).max() <= WIDTH**-0.5
    neuron, own, head = start, Sgd(), Sgd()

    def update(t, at, batch):
        nonlocal neuron
        samples = batch.forget
        run = forward(at, samples.inputs)
        extra = run.hidden @ neuron["kernel"] + neuron["bias"]
        probs = softmax64(np.concatenate([run.logits, extra[:, None]], axis=1))
        error = (probs - np.eye(CLASSES + 1)[-1]) / len(extra)
        last = error[:, -1]
        back = np.outer(last, neuron["kernel"])
        grads, _ = run.pull(error[:, :-1], hidden_error=back)
        mine = {"kernel": run.hidden.T @ last, "bias": last.sum()}
        neuron = head(neuron, mine)
        return At(own(at.params, grads), run.state)

    walk(job, update)


@pytest.mark.parametrize("union_of_both", [False, True])
def test_unsir(union_of_both):
    """Noise up the loss by Adam; the noise learned as the class; then repair."""
    request = REQUEST._replace(retain=RETAIN[:30])  # parts of 4 and 6, no padding
    job = job_of("unsir", noise_steps=5, union=union_of_both, request=request)
    parts = ["r" if b.forget is None else "n" for b in job.schedule]
    sgd = Sgd()
    impair, repair = (
        (union(true, optimizer=sgd), one("retain", true, optimizer=sgd))
        if union_of_both
        else (two(true, optimizer=sgd),) * 2
    )
    count = parts.count("n")
    assert parts == ["n"] * count + ["r"] * (len(parts) - count)

    def update(t, at, batch):
        return (impair if t < count else repair)(t, at, batch)

    walk(job, update)


def noise64(start, labels, *, steps, penalty, rate=0.1):
    """Return the noise of the public code: −CE + 0.1·Σz² of each, by Adam."""
    adam, noise = Adam(rate, 0.0), {"z": start}
    for _ in range(steps):
        run = forward(ORIGINAL, noise["z"], train=False)
        slope = run.pull(-cross(labels)(run.logits))[1]
        noise = adam(noise, {"z": slope + 2 * penalty * noise["z"]})
    return noise["z"]


def test_the_noise_of_unsir():
    from jax_unlearn.methods import unsir_noise

    labels = rows_of(FORGET).labels
    shape = subject().examples.inputs.shape[1:]
    told = {"shape": shape, "low": None, "high": None, "penalty": 0.9}
    args = subject().model, *drawn(0), jnp.asarray(labels), KEY
    first = unsir_noise(*args, steps=1, learning_rate=1e-9, **told)
    start = np.asarray(first, np.float64).reshape(len(labels), 9)
    found = unsir_noise(*args, steps=15, **told)
    expected = noise64(start, labels, steps=15, penalty=0.1)  # 0.9 is 0.1 a pixel
    found = np.asarray(found, np.float64).reshape(expected.shape)
    distance = np.linalg.norm(found - expected) / np.linalg.norm(expected - start)
    assert distance < 1e-4
