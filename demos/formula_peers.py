"""The formulas of `formulas.py` in JAX, in PyTorch, and written by hand in NumPy.

What the benchmark compares vgrad with. All take theta (P,) and arrays whose first axis is the
batch, and give the mean of the losses and its gradient to theta; of options, which have no theta,
their five Greeks. JAX runs one sample under `vmap`, PyTorch all of them at once. Where a formula
has nothing but single numbers, they run the very function that vgrad does; where it has vectors,
one that is written with their arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
from formulas import COMPONENTS, DIMENSIONS, EDGES, FORMULAS, HIDDEN, KNOTS, MIXED, ORDER, SPLINES
from numpy.typing import NDArray

import vgrad

Array = NDArray[np.float64]
Gradient = Callable[[], tuple[Any, ...]]  # gives a value and gradient, or only gradients

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
BELOW = np.tril_indices(DIMENSIONS, -1)  # of a Cholesky factor, row by row


# --- with arrays ---------------------------------------------------------------------------------


def mixture_density(m: Any, theta: Any, x: Any, y: Any) -> Any:
    first, (rows, biases) = theta[: 2 * HIDDEN].reshape(HIDDEN, 2), split_dense(theta)
    hidden = m.tanh(x[..., None] * first[:, 0] + first[:, 1])
    outputs = hidden @ rows.T + biases
    logits, means = outputs[..., :MIXED], outputs[..., MIXED : 2 * MIXED]
    log_deviations = outputs[..., 2 * MIXED :]
    z = (y[..., None] - means) / m.exp(log_deviations)
    logs = logits - 0.5 * z**2 - log_deviations - HALF_LOG_2PI
    return m.logsumexp(logits, -1) - m.logsumexp(logs, -1)


def split_dense(theta: Any) -> tuple[Any, Any]:
    """The rows of the second layer, (3 * MIXED, HIDDEN), and its biases."""
    dense = theta[2 * HIDDEN :].reshape(3 * MIXED, HIDDEN + 1)
    return dense[:, :-1], dense[:, -1]


def counts(m: Any, theta: Any, x: Any, y: Any) -> Any:
    mean, r = m.exp(x @ theta[:-2] + theta[-2]), m.exp(theta[-1])
    log_choices = m.lgamma(y + r) - m.lgamma(r) - m.lgamma(y + 1)
    return -(log_choices + r * m.log(r / (r + mean)) + y * m.log(mean / (r + mean)))


def spline_network(m: Any, theta: Any, x: Any, y: Any) -> Any:
    units = x
    for inputs, outputs in EDGES:
        size = inputs * outputs * (1 + SPLINES)
        weights, theta = theta[:size].reshape(outputs, inputs, 1 + SPLINES), theta[size:]
        base = units / (1 + m.exp(-units))
        curves = m.einsum("oik,...ik->...o", weights[..., 1:], splines(m, units))
        units = base @ weights[..., 0].T + curves
    return (units[..., 0] - y) ** 2


def splines(m: Any, x: Any) -> Any:
    knots, x = m.array(KNOTS), x[..., None]
    values = m.floats((x >= knots[:-1]) & (x < knots[1:]))
    for k in range(1, ORDER + 1):
        left = (x - knots[: -k - 1]) / (knots[k:-1] - knots[: -k - 1])
        right = (knots[k + 1 :] - x) / (knots[k + 1 :] - knots[1:-k])
        values = left * values[..., :-1] + right * values[..., 1:]
    return values


def gaussian_mixture(m: Any, theta: Any, x: Any) -> Any:
    logits, means, diagonal, factors = split_mixture(m, theta)
    errors = x[..., None, :] - means
    scaled = m.einsum("kij,...kj->...ki", factors, errors)
    logs = logits + diagonal.sum(-1) - 0.5 * (scaled**2).sum(-1)
    return m.logsumexp(logits, -1) - m.logsumexp(logs, -1)


def split_mixture(m: Any, theta: Any) -> tuple[Any, Any, Any, Any]:
    """Logits (n,), means and logarithms of diagonals (n, d), and Cholesky factors (n, d, d)."""
    logits, own = theta[:COMPONENTS], theta[COMPONENTS:].reshape(COMPONENTS, -1)
    diagonal = own[:, DIMENSIONS : 2 * DIMENSIONS]
    factors = m.factors(m.exp(diagonal), own[:, 2 * DIMENSIONS :])
    return logits, own[:, :DIMENSIONS], diagonal, factors


WITH_ARRAYS: dict[str, Callable[..., Any]] = {
    "mdn": mixture_density,
    "glm": counts,
    "kan": spline_network,
    "gmm": gaussian_mixture,
}


def jax_gradient(jax: Any, name: str, *arrays: Array) -> Gradient:
    """Under jit."""
    import jax.scipy.special as special

    jax.config.update("jax_enable_x64", True)
    jnp = jax.numpy

    def factors(diagonal: Any, below: Any) -> Any:
        full = jnp.zeros((*diagonal.shape, DIMENSIONS)).at[:, BELOW[0], BELOW[1]].set(below)
        return full + diagonal[..., None] * jnp.eye(DIMENSIONS)

    m = SimpleNamespace(
        **{x: getattr(jnp, x) for x in ("log", "exp", "sqrt", "tanh", "where", "einsum", "array")},
        ndtr=special.ndtr,
        lgamma=special.gammaln,
        logsumexp=special.logsumexp,
        floats=lambda mask: mask.astype(jnp.float64),
        factors=factors,
    )
    fn = partial(WITH_ARRAYS.get(name, FORMULAS[name].fn), m)
    axes = (None, *[0] * len(arrays))
    if name == "options":
        each = jax.grad(fn, argnums=tuple(range(1, 1 + len(arrays))))
        gradient = jax.jit(jax.vmap(each, axes))
    else:
        gradient = jax.jit(
            jax.value_and_grad(lambda theta, *arrays: jax.vmap(fn, axes)(theta, *arrays).mean())
        )
    inputs = [jnp.asarray(x) for x in (FORMULAS[name].theta, *arrays)]
    return lambda: tuple(np.asarray(x) for x in gradient(*inputs))


def torch_gradient(torch: Any, name: str, *arrays: Array) -> Gradient:
    """In eager mode."""

    def factors(diagonal: Any, below: Any) -> Any:
        full = torch.zeros(len(below), DIMENSIONS, DIMENSIONS, dtype=torch.float64)
        full[:, BELOW[0], BELOW[1]] = below
        return full + torch.diag_embed(diagonal)

    m = SimpleNamespace(
        **{x: getattr(torch, x) for x in ("log", "exp", "sqrt", "tanh", "where", "einsum")},
        array=lambda x: torch.tensor(x, dtype=torch.float64),
        ndtr=torch.special.ndtr,
        lgamma=torch.lgamma,
        logsumexp=torch.logsumexp,
        floats=lambda mask: mask.to(torch.float64),
        factors=factors,
    )
    fn = partial(WITH_ARRAYS.get(name, FORMULAS[name].fn), m)
    theta, *inputs = (torch.from_numpy(x) for x in (FORMULAS[name].theta, *arrays))

    def run() -> tuple[Any, ...]:
        if name == "options":
            leaves = [x.detach().requires_grad_() for x in inputs]
            total = fn(theta, *leaves).sum()
            return tuple(g.numpy() for g in torch.autograd.grad(total, leaves))
        leaf = theta.detach().requires_grad_()
        mean = fn(leaf, *inputs).mean()
        return mean.item(), torch.autograd.grad(mean, leaf)[0].numpy()

    return run


# --- NumPy by hand -------------------------------------------------------------------------------


def options_by_hand(theta: Array, s: Array, k: Array, t: Array, r: Array, v: Array) -> Any:
    """The five Greeks, written out."""
    root = np.sqrt(t)
    deviation = v * root
    d1 = (np.log(s / k) + (r + 0.5 * v * v) * t) / deviation
    n1, n2 = vgrad.ndtr(d1), vgrad.ndtr(d1 - deviation)
    discount = np.exp(-r * t)
    owed = k * discount * n2
    vega = s * root * np.exp(-0.5 * d1 * d1) / math.sqrt(2 * math.pi)
    return n1, -discount * n2, 0.5 * v * vega / t + r * owed, t * owed, vega


def counts_by_hand(theta: Array, x: Array, y: Array) -> tuple[Any, ...]:
    mean, r = np.exp(x @ theta[:-2] + theta[-2]), math.exp(theta[-1])
    log_choices = vgrad.lgamma(y + r) - vgrad.lgamma(r) - vgrad.lgamma(y + 1)
    total = r + mean
    value = -np.mean(log_choices + r * np.log(r / total) + y * np.log(mean / total))
    excess = (r * (mean - y) / total) / len(y)
    slope = vgrad.digamma(y + r) - vgrad.digamma(r) + np.log(r / total) + (mean - y) / total
    return value, np.concatenate([excess @ x, [excess.sum(), -r * slope.mean()]])


def mixture_density_by_hand(theta: Array, x: Array, y: Array) -> tuple[Any, ...]:
    first, (rows, biases) = theta[: 2 * HIDDEN].reshape(HIDDEN, 2), split_dense(theta)
    hidden = np.tanh(first[:, :1] * x + first[:, 1:])
    logits, means, log_deviations = (rows @ hidden + biases[:, None]).reshape(3, MIXED, -1)
    inverse = np.exp(-log_deviations)
    z = (y - means) * inverse
    prior, log_prior = softmax(logits)
    after, log_after = softmax(logits - 0.5 * z * z - log_deviations - HALF_LOG_2PI)
    share = after / len(x)
    g = np.concatenate([prior / len(x) - share, -share * z * inverse, share * (1 - z * z)])
    g_hidden = (rows.T @ g) * (1 - hidden * hidden)
    g_first = np.stack([g_hidden @ x, g_hidden.sum(axis=1)], axis=1)
    g_dense = np.concatenate([g @ hidden.T, g.sum(axis=1)[:, None]], axis=1)
    return (log_prior - log_after).mean(), np.concatenate([g_first.ravel(), g_dense.ravel()])


def softmax(x: Array) -> tuple[Array, Array]:
    """Along the first axis, and the logarithm of the sum of exp(x)."""
    top = x.max(axis=0)
    exps = np.exp(x - top)
    total = exps.sum(axis=0)
    return exps / total, top + np.log(total)


def gaussian_mixture_by_hand(theta: Array, x: Array) -> tuple[Any, ...]:
    m = SimpleNamespace(exp=np.exp, factors=factors_by_hand)
    logits, means, diagonal, factors = split_mixture(m, theta)
    errors = x.T - means[..., None]
    scaled = factors @ errors
    logs = (logits + diagonal.sum(axis=1))[:, None] - 0.5 * np.einsum("kib,kib->kb", scaled, scaled)
    prior, log_prior = softmax(logits)
    after, log_after = softmax(logs)
    share = after / len(x)
    g_scaled = share[:, None] * scaled
    g_factors = g_scaled @ errors.swapaxes(1, 2)
    g_means = -np.einsum("kij,ki->kj", factors, g_scaled.sum(axis=2))
    on_diagonal = np.einsum("kii->ki", g_factors) * np.exp(diagonal)
    g_diagonal = on_diagonal - share.sum(axis=1)[:, None]
    own = np.concatenate([g_means, g_diagonal, g_factors[:, BELOW[0], BELOW[1]]], axis=1)
    gradient = np.concatenate([prior - share.sum(axis=1), own.ravel()])
    return float(log_prior - log_after.mean()), gradient


def factors_by_hand(diagonal: Array, below: Array) -> Array:
    n, d = diagonal.shape
    factors = np.zeros((n, d, d))
    factors[:, BELOW[0], BELOW[1]] = below
    factors[:, range(d), range(d)] = diagonal
    return factors


BY_HAND: dict[str, Callable[..., tuple[Any, ...]]] = {
    "options": options_by_hand,
    "glm": counts_by_hand,
    "mdn": mixture_density_by_hand,
    "gmm": gaussian_mixture_by_hand,
}
