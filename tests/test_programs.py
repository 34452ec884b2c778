"""One place decides how programs are compiled."""

import os
import re
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import batch, batchnorm_net

import jax_unlearn as ju
from jax_unlearn import programs

# Where `jax.jit` compiles no pass of a network: noise, attacks on features, starts.
WITHOUT_NETWORK = {
    "diffusion/samplers.py",
    "drivers/feeds.py",
    "drivers/guards.py",
    "drivers/resident.py",
    "gradients.py",
    "programs.py",
    "lab/modalities/language/__init__.py",  # fresh weights, as in lab/subject.py
    "lab/subject.py",
    "masks.py",
    "membership/training.py",
    "methods/teachers.py",
    "oneshot/influence.py",
    "oneshot/ssd.py",
}


@pytest.fixture
def compiled(monkeypatch):
    """Return the options of the programs compiled since, None for XLA's own."""
    programs.in_force()  # asks this jaxlib once
    seen, original = [], jax.jit

    def spy(function, **options):
        own = options.get("compiler_options")
        made = original(function, **options)

        def call(*args, **kwargs):
            seen.append(own)
            return made(*args, **kwargs)

        call.trace = made.trace
        return call

    monkeypatch.setattr(jax, "jit", spy)
    monkeypatch.delenv(programs.VARIABLE, raising=False)
    return seen


def total(x, kernel):
    """Return a number that depends on a 3x3 convolution."""
    y = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jnp.sum(y**2)


def arrays(side, channels, samples=64):
    """Return images and a kernel."""
    x = jnp.ones((samples, side, side, channels))
    return x, jnp.ones((3, 3, channels, channels))


def largest(function, *args):
    return programs.largest_convolution(jax.make_jaxpr(function)(*args).jaxpr)


@pytest.mark.parametrize(
    ("side", "channels", "options"),
    [(8, 8, None), (14, 8, None), (14, 16, programs.REDUCTIONS)],
)
def test_the_rule_is_one_on_channels_and_sizes(compiled, side, channels, options):
    programs.jit(total)(*arrays(side, channels))
    assert compiled == [options]


@pytest.mark.parametrize("samples", [1, 4, 64])
def test_a_convolution_counts_as_much_as_its_gradients(samples):
    x, kernel = arrays(8, 4, samples)
    forward = largest(total, x, kernel)
    assert forward == 8 * 8 * 3 * 3 * 4 * 4 * samples // max(4, samples)
    for which in (0, 1):
        gradient = jax.grad(total, which)
        assert largest(gradient, x, kernel) == forward
        assert largest(lambda *a, g=gradient: jax.jit(g)(*a), x, kernel) == forward
    scanned = lambda *a: jax.lax.map(lambda _: total(*a), jnp.arange(2))  # noqa: E731
    assert largest(scanned, x, kernel) == forward
    assert largest(jnp.dot, kernel[0], kernel[0, 0]) == 0


def test_strides_count_once():
    def strided(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ).sum()

    x, kernel = arrays(8, 4)
    assert largest(strided, x, kernel) == largest(jax.grad(strided), x, kernel)


@pytest.mark.parametrize("samples", [64, 1024])
def test_the_first_command_is_left_to_xla(samples):
    model = ju.from_nnx(lambda rngs: ju.zoo.SmallCNN(10, width=8, rngs=rngs))
    x = jnp.ones((samples, 8, 8, 1))
    params, state = model.init(jax.random.key(0), x[:1])

    def loss(params):
        return jnp.sum(model.apply(params, state, x, train=True)[0])

    assert 0 < largest(jax.grad(loss), params) < programs.LEAST


def test_a_network_of_cifar_is_not():
    model = ju.from_nnx(
        lambda rngs: ju.zoo.ResNet(10, stage_sizes=(1, 1, 1), width=16, rngs=rngs)
    )
    x = jnp.ones((2, 32, 32, 3))
    start = jax.eval_shape(model.init, jax.random.key(0), x)
    assert largest(lambda *a: model.apply(*a, train=False), *start, x) > programs.LEAST


def test_it_is_traced_once(compiled):
    traced = chex.assert_max_traces(n=1)(total)
    one = programs.jit(traced)
    for _ in range(3):
        one(*arrays(14, 16))
    assert compiled == [programs.REDUCTIONS] * 3


def test_a_program_is_looked_at_for_each_shape(compiled):
    one = programs.jit(total)
    for side in (2, 32, 2):
        one(*arrays(side, 16))
    assert compiled == [None, programs.REDUCTIONS, None]


def test_many_programs_are_forgotten_and_decided_alike(compiled, monkeypatch):
    monkeypatch.setattr(programs, "MEMORY", 1)
    one = programs.jit(total)
    for side in (2, 32, 2, 32):
        one(*arrays(side, 16))
    assert compiled == [None, programs.REDUCTIONS] * 2


def test_static_and_donated_arguments_are_those_of_jax(compiled):
    def scaled(scale, x, *, times):
        return scale() * x * times

    one = programs.jit(
        scaled, static_argnums=0, static_argnames=("times",), donate_argnums=1
    )
    x = jnp.ones(3)
    assert one(lambda: 2.0, x, times=3).tolist() == [6.0] * 3
    assert x.is_deleted()
    assert one(lambda: 5.0, jnp.ones(3), times=2).tolist() == [10.0] * 3


def test_a_switch_leaves_all_to_xla(compiled, monkeypatch):
    one, wide, narrow = programs.jit(total), arrays(14, 16), arrays(2, 2)
    with programs.using("xla"):
        one(*wide)
    with programs.using("reductions"):
        one(*narrow)
    monkeypatch.setenv(programs.VARIABLE, "xla")
    one(*wide)
    with programs.using("rule"):
        one(*wide)
    assert compiled == [None, programs.REDUCTIONS, None, programs.REDUCTIONS]


def test_unknown_choices_are_refused(monkeypatch):
    with pytest.raises(ju.InputError, match="unknown compile options 'fast'"):  # noqa: SIM117
        with programs.using("fast"):
            pass
    monkeypatch.setenv(programs.VARIABLE, "fast")
    with pytest.raises(ju.InputError, match="JAX_UNLEARN_COMPILE='fast'.*rule, xla"):
        programs.jit(total)(*arrays(2, 2))


@pytest.mark.parametrize(
    "options",
    [{"xla_cpu_no_such_option": "1"}, dict.fromkeys(programs.REDUCTIONS, "NO_SUCH")],
)
def test_what_this_jaxlib_does_not_know_reaches_no_user(compiled, monkeypatch, options):
    monkeypatch.setattr(programs, "REDUCTIONS", options)
    with programs.using("reductions"):
        assert programs.in_force() == "xla"
        programs.jit(total)(*arrays(14, 16))
        state = small_run()
    assert state.step == 3
    assert compiled[-1] is None


@pytest.mark.parametrize("around", [jax.jit, jax.grad, jax.vmap, jax.make_jaxpr])
def test_inside_other_transformations_it_has_no_options(around):
    one = programs.jit(lambda x: jnp.sum(x**2))
    x = jnp.ones(2) if around is jax.vmap else jnp.float32(1)
    with programs.using("reductions"):
        jax.block_until_ready(around(one)(x))
        jax.jit(lambda: one(1.0))()


def small_run(**options):
    model = batchnorm_net()
    alg = ju.methods.gradient_ascent(model, optax.sgd(0.1))
    state = alg.init(*model.init(jax.random.key(0), jnp.zeros((1, 4))))
    batches = [ju.UnlearnBatch(batch(s, 4)) for s in range(3)]
    return ju.run(alg, state, batches, jax.random.key(1), **options)


def test_a_run_goes_on_only_as_it_was_compiled(tmp_path):
    def series():
        return ju.Series(tmp_path, {"seed": 0}, seconds=0)

    with programs.using("reductions"):
        state = small_run(callback=series().callback)
        chex.assert_trees_all_equal(series().latest(state), state)
    with programs.using("xla"), pytest.raises(ju.InputError) as refused:
        series().latest(state)
    assert "JAX_UNLEARN_COMPILE=reductions" in str(refused.value)


def test_a_run_saved_without_its_choice_goes_on(tmp_path, monkeypatch):
    series = ju.Series(tmp_path, {"seed": 0}, seconds=0)
    with monkeypatch.context() as patch:
        patch.setattr(programs, "in_force", lambda: None)
        state = small_run(callback=series.callback)
    with programs.using("xla"):
        assert series.latest(state).step == 3


def test_the_environment_decides_for_a_process():
    code = "import jax_unlearn as ju; print(ju.programs.choice())"
    for name in programs.CHOICES:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, programs.VARIABLE: name},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == [name]


def test_every_program_with_a_network_goes_through_it():
    root = Path(ju.__file__).parent
    direct = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        for line in path.read_text().splitlines()
        if re.search(r"(?<![\w`])jax\.jit\b", line) and ">>>" not in line
    }
    assert direct <= WITHOUT_NETWORK


def test_the_numbers_are_the_same_to_rounding():
    x = jax.random.normal(jax.random.key(0), (4, 14, 14, 16))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 16, 16))
    found = {}
    for name in programs.CHOICES:
        with programs.using(name):
            found[name] = programs.jit(jax.grad(total, (0, 1)))(x, kernel)
    chex.assert_trees_all_equal(found["rule"], found["reductions"])
    for new, old in zip(found["rule"], found["xla"], strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("total", "size"), [(0, 3), (1, 3), (6, 3), (7, 3)])
def test_pieces_hold_every_row_once_and_the_last_one_again(total, size):
    passes = list(programs.pieces(total, size))
    assert all(len(rows) == size for rows in passes)
    rows = np.concatenate(passes) if passes else np.zeros(0)
    np.testing.assert_array_equal(rows[:total], np.arange(total))
    assert (rows[total:] == total - 1).all()
    assert len(rows) - total < size
