"""The recurrences of `sequences.py` in JAX, in PyTorch, and written by hand in NumPy.

What the benchmark compares vgrad with. All take theta (P,) and arrays whose first axis is the
batch, and give the mean of the losses and its gradient to theta; of CTC, which has no theta, the
gradient of each loss to its logits. JAX and PyTorch run the same functions: JAX one sample under
`vmap`, so that the time is the first axis of an array; PyTorch all samples, with the batch after
the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sequences import LABEL, SECONDS, SEQUENCES, STATES, rk4

Array = NDArray[np.float64]
Gradient = Callable[[], tuple[Any, ...]]  # gives a value and gradient, or only a gradient

SYMBOLS = np.array([0, *(x for symbol in LABEL for x in (symbol, 0))])  # with blanks, of CTC
# Whether it may go on from each of those to each.
MOVES = np.eye(len(SYMBOLS)) + np.eye(len(SYMBOLS), k=1)
for s in range(2, len(SYMBOLS)):
    MOVES[s - 2, s] = SYMBOLS[s] not in (0, SYMBOLS[s - 2])


def sizes(name: str, length: int | None, most: int) -> Iterator[tuple[int, int]]:
    """Numbers of steps and samples to measure: `length` steps, `most` samples at the most."""
    steps = {"kalman": 500, "hmm": 300, "rnn": 300, "ctc": 40}.get(name, 1000)
    if length is not None:
        steps = max(length, 2 * len(LABEL)) if name == "ctc" else length
    batches = {"ctc": (1, 32), "pendulum": (1, 100, 1000)}.get(name, (1, 1000))
    for batch in sorted({min(batch, most) for batch in batches}):
        yield steps, batch
    if name == "orbit" and length is None:
        yield from [(100, 1), (10_000, 1)]


# --- JAX and PyTorch -----------------------------------------------------------------------------


class Library(NamedTuple):
    """What the functions below need of JAX or PyTorch."""

    xp: Any
    array: Callable[[Any], Any]
    scan: Callable[..., Any]  # takes a step, what it carries, and arrays or a number of steps
    softmax: Callable[..., Any]
    log_sum_exp: Callable[..., Any]


def garch(m: Library, theta: Any, returns: Any) -> Any:
    omega, alpha, beta = theta

    def step(carry: Any, r: Any) -> Any:
        variance, total = carry
        total = total + m.xp.log(variance) + r**2 / variance
        return omega + alpha * r**2 + beta * variance, total

    return 0.5 * m.scan(step, (omega / (1 - alpha - beta), 0.0), returns)[1]


def kalman(m: Library, theta: Any, observations: Any) -> Any:
    level_variance, slope_variance, noise = m.xp.exp(theta)

    def step(carry: Any, y: Any) -> Any:
        level, slope, p11, p12, p22, total = carry
        level = level + slope
        p11, p12, p22 = p11 + 2 * p12 + p22 + level_variance, p12 + p22, p22 + slope_variance
        error, variance = y - level, p11 + noise
        total = total + m.xp.log(variance) + error**2 / variance
        k1, k2 = p11 / variance, p12 / variance
        left = (1 - k1) * p11, (1 - k1) * p12, p22 - k2 * p12
        return level + k1 * error, slope + k2 * error, *left, total

    return 0.5 * m.scan(step, (0.0, 0.0, 10.0, 0.0, 1.0, 0.0), observations)[-1]


def hmm(m: Library, theta: Any, observations: Any) -> Any:
    n = len(STATES)
    logits, means, log_deviations = theta[: n * n].reshape(n, n), theta[-2 * n : -n], theta[-n:]
    steps = logits - m.log_sum_exp(logits, 1)[:, None]
    z = (observations[..., None] - means) / m.xp.exp(log_deviations)
    emitted = -0.5 * z**2 - log_deviations

    def step(alpha: Any, emitted: Any) -> Any:
        return m.log_sum_exp(alpha[..., None] + steps, -2) + emitted

    return -m.log_sum_exp(m.scan(step, emitted[0] - math.log(n), emitted[1:]), -1)


def orbit(steps: int, m: Library, theta: Any, start: Any, seen: Any) -> Any:
    gravity, vx, vy = theta

    def moved(state: Any) -> Any:
        x, y, vx, vy = state
        cubed = (x * x + y * y) ** 1.5
        return vx, vy, -gravity * x / cubed, -gravity * y / cubed

    state = start[..., 0], start[..., 1], vx, vy
    x, y, _, _ = m.scan(lambda state, _: (*rk4(moved, state, SECONDS),), state, steps)
    return (x - seen[..., 0]) ** 2 + (y - seen[..., 1]) ** 2


def pendulum(steps: int, m: Library, theta: Any, start: Any, seen: Any) -> Any:
    pull, damping = theta

    def moved(state: Any) -> Any:
        angle, speed = state
        return speed, -pull * m.xp.sin(angle) - damping * speed

    state = m.scan(lambda state, _: (*rk4(moved, state, SECONDS),), (start, 0.0), steps)
    return (state[0] - seen) ** 2


def split(theta: Any) -> tuple[Any, ...]:
    """The recurrent network's weights of the state, of the input, biases, and the output's two."""
    units = theta[:88].reshape(8, 11)
    return units[:, :8], units[:, 8:10], units[:, 10], theta[88:96], theta[96]


def rnn(m: Library, theta: Any, inputs: Any, target: Any) -> Any:
    W, U, b, out, bias = split(theta)
    state = m.scan(
        lambda state, x: m.xp.tanh(state @ W.T + x), m.array(np.zeros(8)), inputs @ U.T + b
    )
    return (state @ out + bias - target) ** 2


def ctc(m: Library, theta: Any, logits: Any) -> Any:
    moves = m.array(MOVES)

    def step(carry: Any, p: Any) -> Any:
        alpha, loss = carry
        reached = (alpha @ moves) * p
        scale = reached.sum(-1)
        return reached / scale[..., None], loss - m.xp.log(scale)

    p = m.softmax(logits, -1)[..., SYMBOLS]
    alpha, loss = m.scan(step, (m.array(np.eye(len(SYMBOLS))[0]), 0.0), p)
    return loss - m.xp.log(alpha[..., -1] + alpha[..., -2])


LOSSES: dict[str, Callable[..., Any]] = {
    "garch": garch,
    "kalman": kalman,
    "hmm": hmm,
    "orbit": orbit,
    "pendulum": pendulum,
    "rnn": rnn,
    "ctc": ctc,
}


def loss(name: str, steps: int) -> Callable[..., Any]:
    return partial(LOSSES[name], steps) if SEQUENCES[name].counts else LOSSES[name]


def jax_gradient(jax: Any, name: str, steps: int, *arrays: Array) -> Gradient:
    """By `lax.scan`, under `jit`."""
    jax.config.update("jax_enable_x64", True)

    def scan(step: Any, carry: Any, over: Any) -> Any:
        xs, length = (None, over) if isinstance(over, int) else (over, None)
        return jax.lax.scan(lambda carry, x: (step(carry, x), None), carry, xs, length)[0]

    logsumexp = jax.scipy.special.logsumexp
    m = Library(jax.numpy, jax.numpy.asarray, scan, jax.nn.softmax, logsumexp)
    fn = partial(loss(name, steps), m)
    axes = (None, *[0] * len(arrays))

    def mean(theta: Any, *arrays: Any) -> Any:
        return jax.vmap(fn, axes)(theta, *arrays).mean()

    if name == "ctc":
        gradient = jax.jit(lambda *inputs: (jax.vmap(jax.grad(fn, 1), axes)(*inputs),))
    else:
        gradient = jax.jit(jax.value_and_grad(mean))
    inputs = [jax.numpy.asarray(x) for x in (SEQUENCES[name].theta, *arrays)]
    return lambda: tuple(np.asarray(x) for x in gradient(*inputs))


def torch_gradient(torch: Any, name: str, steps: int, *arrays: Array) -> Gradient:
    """In eager mode, by a loop in Python."""

    def scan(step: Any, carry: Any, over: Any) -> Any:
        for x in range(over) if isinstance(over, int) else over:
            carry = step(carry, x)
        return carry

    m = Library(torch, torch.from_numpy, scan, torch.softmax, torch.logsumexp)
    inputs = [torch.from_numpy(x) for x in (SEQUENCES[name].theta, *arrays)]
    fn = partial(loss(name, steps), m)

    def run() -> tuple[Any, ...]:
        theta, first, *others = inputs
        leaf = (first if name == "ctc" else theta).detach().requires_grad_()
        if name == "ctc":
            total = fn(theta, leaf.movedim(1, 0)).sum()
            return (torch.autograd.grad(total, leaf)[0].numpy(),)
        timed = first if SEQUENCES[name].counts else first.movedim(1, 0)
        mean = fn(leaf, timed, *others).mean()
        return mean.item(), torch.autograd.grad(mean, leaf)[0].numpy()

    return run


def torch_ctc_loss(torch: Any, logits: Array) -> Gradient:
    """PyTorch's own function, in C++."""
    batch, steps, _ = logits.shape
    labels = torch.tensor([LABEL] * batch)
    lengths = torch.full((batch,), steps), torch.full((batch,), len(LABEL))

    def run() -> tuple[Any, ...]:
        leaf = torch.from_numpy(logits).detach().requires_grad_()
        logs = leaf.movedim(1, 0).log_softmax(-1)
        total = torch.nn.functional.ctc_loss(logs, labels, *lengths, reduction="sum")
        return (torch.autograd.grad(total, leaf)[0].numpy(),)

    return run


# --- NumPy by hand -------------------------------------------------------------------------------


def garch_by_hand(theta: Array, returns: Array) -> tuple[Any, ...]:
    omega, alpha, beta = theta.tolist()
    squares = np.ascontiguousarray(returns.T) ** 2
    steps, batch = squares.shape
    variance, g = np.empty((steps + 1, batch)), np.empty((steps + 1, batch))
    variance[0] = omega / (1 - alpha - beta)
    drive = omega + alpha * squares
    for t in range(steps):
        variance[t + 1] = drive[t] + beta * variance[t]
    v = variance[:-1]
    value = 0.5 * (np.log(v) + squares / v).sum() / batch
    direct = 0.5 * (1 - squares / v) / v / batch
    g[-1] = 0.0
    for t in range(steps - 1, -1, -1):
        g[t] = direct[t] + beta * g[t + 1]
    first, later = g[0].sum() / (1 - alpha - beta), g[1:]
    by_start = first * np.array([1.0, variance[0, 0], variance[0, 0]])
    by_step = np.array([later.sum(), np.vdot(later, squares), np.vdot(later, v)])
    return value, by_start + by_step


def rnn_by_hand(theta: Array, inputs: Array, target: Array) -> tuple[Any, ...]:
    W, U, b, out, bias = split(theta)
    xs = np.ascontiguousarray(np.moveaxis(inputs, 1, 0))
    steps, batch, _ = xs.shape
    states, drive = np.zeros((steps + 1, batch, 8)), xs @ U.T + b
    for t in range(steps):
        states[t + 1] = np.tanh(states[t] @ W.T + drive[t])
    error = states[-1] @ out + bias - target
    g_output = 2 * error / batch
    g, g_drive = g_output[:, None] * out, np.empty((steps, batch, 8))
    for t in range(steps - 1, -1, -1):
        g_drive[t] = g * (1 - states[t + 1] ** 2)
        g = g_drive[t] @ W
    seen = np.concatenate([states[:-1], xs, np.ones((steps, batch, 1))], axis=2)
    units = g_drive.reshape(-1, 8).T @ seen.reshape(-1, 11)
    parts = units.ravel(), g_output @ states[-1], [g_output.sum()]
    return (error**2).mean(), np.concatenate(parts)


def hmm_by_hand(theta: Array, observations: Array) -> tuple[Any, ...]:
    """By the forward-backward algorithm, with probabilities that are scaled at every step."""
    n = len(STATES)
    logits, means, log_deviations = theta[: n * n].reshape(n, n), theta[-2 * n : -n], theta[-n:]
    a = np.exp(logits - logits.max(axis=1, keepdims=True))
    a /= a.sum(axis=1, keepdims=True)
    deviations = np.exp(log_deviations)
    z = (np.ascontiguousarray(observations.T)[..., None] - means) / deviations
    emitted = np.exp(-0.5 * z**2) / deviations
    start = np.full(n, 1 / n)
    alpha, beta, scale = forward_backward(start, a, emitted, np.ones(n))
    both = alpha * beta
    g_means = -np.einsum("tbk,tbk->k", both, z) / deviations
    g_deviations = -np.einsum("tbk,tbk->k", both, z**2 - 1)
    after = emitted[1:] * beta[1:] / scale[1:, :, None]
    moved = a * (alpha[:-1].reshape(-1, n).T @ after.reshape(-1, n))
    g_logits = a * moved.sum(axis=1, keepdims=True) - moved
    gradient = np.concatenate([g_logits.ravel(), g_means, g_deviations])
    return -np.log(scale).sum() / len(observations), gradient / len(observations)


def forward_backward(start: Array, a: Array, p: Array, end: Array) -> tuple[Array, Array, Array]:
    """alpha and beta (T, B, n) and scales (T, B) for p (T, B, n); alpha * beta are posteriors."""
    alpha, beta, scale = np.empty_like(p), np.empty_like(p), np.empty(p.shape[:2])
    reached = start * p[0]
    for t in range(len(p)):
        if t:
            reached = (alpha[t - 1] @ a) * p[t]
        scale[t] = reached.sum(axis=1)
        alpha[t] = reached / scale[t][:, None]
    beta[-1] = end / (alpha[-1] @ end)[:, None]
    for t in range(len(p) - 1, 0, -1):
        beta[t - 1] = (p[t] * beta[t] / scale[t][:, None]) @ a.T
    return alpha, beta, scale


def ctc_by_hand(theta: Array, logits: Array) -> tuple[Any, ...]:
    """The same algorithm: the gradient is softmax less the posteriors of each class."""
    x = np.exp(logits - logits.max(axis=2, keepdims=True))
    softmax = np.moveaxis(x / x.sum(axis=2, keepdims=True), 1, 0)
    ends = np.zeros(len(SYMBOLS))
    ends[-2:] = 1.0
    alpha, beta, _ = forward_backward(MOVES[0], MOVES, softmax[..., SYMBOLS], ends)
    classes = np.eye(logits.shape[2])[SYMBOLS]
    return (np.moveaxis(softmax - (alpha * beta) @ classes, 0, 1),)


BY_HAND: dict[str, Callable[..., tuple[Any, ...]]] = {
    "garch": garch_by_hand,
    "hmm": hmm_by_hand,
    "rnn": rnn_by_hand,
    "ctc": ctc_by_hand,
}
