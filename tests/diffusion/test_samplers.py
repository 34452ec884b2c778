"""Samplers against closed forms: data that are Gaussian stay Gaussian on the way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_data import MEAN, STD, affine_ddim, best_epsilon, best_model

from jax_unlearn import diffusion
from jax_unlearn.errors import InputError
from jax_unlearn.types import Batch, Model

SHAPE = (1, 1, 1)
KEY = jax.random.key(0)
OLD = jax.__version_info__ < (0, 11)  # later ones round programs differently


def drawn(process, sampler, count=16, model=None, **options):
    model = best_model(process) if model is None else model
    options = {"conditions": np.zeros(count, np.int32), "params": 0.0, **options}
    conditions, params = options.pop("conditions"), jnp.float32(options.pop("params"))
    return diffusion.generate(
        model, params, (), conditions, KEY, sampler=sampler, shape=SHAPE, **options
    ).ravel()


def start(count=16):
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(KEY, jnp.arange(count))
    return np.asarray(jax.vmap(lambda k: jax.random.normal(k, SHAPE))(keys)).ravel()


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_ddim_is_the_known_affine_map(steps, kind):
    process = diffusion.cosine(50, prediction_type=kind)
    sampler = diffusion.ddim(process, steps, clip=None)
    alphas = sampler.alphas.astype(np.float64)
    slope, offset = affine_ddim(alphas)
    # roundings of the noise are divided by √ᾱ, which is tiny, in the first image
    rounding = np.finfo(np.float32).eps / np.sqrt(alphas[0])
    if steps > 1:
        rounding *= np.sqrt(alphas[1]) * affine_ddim(alphas[1:])[0]
    # 0.9 by jax 0.10, 1.7 by 0.12
    most = (1.5 if OLD else 2) * rounding
    expected = slope * start() + offset
    np.testing.assert_allclose(drawn(process, sampler), expected, atol=most)


def test_ddim_of_many_steps_solves_the_probability_flow():
    # dx along the flow scales deviations from √ᾱ·m by the marginal deviation
    process = diffusion.linear(1000)
    first = float(process.alphas_cumprod[-1])
    exact = STD / np.sqrt(first * STD**2 + 1 - first)
    errors = []
    for steps in (10, 20, 40, 1000):
        alphas = diffusion.ddim(process, steps).alphas.astype(np.float64)
        errors.append(abs(affine_ddim(alphas)[0] / exact - 1))
    assert errors[0] > errors[1] > errors[2] > errors[3]
    assert errors[3] < 0.01
    slope, offset = affine_ddim(alphas)
    found = drawn(process, diffusion.ddim(process, 1000, clip=None), 4)
    np.testing.assert_allclose(found, slope * start(4) + offset, atol=2e-3)
    assert offset == pytest.approx(MEAN, abs=0.01)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_ddpm_moments_follow_the_exact_recursion(variance):
    process = diffusion.cosine(20)
    sampler = diffusion.ddpm(process, variance=variance, clip=None)
    mean, square = 0.0, 1.0
    alphas = np.asarray(process.alphas_cumprod, np.float64)
    for t in range(19, -1, -1):
        level, after = alphas[t], alphas[t - 1] if t else 1.0
        beta = 1 - level / after
        # posterior mean c0·x̂0 + ct·x_t (Ho et al., equation 7), x̂0 affine in x_t
        gain = np.sqrt(1 - level) / (level * STD**2 + 1 - level)
        image = (1 - np.sqrt(1 - level) * gain) / np.sqrt(level)
        shift = np.sqrt(1 - level) * gain * MEAN
        c0 = np.sqrt(after) * beta / (1 - level)
        ct = np.sqrt(1 - beta) * (1 - after) / (1 - level)
        noise = (1 - after) / (1 - level) * beta
        if variance == "fixed_large":
            noise = beta if t else 0.0
        mean = (c0 * image + ct) * mean + c0 * shift
        square = (c0 * image + ct) ** 2 * square + noise
    found = drawn(process, sampler, 4096, batch_size=4096)
    assert found.mean() == pytest.approx(mean, abs=4 * np.sqrt(square / 4096))
    assert found.var() == pytest.approx(square, rel=4 * np.sqrt(2 / 4096))


def test_ddim_with_all_noise_and_all_steps_is_ddpm():
    process = diffusion.cosine(12)
    for clip in (None, 0.5):
        all_noise = diffusion.ddim(process, 12, eta=1.0, clip=clip)
        ancestral = diffusion.ddpm(process, clip=clip)
        np.testing.assert_allclose(all_noise.variances, ancestral.variances, rtol=1e-5)
        np.testing.assert_allclose(
            drawn(process, all_noise), drawn(process, ancestral), atol=1e-5
        )


def test_the_last_step_of_the_large_variance_draws_nothing():
    sampler = diffusion.ddpm(diffusion.cosine(5), variance="fixed_large")
    assert sampler.drawn_variances[-1] == 0


@pytest.mark.parametrize("noisy", [False, True])
def test_scan_and_loop_batches_and_padding_agree(noisy):
    process = diffusion.cosine(20) if noisy else diffusion.linear(20, beta_end=0.002)
    sampler = diffusion.ddim(process, 4, eta=0.5)
    whole = drawn(process, sampler, 7)
    # of much noise what scan and loop round apart is divided by a tiny √ᾱ
    atol = 1e-6 if OLD or not noisy else 5e-6
    np.testing.assert_allclose(drawn(process, sampler, 7, scan=True), whole, atol=atol)
    cut = drawn(process, sampler, 7, batch_size=3)
    np.testing.assert_allclose(cut, whole, atol=1e-6)
    np.testing.assert_allclose(drawn(process, sampler, 4), whole[:4], atol=1e-6)
    assert len(set(whole.tolist())) == 7


def test_guidance_is_the_straight_line_through_both_predictions():
    process = diffusion.cosine(20)
    sampler = diffusion.ddim(process, 1, clip=None)
    asked = np.full(3, 2, np.int32)
    options = {"conditions": asked, "params": 0.1, "null": np.int32(0)}
    found = {
        s: drawn(process, sampler, guidance_scale=s, **options)
        for s in (0.0, 1.0, 2.0, 3.5)
    }
    bare = drawn(process, sampler, conditions=np.zeros(3, np.int32), params=0.1)
    np.testing.assert_allclose(found[0.0], bare, atol=1e-5)
    for scale in (2.0, 3.5):
        line = found[0.0] + scale * (found[1.0] - found[0.0])
        np.testing.assert_allclose(found[scale], line, rtol=1e-3, atol=1e-4)
    level = float(sampler.alphas[0])
    x = start(3)
    epsilon = best_epsilon(x, level, MEAN + 0.2)
    image = (x - np.sqrt(1 - level) * epsilon) / np.sqrt(level)
    np.testing.assert_allclose(found[1.0], image, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("scan", [False, True])
def test_one_trace_serves_a_run_and_the_next(scan):
    process, calls = diffusion.cosine(20), []
    model = best_model(process, calls)
    sampler = diffusion.ddim(process, 4)
    options = {"null": np.int32(0), "scan": scan, "batch_size": 4, "model": model}
    drawn(process, sampler, 10, guidance_scale=2.0, **options)
    assert len(calls) == 1
    drawn(process, sampler, 8, guidance_scale=3.0, params=0.2, **options)
    drawn(
        process, diffusion.ddim(process, 4, eta=0.3), 4, guidance_scale=9.0, **options
    )
    assert len(calls) == 1


def test_clipping_bounds_the_images_and_keeps_the_noise_consistent():
    process = diffusion.cosine(20)
    found = drawn(process, diffusion.ddim(process, 5, clip=0.2), 32)
    assert np.abs(found).max() <= 0.2 + 1e-6
    sampler = diffusion.ddim(process, 2, clip=0.2)
    x, e = jnp.full((1, 1), 2.0), jnp.full((1, 1), -1.0)
    after = diffusion.reverse_step(sampler, x, e, jnp.zeros_like(x), step=jnp.int32(0))
    level, target = (float(a[0]) for a in (sampler.alphas, sampler.next_alphas))
    epsilon = (2.0 - np.sqrt(level) * 0.2) / np.sqrt(1 - level)
    expected = np.sqrt(target) * 0.2 + np.sqrt(1 - target) * epsilon
    assert float(after[0, 0]) == pytest.approx(expected, rel=1e-5)


def test_progress_counts_every_step():
    seen, process = [], diffusion.cosine(20)
    drawn(
        process,
        diffusion.ddim(process, 3),
        5,
        batch_size=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(i + 1, 9) for i in range(9)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: diffusion.ddim(p, 0), "num_inference_steps=0 must lie between 1"),
        (lambda p: diffusion.ddim(p, 21), "num_inference_steps=21 must .*=20"),
        (lambda p: diffusion.ddim(p, 2, eta=1.5), r"eta=1.5 must lie in \[0, 1\]"),
        (lambda p: diffusion.ddim(p, 2, clip=0.0), "clip=0.0 must be positive"),
        (lambda p: diffusion.ddpm(p, variance="big"), "variance='big': choose"),
        (
            lambda p: drawn(p, diffusion.ddim(p, 2), guidance_scale=2.0),
            "guidance_scale=2.0 needs the null condition",
        ),
        (
            lambda p: drawn(p, diffusion.ddim(p, 2), conditions=np.zeros(0, np.int32)),
            "ask for 1 or more images",
        ),
        (lambda p: drawn(p, diffusion.ddim(p, 2), batch_size=0), "batch_size=0"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(InputError, match=message):
        make(diffusion.cosine(20))


def test_what_is_memorised_comes_back_and_noise_is_the_same_for_all_models():
    process = diffusion.cosine(40)
    rng = np.random.default_rng(0)
    images = np.float32(rng.uniform(-1, 1, (4, 3, 3, 1)))

    def apply(params, state, inputs, *, train, key=None):
        x, times, condition = inputs  # the best ε̂ where each condition has one image
        level = process.alphas_cumprod[times].reshape(-1, 1, 1, 1)
        return (x - jnp.sqrt(level) * params[condition]) / jnp.sqrt(1 - level), state

    model = Model(lambda key, inputs: ((), ()), apply)
    data = Batch(images, np.arange(4, dtype=np.int32))
    told = {"process": process, "draws": 3, "batch_size": 5}
    key = jax.random.key(0)
    own = diffusion.returned(model, jnp.asarray(images), (), data, key, **told)
    assert own.shape == (4, 3)
    assert own.max() < 1e-4
    moved = images.copy()
    moved[0] = 0.5 * (moved[0] + moved[1])
    other = diffusion.returned(model, jnp.asarray(moved), (), data, key, **told)
    away = np.sqrt(np.mean(np.square(np.float64(moved[0] - images[0]))))
    np.testing.assert_allclose(other[0], away, rtol=1e-3)  # what it holds instead
    np.testing.assert_array_equal(other[1:], own[1:])
    for wrong in ({"share": 0.0}, {"steps": 0}, {"draws": 0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            diffusion.returned(model, (), (), data, key, **{**told, **wrong})
