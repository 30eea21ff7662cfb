"""The benchmark's GPT written by hand, against the scalar engine and central differences."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
from helpers import DEMOS, central_difference, long

import vgrad

sys.path.append(str(DEMOS))
import gpt_peers
from gpt import Scalar, Sizes
from gpt_peers import Adam, ByHand

SIZES = [  # each as small as its point allows
    Sizes(vocabulary=5, n_embd=4, n_layer=1, n_head=2, block_size=4),
    Sizes(vocabulary=3, n_embd=6, n_layer=2, n_head=1, block_size=3),  # the layers part ways
    Sizes(vocabulary=4, n_embd=3, n_layer=1, n_head=3, block_size=2),  # heads of one number
]
BATCHES = [(1, 2), (1, 3), (3, 3)]  # (B, n + 1), within every block


def problem(sizes, shape, seed=0):
    """theta and tokens; weights of about 0.5, so that no softmax is flat and no relu always on."""
    rng = np.random.default_rng(seed)
    count = sizes.n_embd * (2 * sizes.vocabulary + sizes.block_size)
    count += 12 * sizes.n_embd**2 * sizes.n_layer
    return rng.normal(0, 0.5, count), rng.integers(0, sizes.vocabulary, shape)


# --- NumPy by hand -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", BATCHES)
@pytest.mark.parametrize("sizes", SIZES)
def test_by_hand_agrees_with_the_scalar_engine(sizes, shape):
    """Within 1e-13, a few hundred roundings of gradients near 1: sums run in another order."""
    theta, tokens = problem(sizes, shape)
    want, gradient = Scalar(sizes).value_and_grad(theta, tokens.tolist())
    loss, grad = ByHand(sizes, theta, *shape).loss_and_grad(tokens)
    assert loss == pytest.approx(want, rel=1e-13)
    np.testing.assert_allclose(grad, gradient, rtol=0, atol=1e-13)


@pytest.mark.parametrize("sizes", SIZES)
def test_by_hand_agrees_with_central_differences(sizes):
    """Within 1e-8: step**2 is 1e-10, and a sixth of the third derivatives at most 10 or so.

    With this seed no relu has its kink between the two sides.
    """
    theta, tokens = problem(sizes, (2, 3))

    def loss(*numbers):
        return ByHand(sizes, np.array(numbers), 2, 3).loss_and_grad(tokens)[0]

    grad = ByHand(sizes, theta, 2, 3).loss_and_grad(tokens)[1]
    some = range(0, len(theta), 5)  # which go through every matrix
    differences = [central_difference(loss, list(theta), k, 1e-5) for k in some]
    np.testing.assert_allclose(grad[some], differences, rtol=0, atol=1e-8)


def test_nothing_is_left_of_the_step_before():
    """The arrays that are kept from step to step hold nothing that another batch would see."""
    theta, tokens = problem(SIZES[1], (3, 3))
    by_hand = ByHand(SIZES[1], theta, 3, 3)
    by_hand.loss_and_grad((tokens + 1) % 3)
    want = ByHand(SIZES[1], theta, 3, 3).loss_and_grad(tokens)
    got = by_hand.loss_and_grad(tokens)
    assert got[0] == want[0]
    np.testing.assert_array_equal(got[1], want[1])


def test_large_scores_overflow_nowhere():
    theta, tokens = problem(SIZES[0], (2, 4))
    loss, grad = ByHand(SIZES[0], 1000 * theta, 2, 4).loss_and_grad(tokens)
    assert np.isfinite(loss) and np.isfinite(grad).all()


def test_theta_of_another_size_is_refused():
    theta, _ = problem(SIZES[0], (1, 2))
    with pytest.raises(ValueError, match=r"^theta must have 248 numbers for .* \(got 247\)$"):
        ByHand(SIZES[0], theta[1:], 1, 2)


def test_adam_is_that_of_vgrad():
    """Within 1e-12: the same formula, its factors multiplied in another order."""
    rng = np.random.default_rng(0)
    theta = rng.normal(size=7)
    want, ours = theta.copy(), Adam(theta)
    adam = vgrad.optim.Adam(lambda k: gpt_peers.rate(k, 20), beta1=0.85, beta2=0.99)
    for k in range(20):
        grad = rng.normal(size=7) * 10.0 ** np.arange(-9, -2)  # eps counts in the first of them
        adam.step(want, grad)
        ours.step(grad, gpt_peers.rate(k, 20))
    np.testing.assert_allclose(theta, want, rtol=1e-12)


# --- training ------------------------------------------------------------------------------------


def test_training_lowers_the_loss_and_leaves_theta():
    theta, tokens = problem(SIZES[0], (2, 4))
    before = theta.copy()
    first, last = (gpt_peers.numpy_train(SIZES[0], theta, tokens, steps) for steps in (1, 50))
    assert last < first
    np.testing.assert_array_equal(theta, before)


@long  # to import it takes seconds
@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="PyTorch is not installed")
@pytest.mark.parametrize("sizes", SIZES)
def test_torch_trains_alike(sizes):
    """Within 1e-9: ten steps pass on roundings, of about 1e-15, and Adam enlarges the smallest."""
    import torch

    theta, tokens = problem(sizes, (2, 3))
    before = theta.copy()
    want = gpt_peers.numpy_train(sizes, theta, tokens, 10)
    assert gpt_peers.torch_train(torch, sizes, theta, tokens, 10) == pytest.approx(want, rel=1e-9)
    np.testing.assert_array_equal(theta, before)
