"""What type checkers and editors know of operators, methods and ops: nothing here ever runs.

Both engines get their operators and methods from the op table, where no checker can follow. So they
stand here once more, by name and number of operands; a test holds the names to the table.

`b.backwards()` is an error to mypy and pyright, and so is a misspelt option of `compile`. Annotate
with `vgrad.Number` what is a number of any kind, and with `Value` where `backward` is called. A few
things that run are more than a checker can follow: write `sum(losses, Value(0))` for a sum whose
`backward` is called, and `rows[int(x)]` for `rows[x]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from typing_extensions import Self

    from .engine import Value
    from .operand import Number, Operand
    from .ops import Op, Range

P = ParamSpec("P")
D = TypeVar("D")
N = TypeVar("N", bound="Operand")
Plain = float | np.floating[Any] | np.integer[Any] | np.bool_
Array = NDArray[Any]

if TYPE_CHECKING:

    class HasParameters(Protocol):
        def parameters(self) -> Iterable[Value]: ...

    Single: TypeAlias = Number | Plain
    Numbers: TypeAlias = Number | Plain | Array
    Vector: TypeAlias = Sequence[Single] | Array
    Matrix: TypeAlias = Sequence[Vector] | Array
    Nested: TypeAlias = (  # parameters
        Value
        | HasParameters
        | Array
        | Iterable[Value]
        | Mapping[Any, "Nested"]
        | Sequence["Nested"]
    )
    X = TypeVar("X", float, Value, Operand, float | Operand, Array)

# `Self` of a subclass is less than that of `Methods` itself, which leaves nothing to `Single`.
# mypy: disable-error-code="overload-cannot-match"


class Methods:
    """The operators and methods of an operand; a `Value` and plain numbers give a `Value`."""

    label: str

    @property
    def data(self) -> Any:
        """The number without its gradient: a float, or a traced number."""
        raise NotImplementedError

    def _one(self) -> Self:
        """As the function of vgrad of that name."""
        raise NotImplementedError

    @overload
    def _two(self, other: Self | Plain, /) -> Self: ...
    @overload
    def _two(self, other: Single, /) -> Operand: ...
    @overload
    def _two(self, other: Array, /) -> Array: ...
    def _two(self, other: Any, /) -> Any:
        """As the operator, or the function of vgrad of that name."""
        raise NotImplementedError

    @overload
    def _pair(self, other: Self | Plain, /) -> tuple[Self, Self]: ...
    @overload
    def _pair(self, other: Single, /) -> tuple[Operand, Operand]: ...
    @overload
    def _pair(self, other: Array, /) -> tuple[Array, Array]: ...
    def _pair(self, other: Any, /) -> Any:
        raise NotImplementedError

    def _whole(self) -> int:
        raise NotImplementedError

    @overload
    def _rounded(self) -> int: ...
    @overload
    def _rounded(self, digits: int, /) -> float: ...
    def _rounded(self, *digits: int) -> Any:
        raise NotImplementedError

    @overload
    def __abs__(self: Value) -> Value: ...  # type: ignore[misc]
    @overload
    def __abs__(self) -> Number: ...  # so that mypy's abs(x) of a Number is one
    def __abs__(self) -> Any:
        raise NotImplementedError

    def __eq__(self, other: Any, /) -> Self:  # type: ignore[override]
        raise NotImplementedError

    def __ne__(self, other: Any, /) -> Self:  # type: ignore[override]
        raise NotImplementedError

    __hash__ = object.__hash__

    # fmt: off
    __add__ = __sub__ = __mul__ = __truediv__ = __pow__ = __mod__ = __floordiv__ = _two
    __radd__ = __rsub__ = __rmul__ = __rtruediv__ = __rpow__ = __rmod__ = __rfloordiv__ = _two
    __gt__ = __lt__ = __ge__ = __le__ = _two
    __and__ = __rand__ = __or__ = __ror__ = _two
    __divmod__ = __rdivmod__ = _pair
    __neg__ = __pos__ = __invert__ = conjugate = _one
    __int__ = __trunc__ = __floor__ = __ceil__ = _whole
    __round__ = _rounded  # no __index__ or __float__: math.exp(x) would pass

    abs = arccos = arccosh = arcsin = arcsinh = arctan = arctanh = cbrt = ceil = cos = cosh = _one
    digamma = erf = erfc = erfcx = exp = exp2 = expm1 = floor = gelu = lgamma = log = log10 = _one
    log1p = log2 = log_ndtr = ndtr = relu = rint = sigmoid = sign = silu = sin = sinh = _one
    softplus = sqrt = stop_gradient = tan = tanh = trunc = _one
    arctan2 = fmod = hypot = logaddexp = maximum = minimum = _two
    # fmt: on

    def leaky_relu(self, slope: Number = 0.01) -> Self:
        """As the op of this name."""
        raise NotImplementedError

    def elu(self, alpha: Number = 1.0) -> Self:
        """As the op of this name."""
        raise NotImplementedError


if TYPE_CHECKING:
    One: TypeAlias = tuple[Range]
    Two: TypeAlias = tuple[Range, Range]
    Three: TypeAlias = tuple[Range, Range, Range]

    class Function(Op, Generic[D, P]):
        """An op as checkers know it, by the type of its domain and the names of its operands."""

        @overload
        def __call__(self: Function[One, Any], x: Plain) -> float: ...
        @overload
        def __call__(self: Function[One, Any], x: N) -> N: ...
        @overload
        def __call__(self: Function[One, Any], x: Array) -> Array: ...
        @overload
        def __call__(self: Function[Two, Any], x: Plain, y: Plain, /) -> float: ...
        @overload
        def __call__(self: Function[Two, Any], x: N | Plain, y: N | Plain, /) -> N: ...
        @overload
        def __call__(self: Function[Two, Any], x: Numbers, y: Numbers, /) -> Array: ...
        @overload  # by name, or without what has a default
        def __call__(self: Function[Two, P], *operands: P.args, **named: P.kwargs) -> Any: ...
        @overload
        def __call__(self: Function[Three, Any], condition: Plain, x: Plain, y: Plain) -> float: ...
        @overload
        def __call__(
            self: Function[Three, Any], condition: N | Plain, x: N | Plain, y: N | Plain
        ) -> N: ...
        @overload
        def __call__(
            self: Function[Three, Any], condition: Numbers, x: Numbers, y: Numbers
        ) -> Array: ...
        def __call__(self, *operands: Any, **named: Any) -> Any: ...

    class Loose(Op):
        """An op of the user's that has a default."""

        def __call__(self, *operands: Numbers, **named: Numbers) -> Any: ...

    class OneOrTwo(Protocol):
        def __call__(self, x: Any, y: Any = ..., /) -> Any: ...

    class TwoOrThree(Protocol):
        def __call__(self, x: Any, y: Any, z: Any = ..., /) -> Any: ...

    class MakesOp(Protocol):
        """What `vgrad.op` returns, which decorates a function of arrays."""

        @overload
        def __call__(self, function: OneOrTwo | TwoOrThree) -> Loose: ...
        @overload
        def __call__(self, function: Callable[[Any], Any]) -> Function[One, ...]: ...
        @overload
        def __call__(
            self, function: Callable[[Any, Any], Any]
        ) -> Function[Two, [Numbers, Numbers]]: ...
        @overload
        def __call__(self, function: Callable[[Any, Any, Any], Any]) -> Function[Three, ...]: ...
