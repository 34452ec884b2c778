"""An own flax network: trained in a loop of its own, saved, unlearned, audited.

Nothing of the library makes or trains the network; files lie in a fresh folder.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from toys import blobs

import jax_unlearn as ju

CLASSES, KEY = 3, jax.random.key(0)
STANDARD = jax.numpy_dtype_promotion("standard")  # optax's Adam: float ** int


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.Dense(16)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        x = nn.Dropout(0.2, deterministic=not train)(nn.relu(x))
        return nn.Dense(CLASSES)(x)


class NnxNet(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.body = nnx.Linear(2, 16, rngs=rngs)
        self.norm = nnx.BatchNorm(16, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.head = nnx.Linear(16, CLASSES, rngs=rngs)

    def __call__(self, x):
        return self.head(self.dropout(nnx.relu(self.norm(self.body(x)))))


def samples():
    """Return training samples, unseen ones and the ids to forget: those of class 0."""
    train, unseen = blobs(0, 30), blobs(1, 30)
    return train, unseen, np.flatnonzero(train[1] == 0)


def trained_linen():
    """Train as linen users do, without the library; return the variables."""
    (x, y), _, _ = samples()
    net, optimizer = LinenNet(), optax.adam(0.05)
    variables = net.init({"params": KEY, "dropout": KEY}, x[:2], train=False)
    params, stats = variables["params"], variables["batch_stats"]

    @jax.jit
    def step(params, stats, opt_state, key):
        def loss(params):
            logits, updated = net.apply(
                {"params": params, "batch_stats": stats},
                x,
                train=True,
                rngs={"dropout": key},
                mutable=["batch_stats"],
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
            return losses.mean(), updated["batch_stats"]

        grads, stats = jax.grad(loss, has_aux=True)(params)
        with STANDARD:
            updates, opt_state = optimizer.update(grads, opt_state)
        return optax.apply_updates(params, updates), stats, opt_state

    opt_state = optimizer.init(params)
    for number in range(60):
        key = jax.random.fold_in(KEY, number)
        params, stats, opt_state = step(params, stats, opt_state, key)
    return {"params": params, "batch_stats": stats}


def trained_nnx():
    """Train as nnx users do, without the library; return the module."""
    (x, y), _, _ = samples()
    network = NnxNet(nnx.Rngs(0))
    optimizer = nnx.Optimizer(network, optax.sgd(0.3), wrt=nnx.Param)

    @nnx.jit
    def step(network, optimizer):
        def loss(network):
            logits = network(x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        optimizer.update(network, nnx.grad(loss)(network))

    network.train()
    for _ in range(60):
        step(network, optimizer)
    return network


def through_files(tree, like, folder):
    """Save as users of orbax do, and read again in the form of another tree."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "network", tree)
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder / "network", like)


def figures(model, params, state):
    """Return the accuracies that an audit begins with, in percent."""
    (x, y), unseen, forget = samples()
    retain = np.setdiff1d(np.arange(len(y)), forget)
    parts = {"forget": (x[forget], y[forget]), "retain": (x[retain], y[retain])}
    parts["test"] = unseen
    outputs = {
        name: ju.predict(model, params, state, part[0]) for name, part in parts.items()
    }
    found = {
        name: 100 * float((outputs[name].argmax(1) == part[1]).mean())
        for name, part in parts.items()
    }
    sure = {name: np.asarray(jax.nn.softmax(o)).max(1) for name, o in outputs.items()}
    size = len(sure["test"])
    mia = ju.audit.svc_mia_efficacy(sure["retain"][:size], sure["test"], sure["forget"])
    return {**found, "mia": mia}


def unlearned(model, params, state):
    """Unlearn by ascent beside descent; return the state."""
    (x, y), _, forget = samples()
    retain = np.setdiff1d(np.arange(len(y)), forget)
    data = ju.data.Examples(x, y)
    batches = ju.data.zipped(data, forget, retain, batch_size=16, epochs=10)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))
    alg = ju.methods.neggrad_plus(model, optimizer, alpha=0.4)
    return ju.run(alg, alg.init(params, state), batches, KEY)


@pytest.mark.parametrize("framework", ["linen", "nnx"])
def test_a_network_trained_elsewhere_is_unlearned_and_audited(
    framework, tmp_path, capsys
):
    if framework == "linen":
        variables = trained_linen()
        shapes = jax.tree.map(jnp.zeros_like, variables)
        restored = through_files(variables, shapes, tmp_path)
        model = ju.from_linen(LinenNet())
        params, state = ju.variables_of(restored)
        own = LinenNet().apply(variables, samples()[1][0], train=False)
    else:
        network = trained_nnx()
        saved = nnx.state(network, nnx.Not(nnx.RngState))
        fresh = NnxNet(nnx.Rngs(1))
        like = nnx.state(fresh, nnx.Not(nnx.RngState))
        nnx.update(fresh, through_files(saved, like, tmp_path))
        model = ju.from_nnx(fresh)
        params, state = ju.variables_of(fresh)
        network.eval()
        own = network(samples()[1][0])

    # it is the network that was trained
    outputs = ju.predict(model, params, state, samples()[1][0])
    np.testing.assert_allclose(outputs, own, rtol=1e-4, atol=1e-5)
    before = figures(model, params, state)
    assert before["retain"] > 85

    after_state = unlearned(model, params, state)
    after = figures(model, after_state.params, after_state.model_state)
    print({"original": before, "unlearned": after})
    assert "unlearned" in capsys.readouterr().out
    assert set(after) == {"forget", "retain", "test", "mia"}
    assert all(0 <= value <= 100 for value in after.values())
    assert after["forget"] < before["forget"] - 30
    assert after["retain"] > 70
    # statistics went along, and the caller's variables are still there
    pairs = zip(*map(jax.tree.leaves, (state, after_state.model_state)), strict=True)
    assert any((a != b).any() for a, b in pairs)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((params, state)))

    # and back into the framework
    if framework == "linen":
        whole = {"params": after_state.params, **after_state.model_state}
        back = LinenNet().apply(whole, samples()[1][0], train=False)
    else:
        nnx.update(fresh, after_state.params, after_state.model_state)
        fresh.eval()
        back = fresh(samples()[1][0])
    mine = ju.predict(
        model, after_state.params, after_state.model_state, samples()[1][0]
    )
    np.testing.assert_allclose(back, mine, rtol=1e-4, atol=1e-5)


def test_a_head_alone_is_unlearned_beside_a_frozen_body():
    network = trained_nnx()
    model = ju.from_nnx(NnxNet, trainable="head")
    params, state = ju.variables_of(network, trainable="head")
    after = unlearned(model, params, state)
    whole, rest = ju.whole_variables(after.params, after.model_state)
    assert whole["body"]["kernel"] is state.frozen.tree["body"]["kernel"]
    assert (whole["head"]["kernel"] != params["head"]["kernel"]).any()
    assert figures(model, after.params, after.model_state)["retain"] > 60
    nnx.update(network, whole, rest)
