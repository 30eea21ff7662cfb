"""The scalar engine: a number that remembers how it was computed. It is the definition."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NoReturn

from . import finite, ops
from .elsewhere import Elsewhere
from .operand import INSTEAD_OF_FLOAT, INSTEAD_OF_STATISTICS, Operand, declined, look

if TYPE_CHECKING:
    from .signatures import Plain

# The 0.0 of a gradient that no backward pass has computed. Drawings tell it apart by identity; in
# arithmetic it is like any other.
NO_GRADIENT = float("0")


class Value(Operand):
    """A number with a gradient; arithmetic on it gives more of them.

    `data` is the number and `grad` its gradient, both floats. `op` and `parents` say how it was
    computed; `level` is 0 for a leaf, else one more than its highest parent's. A leaf that is
    `trainable` is a parameter: `learn` moves it, and `vgrad.compile` finds it. Asked for
    a truth, as by `in`, `==` between a parameter and another leaf is whether they are one and the
    same; anything else goes by number. A value takes attributes of your own, as `p.momentum`.

    >>> a, b = Value(2.0, label="a"), Value(3.0)
    >>> (a * b + a).backward()
    >>> a
    Value(a, data=2.0, grad=4.0)
    >>> a.data = 5.0  # for what is computed from now on
    >>> (a * b).parents
    (Value(a, data=5.0, grad=4.0), Value(data=3.0, grad=2.0))

    Raises TypeError if `data` is not a real number.
    """

    # Each parent has a slot of its own: a tuple would be one more object per value, and the garbage
    # collector, which walks every object, takes half of the time already. What few values have is
    # in a dict, which the others do without.
    __slots__ = ("_number", "grad", "op", "_x", "_y", "_z", "level", "__dict__")
    label: str = ""
    trainable: bool = False
    line: str  # "file:line" that made it, if that was noted

    def __init__(self, data: Plain, label: str = "", trainable: bool = True) -> None:
        if not isinstance(label, str):
            raise TypeError(f"label must be a string (got {label!r}, a {type(label).__name__})")
        self._number = ops.number(data)
        self.grad = NO_GRADIENT
        self.op = ops.parameter
        self._x: Value | None = None
        self._y: Value | None = None
        self._z: Value | None = None
        self.level = 0
        if label:
            self.label = label
        if trainable:
            self.trainable = True

    @property
    def data(self) -> float:
        """The number itself, a float; it can be set to any real number."""
        instead = look(self, "data")
        return self._number if instead is None else instead

    @data.setter
    def data(self, data: Plain) -> None:
        look(self, "set")
        self._number = ops.number(data)

    @property
    def parents(self) -> tuple[Value, ...]:
        """The values this one was computed from, one for each operand of its op."""
        x, y, z = self._x, self._y, self._z
        if x is None:
            return ()
        return (x,) if y is None else (x, y) if z is None else (x, y, z)

    _repr_svg_ = Elsewhere("pictures", "notebook_svg")
    __copy__ = Elsewhere("copying", "copied")
    __reduce_ex__ = Elsewhere("copying", "reduced")  # without recursion: a graph may be deep

    @staticmethod
    def _apply(op: ops.Op, *operands: Any) -> Any:
        for x in operands:
            if x.__class__ is not Value:
                return _apply_mixed(op, operands)
        return computed(op, operands)

    def backward(self, check_finite: bool = False) -> None:
        """Add this value's gradient to that of every leaf it was computed from.

        Interior gradients start from 0 at each call, so a second call doubles those of the leaves
        and nothing else. A gradient of 0 propagates as 0, through inf and nan too; `vgrad.finite`
        has examples. Constants, the plain numbers of an expression, get none.

        With `check_finite` it raises NonFiniteError if this value or a leaf's gradient is infinite
        or nan, or would be but for that rule, and names the op where that began; leaves then keep
        the gradients they had. Within `vgrad.source_lines` it names the line too.
        """
        look(self, "backward")
        if check_finite:
            finite.check_backward(reachable(self))
        backpropagate(self)

    def zero_grad(self) -> None:
        """Set the gradient of this value, and of all it was computed from, to 0.

        >>> x = Value(3.0)
        >>> y = x * x
        >>> y.backward()
        >>> y.zero_grad()
        >>> x.grad
        0.0
        """
        for node in reachable(self):
            node.grad = NO_GRADIENT

    def learn(self, rate: float) -> None:
        """`backward()`, then one step of gradient descent on the trainable leaves it reaches.

        Leaves accumulate: call `zero_grad()` first if they hold an older gradient.

        >>> x = Value(3.0)
        >>> (x * x).learn(0.1)
        >>> x
        Value(data=2.4, grad=6.0)
        """
        rate = ops.number(rate)
        self.backward()
        for node in reachable(self):
            if node.trainable:
                node.data -= rate * node.grad

    def __repr__(self) -> str:
        label = f"{self.label}, " if self.label else ""
        data = "?" if look(self, "repr") else self._number
        return f"Value({label}data={data}, grad={self.grad})"

    def __float__(self) -> object:  # no float to type checkers, which refuse math.exp(x) so
        look(self, "float")
        if passes_gradient(self):
            raise TypeError(
                "float(), the functions of math, and arrays of floats must not be given a Value "
                f"whose gradient they would lose (got {self}); use {INSTEAD_OF_FLOAT}; x.data is "
                'the number, if that is what you want, and f"{x:.3f}" prints it'
            )
        return self._number

    def as_integer_ratio(self) -> NoReturn:
        """Raise TypeError, as the functions of `statistics` ask for it and would lose the gradient.

        >>> import statistics
        >>> statistics.mean([Value(1.0), Value(2.0)])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        TypeError: the functions of statistics must not be given a Value ...
        """
        raise TypeError(
            f"the functions of statistics must not be given a Value whose gradient they would lose "
            f"(got {self}); use {INSTEAD_OF_STATISTICS}"
        )

    def __bool__(self) -> bool:
        if self.op in _EQUALITIES and _are_distinct(*self.parents):
            return self.op is ops.ne
        instead = look(self, "bool")
        if instead is not None:
            return bool(instead)
        if self.trainable and not self._number:
            raise no_truth(self)
        return self._number != 0.0


def no_truth(parameter: Any) -> TypeError:
    """The error for a parameter that is 0 where its truth is asked for."""
    return TypeError(
        f"the truth of a parameter must not be asked for where it is 0 (got {parameter}), as that "
        "may mean the number, or that there is one; use b != 0 or b is not None"
    )


def backpropagate(
    root: Value, on_part: Callable[[Value, Value, float], None] | None = None
) -> None:
    """Do what `backward()` does; call `on_part(node, parent, part)` for each part of a gradient.

    A node comes after all that were computed from it, and passes nothing on if its gradient is 0.
    """
    nodes = reachable(root)
    for node in nodes:
        if node.level or node.grad is NO_GRADIENT:
            node.grad = 0.0
    root.grad += 1.0
    for node in nodes:
        if node.grad:
            parents = node.parents
            arguments = (node.grad, node._number, *[x._number for x in parents])
            for x, vjp in zip(parents, node.op.vjp):
                if vjp is not None and x.op is not ops.const:
                    try:
                        part = vjp(*arguments)
                    except ArithmeticError:
                        part = ops.evaluate(vjp, *arguments)
                    x.grad += part
                    if on_part is not None:
                        on_part(node, x, part)


def reachable(*roots: Value) -> list[Value]:
    """The roots and all values that they were computed from, highest level first."""
    nodes: list[Value] = []
    seen: set[Value] = set()
    stack: list[Value | None] = [*roots]
    while stack:
        value = stack.pop()
        if value is not None and value not in seen:
            seen.add(value)
            nodes.append(value)
            stack += (value._x, value._y, value._z)
    nodes.sort(key=attrgetter("level"), reverse=True)
    return nodes


def _are_distinct(x: Value, y: Value) -> bool:
    """Whether these are two leaves, one a parameter and the other not a plain number."""
    leaves = x is not y and not x.level and not y.level and ops.const not in (x.op, y.op)
    return leaves and (x.trainable or y.trainable)


def passes_gradient(root: Value) -> bool:
    """Whether a gradient that arrives at `root` could go on to a leaf that is no constant."""
    seen: set[Value] = set()
    stack = [root]
    while stack:
        value = stack.pop()
        if not value.level and value.op is not ops.const:
            return True
        if value not in seen:
            seen.add(value)
            stack += [x for x, vjp in zip(value.parents, value.op.vjp) if vjp is not None]
    return False


def computed(op: ops.Op, parents: tuple[Value, ...]) -> Value:
    """A new value, computed by `op` from `parents`."""
    node = _new(Value)
    node.grad = NO_GRADIENT
    node.op = op
    if len(parents) == 2:  # hot path: most of all work, so without a loop
        x, y = parents
        node._x = x
        node._y = y
        node._z = None
        node.level = 1 + (x.level if x.level > y.level else y.level)
        try:
            node._number = op.forward(x._number, y._number)
        except ArithmeticError:
            node._number = ops.evaluate(op.forward, x._number, y._number)
    else:
        node._x, node._y, node._z = (*parents, None, None)[:3]
        node.level = 1 + max([x.level for x in parents])
        node._number = ops.evaluate(op.forward, *[x._number for x in parents])
    return node


def _apply_mixed(op: ops.Op, operands: tuple[Any, ...]) -> Any:
    """Make constants of plain numbers, or leave it to an operand of another engine."""
    parents = []
    for x in operands:
        if isinstance(x, Value):
            parents.append(x)
        elif isinstance(x, Operand):
            return x._apply(op, *operands)
        elif ops.is_number(x):
            constant = Value(x, trainable=False)
            constant.op = ops.const
            parents.append(constant)
        else:
            return declined(op, operands)
    return computed(op, tuple(parents))


_EQUALITIES = (ops.eq, ops.ne)
_new = object.__new__
