"""Ops of one's own: `vgrad.op` makes a row of the table of a function and its derivatives."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any
from weakref import ref
from zlib import crc32

import numpy as np

from .engine import Value
from .lines import defining_line
from .operand import Watch, watches
from .ops import ANY, MAX_ARITY, OPS, REPLACED, Op, Range, Rule, is_number

if TYPE_CHECKING:
    from .signatures import MakesOp

TRIED = 12  # numbers of an op's domain on which its function and rules must work


def op(
    *, vjp: Rule | Sequence[Rule | None] | None, name: str = "", domain: Sequence[Range] = ()
) -> MakesOp:
    """Make an op of a function of one to three numbers, whose derivative is what you say it is.

    The function computes with NumPy arrays of one shape, number by number, and returns such an
    array. `vjp` has one rule for each operand, or None for one that gets no gradient: a function of
    the gradient that arrives, the result, and the operands, which returns the operand's share of
    that gradient. It is written with operators and functions of vgrad, or NumPy's of the same
    names, so that it can be differentiated again. Both must depend on their operands alone, as
    what a program has recorded of a rule does not change: make an operand of a number that does.

    >>> import vgrad
    >>> @vgrad.op(vjp=lambda g, out, x: g * vgrad.cos(x))
    ... def my_sine(x):
    ...     return np.sin(x)
    >>> x = vgrad.Value(0.0)
    >>> my_sine(x).backward()
    >>> x.grad
    1.0
    >>> vgrad.gradcheck(my_sine, 0.5)
    1 of 1 derivatives agree with central differences (step 0.001, tolerance 1e-06)

    It is then an op like any other, on numbers, arrays, `Value`s and in `compile`. A rounding that
    lets gradients through has `vjp=lambda g, out, x: g`, and a function of several ops may have a
    derivative of its own. Files and pickles know an op by its `name`, by default that of the
    function, so there can be only one of each; at the prompt or in a notebook a new one takes the
    place of the old. `domain` has a range (low, high) for each operand, by default (-2, 2), in
    which the rules are tried when the op is made.

    Raises ValueError if the name is taken, if there is not one rule for each operand, or if the
    function or a rule does not do what is said here, and TypeError if it decorates no function.
    """

    def make(function: Callable[..., Any]) -> Any:
        if not callable(function) or isinstance(function, np.ufunc):
            raise TypeError(f"vgrad.op must decorate a function of Python's (got {function!r})")
        plain: Any = getattr(function, "pyfunc", function)  # below np.vectorize
        own = name or getattr(plain, "__name__", "")
        operands = _operand_names(own, plain)
        rules = _rules(own, operands, vjp)
        ranges = _ranges(own, operands, domain)
        digest = _digest(plain, *_given_rules(operands, vjp))
        old = _as_before(own, plain, digest, ranges)
        if old is not None:
            return old
        forward = _forward(own, function)
        points = np.array([np.random.default_rng(0).uniform(*x, TRIED) for x in ranges])
        _try_forward(own, function, forward, points)
        for operand, rule in zip(operands, rules):
            _try_rule(f"the rule of op {own!r} for {operand}", rule, forward, points)
        facts = {"definition": plain, "defined": defining_line(plain), "digest": digest}
        with _making_way(own, plain):
            # exact, as nothing says that results are rounded: so sums of them keep their order
            op = Op(own, own, forward, domain=ranges, vjp=rules, exact=True, **facts)
        return op

    return make


def _operand_names(own: str, function: Rule) -> list[str]:
    """The names of the operands."""
    parameters = signature(function).parameters.values()
    if any(x.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD) for x in parameters):
        raise ValueError(f"op {own!r} must name its operands (got {signature(function)})")
    names = [x.name for x in parameters if x.kind is not Parameter.KEYWORD_ONLY]
    if not 1 <= len(names) <= MAX_ARITY:
        raise ValueError(
            f"op {own!r} must have 1 to {MAX_ARITY} operands (got {', '.join(names) or 'none'}); "
            "of more, write it as a function of ops that have fewer"
        )
    return names


def _rules(own: str, operands: list[str], vjp: Any) -> tuple[Rule | None, ...]:
    """One rule for each operand, none of which warns."""
    given = _given_rules(operands, vjp)
    if len(given) != len(operands):
        raise ValueError(
            f"op {own!r} must have one vjp rule for each operand ({', '.join(operands)}), as in "
            f"vjp=(rule, rule), or None for one without a gradient (got {len(given)})"
        )
    for rule in given:
        if rule is not None and not callable(rule):
            raise ValueError(f"the rules of op {own!r} must be functions or None (got {rule!r})")
    return tuple(rule and _without_warnings(rule) for rule in given)


def _given_rules(operands: list[str], vjp: Any) -> list[Any]:
    if isinstance(vjp, Sequence) and not isinstance(vjp, str):
        return [*vjp]
    return [vjp] * (len(operands) if vjp is None else 1)


def _ranges(own: str, operands: list[str], domain: Any) -> tuple[Range, ...]:
    """One range for each operand."""
    ranges = np.array([ANY] * len(operands) if len(domain) == 0 else domain, np.float64)
    ranges = ranges.reshape(1, -1) if ranges.ndim == 1 == len(operands) else ranges
    if ranges.shape != (len(operands), 2) or not (ranges[:, 0] < ranges[:, 1]).all():
        raise ValueError(
            f"op {own!r} must have a domain of one range (low, high) for each operand "
            f"({', '.join(operands)}), low before high (got {domain!r})"
        )
    return tuple((low, high) for low, high in ranges.tolist())


def _without_warnings(rule: Rule) -> Rule:
    def quiet(*operands: Any) -> Any:
        given = [_read_only(x) if isinstance(x, np.ndarray) else x for x in operands]
        with np.errstate(all="ignore"):
            part = rule(*given)
        return float(part) if is_number(part) else part

    return quiet


def _forward(own: str, function: Rule) -> Rule:
    """A function of arrays of one shape as a forward rule.

    A number goes to it as an array too, since NumPy computes some functions of either differently.
    """

    def forward(*operands: Any) -> Any:
        arrays = np.broadcast_arrays(*map(_as_array, operands))
        shape = arrays[0].shape
        given = [_read_only(x.reshape(shape or 1)) for x in arrays]
        with np.errstate(all="ignore"):
            out = function(*given)
        if not _fits(out, given[0]):
            got = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else repr(out)
            raise ValueError(
                f"op {own!r} must return an array of float64, of the shape {given[0].shape} of its "
                f"operands (got {got:.80}), and compute it with these and plain numbers alone"
            )
        return out.copy() if shape else float(out[0])  # a copy, as it may be anybody's array

    return forward


def _fits(out: Any, given: Any) -> bool:
    """Whether a result is an array as it was given; of float32 it may be any of floats."""
    if not isinstance(out, np.ndarray) or out.shape != given.shape:
        return False
    return bool(out.dtype == given.dtype or (out.dtype.kind == "f" and given.dtype != np.float64))


def _as_array(x: Any) -> Any:
    return x if isinstance(x, np.ndarray) and x.dtype.kind == "f" else np.asarray(x, np.float64)


def _read_only(x: Any) -> Any:
    view = x.view()
    view.flags.writeable = False
    return view


def _try_forward(own: str, function: Rule, forward: Rule, points: Any) -> None:
    """Raise ValueError unless a number and arrays of any shape give the same."""
    try:
        with np.errstate(all="ignore"), _no_values():
            function(*map(_read_only, points))
            function(*(_read_only(x[:1]) for x in points))
    except Exception as error:
        raise ValueError(
            f"op {own!r} must take arrays of any shape, number by number, and leave them as they "
            f"are (got {_described(error)}); write it with NumPy's functions, such as np.where in "
            "place of if, or decorate it with np.vectorize(otypes=[float]) as well"
        ) from error
    alone = np.array([forward(*column) for column in points.T.tolist()])
    for shape in ((-1,), (3, -1), (-1, 2)):
        together = forward(*(x.reshape(shape) for x in points)).ravel()
        apart = np.flatnonzero((alone != together) & ~(np.isnan(alone) & np.isnan(together)))
        if len(apart):
            k = apart[0]
            raise ValueError(
                f"op {own!r} must make of a number in an array what it makes of the number alone "
                f"(got {together[k]} and {alone[k]} for {', '.join(map(str, points[:, k]))})"
            )


def _try_rule(what: str, rule: Rule | None, forward: Rule, points: Any) -> None:
    """Raise ValueError unless a rule takes numbers, arrays and `Value`s, and of each makes one."""
    if rule is None:
        return
    numbers = [(1.0, forward(*column), *column) for column in points.T.tolist()]
    arrays = (np.ones(points.shape[1]), forward(*points), *points)
    try:
        with _no_values():
            alone, together = [rule(*x) for x in numbers], rule(*arrays)
            value = rule(*map(Value, numbers[0]))
    except NameError:  # it names what is still to be defined
        return
    except Exception as error:
        raise ValueError(
            f"{what} must take the gradient, the result and the operands, which are numbers, "
            "arrays, Values or traced values, and leave them as they are (got "
            f"{_described(error)}); write it with operators and functions of vgrad, or of NumPy "
            "where they have the same names"
        ) from error
    plain = isinstance(together, np.ndarray) or is_number(together)
    fits = all(map(is_number, alone)) and plain and np.shape(together) in ((), points.shape[1:])
    if not fits or not (is_number(value) or isinstance(value, Value)):
        got = next((x for x in (alone[0], together, value) if not is_number(x)), alone[0])
        raise ValueError(
            f"{what} must return a number for numbers, and an array of their shape for arrays (got "
            f"{got!r:.80})"
        )
    for a, b in zip(alone, np.broadcast_to(together, len(alone)).tolist()):
        # 1e-9, as NumPy may compute a number in another way, and terms may cancel
        if not np.isclose(a, b, rtol=1e-9, atol=1e-9, equal_nan=True):
            raise ValueError(
                f"{what} must make of a number in an array what it makes of the number alone (got "
                f"{b} and {a})"
            )


@contextmanager
def _no_values() -> Iterator[None]:
    """No number of a `Value` may be looked at, as its gradient would be lost."""
    watch = _OperandsAlone()
    reference: Any = ref(watch)
    watches.add(reference)
    try:
        yield
    finally:
        watches.discard(reference)


class _OperandsAlone(Watch):
    """Lets nothing look at a number."""

    def __call__(self, operand: Any, means: str) -> None:
        if self.records_here() and means != "repr":
            raise TypeError(f"an op must compute with its operands alone, not with {operand!r}")


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error) or 'no message'}"


def _digest(*functions: Any) -> int:
    """A number that tells functions apart by their code, the same in every process."""
    parts, waiting = [], [getattr(function, "__code__", None) for function in functions]
    while waiting:
        code = waiting.pop()
        if code is not None:
            inner = [x for x in code.co_consts if hasattr(x, "co_code")]
            plain = [x for x in code.co_consts if not hasattr(x, "co_code")]
            parts.append((code.co_code, code.co_names, plain))
            waiting += inner
    return crc32(repr(parts).encode())


def _as_before(own: str, function: Any, digest: int, domain: tuple[Range, ...]) -> Op | None:
    """The op of this name, if a cell or a module with its definition has run once more."""
    for old in OPS:
        same = old.name == own and _place(function) == _place(old.definition) is not None
        if same and old.digest == digest and old.domain == domain:
            return old
    return None


@contextmanager
def _making_way(own: str, function: Any) -> Iterator[None]:
    """Rename the op of this name that a new definition replaces; graphs that have it keep it."""
    old = _replaceable(own, function)
    if old is None:
        yield
        return
    vars(old)["name"] = own + REPLACED
    try:
        yield
    except BaseException:
        vars(old)["name"] = own
        raise


def _replaceable(own: str, function: Any) -> Op | None:
    """The op of this name, if it gives way to its new definition.

    It does if it was at the top of the same module, and on the same line, as where a module was
    changed and reloaded; or on any at the prompt or in a notebook, where cells change.
    """
    is_prompt = not hasattr(sys.modules["__main__"], "__file__")
    anywhere = is_prompt and getattr(function, "__module__", "") == "__main__"
    for old in OPS:
        same_place = _place(function) == _place(old.definition) is not None
        if old.name == own and same_place and (anywhere or old.defined == defining_line(function)):
            return old
    return None


def _place(function: Any) -> tuple[str, str] | None:
    """Module and name of a function; None if another function makes it each time it is called."""
    name = getattr(function, "__qualname__", "")
    return (function.__module__, name) if name.isidentifier() else None
