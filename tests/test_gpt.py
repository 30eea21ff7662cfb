"""The GPT demo: its model, the two engines that train it, its documents, and what it saves."""

from __future__ import annotations

import argparse
import importlib
import itertools
import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from helpers import (
    DEMOS,
    assert_gradients_match,
    assert_values_match,
    backward_with_scale,
    central_difference,
    long,
)

TEXT = "ada\nbo\n\n  cleo  \nal\ndeb\nbeda\nabe\n"
DOCUMENTS = ["ada", "bo", "cleo", "al", "deb", "beda", "abe"]
SMALL = ["--n-embd", "4", "--n-head", "2", "--block-size", "4", "--samples", "5"]


@pytest.fixture(scope="module")
def gpt() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DEMOS)
        yield importlib.import_module("gpt")


@pytest.fixture(scope="module")
def small(gpt) -> Any:
    return gpt.Sizes(vocabulary=5, n_embd=4, n_layer=2, n_head=2)


@pytest.fixture
def text(tmp_path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def train(gpt, text, tmp_path, monkeypatch, capsys) -> Callable[..., tuple[list[float], str]]:
    """Runs the small demo; gives its losses, which are printed in four decimals, and its output."""
    losses: list[float] = []
    monkeypatch.setattr(gpt, "plot", lambda seen, path: losses.extend(seen))

    def run(*arguments: object) -> tuple[list[float], str]:
        losses.clear()
        sizes = [] if "--load" in arguments else SMALL
        given = ["--input", text, "--out", tmp_path, *arguments]
        assert gpt.main([*sizes, *map(str, given)]) == 0
        printed = capsys.readouterr()
        assert printed.err == ""
        return losses.copy(), printed.out

    return run


def weights(sizes: Any, seed: int = 1) -> np.ndarray:
    """Larger than those that training starts from, so that every part of the model matters."""
    return np.random.default_rng(seed).normal(0, 0.4, sizes.parameters())


def tokens_of(sizes: Any, positions: int) -> list[int]:
    return np.random.default_rng(positions).integers(0, sizes.vocabulary, positions + 1).tolist()


# --- the model -----------------------------------------------------------------------------------


def reference_loss(matrices: list[np.ndarray], heads: int, tokens: list[int]) -> float:
    """The same model in NumPy, all positions at once, with a mask: written from its description."""
    wte, wpe, lm_head, *layers = matrices
    n = len(tokens) - 1

    def norm(x: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x * x).mean(axis=1, keepdims=True) + 1e-5)

    def softmax(x: np.ndarray) -> np.ndarray:
        return np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)

    def by_head(x: np.ndarray) -> np.ndarray:
        return x.reshape(n, heads, -1).swapaxes(0, 1)

    x = norm(wte[tokens[:-1]] + wpe[:n])
    for k in range(0, len(layers), 6):
        wq, wk, wv, wo, fc1, fc2 = layers[k : k + 6]
        q, keys, values = (by_head(norm(x) @ w.T) for w in (wq, wk, wv))
        scores = q @ keys.swapaxes(1, 2) / np.sqrt(q.shape[2])
        scores[:, np.triu(np.ones((n, n), bool), 1)] = -np.inf
        x = x + (softmax(scores) @ values).swapaxes(0, 1).reshape(n, -1) @ wo.T
        x = x + np.maximum(norm(x) @ fc1.T, 0) @ fc2.T
    return -float(np.log(softmax(x @ lm_head.T)[range(n), tokens[1:]]).mean())


def shapes_of(sizes: Any) -> list[tuple[int, int]]:
    """In the order in which the matrices are drawn, rows outside."""
    v, n = sizes.vocabulary, sizes.n_embd
    layer = [(n, n)] * 4 + [(4 * n, n), (n, 4 * n)]
    return [(v, n), (sizes.block_size, n), (v, n), *layer * sizes.n_layer]


def split(theta: np.ndarray, sizes: Any) -> list[np.ndarray]:
    shapes = shapes_of(sizes)
    ends = np.cumsum([rows * columns for rows, columns in shapes])
    assert ends[-1] == len(theta)
    return [part.reshape(shape) for part, shape in zip(np.split(theta, ends[:-1]), shapes)]


@pytest.mark.parametrize("positions", [1, 2, 7])
def test_floats_values_and_numpy_have_the_same_loss(gpt, small, positions):
    """Within 1e-12, 4,500 roundings: NumPy adds in other orders, and sum() of floats, from Python
    3.12 on, makes fewer.
    """
    theta, tokens = weights(small), tokens_of(small, positions)
    loss, scores = gpt.loss(gpt.build(small, theta.tolist()), tokens, gpt.equal_weights(tokens))
    engine = gpt.Scalar(small)
    assert engine.value_and_grad(theta, [tokens])[0] == pytest.approx(loss, rel=1e-12)
    assert engine.predict(theta, [tokens[:-1]]) == [[*scores[-1]]]
    _, values = gpt.loss(engine.model, tokens, gpt.equal_weights(tokens))
    assert [p.data for p in values.flat] == pytest.approx([*scores.flat], rel=1e-12, abs=1e-12)
    assert loss == pytest.approx(reference_loss(split(theta, small), 2, tokens), rel=1e-12)


def test_gradients_agree_with_central_differences(gpt, small):
    """Within 1e-8, as a step of 1e-4 leaves its square times third derivatives, some 1e-9 here."""
    theta, tokens = weights(small), tokens_of(small, 2)
    _, grad = gpt.Scalar(small).value_and_grad(theta, [tokens])

    def loss(*numbers: float) -> float:
        return gpt.loss(gpt.build(small, numbers), tokens, gpt.equal_weights(tokens))[0]

    some = range(0, len(theta), 5)  # which touch every matrix, and most of their rows
    differences = [central_difference(loss, theta.tolist(), k, 1e-4) for k in some]
    assert grad[some] == pytest.approx(differences, rel=1e-6, abs=1e-8)
    assert sum(g != 0 for g in differences) > 60


def assert_engines_agree(gpt, sizes, lengths: Iterable[int]) -> None:
    """Losses, logits and all gradients within 1e-12 of what their roundings are relative to."""
    theta, scalar, vector = weights(sizes), gpt.Scalar(sizes), gpt.Vector(sizes)
    for positions in lengths:
        tokens = tokens_of(sizes, positions)
        for p, number in zip(scalar.parameters, theta.tolist()):
            p.data = number
        loss, scores = gpt.loss(scalar.model, tokens, gpt.equal_weights(tokens))
        want, scale = backward_with_scale(loss, scalar.parameters)
        value, grad = vector.value_and_grad(theta, [tokens])
        assert_gradients_match(grad, want, scale, f"{positions} positions")
        (predicted,) = vector.predict(theta, [tokens[:-1]])
        assert_values_match([value, *predicted], [loss, *scores[-1]], f"{positions} positions")


def test_the_engines_agree(gpt, small):
    assert_engines_agree(gpt, small._replace(block_size=5), range(1, 6))


@long
def test_the_engines_agree_at_the_default_sizes(gpt):
    assert_engines_agree(gpt, gpt.Sizes(vocabulary=28), range(1, 17))


def test_a_batch_is_the_mean_of_its_documents(gpt, small):
    """Of any lengths: on each engine, and the longer ones change nothing for the shorter."""
    small = small._replace(block_size=4)
    theta = weights(small)
    batch = [[4, 0, 4], [4, 4], [4, 2, 1, 1, 4], [0, 3, 4]]
    for kind in (gpt.Scalar, gpt.Vector):
        engine = kind(small)
        value, grad = engine.value_and_grad(theta, batch)
        values, grads = zip(*(engine.value_and_grad(theta, [tokens]) for tokens in batch))
        assert value == pytest.approx(np.mean(values), rel=1e-12)
        assert grad == pytest.approx(np.mean(grads, axis=0), rel=1e-9, abs=1e-12)


def test_what_follows_a_document_does_not_count(gpt, small):
    engine = gpt.Vector(small._replace(block_size=4))
    theta = weights(engine.sizes)
    tokens, padding = engine.padded([[4, 0, 4]])
    value, grad = engine.program.value_and_grad(theta, tokens, padding)
    tokens[0, 3:] = 3, 1
    other, gradient = engine.program.value_and_grad(theta, tokens, padding)
    assert value == other and (grad == gradient).all() and value > 0


def test_the_plan_is_what_a_person_would_write_down(gpt):
    """A product for q, k and v of all positions, and one for each other matrix; two for attention.

    The other kernels are few as well: none is there twice because some position is ahead.
    """
    program = gpt.Vector(
        gpt.Sizes(vocabulary=5, n_embd=8, n_layer=2, n_head=2, block_size=6)
    ).program
    table = program.explain(np.zeros((1, 7)), np.zeros((1, 6))).splitlines()
    lines = [re.split(" {2,}", line.strip())[1:4:2] for line in table[1:-2]]
    for shapes in (
        *["6 x 24 x B = view 24 x 8, view 6 x 8 x B"] * 2,  # wq, wk and wv
        *["6 x 8 x B = view 8 x 8, view 6 x 8 x B"] * 2,
        *["6 x 32 x B = view 32 x 8, view 6 x 8 x B"] * 2,
        *["6 x 8 x B = view 8 x 32, view 6 x 32 x B"] * 2,
        "6 x 5 x B = view 5 x 8, view 6 x 8 x B",  # lm_head
    ):
        lines.remove(["matmul", shapes])
    for shapes in (
        "42 x B = view 2 x 6 x 4 x B, view 2 x 6 x 4 x B",  # queries, keys
        "2 x 4 x 6 x B = view 42 x B, view 2 x 4 x 6 x B",  # how much of which values
    ):
        assert lines.count(["stack", shapes]) == 2
    names = Counter(name for name, _ in lines)
    wanted = {"pow": 5, "mul": 5, "exp": 3, "relu": 2, "log": 1, "sub": 3, "largest": 3}
    assert {name: names[name] for name in wanted} == wanted
    assert names.total() <= 65


# --- training ------------------------------------------------------------------------------------


def test_the_run_is_the_one_described(gpt, train):
    """The order of all that is drawn, the documents' tokens and Adam, written down once more.

    1e-9, as roundings of 1e-16 grow a little over the steps.
    """
    losses, output = train("--steps", 5, "--seed", 3)
    random.seed(3)
    documents = DOCUMENTS.copy()
    random.shuffle(documents)
    sizes = gpt.Sizes(vocabulary=8, n_embd=4, n_head=2, block_size=4)
    theta = np.array(
        [random.gauss(0, 0.08) for shape in shapes_of(sizes) for _ in range(shape[0] * shape[1])]
    )
    mean, square, wanted = np.zeros_like(theta), np.zeros_like(theta), []
    engine = gpt.Scalar(sizes)
    for k, document in enumerate(documents[:5]):
        tokens = [7, *("abcdelo".index(x) for x in document), 7][:5]
        wanted.append(reference_loss(split(theta, sizes), 2, tokens))
        _, grad = engine.value_and_grad(theta, [tokens])
        mean = 0.85 * mean + 0.15 * grad
        square = 0.99 * square + 0.01 * grad**2
        size = np.sqrt(square / (1 - 0.99 ** (k + 1))) + 1e-8
        theta = theta - 0.01 * (1 - k / 5) * mean / (1 - 0.85 ** (k + 1)) / size
    assert losses == pytest.approx(wanted, rel=1e-9)
    printed = re.findall(r"^step (\d) / 5 \| loss (\d\.\d{4})$", output, re.MULTILINE)
    assert printed == [(str(k), f"{loss:.4f}") for k, loss in enumerate(losses, 1)]


@pytest.mark.parametrize("batch", [1, 2])
def test_both_engines_train_and_invent_the_same(train, batch):
    """To 1e-9 in the losses, as they add in other orders and ten steps pass the roundings on."""
    options = ["--steps", 10, "--batch", batch]
    losses, output = train(*options)
    by_scalar, plainly = train(*options, "--engine", "scalar")
    assert losses == pytest.approx(by_scalar, rel=1e-9) and len(losses) == 10
    assert invented(output) == invented(plainly) and len(invented(output)) == 5
    assert re.search(r"^recorded [\d,]+ nodes in \S+ s, compiled in \S+ s$", output, re.MULTILINE)
    for printed in (output, plainly):
        assert re.search(r"\n10 steps in \S+ s, \S+ ms a step\n", printed)


@long
def test_a_hundred_steps_at_the_default_sizes(train):
    options = ["--n-embd", 16, "--n-head", 4, "--block-size", 16, "--steps", 100]
    losses, _ = train(*options)
    assert losses == pytest.approx(train(*options, "--engine", "scalar")[0], abs=1e-6)
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])


def invented(output: str) -> list[str]:
    names = re.split(" steps? in ", output)[1].splitlines()[1:]
    return [name for name in names if not name.startswith("wrote ")]


def test_samples(train):
    """They follow the seed, have no boundary inside, and end where the positions do."""
    few = ["--steps", 1, "--temperature", 5, "--engine", "scalar"]
    names = invented(train(*few, "--samples", 30)[1])
    assert len(names) == 30 and set("".join(names)) == set("".join(DOCUMENTS))
    assert max(map(len, names)) == 4 and min(map(len, names)) < 3
    assert names == invented(train(*few, "--samples", 30)[1])
    assert invented(train(*few, "--samples", 0)[1]) == []
    assert len(set(invented(train(*few, "--temperature", 1e-300)[1]))) == 1


def test_samples_follow_the_seed(gpt, small):
    theta, engine = weights(small), gpt.Scalar(small._replace(block_size=3))
    args = argparse.Namespace(
        seed=1, samples=10, temperature=2.0, sizes=engine.sizes, characters=[*"abcd"]
    )
    texts = gpt.invent(engine, theta, args)
    assert texts == gpt.invent(engine, theta, args)
    args.seed = 2
    assert texts != gpt.invent(engine, theta, args)


def test_ctrl_c_ends_the_training_and_no_more(gpt, train, tmp_path, monkeypatch):
    """What was trained by then is saved, and invents."""
    original, calls = gpt.Scalar.value_and_grad, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(gpt.Scalar, "value_and_grad", interrupted)
    losses, output = train("--engine", "scalar", "--save", tmp_path / "a.npz")
    assert len(losses) == 2 and len(invented(output)) == 5
    assert gpt.load(str(tmp_path / "a.npz")).state["steps"] == 2


def test_a_text_ends_at_its_boundary_or_where_the_positions_do(gpt):
    class Engine:
        """Foretells these tokens, 2 being the boundary; notes how many texts it is given."""

        def __init__(self, *foretold: int) -> None:
            self.foretold, self.asked = foretold, []

        def predict(self, theta: object, texts: list[list[int]]) -> list[list[float]]:
            self.asked.append(len(texts))
            token = self.foretold[len(self.asked) - 1]
            return [[100.0 * (k == token) for k in range(3)] for _ in texts]

    options = ["--samples", "2", "--input", __file__, "--block-size", "3"]
    args = gpt.parse(options)
    args.characters = ["a", "b"]
    for foretold, asked, text in (
        ([2], [2], []),
        ([0, 1, 2], [2, 2, 2], [0, 1]),
        ([1, 0, 1], [2, 2, 2], [1, 0, 1]),
        ([1, 2], [2, 2], [1]),
    ):
        engine = Engine(*foretold)
        assert gpt.invent(engine, None, args) == [text, text] and engine.asked == asked


def test_batches_go_round(gpt):
    found = [*itertools.islice(gpt.batches([[1], [2], [3]], 2), 3)]
    assert found == [[[1], [2]], [[3], [1]], [[2], [3]]]
    assert next(gpt.batches([[1]], 3)) == [[1], [1], [1]]


def test_the_curve_and_its_mean(gpt, tmp_path, monkeypatch):
    drawn = []

    class Figure(gpt.Figure):
        def savefig(self, path, **options):
            drawn.append([line.get_ydata().tolist() for line in self.axes[0].lines])

    monkeypatch.setattr(gpt, "Figure", Figure)
    losses = [float(k % 7) for k in range(80)]
    gpt.plot(losses, tmp_path / "gpt.png")
    (curve, means) = drawn[0]
    assert curve == losses
    assert means[40] == pytest.approx(sum(losses[15:65]) / 50)


def test_the_picture(gpt, text, tmp_path, capsys):
    options = ["--input", str(text), *SMALL, "--steps", "1", "--out", str(tmp_path / "new")]
    gpt.main([*options, "--samples", "0", "--no-plot"])
    assert not (tmp_path / "new").exists()
    gpt.main(options)
    assert f"wrote {tmp_path / 'new' / 'gpt.png'}" in capsys.readouterr().out
    assert (tmp_path / "new" / "gpt.png").read_bytes().startswith(b"\x89PNG")


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("first, second", [("vector", "scalar"), ("scalar", "vector")])
def test_what_was_saved_goes_on_as_if_it_had_not_stopped(gpt, train, text, tmp_path, first, second):
    """To the last bit, and either engine takes up what the other one saved; the rate falls over
    all the steps that are known of."""
    a, b = tmp_path / "new" / "a.npz", tmp_path / "b.npz"
    before, output = train("--steps", 4, "--engine", first, "--save", a)
    assert f"wrote {a}\n" in output
    after, output = train("--steps", 5, "--engine", second, "--load", a, "--save", b)
    assert re.findall(r"step (\d) / 9", output) == list("56789")

    args = gpt.parse([*SMALL, "--input", str(text), "--steps", "4"])
    random.seed(args.seed)
    random.shuffle(args.documents)
    theta = np.array([random.gauss(0, 0.08) for _ in range(args.sizes.parameters())])
    adam = gpt.optim.Adam(beta1=0.85, beta2=0.99)
    assert gpt.train(gpt.ENGINES[first](args.sizes), theta, adam, args)[0] == before
    assert [adam.rate(k) for k in range(4)] == pytest.approx([0.01, 0.0075, 0.005, 0.0025])
    tokens = gpt.encode(args.documents[4], args)
    fifth = gpt.loss(gpt.build(args.sizes, theta.tolist()), tokens, gpt.equal_weights(tokens))
    assert after[0] == pytest.approx(fifth[0], rel=1e-12)  # whichever engine it is
    args.steps = 5
    assert gpt.train(gpt.ENGINES[second](args.sizes), theta, adam, args)[0] == after
    assert [adam.rate(k) for k in (4, 8, 9)] == pytest.approx([0.01 * 5 / 9, 0.01 / 9, 0])
    saved = gpt.load(str(b))
    assert (saved.theta == theta).all() and saved.state["steps"] == 9
    assert np.array_equal(saved.state["arrays"], adam.state()["arrays"])


def test_a_saved_model_invents_without_documents(gpt, train, tmp_path, capsys, monkeypatch):
    model = tmp_path / "model.npz"
    _, output = train("--steps", 3, "--save", model)
    monkeypatch.setattr(gpt, "python_names", lambda: pytest.fail("the names were read"))
    gpt.main(["--load", str(model), "--steps", "0", "--samples", "5", "--engine", "scalar"])
    later = capsys.readouterr().out
    assert invented(later) == invented(output) and "0 steps in 0.0 s\n" in later
    assert list(tmp_path.glob("*.tmp")) == []


def test_files_that_are_none_are_refused(gpt, train, tmp_path, text):
    good = tmp_path / "good.npz"
    train("--steps", 2, "--save", good)
    with np.load(good) as file:
        arrays = dict(file)
    changes: list[dict[str, Any]] = [
        {"theta": arrays["theta"][1:]},
        {"theta": arrays["theta"] * np.nan},
        {"theta": arrays["theta"].astype(np.float32)},
        {"theta": np.array([None])},
        {"adam": arrays["adam"][:1]},
        {"adam": arrays["adam"][:, 1:]},
        {"steps": -1},
        {"sizes": arrays["sizes"] * 0},
        {"sizes": arrays["sizes"][1:]},
        {"characters": arrays["characters"][1:]},
        {"characters": arrays["characters"] * 0},
    ]
    bad = tmp_path / "bad.npz"
    whole = good.read_bytes()
    for content in (
        b"",
        whole[: len(whole) // 2],
        TEXT.encode(),
        whole.replace(b"theta", b"thata"),
    ):
        bad.write_bytes(content)
        assert_refused(gpt, ["--load", bad], "must be a file that --save wrote")
    for change in changes:
        np.savez(bad, **{**arrays, **change})
        assert_refused(gpt, ["--load", bad], "must be a file that --save wrote")
    np.save(tmp_path / "bad.npy", arrays["theta"])
    assert_refused(gpt, ["--load", tmp_path / "bad.npy"], "must be a file that --save wrote")
    assert_refused(gpt, ["--load", tmp_path], "must be a file that --save wrote")
    other = tmp_path / "other.txt"
    other.write_text("xyz")
    assert_refused(gpt, ["--load", good, "--input", other], "the characters saved (got 'xyz')")
    wrong = ["--load", good, "--input", text, "--n-embd", 16]
    assert_refused(gpt, wrong, "argument --n-embd: must be 4, as saved (got 16)")
    assert_refused(gpt, ["--load", good], "argument --input: must be given, as for the steps")
    assert gpt.parse(["--load", str(good), "--input", str(text), "--n-embd", "4"]).sizes.n_embd == 4


def assert_refused(gpt, arguments: list[Any], message: str) -> None:
    with pytest.raises(SystemExit, match="2"), pytest.MonkeyPatch.context() as patch:
        errors: list[str] = []
        patch.setattr(sys.stderr, "write", errors.append)
        gpt.main([str(argument) for argument in arguments])
    assert message in "".join(errors).splitlines()[-1], errors


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--steps", -1], "must be at least 0"),
        (["--batch", 0], "must be at least 1"),
        (["--samples", -1], "must be at least 0"),
        (["--engine", "gpu"], "invalid choice"),
        (["--n-embd", 10], "must be a multiple of --n-head"),
        (["--block-size", "x"], "must be a whole number (got 'x')"),
        (["--temperature", 0], "must be above 0, finite (got 0.0)"),
        (["--temperature", "nan"], "must be above 0"),
        (["--seed", 0.5], "invalid int value"),
        (["--save", DEMOS], "must be a file that can be written"),
        (["--save", "/"], "must be a file that can be written (got '/')"),
        (["--save", __file__ + "/a.npz"], "must be a file that can be written"),
        (["--load", DEMOS / "none.npz"], "none.npz', which is not there)"),
        (["--input", DEMOS / "none.txt"], "none.txt': No such file or directory)"),
        (["--input", ""], "must be a text that can be read (got ''"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(gpt, text, arguments, message):
    assert_refused(gpt, ["--input", text, *arguments], message)


# --- documents -----------------------------------------------------------------------------------

LOOK = """
import sys
before = set(sys.modules)
sys.path.insert(0, sys.argv[1])
from names import python_names
between = set(sys.modules)
print("\\n".join(python_names()))
assert set(sys.modules) == between, set(sys.modules) - between
"""


def test_the_names_of_python():
    """The same ones whatever the hashes of strings are, and none is imported to be looked at."""
    looks = []
    for seed in "12":
        command = [sys.executable, "-c", LOOK, str(DEMOS)]
        environment = os.environ | {"PYTHONHASHSEED": seed}
        looks.append(subprocess.run(command, capture_output=True, text=True, env=environment))
    assert [look.stderr for look in looks] == ["", ""]
    assert looks[0].stdout == looks[1].stdout
    names = looks[0].stdout.splitlines()
    assert len(names) > 3000 and names == sorted(set(names))
    assert {"literal_eval", "namedtuple", "readline", "urlopen"} <= set(names)
    assert set("".join(names)) == set("abcdefghijklmnopqrstuvwxyz_")
    assert not any(name.startswith("_") for name in names)


def test_which_names_are_taken(gpt, tmp_path, monkeypatch):
    sources = {
        "json/__init__.py": b"class Top(Base):\n    async def in_class(self): pass\n\xff\n",
        "json/deep/er.py": b"def plain (\n\tdef tabbed(): pass\nclass Bare: pass\n",
        "ast.py": b"def _private(): def2\ndef two2(): pass\n# def comment()\n",
        "json/tests/a.py": b"def in_tests(): pass\n",
        "idlelib/a.py": b"def in_idle(): pass\n",
        "test/a.py": b"def in_test(): pass\n",
        "_json.py": b"def in_private(): pass\n",
        "site.d/a.py": b"def elsewhere(): pass\n",
        "mine.py": b"def mine(): pass\n",
    }
    for path, source in sources.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(source)
    monkeypatch.setattr(os, "__file__", str(tmp_path / "os.py"))
    names = importlib.import_module("names").python_names()
    assert names == ["bare", "in_class", "plain", "tabbed", "top"]


def test_where_python_has_no_sources(gpt, monkeypatch, tmp_path):
    """As it has none in a folder where there is no os.py, or where a frozen os has no place."""
    module = importlib.import_module("names")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delattr(os, "__file__")
    assert list(module.sources()) == []
    names = module.python_names()
    assert {"sorted", "path", "valueerror"} <= set(names) and names == sorted(set(names))
    monkeypatch.setattr(module, "loaded_names", set)
    assert_refused(gpt, [], "argument --input: must be given")


def test_a_text_is_read_line_by_line(gpt, text, tmp_path):
    read = importlib.import_module("names").lines
    assert read(str(text)) == DOCUMENTS
    other = tmp_path / "other.txt"
    other.write_bytes("\ufeffÄda\r\nbo\r\n".encode())
    assert read(str(other)) == ["Äda", "bo"]
    for content, message in ((b"caf\xe9", "must be text in UTF-8"), (b" \n\n", "not blank")):
        other.write_bytes(content)
        assert_refused(gpt, ["--input", other], message)
