"""The derivatives of `derivatives.py` in JAX, by every transformation that gives them.

All take theta (P,) and the same arrays, and give what vgrad's call gives, as a tuple.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from derivatives import VISCOSITY


def jax_derivatives(
    jax: Any, name: str, theta: Any, arrays: tuple[Any, ...]
) -> dict[str, Callable[[], Any]]:
    """What JAX has for an entry of `DERIVATIVES`, by the name of the transformation."""
    jax.config.update("jax_enable_x64", True)
    m, axes = jax.numpy, tuple(0 if np.ndim(x) else None for x in arrays)
    every = partial(jax.vmap, in_axes=(None, *axes))
    inputs = tuple(range(1, 1 + len(arrays)))
    calls: dict[str, Callable[..., Any]]
    if name == "bundle":
        fn = partial(reprojection, m)
        calls = _jacobians(jax, fn, inputs, every)
    elif name.startswith("20"):
        fn = lambda w, x: network(m, w, x, 20)  # noqa: E731
        calls = _jacobians(jax, fn, 0 if name == "20 outputs" else inputs, every)
    elif name == "hessian":
        loss = lambda w, x: (network(m, w, x, 1)[0] - x[0] * x[1]) ** 2  # noqa: E731
        mean = lambda w, *arrays: every(loss)(w, *arrays).mean()  # noqa: E731
        calls = {"hessian": lambda w, *arrays: (jax.hessian(mean)(w, *arrays),)}
    elif name == "gammas":
        fn = partial(option, m, jax.scipy.stats.norm.cdf)

        def second(w: Any, *sample: Any) -> Any:
            return jax.hessian(lambda x: fn(*x))(m.stack([m.asarray(x) for x in sample]))

        calls = {"hessian": lambda w, *arrays: (every(second)(w, *arrays),)}
    else:
        calls = {way: _trained(jax, burgers(jax, way), every) for way in ("grad", "jvp")}
    return {f"JAX, {way}": _ready(jax, jax.jit(call), theta, arrays) for way, call in calls.items()}


def _jacobians(jax: Any, fn: Any, argnums: Any, every: Any) -> dict[str, Callable[..., Any]]:
    def both(transformed: Any) -> Callable[..., Any]:
        def call(w: Any, *arrays: Any) -> Any:
            found = every(transformed(fn, argnums))(w, *arrays)
            return every(fn)(w, *arrays), *(found if isinstance(found, tuple) else [found])

        return call

    return {"jacfwd": both(jax.jacfwd), "jacrev": both(jax.jacrev)}


def _trained(jax: Any, residual: Any, every: Any) -> Callable[..., Any]:
    return jax.value_and_grad(lambda w, *arrays: every(residual)(w, *arrays).mean())  # type: ignore[no-any-return]


def _ready(jax: Any, call: Any, theta: Any, arrays: tuple[Any, ...]) -> Callable[[], Any]:
    return lambda: jax.block_until_ready(call(theta, *arrays))


def reprojection(m: Any, w: Any, camera: Any, point: Any, weight: Any, seen: Any) -> Any:
    by, point = camera[:3], point - camera[3:6]
    angle = m.sqrt(m.sum(by**2))
    axis, cos, sin = by / angle, m.cos(angle), m.sin(angle)
    along = m.dot(axis, point) * (1 - cos)
    turned = point * cos + m.cross(axis, point) * sin + axis * along
    at = turned[:2] / turned[2]
    squared = m.sum(at**2)
    zoom = camera[6] * (1 + camera[9] * squared + camera[10] * squared**2)
    return weight * (camera[7:9] + zoom * at - seen)


def network(m: Any, theta: Any, x: Any, outputs: int) -> Any:
    """The layers of `derivatives.network`: of each neuron its weights, and then its bias."""
    first, second, last = m.split(theta, np.cumsum([16 * 3, 16 * 17]))
    for part, units in ((first, 16), (second, 16), (last, outputs)):
        rows = part.reshape(units, -1)
        x = rows[:, :-1] @ x + rows[:, -1]
        x = x if part is last else m.tanh(x)
    return x


def option(m: Any, cdf: Any, spot: Any, strike: Any, years: Any, rate: Any, vol: Any) -> Any:
    spread = vol * m.sqrt(years)
    up = (m.log(spot / strike) + rate * years) / spread + spread / 2
    return spot * cdf(up) - strike * m.exp(-rate * years) * cdf(up - spread)


def burgers(jax: Any, way: str) -> Callable[..., Any]:
    """The residual by gradients of gradients, or forward, by tangents of tangents."""

    def u(w: Any, t: Any, x: Any) -> Any:
        return network(jax.numpy, w, jax.numpy.stack([t, x]), 1)[0]

    def backward(w: Any, t: Any, x: Any) -> Any:
        value, (u_t, u_x) = jax.value_and_grad(u, (1, 2))(w, t, x)
        u_xx = jax.grad(jax.grad(u, 2), 2)(w, t, x)
        return (u_t + value * u_x - VISCOSITY * u_xx) ** 2

    def forward(w: Any, t: Any, x: Any) -> Any:
        along = lambda x: jax.jvp(lambda x: u(w, t, x), (x,), (1.0,))  # noqa: E731
        (value, u_x), (_, u_xx) = jax.jvp(along, (x,), (1.0,))
        _, u_t = jax.jvp(lambda t: u(w, t, x), (t,), (1.0,))
        return (u_t + value * u_x - VISCOSITY * u_xx) ** 2

    return backward if way == "grad" else forward
