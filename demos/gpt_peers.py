"""The training step of `gpt.py` written by hand in NumPy, and as a user of PyTorch writes it.

What the benchmark compares vgrad with. Both take theta (P,), which holds the matrices of the model
one after another, and documents of one length, tokens (B, n + 1), of which each but the last
predicts the next.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from gpt import BETA1, BETA2, RATE, Sizes, rate
from numpy.typing import NDArray

Array = NDArray[np.float64]
Tokens = NDArray[np.int64]

EPS = 1e-8  # of Adam
NORM_EPS = 1e-5  # of rmsnorm


class Layer(NamedTuple):
    """Its matrices, or their gradients; wq, wk and wv are adjacent, and so make one."""

    qkv: Array
    wo: Array
    fc1: Array
    fc2: Array


class Model(NamedTuple):
    """All matrices, (out, in) each, or their gradients."""

    wte: Array
    wpe: Array
    lm_head: Array
    layers: list[Layer]

    @classmethod
    def of(cls, matrices: list[Any]) -> Model:
        wte, wpe, lm_head, *rest = matrices
        return cls(wte, wpe, lm_head, [Layer(*rest[k : k + 4]) for k in range(0, len(rest), 4)])


def split(sizes: Sizes, theta: Array) -> list[Array]:
    """theta as its matrices, which are views of it."""
    vocabulary, width, n_layer, _, block_size = sizes
    layer = [(3 * width, width), (width, width), (4 * width, width), (width, 4 * width)]
    tables = [(rows, width) for rows in (vocabulary, block_size, vocabulary)]
    shapes = tables + n_layer * layer
    stops = np.cumsum([math.prod(shape) for shape in shapes])
    if stops[-1] != len(theta):
        raise ValueError(f"theta must have {stops[-1]} numbers for {sizes} (got {len(theta)})")
    return [part.reshape(shape) for part, shape in zip(np.split(theta, stops[:-1]), shapes)]


# --- NumPy by hand -------------------------------------------------------------------------------


def numpy_train(sizes: Sizes, theta: Array, tokens: Tokens, steps: int) -> float:
    """The loss at the last of some steps of Adam, which leave the given theta as it is."""
    theta = theta.copy()
    by_hand, adam = ByHand(sizes, theta, *tokens.shape), Adam(theta)
    for k in range(steps):
        loss, grad = by_hand.loss_and_grad(tokens)
        adam.step(grad, rate(k, steps))
    return loss


class Adam:
    """Steps theta (P,) downhill, in place.

    The moments are kept without their factors 1 - beta, which are left to the rate.
    """

    def __init__(self, theta: Array) -> None:
        self.theta = theta
        self.mean, self.square, self.scratch = np.zeros((3, len(theta)))
        self.steps = 0

    def step(self, grad: Array, rate: float) -> None:
        self.steps += 1
        mean, square, scratch = self.mean, self.square, self.scratch
        mean *= BETA1
        mean += grad
        square *= BETA2
        square += np.multiply(grad, grad, out=scratch)
        first = (1 - BETA1) / (1 - BETA1**self.steps)  # with the corrections of bias
        second = math.sqrt((1 - BETA2) / (1 - BETA2**self.steps))
        np.sqrt(square, out=scratch)
        scratch += EPS / second
        np.divide(mean, scratch, out=scratch)
        scratch *= rate * first / second
        self.theta -= scratch


class Kept(NamedTuple):
    """What a layer keeps for its backward pass; there, the gradients of these."""

    qkv: Array
    weights: Array  # of attention, (keys, B, heads, queries)
    mixed: Array  # the values, by these weights
    hidden: Array  # of the MLP

    @classmethod
    def empty(cls, sizes: Sizes, batch: int, n: int) -> Kept:
        weights = np.empty((n, batch, sizes.n_head, n))
        qkv, mixed, hidden = (np.empty((k * sizes.n_embd, batch * n)) for k in (3, 1, 4))
        return cls(qkv, weights, mixed, hidden)


class ByHand:
    """The loss and its gradient, for tokens of one shape (batch, length).

    Arrays are (features, B n), a column for each position of each document, and attention has its
    keys first: NumPy reduces and broadcasts quickest along the first axis. The large ones are made
    once, as new ones would come from the system page by page.
    """

    def __init__(self, sizes: Sizes, theta: Array, batch: int, length: int) -> None:
        n, head_size = length - 1, sizes.n_embd // sizes.n_head
        self.model, self.grad = Model.of(split(sizes, theta)), np.zeros_like(theta)
        self.grads = Model.of(split(sizes, self.grad))
        self.by_document = (-1, batch, n)
        self.by_head = (-1, sizes.n_head, head_size, batch, n)
        self.scale = head_size**-0.5
        self.positions = np.arange(batch * n)
        self.mean = np.full(sizes.n_embd, 1 / sizes.n_embd)  # mean @ x is quicker than x.mean(0)
        self.one_hot = np.eye(sizes.vocabulary)
        self.future = np.tril(np.full((n, n), -np.inf), -1)[:, None, None]
        self.kept = [Kept.empty(sizes, batch, n) for _ in range(sizes.n_layer)]
        self.g = Kept.empty(sizes, batch, n)
        self.active = np.empty(self.g.hidden.shape, bool)
        self.logits = np.empty((sizes.vocabulary, batch * n))

    def loss_and_grad(self, tokens: Tokens) -> tuple[float, Array]:
        """The gradient, (P,), is the same array each time."""
        model, grads = self.model, self.grads
        now, following = tokens[:, :-1].ravel(), tokens[:, 1:].ravel()
        x, scale = self.rmsnorm(self.embed(now))
        embedded, norms = x, []
        for layer, kept in zip(model.layers, self.kept):
            norms.append(self.rmsnorm(x))
            x = x + self.attend(norms[-1][0], layer, kept)
            norms.append(self.rmsnorm(x))
            x = x + self.feed_forward(norms[-1][0], layer, kept)
        loss, g = self.cross_entropy(np.matmul(model.lm_head, x, out=self.logits), following)

        np.matmul(g, x.T, out=grads.lm_head)
        g = model.lm_head.T @ g
        for layer, d, kept in zip(model.layers[::-1], grads.layers[::-1], self.kept[::-1]):
            h, h_scale = norms.pop()
            g += self.rmsnorm_backward(self.feed_forward_backward(g, h, layer, d, kept), h, h_scale)
            h, h_scale = norms.pop()
            g += self.rmsnorm_backward(self.attend_backward(g, h, layer, d, kept), h, h_scale)
        self.embed_backward(self.rmsnorm_backward(g, embedded, scale), now)
        return loss, self.grad

    def embed(self, now: Tokens) -> Array:
        x = self.model.wte.T.take(now, 1)
        x.reshape(self.by_document)[...] += self.model.wpe[: self.by_document[2]].T[:, None]
        return x

    def embed_backward(self, g: Array, now: Tokens) -> None:
        np.matmul(self.one_hot.take(now, 0).T, g.T, out=self.grads.wte)  # quicker than np.add.at
        d_wpe = self.grads.wpe[: self.by_document[2]]
        np.add.reduce(g.reshape(self.by_document), 1, out=d_wpe.T)

    def rmsnorm(self, x: Array) -> tuple[Array, Array]:
        """And what x is scaled with."""
        scale = self.mean @ (x * x)
        scale += NORM_EPS
        np.sqrt(scale, out=scale)
        np.divide(1.0, scale, out=scale)
        return x * scale, scale

    def rmsnorm_backward(self, g: Array, out: Array, scale: Array) -> Array:
        part = out * (self.mean @ (g * out))
        np.subtract(g, part, out=part)
        part *= scale
        return part

    def heads(self, x: Array) -> Array:
        """(k features, B n) as (k, B, heads, features of a head, n)."""
        return x.reshape(self.by_head).transpose(0, 3, 1, 2, 4)

    def attend(self, x: Array, layer: Layer, kept: Kept) -> Array:
        np.matmul(layer.qkv, x, out=kept.qkv)
        kept.qkv[: len(x)] *= self.scale
        q, k, v = self.heads(kept.qkv)
        weights, by_head = kept.weights, kept.weights.transpose(1, 2, 0, 3)
        np.matmul(k.swapaxes(2, 3), q, out=by_head)
        weights += self.future
        weights -= np.maximum.reduce(weights, 0)
        np.exp(weights, out=weights)
        weights /= np.add.reduce(weights, 0)
        np.matmul(v, by_head, out=self.heads(kept.mixed)[0])
        return layer.wo @ kept.mixed

    def attend_backward(self, g: Array, x: Array, layer: Layer, d: Layer, kept: Kept) -> Array:
        np.matmul(g, kept.mixed.T, out=d.wo)
        g_mixed = np.matmul(layer.wo.T, g, out=self.g.mixed)
        (q, k, v), (g_q, g_k, g_v) = self.heads(kept.qkv), self.heads(self.g.qkv)
        g_weights, by_head = self.g.weights, self.g.weights.transpose(1, 2, 0, 3)
        (g_out,) = self.heads(g_mixed)
        np.matmul(g_out, kept.weights.transpose(1, 2, 3, 0), out=g_v)
        np.matmul(v.swapaxes(2, 3), g_out, out=by_head)
        total = np.add.reduce((g_mixed * kept.mixed).reshape(self.by_head)[0], 1)
        g_weights -= total.transpose(1, 0, 2)  # the sum of weights * g_weights, over fewer numbers
        g_weights *= kept.weights
        np.matmul(k, by_head, out=g_q)
        np.matmul(q, by_head.swapaxes(2, 3), out=g_k)
        self.g.qkv[: len(x)] *= self.scale
        np.matmul(self.g.qkv, x.T, out=d.qkv)
        return layer.qkv.T @ self.g.qkv

    def feed_forward(self, x: Array, layer: Layer, kept: Kept) -> Array:
        """The MLP."""
        hidden = np.matmul(layer.fc1, x, out=kept.hidden)
        np.maximum(hidden, 0.0, out=hidden)
        return layer.fc2 @ hidden

    def feed_forward_backward(
        self, g: Array, x: Array, layer: Layer, d: Layer, kept: Kept
    ) -> Array:
        np.matmul(g, kept.hidden.T, out=d.fc2)
        g_hidden = np.matmul(layer.fc2.T, g, out=self.g.hidden)
        g_hidden *= np.greater(kept.hidden, 0.0, out=self.active)
        np.matmul(g_hidden, x.T, out=d.fc1)
        return layer.fc1.T @ g_hidden

    def cross_entropy(self, logits: Array, following: Tokens) -> tuple[float, Array]:
        """And its gradient, in place of the logits."""
        count, entries = len(following), (following, self.positions)
        logits -= np.maximum.reduce(logits, 0)
        wanted = logits[entries]
        np.exp(logits, out=logits)
        total = np.add.reduce(logits, 0)
        loss = float(np.add.reduce(np.log(total) - wanted)) / count
        total *= count
        logits /= total
        logits[entries] -= 1 / count
        return loss, logits


# --- PyTorch, eager ------------------------------------------------------------------------------


def torch_train(torch: Any, sizes: Sizes, theta: Array, tokens: Tokens, steps: int) -> float:
    """The same; of the ways to write it, that which was quickest on the CPU at the demo's size."""
    parameters = [torch.from_numpy(p).requires_grad_() for p in split(sizes, theta.copy())]
    model, documents = Model.of(parameters), torch.from_numpy(tokens)
    adam = torch.optim.Adam(parameters, RATE, (BETA1, BETA2), EPS, fused=True)
    for k in range(steps):
        adam.param_groups[0]["lr"] = rate(k, steps)
        adam.zero_grad()
        loss = torch_loss(torch, sizes, model, documents)
        loss.backward()
        adam.step()
    return float(loss.item())


def torch_loss(torch: Any, sizes: Sizes, model: Any, tokens: Any) -> Any:
    """Rows are the positions of all documents; products with arrays (B, n, E) were slower."""
    F, width = torch.nn.functional, sizes.n_embd
    now, following = tokens[:, :-1], tokens[:, 1:]
    by_head = (*now.shape, 3, sizes.n_head, width // sizes.n_head)

    def rmsnorm(x: Any) -> Any:  # F.rms_norm was slower
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + NORM_EPS)

    embedded = F.embedding(now, model.wte) + model.wpe[: now.shape[1]]
    x = rmsnorm(embedded.view(-1, width))
    for layer in model.layers:
        q, k, v = F.linear(rmsnorm(x), layer.qkv).view(by_head).permute(2, 0, 3, 1, 4).unbind()
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + F.linear(mixed.transpose(1, 2).reshape(x.shape), layer.wo)
        x = x + F.linear(F.relu(F.linear(rmsnorm(x), layer.fc1)), layer.fc2)
    return F.cross_entropy(F.linear(x, model.lm_head), following.flatten())
