"""Train a GPT that is written one number at a time, and let it invent names.

GPT-2's shape with RMSNorm and relu, without biases. Its documents are the names that Python's
standard library defines, so that it invents identifiers, or the lines of any text.
"""

from __future__ import annotations

import argparse
import builtins
import itertools
import math
import random
import re
import sys
import sysconfig
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from terminal import Progress, folder, options, positive, write

import vgrad
from vgrad import Value, optim

RATE = 0.01  # at the first step; it falls to 0
SMOOTH = 50  # steps under the curve's mean
DEFINITION = re.compile(rb"^\s*(?:async\s+def|def|class)\s+([A-Za-z][A-Za-z_]*)\s*[(:\[]", re.M)
SIZES = {"n_embd": 16, "n_layer": 1, "n_head": 4, "block_size": 16}

Document = list[int]  # tokens: the boundary, characters, the boundary


# --- the model: numbers are floats, `Value`s or traced nodes -------------------------------------


class Layer(NamedTuple):
    wq: Any
    wk: Any
    wv: Any
    wo: Any
    fc1: Any
    fc2: Any


class Model(NamedTuple):
    """Matrices, each a list of rows."""

    wte: Any  # a row per token
    wpe: Any  # a row per position
    lm_head: Any
    layers: list[Layer]
    heads: int


def dot(xs: Any, ys: Any) -> Any:
    return sum(x * y for x, y in zip(xs, ys))


def add(xs: Any, ys: Any) -> list[Any]:
    return [x + y for x, y in zip(xs, ys)]


def linear(x: list[Any], w: Any) -> list[Any]:
    return [dot(row, x) for row in w]


def rmsnorm(x: list[Any]) -> list[Any]:
    scale = (dot(x, x) / len(x) + 1e-5) ** -0.5
    return [number * scale for number in x]


def attention(q: list[Any], keys: list[Any], values: list[Any], heads: int) -> list[Any]:
    """What each head reads: the mean of the values, weighted by how well their keys match q."""
    size = len(q) // heads
    read = []
    for start in range(0, len(q), size):
        part = slice(start, start + size)
        weights = vgrad.softmax([dot(q[part], key[part]) / size**0.5 for key in keys])
        read += [dot(weights, column) for column in zip(*(value[part] for value in values))]
    return read


def logits(model: Model, token: Any, position: int, cache: list[Any]) -> list[Any]:
    """A score for every token to come next.

    `cache` has the keys and values of earlier positions, a pair of lists per layer, and gets those
    of this one.
    """
    x = rmsnorm(add(vgrad.take(model.wte, token), model.wpe[position]))
    for layer, (keys, values) in zip(model.layers, cache):
        h = rmsnorm(x)
        keys.append(linear(h, layer.wk))
        values.append(linear(h, layer.wv))
        h = attention(linear(h, layer.wq), keys, values, model.heads)
        x = add(x, linear(h, layer.wo))
        h = [vgrad.relu(number) for number in linear(rmsnorm(x), layer.fc1)]
        x = add(x, linear(h, layer.fc2))
    return linear(x, model.lm_head)


def loss(model: Model, tokens: Any) -> tuple[Any, list[Any]]:
    """The mean over the positions of -log p(next token), and the logits at the last position."""
    cache: list[Any] = [([], []) for _ in model.layers]
    total: Any = 0.0
    for position, (token, following) in enumerate(itertools.pairwise(tokens)):
        scores = logits(model, token, position, cache)
        total = total + vgrad.logsumexp(scores) - vgrad.take(scores, following)
    return total / (len(tokens) - 1), scores


class Sizes(NamedTuple):
    vocabulary: int
    n_embd: int
    n_layer: int
    n_head: int
    block_size: int

    @property
    def parameters(self) -> int:
        per_layer = 12 * self.n_embd**2
        return (2 * self.vocabulary + self.block_size) * self.n_embd + self.n_layer * per_layer


def build(sizes: Sizes, numbers: Iterator[Any]) -> Model:
    """A model whose matrices take their numbers from a theta, in its order."""

    def matrix(rows: int, columns: int) -> list[list[Any]]:
        return [list(itertools.islice(numbers, columns)) for _ in range(rows)]

    n, vocabulary = sizes.n_embd, sizes.vocabulary
    wte, wpe, lm_head = matrix(vocabulary, n), matrix(sizes.block_size, n), matrix(vocabulary, n)
    shapes = [*[(n, n)] * 4, (4 * n, n), (n, 4 * n)]
    layers = [Layer(*[matrix(*shape) for shape in shapes]) for _ in range(sizes.n_layer)]
    return Model(wte, wpe, lm_head, layers, sizes.n_head)


# --- one loss, two engines -----------------------------------------------------------------------


class Scalar:
    """Builds the graph of every document out of `Value`s, at every step."""

    def __init__(self, sizes: Sizes, theta: np.ndarray) -> None:
        self.sizes = sizes
        self.parameters = [Value(number) for number in theta.tolist()]
        self.model = build(sizes, iter(self.parameters))

    def prepare(self, positions: int) -> None:
        """Nothing to do: a graph serves once."""

    def step(self, batch: list[Document], optimiser: optim.Optimiser) -> float:
        mean = sum(loss(self.model, tokens)[0] for tokens in batch) / len(batch)
        for p in self.parameters:
            p.grad = 0.0
        mean.backward()
        optimiser.step(self.parameters)
        return float(mean.data)

    def predict(self, beginnings: list[Document]) -> list[list[float]]:
        """The logits after each beginning, on plain floats."""
        model = build(self.sizes, iter(self.theta().tolist()))
        return [loss(model, [*tokens, 0])[1] for tokens in beginnings]

    def theta(self) -> np.ndarray:
        return np.array([p.data for p in self.parameters])

    def compiled(self) -> str:
        return ""


class Vector:
    """Records the loss of a document once for each number of positions, and replays it."""

    def __init__(self, sizes: Sizes, theta: np.ndarray) -> None:
        self.parameters = [Value(number) for number in theta.tolist()]
        self.model = build(sizes, iter(self.parameters))
        self.numbers = theta.copy()
        self.programs: dict[int, vgrad.Program] = {}
        self.nodes, self.seconds = 0, 0.0

    def prepare(self, positions: int) -> None:
        """Compile the program of this many positions, where that has not been done."""
        if positions in self.programs:
            return
        start = time.perf_counter()
        shape = (positions + 1,)
        graph = vgrad.trace(partial(loss, self.model), shape, parameters=self.parameters)
        program = self.programs[positions] = vgrad.compile(graph)
        program.explain(np.zeros((1, *shape)))  # it plans, which the first step would do otherwise
        self.nodes += len(graph)
        self.seconds += time.perf_counter() - start

    def step(self, batch: list[Document], optimiser: optim.Optimiser) -> float:
        value, grad = self.programs[len(batch[0]) - 1].value_and_grad(self.numbers, batch)
        optimiser.step(self.numbers, grad)
        return float(value)

    def predict(self, beginnings: list[Document]) -> list[list[float]]:
        """The logits after each beginning, all of one length, as one batch."""
        program = self.programs[len(beginnings[0])]
        _, scores = program(self.numbers, [[*tokens, 0] for tokens in beginnings])
        return list(np.transpose(scores).tolist())

    def theta(self) -> np.ndarray:
        return self.numbers.copy()

    def compiled(self) -> str:
        many = f"{len(self.programs)} programs of {self.nodes:,} nodes"
        return f"compiled {many} in {self.seconds:.1f} s; " if self.programs else ""


ENGINES: dict[str, type[Scalar | Vector]] = {"vector": Vector, "scalar": Scalar}


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    random.seed(args.seed)
    random.shuffle(args.documents)
    theta = np.array([random.gauss(0, 0.08) for _ in range(args.sizes.parameters)])
    optimiser = optim.Adam(beta1=0.85, beta2=0.99)
    if args.load:
        theta = args.load.theta
        optimiser.restore(args.load.optimiser)
    many = f"{len(args.documents):,} documents, {len(args.characters) + 1} tokens"
    print(f"{many}, {len(theta):,} parameters")
    engine = ENGINES[args.engine](args.sizes, theta)
    losses, seconds = train(engine, optimiser, args) if args.steps else ([], 0.0)
    if args.save:
        write(args.save, partial(save, engine.theta(), optimiser, args))
    names = invent(engine, args)
    each = f", {1e3 * seconds / args.steps:.3g} ms a step" if args.steps else ""
    print(f"{engine.compiled()}{args.steps} steps in {seconds:.1f} s{each}")
    print(*names, sep="\n")
    if losses and not args.no_plot:
        write(args.out / "gpt.png", partial(plot, losses))
    return 0


def train(
    engine: Scalar | Vector, optimiser: optim.Optimiser, args: argparse.Namespace
) -> tuple[list[float], float]:
    """The loss of every step, and the seconds that steps took."""
    before, total = optimiser.steps, optimiser.steps + args.steps
    optimiser.rate = lambda k: RATE * (1 - k / total)
    documents = [encode(text, args) for text in args.documents]
    losses, seconds = [], 0.0
    with Progress() as progress:
        for batch in itertools.islice(batches(documents, args.batch), before, total):
            engine.prepare(len(batch[0]) - 1)
            start = time.perf_counter()
            losses.append(engine.step(batch, optimiser))
            seconds += time.perf_counter() - start
            progress(f"step {optimiser.steps} / {total} | loss {losses[-1]:.4f}")
    return losses, seconds


def batches(documents: list[Document], size: int) -> Iterator[list[Document]]:
    """Goes through the documents over and over; whenever `size` of one length are together, they
    are a batch."""
    waiting = defaultdict(list)
    for tokens in itertools.cycle(documents):
        waiting[len(tokens)].append(tokens)
        if len(waiting[len(tokens)]) == size:
            yield waiting.pop(len(tokens))


def encode(text: str, args: argparse.Namespace) -> Document:
    """Its tokens, no more than there are positions for and the one that follows the last."""
    boundary = len(args.characters)
    tokens = [boundary, *(args.characters.index(x) for x in text), boundary]
    return tokens[: args.sizes.block_size + 1]


def invent(engine: Scalar | Vector, args: argparse.Namespace) -> list[str]:
    """New documents, drawn a character at a time, of at most as many as there are positions."""
    rng = random.Random(args.seed)
    boundary = len(args.characters)
    texts = [[boundary] for _ in range(args.samples)]
    growing = texts
    for positions in range(1, args.sizes.block_size + 1):
        if not growing:
            break
        engine.prepare(positions)
        for tokens, scores in zip(growing, engine.predict(growing)):
            weights = [math.exp((x - max(scores)) / args.temperature) for x in scores]
            tokens += rng.choices(range(len(scores)), weights)
        growing = [tokens for tokens in growing if tokens[-1] != boundary]
    return ["".join(args.characters[k] for k in text if k != boundary) for text in texts]


# --- documents -----------------------------------------------------------------------------------


def python_names() -> list[str]:
    """The names that the standard library's modules define, in lower case, in alphabetical order.

    These are the functions, classes and methods, nested ones too, whose names have letters and
    underscores only, the first a letter. Nothing is imported: a regular expression looks for
    definitions in the sources, and takes one in the example of a docstring for one as well. Where
    there are no sources, the modules that are loaded anyway are asked for their names.
    """
    found = {name.decode() for source in sources() for name in DEFINITION.findall(source)}
    if not found:
        loaded = sys.stdlib_module_names & sys.modules.keys()
        found = {name for module in loaded for name in vars(sys.modules[module])} | {*dir(builtins)}
    names = {name.lower() for name in found if re.fullmatch("[A-Za-z][A-Za-z_]*", name)}
    return sorted(names)


def sources() -> Iterator[bytes]:
    """The sources of the standard library's public modules, without tests and IDLE."""
    root = Path(sysconfig.get_path("stdlib"))
    public = {name for name in sys.stdlib_module_names if not name.startswith("_")}
    for module in public - {"test", "idlelib", "lib2to3"}:
        for path in [*root.glob(f"{module}.py"), *(root / module).rglob("*.py")]:
            if not {"test", "tests"} & {*path.relative_to(root).parts}:
                yield path.read_bytes()


def lines(path: str) -> list[str]:
    """The lines of a text file, stripped, without blank ones."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise argparse.ArgumentTypeError(f"{path} must be UTF-8 ({error.reason})") from None
    found = [line.strip() for line in text.splitlines() if line.strip()]
    if not found:
        raise argparse.ArgumentTypeError(f"{path} must have a document, a line that is not blank")
    return found


# --- files ---------------------------------------------------------------------------------------


class Saved(NamedTuple):
    sizes: Sizes
    characters: list[str]
    theta: np.ndarray
    optimiser: dict[str, Any]


def save(
    theta: np.ndarray, optimiser: optim.Optimiser, args: argparse.Namespace, path: Path
) -> None:
    """Write what `load` reads; an old file stays until the new one is whole."""
    state = optimiser.state()
    temporary = path.with_name(f"{path.name}.tmp")
    with open(temporary, "wb") as file:
        np.savez(
            file,
            sizes=args.sizes,
            characters=[ord(x) for x in args.characters],
            theta=theta,
            steps=state["steps"],
            adam=np.reshape(state["arrays"], (-1, len(theta))),
        )
    temporary.replace(path)


def load(path: str) -> Saved:
    """What `save` wrote, without trust in the file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            sizes = Sizes(*(int(k) for k in file["sizes"]))
            characters = [chr(k) for k in file["characters"]]
            theta, adam, steps = file["theta"], file["adam"], int(file["steps"])
        fits = min(sizes) > 0 and steps >= 0 and sizes.n_embd % sizes.n_head == 0
        fits &= len({*characters}) == len(characters) == sizes.vocabulary - 1
        fits &= theta.shape == (sizes.parameters,) and adam.shape in [
            (0, *theta.shape),
            (2, *theta.shape),
        ]
        fits &= all(x.dtype == np.float64 and np.isfinite(x).all() for x in (theta, adam))
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path}: {error.strerror}") from None
    except Exception:  # a file can be wrong in many ways
        fits = False
    if not fits:
        raise argparse.ArgumentTypeError(f"{path} must be a file that --save wrote")
    return Saved(sizes, characters, theta, {"kind": "Adam", "steps": steps, "arrays": [*adam]})


def plot(losses: list[float], path: Path) -> None:
    """The loss of every step, and its mean over the last ones."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    vgrad.plot_training(losses, figure=figure)
    (axes,) = figure.axes
    axes.lines[0].set_alpha(0.3)
    ends = np.arange(1, len(losses) + 1)
    starts = np.maximum(ends - SMOOTH, 0)
    sums = np.cumsum([0.0, *losses])
    means = (sums[ends] - sums[starts]) / (ends - starts)
    axes.plot(means, color="#d55e00", label=f"mean of {SMOOTH} steps")
    axes.legend()
    figure.savefig(path, dpi=100)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = options(__doc__, "gpt.png")
    option = parser.add_argument
    option("--engine", choices=ENGINES, default="vector", help="what trains")
    option("--steps", type=count, default=1000, help="gradient steps; with --load, further ones")
    option("--batch", type=positive, default=1, help="documents in a step, all of one length")
    option("--input", type=lines, metavar="FILE", help="documents, one a line; else Python's names")
    for name, size in SIZES.items():
        text = f"of the model; --load brings its own (default: {size})"
        option(f"--{name.replace('_', '-')}", type=positive, default=argparse.SUPPRESS, help=text)
    option("--seed", type=int, default=42, help="of the documents' order, weights and samples")
    option("--samples", type=count, default=20, help="documents to invent")
    option("--temperature", type=float, default=0.5, help="divides the logits; higher is bolder")
    option("--save", type=target, metavar="FILE", help="for the model and the optimiser's state")
    option(
        "--load",
        type=load,
        metavar="FILE",
        help="go on from a file of --save; the rate falls over its steps and the new ones together",
    )
    args = parser.parse_args(argv)
    if not 0 < args.temperature < math.inf:
        parser.error(f"argument --temperature: must be above 0 (got {args.temperature})")
    only_samples = args.load and not args.steps
    args.documents = args.input or ([] if only_samples else python_names())
    if not args.documents and not only_samples:
        parser.error("argument --input: must be given, as this Python shows no names")
    args.characters = sorted({*"".join(args.documents)})
    stored = {}
    if args.load:
        stored = args.load.sizes._asdict()
        strange = "".join(x for x in args.characters if x not in args.load.characters)
        if strange:
            parser.error(f"argument --load: the file must know all characters (got {strange!r})")
        args.characters = args.load.characters
    chosen = {name: getattr(args, name, stored.get(name, SIZES[name])) for name in SIZES}
    for name in stored.keys() & SIZES:
        if chosen[name] != stored[name]:
            flag = f"--{name.replace('_', '-')}"
            parser.error(
                f"argument {flag}: must be {stored[name]}, as in --load's file (got {chosen[name]})"
            )
    args.sizes = Sizes(len(args.characters) + 1, **chosen)
    if args.sizes.n_embd % args.sizes.n_head:
        parser.error(
            f"argument --n-embd: must be a multiple of --n-head, {args.sizes.n_head} "
            f"(got {args.sizes.n_embd})"
        )
    return args


def count(text: str) -> int:
    """A whole number, 0 or more."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0 (got {number})")
    return number


def target(text: str) -> Path:
    """A file that can be written, or can become one."""
    path = Path(text)
    folder(str(path.parent))
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file (got the folder {text!r})")
    return path


if __name__ == "__main__":
    raise SystemExit(main())
