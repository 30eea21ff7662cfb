"""Train a GPT that is written one number at a time, and let it invent names.

It has GPT-2's shape, with RMSNorm and relu and without biases. It reads characters: of the names
in Python's standard library, or of the lines of a text.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from names import lines, python_names
from terminal import Progress, count, options, positive, run_main, several, target, write

import vgrad
from vgrad import Value, optim

RATE, BETA1, BETA2 = 0.01, 0.85, 0.99  # of Adam; the rate is that of the first step
SMOOTH = 50  # steps of a mean in the picture

Document = list[int]  # of tokens: the boundary, characters, the boundary
Matrix = list[list[Any]]  # of floats, `Value`s or traced nodes, as a vector is


# --- the model -----------------------------------------------------------------------------------


class Layer(NamedTuple):
    """Attention, and an MLP; every matrix has a row for each number that it gives."""

    wq: Matrix  # (n, n), of queries
    wk: Matrix  # (n, n), of keys
    wv: Matrix  # (n, n), of values
    wo: Matrix  # (n, n), of what the heads have read
    fc1: Matrix  # (4n, n)
    fc2: Matrix  # (n, 4n)


class Model(NamedTuple):
    """n numbers stand for each token of a document."""

    wte: Matrix  # (tokens, n)
    wpe: Matrix  # (positions, n)
    lm_head: Matrix  # (tokens, n)
    layers: list[Layer]
    heads: int


def add(xs: list[Any], ys: list[Any]) -> list[Any]:
    return [x + y for x, y in zip(xs, ys)]


def linear(x: list[Any], w: Matrix) -> list[Any]:
    return vgrad.dot(w, x)


def rmsnorm(x: list[Any]) -> list[Any]:
    scale = (vgrad.dot(x, x) / len(x) + 1e-5) ** -0.5
    return [number * scale for number in x]


def attention(q: list[Any], keys: Matrix, values: Matrix, heads: int) -> list[Any]:
    """What each head reads: a mean of the values, weighted by how well their keys match q."""
    size = len(q) // heads
    read = []
    for start in range(0, len(q), size):
        part = slice(start, start + size)
        matches = vgrad.dot(q[part], [*zip(*(key[part] for key in keys))])
        weights = vgrad.softmax([x / size**0.5 for x in matches])
        read += vgrad.dot(weights, [value[part] for value in values])
    return read


def logits(
    model: Model, token: Any, position: int, cache: list[tuple[Matrix, Matrix]]
) -> list[Any]:
    """A score for every token that may come next.

    `cache` has, for each layer, the keys and values of the positions so far, and gets this one's.
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


def loss(model: Model, tokens: Any, weights: Any) -> tuple[Any, Any]:
    """The sum over the positions of -log p(next token), times their weights; and all logits.

    With a weight of 1 / n for each of a document's n positions that is their mean. Positions after
    its end, which the compiled program has too, weigh 0, and no earlier one looks at them. The loss
    comes first: that is what `compile` differentiates.
    """
    cache: list[tuple[Matrix, Matrix]] = [([], []) for _ in model.layers]
    total, scores = 0.0, []
    for position, weight in enumerate(weights):
        x = logits(model, tokens[position], position, cache)
        total = total + weight * (vgrad.logsumexp(x) - vgrad.take(x, tokens[position + 1]))
        scores.append(x)
    return total, np.array(scores)


class Sizes(NamedTuple):
    vocabulary: int  # the characters, and the boundary after them
    n_embd: int = 16
    n_layer: int = 1
    n_head: int = 4
    block_size: int = 16

    def parameters(self) -> int:
        tables = 2 * self.vocabulary + self.block_size
        return tables * self.n_embd + self.n_layer * 12 * self.n_embd**2


SIZES = {  # as options
    "n_embd": "numbers that stand for a token",
    "n_layer": "layers, of attention and an MLP each",
    "n_head": "heads of attention in a layer",
    "block_size": "positions; what is longer is cut",
}


def draw(sizes: Sizes, gauss: Callable[[float, float], float] = random.gauss) -> np.ndarray:
    """The theta that training starts from."""
    return np.array([gauss(0, 0.08) for _ in range(sizes.parameters())])


def rate(k: int, steps: int) -> float:
    """Of step k, from 0 on: it falls to 0."""
    return RATE * (1 - k / steps)


def build(sizes: Sizes, theta: Iterable[Any]) -> Model:
    """The model whose parameters are theta: its matrices in order, row after row."""
    numbers = iter(theta)

    def matrix(rows: int, columns: int) -> Matrix:
        return [list(itertools.islice(numbers, columns)) for _ in range(rows)]

    vocabulary, n, n_layer, heads, block_size = sizes
    wte, wpe, lm_head = matrix(vocabulary, n), matrix(block_size, n), matrix(vocabulary, n)
    shapes = [*[(n, n)] * 4, (4 * n, n), (n, 4 * n)]
    layers = [Layer(*(matrix(*shape) for shape in shapes)) for _ in range(n_layer)]
    return Model(wte, wpe, lm_head, layers, heads)


# --- one loss, two engines -----------------------------------------------------------------------


def equal_weights(tokens: Document) -> list[float]:
    """Of a document's positions, which its last token is none of, as nothing follows."""
    return [1 / (len(tokens) - 1)] * (len(tokens) - 1)


def unfinished(tokens: Document) -> Document:
    """With any token in the place of the one that is asked for."""
    return [*tokens, 0]


class Scalar:
    """Builds the graph of every document out of `Value`s, at every step."""

    report = ""  # what there is to say before the training

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self.parameters = [Value(0.0) for _ in range(sizes.parameters())]
        self.model = build(sizes, self.parameters)

    def value_and_grad(self, theta: np.ndarray, batch: list[Document]) -> tuple[float, np.ndarray]:
        for p, number in zip(self.parameters, theta.tolist()):
            p.data, p.grad = number, 0.0
        losses: list[Any] = [loss(self.model, x, equal_weights(x))[0] for x in batch]
        mean = sum(losses) / len(losses)
        mean.backward()
        return mean.data, np.array([p.grad for p in self.parameters])

    def predict(self, theta: np.ndarray, texts: list[Document]) -> Matrix:
        """The logits of what follows each text, on plain floats."""
        model = build(self.sizes, theta.tolist())
        return [loss(model, x, equal_weights(x))[1][-1].tolist() for x in map(unfinished, texts)]


class Vector(Scalar):
    """Records the loss of the longest document once, and replays it over batches of any.

    Shorter ones are padded. A program for each length would save a quarter of a step's time, and
    that in large batches only; but sixteen took 8 s to record and to compile, and this one 0.8 s.
    """

    def __init__(self, sizes: Sizes, executor: Any = None) -> None:
        super().__init__(sizes)
        n, start = sizes.block_size, time.perf_counter()
        with Progress(lasting=False) as say:
            fn, shapes = partial(loss, self.model), [(n + 1,), (n,)]
            graph = vgrad.trace(fn, *shapes, parameters=self.parameters, progress=say)
            recorded = time.perf_counter()
            self.program = vgrad.compile(graph, executor=executor, progress=say)
            self.program.explain(*self.padded([[0, 0]]))  # plans, which the first step would do
        seconds = f"{recorded - start:.1f} s, compiled in {time.perf_counter() - recorded:.1f} s"
        self.report = f"recorded {len(graph):,} nodes in {seconds}"

    def padded(self, documents: list[Document]) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (B, n + 1) and weights (B, n), with 0 after the end of a document."""
        tokens = np.zeros((len(documents), self.sizes.block_size + 1))
        weights = np.zeros((len(documents), self.sizes.block_size))
        for k, document in enumerate(documents):
            tokens[k, : len(document)] = document
            weights[k, : len(document) - 1] = equal_weights(document)
        return tokens, weights

    def value_and_grad(self, theta: np.ndarray, batch: list[Document]) -> tuple[float, np.ndarray]:
        value, grad = self.program.value_and_grad(theta, *self.padded(batch))
        return value, grad

    def predict(self, theta: np.ndarray, texts: list[Document]) -> Matrix:
        """The logits of what follows each text, all texts as one batch."""
        _, scores = self.program(theta, *self.padded([*map(unfinished, texts)]))
        matrix: Matrix = scores[:, len(texts[0]) - 1].tolist()
        return matrix


ENGINES = {"vector": Vector, "scalar": Scalar}


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    random.seed(args.seed)
    random.shuffle(args.documents)
    theta = draw(args.sizes)
    optimiser = optim.Adam(beta1=BETA1, beta2=BETA2)
    if args.load:
        theta = args.load.theta
        optimiser.restore(args.load.state)
    read = [(len(args.documents), "document"), (args.sizes.vocabulary, "token")]
    print(", ".join(several(*counted) for counted in [*read, (len(theta), "parameter")]))
    engine = ENGINES[args.engine](args.sizes)
    if engine.report:
        print(engine.report)
    losses, seconds = train(engine, theta, optimiser, args)
    if args.save:
        write(args.save, partial(save, theta, optimiser, args))
    texts = invent(engine, theta, args)
    each = f", {1e3 * seconds / len(losses):.3g} ms a step" if losses else ""
    print(f"{several(len(losses), 'step')} in {seconds:.1f} s{each}")
    for tokens in texts:
        print("".join(args.characters[k] for k in tokens))
    if losses and not args.no_plot:
        write(args.out / "gpt.png", partial(plot, losses))
    return 0


def train(
    engine: Scalar, theta: np.ndarray, optimiser: optim.Optimiser, args: argparse.Namespace
) -> tuple[list[float], float]:
    """Steps theta, in place; returns the losses, and the seconds that the steps took.

    Ctrl-C ends it early.
    """
    before, total = optimiser.steps, optimiser.steps + args.steps
    optimiser.rate = lambda k: rate(k, total)
    tokens = [encode(document, args) for document in args.documents]
    losses, seconds = [], 0.0
    with Progress() as progress, suppress(KeyboardInterrupt):
        for batch in itertools.islice(batches(tokens, args.batch), before, total):
            start = time.perf_counter()
            value, grad = engine.value_and_grad(theta, batch)
            optimiser.step(theta, grad)
            seconds += time.perf_counter() - start
            losses.append(value)
            progress(f"step {optimiser.steps} / {total} | loss {value:.4f}")
    return losses, seconds


def encode(document: str, args: argparse.Namespace) -> Document:
    """Its tokens: as many as there are positions for, and the one that follows."""
    boundary = len(args.characters)
    tokens = [boundary, *map(args.characters.index, document), boundary]
    return tokens[: args.sizes.block_size + 1]


def batches(documents: list[Document], size: int) -> Iterator[list[Document]]:
    """Goes through the documents over and over, so many at a time."""
    endless = itertools.cycle(documents)
    while True:
        yield list(itertools.islice(endless, size))


def invent(engine: Scalar, theta: np.ndarray, args: argparse.Namespace) -> list[Document]:
    """The characters' tokens of new documents, which end at a boundary or where positions do."""
    rng = random.Random(args.seed)
    boundary = len(args.characters)
    texts = [[boundary] for _ in range(args.samples)]
    growing = texts
    for _ in range(args.sizes.block_size):
        for tokens, scores in zip(growing, engine.predict(theta, growing) if growing else ()):
            chances = [math.exp((x - max(scores)) / args.temperature) for x in scores]
            tokens += rng.choices(range(len(scores)), chances)
        growing = [tokens for tokens in growing if tokens[-1] != boundary]
    return [[k for k in tokens if k != boundary] for tokens in texts]


def plot(losses: list[float], path: Path) -> None:
    """The loss of every step, and its running mean."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    vgrad.plot_training(losses, smooth=SMOOTH, figure=figure)
    figure.axes[0].set_yscale("linear")
    figure.savefig(path, dpi=100)


# --- files ---------------------------------------------------------------------------------------


class Saved(NamedTuple):
    sizes: Sizes
    characters: list[str]
    from_file: bool  # whether the documents were those of --input
    theta: np.ndarray
    state: dict[str, Any]  # of the optimiser


def save(
    theta: np.ndarray, optimiser: optim.Optimiser, args: argparse.Namespace, path: Path
) -> None:
    """Write what `load` reads; an old file stays until the new one is whole."""
    state = optimiser.state()
    adam = np.reshape(state["arrays"], (-1, len(theta)))
    characters = [ord(x) for x in args.characters]
    from_file = bool(args.input) if args.documents else args.load.from_file
    about = dict(sizes=args.sizes, characters=characters, from_file=from_file)
    new = path.with_name(f"{path.name}.tmp")
    with open(new, "wb") as file:
        np.savez(file, **about, theta=theta, steps=state["steps"], adam=adam)
    new.replace(path)


def load(path: str) -> Saved:
    """Read what `save` wrote, and run nothing that stands in it; the type of an option."""
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            sizes, steps = Sizes(*map(int, file["sizes"])), int(file["steps"])
            characters, from_file = [*map(chr, file["characters"])], bool(file["from_file"])
            theta, adam = file["theta"], file["adam"]
        fits = min(*sizes, steps + 1) > 0 and len({*characters}) == sizes.vocabulary - 1
        fits &= theta.shape == (sizes.parameters(),) == adam.shape[1:]
        if not (fits and all(x.dtype == float and np.isfinite(x).all() for x in (theta, adam))):
            raise ValueError("numbers that do not fit")
        state = {"kind": "Adam", "steps": steps, "arrays": [*adam]}
        optim.Adam().restore(state)
        return Saved(sizes, characters, from_file, theta, state)
    except Exception:
        got = f"{path!r}{'' if Path(path).exists() else ', which is not there'}"
        raise argparse.ArgumentTypeError(f"must be a file that --save wrote (got {got})") from None


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The options, with the documents, their characters and the model's sizes."""
    parser = options(__doc__, "gpt.png")
    option = parser.add_argument
    option("--engine", choices=ENGINES, default="vector", help="what trains")
    option("--steps", type=count, default=1000, help="gradient steps; with --load, further ones")
    option("--batch", type=positive, default=1, help="documents in a step")
    option("--input", type=lines, metavar="FILE", help="documents, one a line; else Python's names")
    for name, text in SIZES.items():
        text += f" (default: {Sizes._field_defaults[name]}, or what --load brings)"
        option(f"--{name.replace('_', '-')}", type=positive, default=argparse.SUPPRESS, help=text)
    option("--seed", type=int, default=42, help="of the documents' order, the weights, the samples")
    option("--samples", type=count, default=20, help="documents to invent")
    option("--temperature", type=float, default=0.5, help="divides the logits; higher is bolder")
    option("--save", type=target, metavar="FILE", help="where the model and Adam's state are to go")
    text = "go on from what was saved; the rate falls over all steps, old and new"
    option("--load", type=load, metavar="FILE", help=text)
    args = parser.parse_args(argv)
    if not 0 < args.temperature < math.inf:
        parser.error(f"argument --temperature: must be above 0, finite (got {args.temperature})")
    for_samples = args.load and not args.steps  # which need no documents
    if args.load and args.load.from_file and not (args.input or for_samples):
        parser.error("argument --input: must be given, as for the steps that were saved")
    args.documents = args.input or ([] if for_samples else python_names())
    if not args.documents and not for_samples:
        parser.error("argument --input: must be given where Python has no names to show")
    args.characters = sorted({*"".join(args.documents)})
    args.sizes = Sizes(len(args.characters) + 1)
    if args.load:
        strange = "".join(x for x in args.characters if x not in args.load.characters)
        if strange:
            parser.error(f"argument --input: must keep to the characters saved (got {strange!r})")
        args.characters, args.sizes = args.load.characters, args.load.sizes
    for name, size in vars(args).items():
        if name in SIZES and args.load and size != getattr(args.sizes, name):
            saved = getattr(args.sizes, name)
            parser.error(
                f"argument --{name.replace('_', '-')}: must be {saved}, as saved (got {size})"
            )
    args.sizes = args.sizes._replace(**{k: x for k, x in vars(args).items() if k in SIZES})
    if args.sizes.n_embd % args.sizes.n_head:
        got = f"{args.sizes.n_embd} and {args.sizes.n_head}"
        parser.error(f"argument --n-embd: must be a multiple of --n-head (got {got})")
    return args


if __name__ == "__main__":
    run_main(main)
