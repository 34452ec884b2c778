"""Objectives of language models: equations, masks, reductions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

import jax_unlearn as ju
from jax_unlearn import objectives
from jax_unlearn.language import Scored, Text, answered, scored

V, T = 7, 6
KEY = jax.random.key(0)


def toy(key=KEY, width=5):
    """A model of one hidden layer over the token before and the position."""

    def init(key, text):
        del text
        first, second = jax.random.split(key)
        shape = (V + 1, width)
        return {
            "embed": jax.random.normal(first, shape, jnp.float32),
            "head": jax.random.normal(second, (width, V), jnp.float32),
        }, {}

    def apply(params, state, text, *, train, key=None):
        del train, key
        hidden = jnp.tanh(params["embed"][text.tokens])
        return hidden @ params["head"], state

    return ju.Model(init, apply)


def texts(lengths=((2, 3), (1, 4), (3, 1)), seed=0, width=T):
    """Right-padded texts of (prompt, answer) lengths."""
    draws = np.random.default_rng(seed)
    shape = (len(lengths), width)
    tokens = draws.integers(0, V, shape).astype(np.int32)
    targets, real = np.zeros(shape, bool), np.zeros(shape, bool)
    for row, (prompt, answer) in enumerate(lengths):
        targets[row, prompt : prompt + answer] = True
        real[row, : prompt + answer] = True
    return Text(jnp.array(tokens), jnp.array(targets), None, jnp.array(real))


MODEL = toy()
TEXT = texts()
PARAMS = MODEL.init(KEY, TEXT)[0]
BATCH = ju.Batch(TEXT, jnp.arange(3, dtype=jnp.int32), jnp.array([4, 0, 2]))


def by_hand(params, text):
    """Return ℓ_t of each text's answer as lists, in float64 numpy."""
    table, head = (np.asarray(params[k], np.float64) for k in ("embed", "head"))
    rows = []
    for row, targets in zip(text.tokens, text.targets, strict=True):
        logits = np.tanh(table[np.asarray(row)]) @ head
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
        at = np.flatnonzero(np.asarray(targets))
        rows.append(-logits[at - 1, np.asarray(row)[at]])
    return rows


def test_texts_are_scored_as_by_hand_and_padding_is_not():
    outputs, _ = MODEL.apply(PARAMS, {}, TEXT, train=True)
    found = scored(outputs, TEXT)
    for row, wanted in enumerate(by_hand(PARAMS, TEXT)):
        own = np.asarray(found.nll[row])[np.asarray(found.counted[row])]
        np.testing.assert_allclose(own, wanted, rtol=1e-5)
    assert not np.asarray(found.nll)[~np.asarray(found.counted)].any()
    assert found.counted.tolist() == TEXT.targets[:, 1:].tolist()


def test_first_tokens_of_packed_texts_are_not_answered():
    packed = Text(
        jnp.zeros((1, 6), jnp.int32),
        jnp.ones((1, 6), jnp.bool_),
        jnp.array([[1, 1, 2, 2, 2, 0]]),
    )
    assert answered(packed).tolist() == [[True, False, True, True, False]]


def test_scores_pass_through_and_other_outputs_are_refused():
    own = Scored(jnp.ones((3, T - 1)), answered(TEXT))
    assert scored(own, TEXT) is own
    with pytest.raises(ju.InputError, match="logits"):
        scored(jnp.zeros((3, V)), TEXT)
    with pytest.raises(ju.InputError, match=r"\[B, T − 1\]"):
        scored(own, texts(width=T + 1))
    plain = BATCH._replace(inputs=TEXT.tokens)
    with pytest.raises(ju.InputError, match=r"ju\.language\.Text"):
        objectives.next_token(MODEL)(PARAMS, {}, plain, KEY)


@pytest.mark.parametrize("reduction", ["sequence", "sum", "token"])
def test_next_token_and_its_ascent_reduce_as_said(reduction):
    rows = by_hand(PARAMS, TEXT)
    number = np.array(list(map(len, rows)))
    total = np.array([row.sum() for row in rows])
    scale = {"sequence": 1 / number, "sum": 1.0, "token": 3 / number.sum()}[reduction]
    down = objectives.next_token(MODEL, reduction=reduction)
    losses, aux = down(PARAMS, {}, BATCH, KEY)
    np.testing.assert_allclose(losses, total * scale, rtol=1e-5)
    np.testing.assert_allclose(aux.task_losses, total / number, rtol=1e-5)
    up, aux = objectives.next_token_ascent(MODEL, reduction=reduction)(
        PARAMS, {}, BATCH, KEY
    )
    np.testing.assert_allclose(up, -losses)
    np.testing.assert_allclose(aux.task_losses, total / number, rtol=1e-5)


HIDDEN = MODEL._replace(
    apply=lambda params, state, text, *, train, key=None: (
        jnp.tanh(params["embed"][text.tokens]),
        state,
    )
)
BEFORE = MODEL.init(jax.random.key(1), TEXT)[0]
TEACHER = objectives.Teacher(BEFORE, {})
REFERENCE = np.zeros(5, np.float32)
OTHER = texts(((1, 2), (2, 2), (1, 4), (2, 1), (1, 3)), seed=5, width=T + 2)
OTHER_REFERENCE = np.array([row.sum() for row in by_hand(BEFORE, OTHER)], np.float32)
REFERENCE[[4, 0, 2]] = [row.sum() for row in by_hand(BEFORE, TEXT)]
STEER = jax.random.key(9)


def rows_of(params, text):
    """Return (logits, hidden, tokens) of the answered positions of each text."""
    table, head = (np.asarray(params[k], np.float64) for k in ("embed", "head"))
    for row, targets in zip(text.tokens, text.targets, strict=True):
        at = np.flatnonzero(np.asarray(targets))
        hidden = np.tanh(table[np.asarray(row)[at - 1]])
        yield hidden @ head, hidden, np.asarray(row)[at]


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def log_sigmoid(x):
    return -np.log1p(np.exp(-x))


def sums(params, text):
    return np.array([row.sum() for row in by_hand(params, text)])


def means(params, text):
    return np.array([row.mean() for row in by_hand(params, text)])


def by_token(of, teacher=BEFORE):
    """Return a description of a mean over tokens: `of(z, h, y, z_o, h_o)`."""

    def described(params):
        pairs = zip(rows_of(params, TEXT), rows_of(teacher, TEXT), strict=True)
        found = [of(*now, *before[:2]) for now, before in pairs]
        return np.array([row.mean() if len(row) else 0.0 for row in found])

    return described


def undialled(z, h, y, z_o, h_o):
    target = softmax(z_o - 10 * np.eye(V)[y])
    return -(target * np.log(softmax(z))).sum(-1)


def without_truth(z, h, y, z_o, h_o):
    p = softmax(z)
    target = p * (1 - np.eye(V)[y])
    target /= target.sum(-1, keepdims=True)
    return -(target * np.log(p)).sum(-1)[1:]


def divergence(z, h, y, z_o, h_o):
    p = softmax(z_o)
    return (p * (np.log(p) - np.log(softmax(z)))).sum(-1)


def steered(z, h, y, z_o, h_o):
    u = np.asarray(jax.random.uniform(STEER, (h.shape[-1],)), np.float64)
    return ((h - 2 * u / np.linalg.norm(u)) ** 2).mean(-1)


def weighted(power, importance=0.0):
    """Return −Σ p^β₁(1−p)^β₂ ℓ/Σn, over the batch's tokens, for each text."""

    def described(params):
        rows = by_hand(params, TEXT)
        total = [
            (np.exp(-power * r) * (1 - np.exp(-r)) ** importance * r).sum()
            for r in rows
        ]
        return -np.array(total) * 3 / sum(map(len, rows))

    return described


IDS = BATCH.index.tolist()
PART = jax.tree.map(lambda leaf: leaf[jnp.array(IDS)], OTHER)
ASCENT, WGA = objectives.next_token_ascent, ju.weights.wga(beta=1.0)
EACH = {
    "npo": (
        objectives.npo(MODEL, REFERENCE),
        lambda p: -20 * log_sigmoid(0.1 * (sums(p, TEXT) - sums(BEFORE, TEXT))),
    ),
    "npo by teacher": (
        objectives.npo(MODEL, TEACHER),
        lambda p: -20 * log_sigmoid(0.1 * (sums(p, TEXT) - sums(BEFORE, TEXT))),
    ),
    "simnpo": (
        objectives.simnpo(MODEL, delta=0.5),
        lambda p: -2 / 4.5 * log_sigmoid(4.5 * (means(p, TEXT) - 0.5)),
    ),
    "alternative": (
        objectives.alternative(MODEL, OTHER),
        lambda p: means(p, PART),
    ),
    "dpo": (
        objectives.dpo(MODEL, REFERENCE, OTHER, alternative_reference=OTHER_REFERENCE),
        lambda p: (
            -20
            * log_sigmoid(
                0.1
                * (
                    (sums(p, TEXT) - sums(BEFORE, TEXT))
                    - (sums(p, PART) - sums(BEFORE, PART))
                )
            )
        ),
    ),
    "kl_to_teacher": (
        objectives.kl_to_teacher(MODEL, TEACHER),
        by_token(divergence),
    ),
    "undial": (objectives.undial(MODEL, TEACHER), by_token(undialled)),
    "ceu": (objectives.ceu(MODEL), by_token(without_truth)),
    "max_entropy": (
        objectives.max_entropy(MODEL),
        by_token(lambda z, *_: -np.log(V) - np.log(softmax(z)).mean(-1)),
    ),
    "pdu_forget": (
        objectives.pdu_forget(MODEL),
        by_token(lambda z, *_: (z.max(-1) - z.mean(-1)) ** 2),
    ),
    "rmu": (objectives.rmu(MODEL, HIDDEN, key=STEER), by_token(steered)),
    "hold_hidden": (
        objectives.hold_hidden(MODEL, HIDDEN, TEACHER),
        by_token(lambda z, h, y, z_o, h_o: ((h - h_o) ** 2).mean(-1)),
    ),
    "wga": (ASCENT(MODEL, reduction="token", token_weight=WGA), weighted(1.0)),
    "satimp": (
        ASCENT(MODEL, reduction="token", token_weight=ju.weights.satimp()),
        weighted(5.0, 1.0),
    ),
}
DETACHED = ("ceu", "wga", "satimp")  # their targets or weights are not differentiated


@functools.cache
def every():
    """Return (loss, aux, what the batch's losses change of each logit) by name."""

    @jax.jit
    def found(params):
        return {name: each(params, {}, BATCH, KEY) for name, (each, _) in EACH.items()}

    return found(PARAMS)


@pytest.mark.parametrize("name", EACH)
def test_each_objective_is_what_its_description_says(name):
    losses, aux = every()[name]
    np.testing.assert_allclose(losses, EACH[name][1](PARAMS), rtol=3e-5, atol=1e-5)
    np.testing.assert_allclose(aux.task_losses, means(PARAMS, TEXT), rtol=1e-5)
    np.testing.assert_allclose(aux.outputs.nll.sum(1), sums(PARAMS, TEXT), rtol=1e-5)


def test_gradients_are_those_of_the_losses():
    @jax.jit
    def losses(params):
        made = (each for name, (each, _) in EACH.items() if name not in DETACHED)
        return jnp.stack([each(params, {}, BATCH, KEY)[0].mean() for each in made])

    check_grads(losses, (PARAMS,), order=1, modes=("rev",), rtol=2e-2, atol=2e-2)


def shifted(model):
    """Return the model whose first output is moved at each position of three texts."""

    def apply(params, state, text, *, train, key=None):
        own, shift = params["own"], params["shift"]
        outputs, state = model.apply(own, state, text, train=train, key=key)
        # one entry alone: softmax would not feel all of them
        return outputs.at[..., 0].add(shift), state

    return ju.Model(model.init, apply)


def test_prompt_and_padding_have_no_gradient():
    moved, hidden, still = shifted(MODEL), shifted(HIDDEN), jnp.zeros((3, T))
    teacher = objectives.Teacher({"own": BEFORE, "shift": still}, {})
    same = jax.tree.map(lambda leaf: leaf[jnp.array([0, 0, 1, 0, 2])], TEXT)
    made = {
        "npo": objectives.npo(moved, REFERENCE),
        "npo by teacher": objectives.npo(moved, teacher),
        "simnpo": objectives.simnpo(moved),
        "alternative": objectives.alternative(moved, same),
        # answers of the same positions, other tokens
        "dpo": objectives.dpo(moved, teacher, same._replace(tokens=6 - same.tokens)),
        "kl_to_teacher": objectives.kl_to_teacher(moved, teacher),
        "undial": objectives.undial(moved, teacher),
        "ceu": objectives.ceu(moved, skip=0),
        "max_entropy": objectives.max_entropy(moved),
        "pdu_forget": objectives.pdu_forget(moved),
        "rmu": objectives.rmu(moved, hidden),
        "hold_hidden": objectives.hold_hidden(moved, hidden, teacher),
        "wga": ASCENT(moved, token_weight=WGA),
        "satimp": ASCENT(moved, token_weight=ju.weights.satimp()),
    }
    assert made.keys() == EACH.keys()
    batch = BATCH._replace(index=jnp.array([0, 2, 4]))  # the rows of TEXT in `same`

    @jax.jit
    @jax.jacrev
    def felt(shift):
        params = {"own": PARAMS, "shift": shift}
        found = (each(params, {}, batch, KEY)[0].sum() for each in made.values())
        return jnp.stack(list(found))

    wanted = np.zeros((3, T), bool)
    wanted[:, :-1] = answered(TEXT)
    for name, slope in zip(made, np.asarray(felt(still)), strict=True):
        assert not slope[~wanted].any(), name
        assert (slope[wanted] != 0).mean() > 0.5, name


def test_a_batch_of_unequal_lengths_is_its_texts_one_by_one():
    names = [name for name in EACH if name not in ("wga", "satimp")]

    @jax.jit
    def losses(batch):
        return [EACH[name][0](PARAMS, {}, batch, KEY)[0] for name in names]

    for row in (0, 1):
        one = jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], BATCH)
        length = int(one.inputs.real.sum())
        text = jax.tree.map(lambda leaf, n=length: leaf[:, :n], one.inputs)
        alone = losses(one._replace(inputs=text))
        for name, found in zip(names, alone, strict=True):
            np.testing.assert_allclose(found[0], every()[name][0][row], rtol=1e-5)


def test_packed_rows_have_the_losses_of_their_texts():
    rows = [3, 5, 4]
    packed = Text(
        jnp.concatenate([TEXT.tokens[i, :n] for i, n in enumerate(rows)])[None],
        jnp.concatenate([TEXT.targets[i, :n] for i, n in enumerate(rows)])[None],
        jnp.repeat(jnp.arange(1, 4), jnp.array(rows), total_repeat_length=12)[None],
    )
    single = texts(((2, 1), (1, 4), (3, 1)))
    batch = ju.Batch(packed, jnp.zeros(1, jnp.int32))
    loss = jax.jit(objectives.next_token(MODEL, reduction="token").__call__)
    whole, _ = loss(PARAMS, {}, batch, KEY)
    each = BATCH._replace(inputs=Text(TEXT.tokens, *single[1:]))
    apart, _ = loss(PARAMS, {}, each, KEY)
    np.testing.assert_allclose(whole.mean(), apart.mean(), rtol=1e-5)


@pytest.mark.parametrize("reduction", ["sequence", "sum", "token"])
def test_segments_of_true_answers_are_not_those_of_alternatives(reduction):
    objective = objectives.alternative(MODEL, OTHER, reduction=reduction)
    told = TEXT._replace(segments=TEXT.real.astype(jnp.int32))
    for own in (BATCH, BATCH._replace(inputs=told)):
        losses, aux = objective(PARAMS, {}, own, KEY)
        np.testing.assert_allclose(losses, objective(PARAMS, {}, BATCH, KEY)[0])
        np.testing.assert_allclose(aux.task_losses, means(PARAMS, TEXT), rtol=1e-5)


def test_several_alternatives_are_drawn_with_their_references():
    several = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf[::-1]], 1), OTHER)
    table = np.stack([OTHER_REFERENCE, OTHER_REFERENCE[::-1]], 1)
    drawn = objectives.dpo(MODEL, REFERENCE, several, alternative_reference=table)
    drawn, by_teacher = (
        jax.jit(each.__call__)
        for each in (drawn, objectives.dpo(MODEL, TEACHER, several))
    )
    seen = set()
    for seed in range(4):
        key = jax.random.key(seed)
        losses, aux = drawn(PARAMS, {}, BATCH, key)
        other, _ = by_teacher(PARAMS, {}, BATCH, key)
        np.testing.assert_allclose(losses, other, rtol=1e-5)
        seen |= set(aux.outputs.chosen.tolist())
    assert seen == {0, 1}


def gradient(objective, weighting=None):
    alg = ju.methods.assemble(
        MODEL, optax.sgd(1.0), forget=objective, weighting=weighting
    )
    state = alg.init(PARAMS, {})
    after, _ = jax.jit(alg.step)(state, ju.UnlearnBatch(forget=BATCH), KEY)
    moved = jax.tree.map(jnp.subtract, PARAMS, after.params)
    return jax.flatten_util.ravel_pytree(moved)[0]


def test_npo_simnpo_and_wga_are_weighted_ascents():
    def same(first, second):
        assert jnp.abs(first).max() > 1e-3
        np.testing.assert_allclose(first, second, atol=1e-6)

    table = jnp.asarray(REFERENCE)
    same(
        gradient(objectives.npo(MODEL, table, beta=0.3)),
        gradient(ASCENT(MODEL, reduction="sum"), ju.weights.npo(table, beta=0.3)),
    )
    told = {"beta": 0.7, "delta": 0.4}
    same(
        gradient(objectives.simnpo(MODEL, **told)),
        gradient(ASCENT(MODEL), ju.weights.simnpo(**told)),
    )
    loreun = ju.weights.loreun_tokens(0.5, normalize="none")
    same(
        gradient(ASCENT(MODEL, token_weight=ju.weights.wga(beta=2.0))),
        gradient(ASCENT(MODEL, token_weight=loreun)),
    )
    same(
        gradient(ASCENT(MODEL, reduction="token")),
        gradient(ASCENT(MODEL), ju.weights.by_length()),
    )


def test_token_weights_have_mean_one_within_each_text():
    counted = answered(TEXT)
    nll = objectives.next_token(MODEL)(PARAMS, {}, BATCH, KEY)[1].outputs.nll
    weights = ju.weights.loreun_tokens(0.3, relative=True)(nll, counted)
    np.testing.assert_allclose(weights.sum(1), counted.sum(1), rtol=1e-5)
    assert not weights[~counted].any()
    marked = objectives.npo(
        MODEL, REFERENCE, token_weight=ju.weights.loreun_tokens(0.3)
    )
    plain = objectives.npo(MODEL, REFERENCE)
    np.testing.assert_allclose(
        marked(PARAMS, {}, BATCH, KEY)[0], plain(PARAMS, {}, BATCH, KEY)[0], rtol=1e-6
    )
    assert jnp.abs(gradient(marked) - gradient(plain)).max() > 1e-3


@pytest.mark.parametrize("equation", ["simnpo_loss", "entropy_gap", "flatness"])
def test_equations_serve_one_item(equation):
    of = getattr(ju.language, equation)
    of = functools.partial(of, beta=2.0) if equation == "simnpo_loss" else of
    rows = jax.random.normal(KEY, (4, V))
    np.testing.assert_allclose(jax.vmap(of)(rows), of(rows), rtol=1e-6)


def test_wrong_references_and_models_are_one_line():
    with pytest.raises(ju.InputError, match="Teacher"):
        objectives.npo(MODEL, (PARAMS, {}))
    with pytest.raises(ju.InputError, match="alternative_reference"):
        objectives.dpo(MODEL, REFERENCE, OTHER)
    with pytest.raises(ju.InputError, match=r"index=None"):
        objectives.npo(MODEL, REFERENCE)(PARAMS, {}, BATCH._replace(index=None), KEY)
    scoring = MODEL._replace(
        apply=lambda *given, **mode: (
            scored(MODEL.apply(*given, **mode)[0], given[2]),
            given[1],
        )
    )
    with pytest.raises(ju.InputError, match="outputs='logits'"):
        objectives.undial(scoring, TEACHER)(PARAMS, {}, BATCH, KEY)
    found = objectives.npo(scoring, REFERENCE)(PARAMS, {}, BATCH, KEY)[0]
    np.testing.assert_allclose(found, EACH["npo"][0](PARAMS, {}, BATCH, KEY)[0])
    beyond = BATCH._replace(index=jnp.array([0, 1, 99]))
    losses = objectives.npo(MODEL, REFERENCE)(PARAMS, {}, beyond, KEY)[0]
    assert np.isnan(losses).tolist() == [False, False, True]
    losses = objectives.alternative(MODEL, OTHER)(PARAMS, {}, beyond, KEY)[0]
    assert np.isnan(losses).tolist() == [False, False, True]
