"""Seeded programs as people write them: layers, attention, convolutions, recurrences, losses.

`program(seed)` writes one as source text, block by block; `print(program(seed))` shows it, ready to
be copied and cut down. The text runs on whatever stands for a number in its tables and arguments.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial, reduce
from itertools import takewhile
from typing import Any

import numpy as np

import vgrad

Shape = tuple[int, ...]


@dataclass
class Structured:
    """A program's text, and the numbers that it runs on."""

    seed: int
    blocks: list[str]  # their names
    source: str
    shapes: dict[str, Shape]  # of the arguments, for one sample
    whole: set[str]  # arguments that are whole numbers, from 0 up to 2
    tables: dict[str, Shape]  # the parameters, by the names that the text uses

    def __str__(self) -> str:
        shapes = ", ".join(f"{name} {shape}" for name, shape in self.shapes.items())
        tables = ", ".join(f"{name} {shape}" for name, shape in self.tables.items())
        head = f"# seed {self.seed}: {', '.join(self.blocks)}"
        return f"{head}\n# arguments: {shapes}\n# parameters: {tables}\n{self.source}"

    def theta(self) -> list[float]:
        """The parameters' numbers: uniform, scaled so that a sum over a row is of size 1."""
        rng = random.Random(f"theta of {self.seed}")
        numbers = []
        for shape in self.tables.values():
            limit = 1.5 / (shape[-1] if len(shape) > 1 else 1) ** 0.5
            numbers += [rng.uniform(-limit, limit) for _ in range(int(np.prod(shape)))]
        return numbers

    def batch(self, size: int) -> list[np.ndarray]:
        """An array for each argument: from -1.5 to 1.5, or whole."""
        rng = np.random.default_rng(self.seed)
        arrays = []
        for name, shape in self.shapes.items():
            drawn = rng.uniform(-1.5, 1.5, (size, *shape))
            arrays.append(np.floor(drawn + 1.5) if name in self.whole else drawn)
        return arrays

    def bound(self, numbers: list[Any], **names: Any) -> Callable[..., Any]:
        """The function, with these numbers, of any kind, as its parameters."""
        source = {"vgrad": vgrad, "np": np, "reduce": reduce, "constant": constant} | names
        rest = iter(numbers)
        for name, shape in self.tables.items():
            source[name] = filled([next(rest) for _ in range(int(np.prod(shape)))], shape)
        exec(compile(self.source, f"<structured program {self.seed}>", "exec"), source)
        return source["program"]


def constant(number: float) -> vgrad.Value:
    return vgrad.Value(number, trainable=False)


def filled(numbers: list[Any], shape: Shape) -> Any:
    """An object array of these, or the one number itself if the shape is ()."""
    if shape == ():
        return numbers[0]
    array = np.empty(len(numbers), object)
    for k, number in enumerate(numbers):  # all at once, NumPy would look into tensors
        array[k] = number
    return array.reshape(shape)


class Writer:
    """Text so far, and the names that further blocks can use."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.large = self.rng.random() < 0.15  # for products and stacks beyond the least sizes
        self.lines: list[str] = []
        self.blocks: list[str] = []
        self.shapes: dict[str, Shape] = {}
        self.whole: set[str] = set()
        self.tables: dict[str, Shape] = {}
        self.names: dict[str, Shape] = {}  # every number, vector and sequence, oldest first
        self.made = 0

    # --- choices ---

    def pick(self, *options: Any) -> Any:
        return self.rng.choice(options)

    def size(self) -> int:
        return self.rng.randint(4, 7) if self.large else self.rng.randint(1, 5)

    def activation(self) -> str:
        tanh = "vgrad.tanh({})"
        return self.pick(tanh, tanh, "vgrad.sigmoid({})", "vgrad.relu({})", "vgrad.sin({})",
                         "({})", "0.5 * ({})", "vgrad.maximum({}, -0.1)")  # fmt: skip

    # --- what there is ---

    def named(self, axes: int) -> tuple[str, Shape] | None:
        found = [(name, shape) for name, shape in self.names.items() if len(shape) == axes]
        if not found:
            return None
        return found[-1] if self.rng.random() < 0.5 else self.rng.choice(found)

    def number(self) -> str:
        """An expression for one number."""
        found = [*self.names.items()]
        name, shape = found[-1] if self.rng.random() < 0.3 else self.rng.choice(found)
        return name + "".join(f"[{self.rng.randrange(n)}]" for n in shape)

    def vector(self) -> tuple[str, int]:
        """An expression for a vector, and its length."""
        matrix = self.named(2)
        if matrix and self.rng.random() < 0.25:
            name, (rows, columns) = matrix
            if self.rng.random() < 0.5:
                return f"{name}[{self.rng.randrange(rows)}]", columns
            column = self.rng.randrange(columns)
            return f"[row[{column}] for row in {name}]", rows
        if found := self.named(1):
            return found[0], found[1][0]
        numbers = [self.number() for _ in range(self.size())]
        return f"[{', '.join(numbers)}]", len(numbers)

    def sequence(self, more: int = 0) -> tuple[str, int, int]:
        """A name of a list of vectors, how many they are, `more` than usual, and their length."""
        if not more and (found := self.named(2)) and self.rng.random() < 0.8:
            return found[0], *found[1]
        vector, n = self.vector()
        steps = self.size() + 1 + (0 if self.large else more)
        table = self.table(steps, n)
        name = self.new((steps, n))
        self.add(f"{name} = [[a * u for a, u in zip({vector}, row)] for row in {table}]")
        return name, steps, n

    # --- what is added ---

    def table(self, *shape: int) -> str:
        """Parameters: new ones, or older ones of that shape, which ties two places together."""
        same = [name for name, known in self.tables.items() if known == shape]
        if same and self.rng.random() < 0.3:
            return self.rng.choice(same)
        name = f"{'PBW'[len(shape)]}{len(self.tables)}"
        self.tables[name] = shape
        return name

    def new(self, shape: Shape) -> str:
        name = f"h{self.made}"
        self.made += 1
        self.names[name] = shape
        return name

    def add(self, *lines: str) -> None:
        self.lines += lines

    def result(self, shape: Shape, text: str) -> str:
        name = self.new(shape)
        self.add(f"{name} = {text}")
        return name


# --- blocks: each adds lines that end in a new name ----------------------------------------------


def weighted(w: Writer, row: str, xs: str, bias: str | None) -> str:
    """The sum of a neuron, in one of the ways to write it."""
    term = w.pick("u * a", "u * a", "a * u")
    terms = f"{term} for u, a in zip({row}, {xs})"
    if bias is None:
        return f"sum({terms})"
    return w.pick(f"sum({terms}) + {bias}", f"{bias} + sum({terms})", f"sum(({terms}), {bias})",
                  f"sum([{terms}]) + {bias}", f"sum({terms}) - {bias}")  # fmt: skip


def dense(w: Writer) -> None:
    xs, n = w.vector()
    m, act = w.size(), w.activation()
    rows, biases = w.table(m, n), w.table(m)
    style = w.pick("bias", "bias", "none", "array", "loop")
    if style == "bias":
        neuron = act.format(weighted(w, "row", xs, "b"))
        w.result((m,), f"[{neuron} for row, b in zip({rows}, {biases})]")
    elif style == "none":
        w.result((m,), f"[{act.format(weighted(w, 'row', xs, None))} for row in {rows}]")
    elif style == "array":
        product = w.pick(f"{rows} @ np.array({xs})", f"np.array({xs}) @ {rows}.T")
        w.result((m,), f"[{act.format('s')} for s in {product} + {biases}]")
    else:
        name = w.new((m,))
        w.add(f"{name} = []", f"for row, b in zip({rows}, {biases}):", "    total = b",
              f"    for u, a in zip(row, {xs}):",
              w.pick("        total = total + u * a", "        total += a * u",
                     "        total -= u * a"),
              f"    {name}.append({act.format('total')})")  # fmt: skip


def several_layers(w: Writer) -> None:
    """Of equal width, with one table or several, and residuals or not."""
    xs, n = w.vector()
    act, residual = w.activation(), w.pick("", "", "a0 + ", "0.5 * a0 - ")
    for _ in range(w.rng.randint(1, 3)):
        rows, biases = w.table(n, n), w.table(n)
        neuron = act.format(weighted(w, "row", xs, "b"))
        zipped = f"for a0, row, b in zip({xs}, {rows}, {biases})"
        xs = w.result((n,), f"[{residual}{neuron} {zipped}]")


def scaled_rows(w: Writer) -> None:
    """The same weights several times, with other coefficients and signs."""
    xs, n = w.vector()
    row, act = w.table(n), w.activation()
    terms = [f"{c}u * a" for c in ("2.0 * ", "", "-", "-3 * ")] + ["a * u * 2", "u * (a * 1.5)"]
    bodies = [f"sum({term} for u, a in zip({row}, {xs}))" for term in terms]
    bodies = [*bodies, f"-{bodies[0]}", f"0.5 - {bodies[1]}"]
    chosen = w.rng.sample(bodies, w.rng.randint(2, 5))
    w.result((len(chosen),), f"[{', '.join(act.format(body) for body in chosen)}]")


def autoencoder(w: Writer) -> None:
    """A layer and its transpose."""
    xs, n = w.vector()
    m = w.size()
    rows = w.table(m, n)
    code = w.result((m,), f"[vgrad.tanh({weighted(w, 'row', xs, None)}) for row in {rows}]")
    column = f"[row[i] for row in {rows}]"
    w.result((n,), f"[{weighted(w, column, code, None)} for i in range({n})]")


def at_every_position(w: Writer) -> None:
    xs, steps, n = w.sequence()
    m, act = w.size(), w.activation()
    rows, biases = w.table(m, n), w.table(m)
    if w.rng.random() < 0.3:
        places = w.table(steps, m)  # another bias at each position
        neuron = act.format(weighted(w, "row", "x", "b"))
        w.result((steps, m), f"[[{neuron} for row, b in zip({rows}, place)] "
                             f"for x, place in zip({xs}, {places})]")  # fmt: skip
    else:
        neuron = act.format(weighted(w, "row", "x", "b"))
        w.result((steps, m), f"[[{neuron} for row, b in zip({rows}, {biases})] for x in {xs}]")


def attention(w: Writer) -> None:
    xs, steps, n = w.sequence(w.pick(0, 0, 0, 3))
    d, heads = w.rng.randint(1, 4), w.rng.randint(1, 2)
    causal, out = w.rng.random() < 0.5, []
    for _ in range(heads):
        q, k, v = xs, xs, xs
        if w.rng.random() < 0.7:
            q, k, v = (
                w.result((steps, d), f"[[{weighted(w, 'row', 'x', None)} for row in "
                                     f"{w.table(d, n)}] for x in {xs}]")
                for _ in range(3)
            )  # fmt: skip
        end = "[:t + 1]" if causal else ""
        scale = w.pick(f" / {d**0.5}", f" * {d**-0.5}", "")
        length = d if v != xs else n
        name = w.new((steps, length))
        w.add(f"{name} = []", f"for t in range({steps}):",
              f"    scores = [sum(a * b for a, b in zip({q}[t], key)){scale} "
              f"for key in {k}{end}]",
              w.pick("    attended = vgrad.softmax(scores)",
                     "    exps = [vgrad.exp(s) for s in scores]\n"
                     "    attended = [e / sum(exps) for e in exps]"),
              f"    {name}.append([sum(p * x[j] for p, x in zip(attended, {v}{end})) "
              f"for j in range({length})])")  # fmt: skip
        out.append((name, length))
    joined = " + ".join(f"{name}[t]" for name, _ in out)
    total = sum(length for _, length in out)
    w.result((steps, total), f"[{joined} for t in range({steps})]")


def convolution(w: Writer) -> None:
    xs, n = w.vector()
    k, stride, channels = w.rng.randint(1, min(n, 4)), w.rng.randint(1, 2), w.rng.randint(1, 3)
    kernels, biases, act = w.table(channels, k), w.table(channels), w.activation()
    steps = len(range(0, n - k + 1, stride))
    neuron = act.format(weighted(w, "kernel", f"{xs}[t:t + {k}]", "b"))
    w.result((channels, steps), f"[[{neuron} for t in range(0, {n - k + 1}, {stride})] "
                                f"for kernel, b in zip({kernels}, {biases})]")  # fmt: skip


def convolution_over_channels(w: Writer) -> None:
    """In two directions, or over the positions of several channels; rows by columns."""
    xs, rows, columns = w.sequence()
    k, m = w.rng.randint(1, min(rows, 3)), w.rng.randint(1, min(columns, 3))
    stride, act = w.rng.randint(1, 2), w.activation()
    kernel, bias = w.table(k, m), w.table()
    across, down = len(range(0, columns - m + 1, stride)), len(range(0, rows - k + 1, stride))
    terms = f"{kernel}[i][j] * {xs}[y + i][x + j] for i in range({k}) for j in range({m})"
    w.result((down, across), f"[[{act.format(f'sum({terms}) + {bias}')} "
                             f"for x in range(0, {columns - m + 1}, {stride})] "
                             f"for y in range(0, {rows - k + 1}, {stride})]")  # fmt: skip


def recurrence(w: Writer) -> None:
    xs, steps, n = w.sequence()
    m, gated = w.rng.randint(1, 4), w.rng.random() < 0.4
    u, v, b = w.table(m, n), w.table(m, m), w.table(m)
    state, states = w.new((m,)), w.new((steps, m))
    w.add(f"{state} = [{w.pick('0.0', '0.5')}] * {m}", f"{states} = []", f"for x in {xs}:")
    added = f"({weighted(w, 'r', 'x', None)}) + ({weighted(w, 's', state, None)}) + b"
    new = f"[vgrad.tanh({added}) for r, s, b in zip({u}, {v}, {b})]"
    if gated:
        gate = w.table(m, n)
        w.add(f"    gates = [vgrad.sigmoid({weighted(w, 'r', 'x', None)}) for r in {gate}]",
              f"    new = {new}",
              f"    zipped = zip(gates, {state}, new)",
              f"    {state} = [g * s + (1 - g) * c for g, s, c in zipped]")  # fmt: skip
    else:
        w.add(f"    {state} = {new}")
    w.add(f"    {states}.append({state})")


def smoothing(w: Writer) -> None:
    """A mean that forgets, or a level and a trend."""
    xs, n = w.vector()
    rate = w.table()
    name, level = w.new((n,)), f"{xs}[0]"
    step = w.pick("rate * x + (1 - rate) * level", "level + rate * (x - level)",
                  "level - rate * (level - x)", "0.7 * level + 0.3 * x")  # fmt: skip
    w.add(f"rate, level, {name} = vgrad.sigmoid({rate}), {level}, []",
          f"for x in {xs}:", f"    level = {step}", f"    {name}.append(level)")  # fmt: skip


def horner(w: Writer) -> None:
    xs, _ = w.vector()
    z, name = w.number(), w.new(())
    w.add(f"z, {name} = vgrad.tanh({z}), {w.pick('0.0', '1.0')}",
          f"for c in {xs}:", f"    {name} = {name} * z + c")  # fmt: skip


def running(w: Writer) -> None:
    """Sums and products of all that came before."""
    xs, n = w.vector()
    name = w.new((n,))
    kind = w.pick("total + a", "total - a", "total * vgrad.sigmoid(a)", "total * a + 0.5")
    if kind == "total * a + 0.5":
        xs = f"[vgrad.tanh(a) for a in {xs}]"
    w.add(f"total, {name} = 1.0, []", f"for a in {xs}:", f"    total = {kind}",
          f"    {name}.append(total)")  # fmt: skip


def ragged(w: Writer) -> None:
    """Sums of different lengths."""
    act = w.activation()
    if w.rng.random() < 0.5:
        xs, n = w.vector()
        part = w.pick(f"{xs}[:k + 1]", f"{xs}[k:]")
        body = w.pick(f"sum({part})", f"sum(a * a for a in {part})", f"sum({part}) / (k + 1)")
        w.result((n,), f"[{act.format(body)} for k in range({n})]")
    else:
        xs, steps, n = w.sequence()
        table = w.table(n)
        lengths = [w.rng.randint(1, n) for _ in range(steps)]
        body = weighted(w, table, "x[:k]", w.pick(None, w.number()))
        w.result((steps,), f"[{act.format(body)} for x, k in zip({xs}, {lengths})]")


def polynomial(w: Writer) -> None:
    a, b = w.number(), w.number()
    table, powers = w.table(w.rng.randint(1, 6)), ("a", "a", "b", "a**2", "b**3", "b**2")
    terms = []
    for k in range(w.tables[table][0]):
        first = w.pick(f"{table}[{k}]", f"{table}[{k}]", "0.3", "-1.5")
        terms.append(" * ".join([first, *w.rng.choices(powers, k=w.rng.randint(1, 4))]))
    w.add(f"a, b = vgrad.tanh({a}), vgrad.sin({b})")
    w.result((), w.pick(" + ", " - ").join(terms))


def pooling(w: Writer) -> None:
    xs, n = w.vector()
    k = w.rng.randint(1, min(n, 3))
    body = w.pick(f"reduce(vgrad.maximum, {xs}[t:t + {k}])", f"sum({xs}[t:t + {k}]) / {k}",
                  f"reduce(vgrad.minimum, {xs}[t:t + {k}])")  # fmt: skip
    stride = w.rng.randint(1, k)
    steps = len(range(0, n - k + 1, stride))
    w.result((steps,), f"[{body} for t in range(0, {n - k + 1}, {stride})]")


def normalisation(w: Writer) -> None:
    xs, n = w.vector()
    gains, shifts = w.table(n), w.table(n)
    if w.rng.random() < 0.5:
        w.add(f"mean = sum({xs}) / {n}",
              w.pick(f"spread = sum((a - mean)**2 for a in {xs}) / {n}",
                     f"spread = sum((a - mean) * (a - mean) for a in {xs}) / {n}"))  # fmt: skip
        body = w.pick("g * (a - mean) / vgrad.sqrt(spread + 0.1) + s",
                      "(a - mean) * (spread + 0.1)**-0.5 * g + s")  # fmt: skip
    else:
        w.add(f"scale = (sum(a * a for a in {xs}) / {n} + 0.1)**-0.5")
        body = w.pick("a * scale * g", "g * (a * scale)", "a * scale - s")
    w.result((n,), f"[{body} for a, g, s in zip({xs}, {gains}, {shifts})]")


def embedding(w: Writer) -> None:
    """Rows of a table at whole numbers, which are an argument of their own."""
    n = w.size()
    name = next(iter(w.whole), None)
    if name is None:
        return dense(w)
    shape, table = w.shapes[name], w.table(3, n)
    if shape == ():
        w.result((n,), f"[*vgrad.take({table}, {name})]")
    else:
        place = w.table(shape[0], n)
        w.result((shape[0], n), f"[[a + b for a, b in zip(vgrad.take({table}, k), p)] "
                                f"for k, p in zip({name}, {place})]")  # fmt: skip


def picked(w: Writer) -> None:
    """Choices by comparisons, also of differences."""
    a, b, c = w.number(), w.number(), w.number()
    name = w.pick(
        f"vgrad.where({a} > {b}, {a} - {b}, {c})",
        f"vgrad.where({a} - {b} > 0.1, {c} * {a}, {b} - {c})",
        f"({a} > {b}) * {c}",
        f"({a} - {b} <= {c}) * {b} + {a}",
        f"vgrad.where({a} < {b}, {a}, {b}) - vgrad.minimum({a}, {c})",
        f"abs({a} - {b}) + vgrad.clip({c}, -0.5, 0.5)",
        f"vgrad.relu({a} - {b}) - vgrad.relu({b} - {c})",
    )
    w.result((), name)


def repeated(w: Writer) -> None:
    a, b, c = w.number(), w.number(), w.number()
    text = w.pick(
        f"{a} + {a}", f"{a} * {a}", f"{a} * {b} + {a} * {b}", f"({a} + {b}) + ({a} + {b})",
        f"2 * {a} - {a}", f"{a} * {b} - {b} * {a} + {c}", f"{a} - {a} + {b}", f"sum([{a}] * 4)",
        f"sum([{a} * {b}, {b} * {c}, {a} * {b}])", f"-(-{a}) - -{b}", f"{a} + {a} * {b} + {a}",
        f"({a} + {b}) * ({a} + {b})", f"({a} - {b}) * ({a} + {b})", f"1 - (1 - {a}) - {b} * 0.5",
        f"{a} / (1.5 + {a} * {a})", f"0.1 * {a} * 3 * {b} * 2 - -{c}",
    )  # fmt: skip
    w.add(f"term = {text}")
    w.result((), w.pick("term", "term", "vgrad.tanh(term) + term", "term * term + 0.5 * term"))


def differences(w: Writer) -> None:
    (xs, n), (ys, m) = w.vector(), w.vector()
    k = min(n, m)
    text = w.pick(
        f"sum({xs}) - sum({ys})", f"sum(a - b for a, b in zip({xs}, {ys}))",
        f"sum((a - b)**2 for a, b in zip({xs}, {ys})) / {k}",
        f"sum(a * b for a, b in zip({xs}, {ys})) - sum({ys})",
        f"sum({xs}) / {n} - (sum({ys}) - {w.number()})",
        f"-(sum({xs}) - sum(a * a for a in {ys}))",
        f"vgrad.sqrt(1 + sum((a - b) * (a - b) for a, b in zip({xs}, {ys})))",
        f"vgrad.exp(-0.2 * sum((a - b)**2 for a, b in zip({xs}, {ys})))",
    )  # fmt: skip
    w.result((), text)


def compensated(w: Writer) -> None:
    """Sums whose order matters: what rounding took away is computed, and added again."""
    a, b, c = w.number(), w.number(), w.number()
    style = w.pick("log", "two sums", "squares", "kahan", "telescope")
    if style == "log":
        size = w.pick("1e-6", "1e-9", "1e-13")
        w.add(f"small = {size} * (1.7 + vgrad.sin({a}))", "u = 1 + small")
        w.result((), "(vgrad.log(u) - ((u - 1) - small) / u) / small")
    elif style == "two sums":
        w.add(f"s = {a} + {b}", f"part = s - {a}",
              f"error = ({a} - (s - part)) + ({b} - part)")  # fmt: skip
        w.result((), f"s + error * {c}")
    elif style == "squares":
        w.result((), f"({a} + {b})**2 - ({a} - {b})**2")
    elif style == "kahan":
        xs, _ = w.vector()
        name = w.new(())
        w.add(f"{name}, lost = 0.0, 0.0", f"for a in {xs}:", "    y = a - lost",
              f"    t = {name} + y", f"    lost = (t - {name}) - y", f"    {name} = t")  # fmt: skip
    else:
        xs, _ = w.vector()
        w.result((), f"sum(a - b for a, b in zip({xs}, [0.0, *{xs}]))")


def all_pairs(w: Writer) -> None:
    """Products of each row with each, of two sequences, or of their halves in a triangle."""
    xs, steps, n = w.sequence(w.pick(0, 0, 3))
    other = [(name, s) for name, s in w.names.items() if len(s) == 2 and s[1] == n]
    ys, (rows, _) = w.rng.choice(other)
    pairs = w.pick("", "", " if s <= t", " if s != t")
    act = w.pick("vgrad.tanh({})", "vgrad.sin({})", "vgrad.exp(-vgrad.abs({}))", "0.3 * ({})")
    body = act.format(w.pick("sum(a * b for a, b in zip(x, y))", "sum(b * a for a, b in zip(x, y))",
                             "sum((a - b) * (a - b) for a, b in zip(x, y))"))  # fmt: skip
    name = w.new(())
    w.add(f"{name} = sum({body} for t, x in enumerate({xs}) for s, y in enumerate({ys}){pairs})",
          f"{name} = {name} / {steps * rows}")  # fmt: skip


def product_of_matrices(w: Writer) -> None:
    xs, steps, n = w.sequence()
    ys, rows, columns = w.sequence()
    k = min(n, rows)
    body = f"sum({xs}[i][k] * {ys}[k][j] for k in range({k}))"
    body = w.activation().format(body)
    w.result((steps, columns), f"[[{body} for j in range({columns})] for i in range({steps})]")


def bilinear(w: Writer) -> None:
    (xs, n), (ys, m) = w.vector(), w.vector()
    table = w.table(n, m)
    w.result((), w.pick(
        f"sum(a * u * b for a, row in zip({xs}, {table}) for u, b in zip(row, {ys}))",
        f"sum(a * sum(u * b for u, b in zip(row, {ys})) for a, row in zip({xs}, {table}))",
        f"sum(u * (a * b) for a, row in zip({xs}, {table}) for u, b in zip(row, {ys}))",
    ))  # fmt: skip


def gates(w: Writer) -> None:
    (xs, n), (ys, m) = w.vector(), w.vector()
    text = w.pick("a * vgrad.sigmoid(b)", "a / (1 + b * b)", "vgrad.exp(0.3 * a) - b",
                  "vgrad.log(1 + vgrad.exp(a)) * b", "a * b", "vgrad.sqrt(1 + a * a) - 1 + b",
                  "vgrad.cos(a) * b - a", "vgrad.tanh(a + b)", "a - vgrad.stop_gradient(b)",
                  "vgrad.stop_gradient(a) * b + a", "vgrad.maximum(a, b)", "0.3**a - b**2",
                  "(1 + a * a)**(0.5 * vgrad.tanh(b))")  # fmt: skip
    w.result((min(n, m),), f"[{text} for a, b in zip({xs}, {ys})]")


def mixture(w: Writer) -> None:
    xs, n = w.vector()
    w.result((n,), w.pick(f"vgrad.softmax({xs})", f"[*vgrad.softmax(np.array({xs}))]",
                          f"[a - vgrad.logsumexp({xs}) for a in {xs}]"))  # fmt: skip


def a_constant(w: Writer) -> None:
    """Plain numbers among the others."""
    n = w.size()
    constants = [round(w.rng.uniform(-1, 1), 2) for _ in range(n)]
    w.result((n,), f"[c * {w.number()} + {w.pick('c', '1', '0')} for c in {constants}]")


BLOCKS: dict[Callable[[Writer], None], int] = {
    dense: 4, several_layers: 3, scaled_rows: 1, autoencoder: 1, at_every_position: 3,
    attention: 3, convolution: 2, convolution_over_channels: 2, recurrence: 2, smoothing: 1,
    horner: 1, running: 1, ragged: 2, polynomial: 2, pooling: 2, normalisation: 2, embedding: 2,
    picked: 2, repeated: 3, differences: 2, all_pairs: 2, product_of_matrices: 2, bilinear: 1,
    compensated: 2, gates: 2, mixture: 1, a_constant: 1,
}  # fmt: skip


# --- whole programs ------------------------------------------------------------------------------


def loss(w: Writer) -> str:
    """The objective without penalties."""
    (xs, n), target = w.vector(), w.number()
    k = w.rng.randrange(n)
    return w.pick(
        f"({xs}[{k}] - {target})**2", f"vgrad.relu(1 - {target} * {xs}[{k}])",
        f"vgrad.logsumexp({xs}) - {xs}[{k}]", f"sum({xs})", f"sum(a * a for a in {xs}) / {n}",
        f"sum((a - {target})**2 for a in {xs})", f"-vgrad.log(vgrad.softmax({xs})[{k}])",
        f"vgrad.log(1 + vgrad.exp(-{target} * {xs}[{k}]))", f"{xs}[{k}]",
        f"sum(vgrad.maximum(0, a - {xs}[{k}] + 1) for a in {xs}) - 1",
    )  # fmt: skip


def penalty(w: Writer) -> str:
    kind = w.pick("p * p", "p * p", "p**2", "abs(p)", "p * p * p")
    rows = [f"*{name}.flat" if shape else name for name, shape in w.tables.items()]
    if w.rng.random() < 0.3:
        rows = rows[:1]
    return f"{w.pick('1e-3', '0.01', '0.5')} * sum({kind} for p in [{', '.join(rows)}])"


def objective(w: Writer) -> None:
    """A loss, some of the other results, and a penalty: a line each."""
    w.add(f"objective = {loss(w)}")
    if w.tables and w.rng.random() < 0.02:  # nothing of any sample
        w.add(f"objective = {penalty(w)}")
        return
    terms = []
    for name, shape in w.names.items():
        if name.startswith("h") and w.rng.random() < 0.4:
            total = {0: name, 1: f"sum({name})", 2: f"sum(a for row in {name} for a in row)"}
            terms.append(f"{w.pick('0.1', '0.2', '-0.3')} * {total[len(shape)]}")
    if w.tables and w.rng.random() < 0.4:
        terms.append(penalty(w))
    for term in terms:
        w.add(f"objective = objective {w.pick('+', '+', '-')} {term}")


def outputs(w: Writer) -> list[str]:
    """The objective, which now and then is a leaf, and up to two more."""
    leaves = [name + "[0]" * len(shape) for name, shape in [*w.shapes.items(), *w.tables.items()]]
    first = w.rng.choice(leaves) if w.rng.random() < 0.05 else "objective"
    more = [
        w.pick(w.number(), w.number(), w.rng.choice(leaves), "objective",
               f"np.array({w.vector()[0]})", f"vgrad.tanh({w.number()})", "constant(0.25)")
        for _ in range(w.rng.randint(0, 2))
    ]  # fmt: skip
    return [first, *more]


def arguments(w: Writer) -> None:
    for name in ("first", "second", "third", "index")[: w.rng.randint(1, 4)]:
        n, m = w.size() + 1, w.size()
        w.shapes[name] = w.pick((), (n,), (n,), (n, m))
        if name == "index":
            w.whole.add(name)
            w.shapes[name] = w.pick((), (n,))
    w.names |= w.shapes


def program(seed: int) -> Structured:
    """The program of this seed: up to four arguments, seven blocks, and three outputs."""
    w = Writer(seed)
    arguments(w)
    for _ in range(w.rng.randint(2, 4 if w.large else 7)):
        (block,) = w.rng.choices([*BLOCKS], [*BLOCKS.values()])
        w.blocks.append(block.__name__)
        w.add(f"# {block.__name__.replace('_', ' ')}")
        block(w)
    w.add("# outputs")
    objective(w)
    w.add("return " + ", ".join(outputs(w)))
    body = "\n".join(w.lines).replace("\n", "\n    ")
    source = f"def program({', '.join(w.shapes)}):\n    {body}\n"
    return Structured(seed, w.blocks, source, w.shapes, w.whole, w.tables)


def shrunk(case: Structured, fails: Callable[[Structured], bool]) -> Structured:
    """The program without all lines that it does not need to fail."""
    lines = case.source.splitlines()
    for k in reversed(range(1, len(lines))):
        end = k + 1 + sum(1 for _ in takewhile(partial(is_inside, lines[k]), lines[k + 1 :]))
        fewer = replace(case, source="\n".join(lines[:k] + lines[end:]) + "\n")
        if fails(fewer):
            lines = lines[:k] + lines[end:]
    return replace(case, source="\n".join(lines) + "\n")


def is_inside(head: str, line: str) -> bool:
    """Whether a line is indented more than one before it."""
    return len(line) - len(line.lstrip()) > len(head) - len(head.lstrip())
