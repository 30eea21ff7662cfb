"""A program in a file: what it recorded, its options, theta, and the state of an optimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from ..arguments import Array, as_theta
from ..errors import GraphFormatError
from ..flat import (
    STORED,
    Arrays,
    Graph,
    Header,
    Path,
    expect,
    from_stored,
    loading_arrays,
    save_arrays,
    to_stored,
)
from ..optim import Optimiser

Program = TypeVar("Program", bound=Any)  # this file knows only what goes into its pickle

KIND = "vgrad.Program"


def save(path: Path, state: dict[str, Any], theta: Any, optimiser: Any) -> None:
    """Write the state that a program pickles, with `theta`, if given, in place of its own.

    Raises ShapeError, ValueError or TypeError if theta or the optimiser does not fit.
    """
    numbers = state["numbers"] if theta is None else as_theta(theta, len(state["numbers"]))
    options = state["options"]._asdict()
    del options["executor"], options["progress"]
    options["dtype"] = options["dtype"].name
    about: Header = {"graphs": [], "options": options, "optimiser": None}
    arrays = {"theta": numbers, "optimiser": np.zeros((0, len(numbers)))}
    _require_optimiser(optimiser)
    if optimiser is not None:
        about["optimiser"] = steps = optimiser.state()
        arrays["optimiser"] = _rows(steps.pop("arrays"), len(numbers))
    once = [] if state["once"] is None else state["once"]["runners"]
    if once:
        about["once"] = len(once)  # so many graphs at the end are those of the term by itself
    for i, runner in enumerate([*state["runners"], *once]):
        header, parts = to_stored(runner.graph)
        about["graphs"].append(header)
        arrays |= {f"{i}/{name}": part for name, part in parts.items()}
    save_arrays(path, KIND, about, arrays)


def load(path: Path, compile: Callable[..., Program], optimiser: Any) -> Program:
    """The program that was saved, made by `compile` of its graphs, and the optimiser restored.

    Raises GraphFormatError for a file that is not whole, TypeError if the optimiser is not one, and
    ValueError if it does not fit.
    """
    _require_optimiser(optimiser)
    with loading_arrays(path, KIND) as (about, arrays):
        graphs, once, theta, steps = _parts(about, arrays)
        # The options are for `compile` to judge: its errors count as the file's.
        programs = [compile(graph, **about["options"]) for graph in (*graphs, *once)]
        program, parts = programs[0], [[*x.runners.values()] for x in programs]
        state = program.__getstate__() | {"numbers": theta}
        state["runners"] = [runner for part in parts[: len(graphs)] for runner in part]
        if once:
            alone = [runner for part in parts[len(graphs) :] for runner in part]
            options = state["options"].of_once()
            state["once"] = {**state, "runners": alone, "options": options, "once": None}
        program.__setstate__(state)
    if optimiser is not None:
        if steps is None:
            raise ValueError(
                f"{path} must hold an optimiser's state, to restore it (got one saved without); "
                "give the optimiser to save, or leave it out here"
            )
        optimiser.restore(steps)
    return program


def _require_optimiser(x: Any) -> None:
    if not isinstance(x, Optimiser | None):
        kind = type(x).__name__
        raise TypeError(f"optimiser must be one of vgrad.optim (got {x!r}, a {kind})")


def _rows(arrays: list[Array], parameters: int) -> Array:
    """The arrays of an optimiser as one, (K, P)."""
    for array in arrays:
        if array.shape != (parameters,):
            raise ValueError(
                f"the optimiser's state must have theta's shape ({parameters},) (got "
                f"{array.shape}); save it with the program whose theta it steps"
            )
    return np.array(arrays, np.float64).reshape(len(arrays), parameters)


Parts = tuple[list[Graph], list[Graph], Array, dict[str, Any] | None]


def _parts(about: Header, arrays: Arrays) -> Parts:
    """The graphs, those of the term by itself, theta, and an optimiser's state or None."""
    has_once = isinstance(about, dict) and "once" in about
    fields = ["graphs", "options", "optimiser", *["once"] * has_once]
    expect("its header", about, fields)
    headers = about["graphs"]
    if not isinstance(headers, list) or not 0 < len(headers) <= len(arrays):
        raise GraphFormatError("it must have graphs, each with its arrays")
    names = [f"{i}/{name}" for i in range(len(headers)) for name in STORED]
    expect("its arrays", arrays, ["theta", "optimiser", *names])
    theta, rows = arrays["theta"], arrays["optimiser"]
    if theta.dtype != np.float64 or theta.ndim != 1:
        raise GraphFormatError(f"theta must be float64 (P,) (got {theta.dtype} {theta.shape})")
    graphs = [
        from_stored(header, {name: arrays[f"{i}/{name}"] for name in STORED})
        for i, header in enumerate(headers)
    ]
    for found in {len(graph.parameters) for graph in graphs} - {len(theta)}:
        raise GraphFormatError(
            f"every graph must have theta's {len(theta)} parameters (got {found})"
        )
    count = about.get("once", 0)
    if type(count) is not int or not 0 <= count < len(graphs):
        raise GraphFormatError(f"once must count graphs, fewer than all (got {count!r:.50})")
    first = len(graphs) - count
    return graphs[:first], graphs[first:], theta, _state(about["optimiser"], rows, len(theta))


def _state(about: Any, rows: Array, parameters: int) -> dict[str, Any] | None:
    """An optimiser's state as `Optimiser.restore` takes it, or None."""
    if rows.dtype != np.float64 or rows.ndim != 2 or rows.shape[1] != parameters:
        wanted = f"float64 (K, {parameters})"
        raise GraphFormatError(
            f"the optimiser's state must be {wanted} (got {rows.dtype} {rows.shape})"
        )
    if about is None:
        return None
    expect("its optimiser", about, ("kind", "steps"))
    kind, steps = about["kind"], about["steps"]
    if not isinstance(kind, str) or type(steps) is not int or not 0 <= steps < 1 << 63:
        raise GraphFormatError(
            "the optimiser must have a name and its number of steps "
            f"(got {kind!r:.50} and {steps!r:.50})"
        )
    return {**about, "arrays": list(rows)}
