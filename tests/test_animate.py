"""Backpropagation step by step: the arithmetic is the engine's, and the picture shows it."""

from __future__ import annotations

import html.parser
import json
import math
import random
import re
import sys
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from helpers import EVERY, random_program
from matplotlib import pyplot
from matplotlib.backend_bases import KeyEvent, ResizeEvent
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from PIL import Image
from test_draw import assert_nothing_overlaps, neuron, texts, within

import vgrad
from vgrad import Value
from vgrad.engine import reachable

BY_NAME = {op.name: op for op in EVERY}


def lines(value: Value, **options: Any) -> list[str]:
    return [line for step in vgrad.animate(value, **options).steps for line in step.lines]


def test_the_lectures_neuron():
    assert lines(neuron()["o"]) == [
        "o.grad = 1.0, the derivative of o by itself",
        "n.grad += o.grad * (1.0 - o.data * o.data) = 1.0 * (1.0 - 0.707107 * 0.707107) = 0.5",
        "sum.grad += n.grad = 0.5",
        "b.grad += n.grad = 0.5",
        "x1w1.grad += sum.grad = 0.5",
        "x2w2.grad += sum.grad = 0.5",
        "x2.grad += w2.data * x2w2.grad = 1.0 * 0.5 = 0.5",
        "w2.grad += x2.data * x2w2.grad = 0.0 * 0.5 = 0.0",
        "x1.grad += w1.data * x1w1.grad = -3.0 * 0.5 = -1.5",
        "w1.grad += x1.data * x1w1.grad = 2.0 * 0.5 = 1.0",
        "All gradients are known.",
    ]


def test_forward_first():
    said = lines(neuron()["o"], forward=True)
    assert "x1w1.data = x1.data * w1.data = 2.0 * -3.0 = -6.0" in said
    assert said.index("o.data = tanh(n.data) = tanh(0.881374) = 0.707107") == 5
    assert said[6:] == lines(neuron()["o"])


def test_what_accumulates_says_so():
    a = Value(3.0, "a")
    said = lines(a * a)
    assert said[1] == "a.grad += a.data * v1.grad = 3.0 * 1.0 = 3.0"
    assert said[2].splitlines()[1].strip() == "a.grad = 3.0 + 3.0 = 6.0"


def test_what_passes_nothing_on_says_so():
    a = Value(-3.0, "a")
    dead = a.relu()
    dead.label = "dead"
    said = lines(dead * 2 + (a > 0))
    assert (
        "a.grad += where(a.data > 0.0, dead.grad, 0.0) = where(-3.0 > 0.0, 2.0, 0.0) = 0.0" in said
    )
    assert any(line.endswith("passes nothing on: gt has derivative 0") for line in said)
    said = lines(vgrad.exp(a.relu()) * 0.0)
    assert any(line.endswith("passes nothing on: its gradient is 0.0") for line in said)


def test_a_power_with_a_constant_exponent_reads_as_in_a_textbook():
    a = Value(-3.0, "a")
    assert lines(a**2, forward=True)[1:4] == [
        "v1.data = a.data ** 2.0 = (-3.0) ** 2.0 = 9.0",
        "v1.grad = 1.0, the derivative of v1 by itself",
        "a.grad += v1.grad * 2.0 * a.data ** 1.0 = 1.0 * 2.0 * (-3.0) ** 1.0 = -6.0",
    ]


def test_a_name_that_begins_like_its_function_is_written_once():
    x = Value(0.0, "exp1")
    assert lines(x.exp(), forward=True)[1] == "v1.data = exp(exp1.data) = exp(0.0) = 1.0"


def test_two_of_one_name_are_told_apart_and_digits_hold_for_constants_too():
    w, v = Value(0.1, "w"), Value(2.0, "w")
    assert lines(w * v)[1] == "w.grad += w_2.data * v1.grad = 2.0 * 1.0 = 2.0"
    said = lines(w + 314159.26535897929, forward=True, digits=9)
    assert said[1] == "v1.data = w.data + 314159.265 = 0.1 + 314159.265 = 314159.365"


def test_what_a_constant_decides_is_not_asked_for():
    a = Value(-3.0, "a")
    assert lines(a**0.0)[1] == "a.grad += 0.0"
    assert lines(vgrad.where(1.0, a, 2.0) * 1.0, forward=True)[1] == "v1.data = a.data = -3.0"


def test_signs_and_comparisons_keep_apart():
    a = Value(-2.0, "a")
    said = lines(-a + (a > 0), forward=True)
    assert "v1.data = -a.data = -(-2.0) = 2.0" in said
    assert "v2.data = (a.data > 0.0) = (-2.0 > 0.0) = 0.0" in said


def test_a_label_that_reads_like_arithmetic_is_put_in_parentheses():
    assert lines(Value(1.0, "2.5") * Value(2.0, "x"))[1].startswith("(2.5).grad += x.data")
    a, b = Value(1.0, "a + b"), Value(2.0, "x[0]")
    assert lines(a * b)[1] == "(a + b).grad += x[0].data * v1.grad = 2.0 * 1.0 = 2.0"


# --- every rule of the table ---------------------------------------------------------------------


def sides(line: str) -> tuple[str, list[str], float]:
    """What a line changes, the ways in which it says how, and the number that comes out."""
    target, rest = re.split(r" \+?= ", line, maxsplit=1)
    *ways, last = rest.split(" = ")
    return target, ways, float(last)


def evaluate(side: str, names: dict[str, Any]) -> float:
    """Python's reading of one side; numbers have 17 digits, so what is left is rounding."""
    return float(eval(side, {**BY_NAME, "inf": math.inf, "nan": math.nan, **names}))


@pytest.mark.parametrize("op", EVERY, ids=lambda op: op.name)
@pytest.mark.parametrize("seed", range(3))
def test_the_arithmetic_of_every_op_is_right_as_python(op, seed):
    """In symbols and in numbers, forward and backward; 1e-12 is some thousands of roundings."""
    rng = random.Random(seed)
    operands = [Value(rng.uniform(*limits), name) for limits, name in zip(op.domain, "xyz")]
    out, g = op(*operands), Value(1.5, "g")
    out.label = "out"
    root = out * g
    said = lines(root, forward=True, digits=17)
    root.backward()
    names = {x.label: x for x in (*operands, out, g)}
    told = [sides(line) for line in said if re.match(r"out\.data|[xyz]\.grad \+=", line)]
    assert len(told) == 1 + sum(rule is not None for rule in op.vjp)
    for target, ways, number in told:
        assert number == evaluate(target, names)
        for way in ways:
            plain = {name: SimpleNamespace(data=x.data, grad=x.grad) for name, x in names.items()}
            assert evaluate(way, plain) == pytest.approx(number, rel=1e-12, abs=1e-15), way


@pytest.mark.parametrize("seed", range(10))
def test_the_parts_add_up_to_the_gradients_on_random_graphs(seed):
    """To the last bit, as both are the engine's sums in the engine's order."""
    program = random_program(seed)
    root = program(*[Value(0.1 * k - 0.3) for k in range(program.inputs)])[0]
    nodes = reachable(root)
    before = [random.Random(k).random() for k in range(len(nodes))]
    for node, grad in zip(nodes, before):
        node.label, node.grad = f"n{id(node)}", grad
    animation = vgrad.animate(root, digits=17)
    assert [node.grad for node in nodes] == before  # as they were
    for node in nodes:
        node.grad = 0.0
    root.backward()
    sums = {root.label: 1.0}
    for line in (line for step in animation.steps for line in step.lines):
        if " += " in line:
            target, _, part = sides(line.split("\n")[0])
            label = target.removesuffix(".grad")
            sums[label] = sums.get(label, 0.0) + part
    for node in nodes:
        assert sums.get(node.label, 0.0) == node.grad
        if node.op.name != "const":
            assert animation.steps[-1].grads[node] == node.grad


def test_a_wrong_rule_shows():
    """The numbers come from the engine and nowhere else: what it gets wrong is what is shown."""
    tanh = BY_NAME["tanh"]
    right = tanh.vjp
    object.__setattr__(tanh, "vjp", (lambda g, out, x: g * (1 + out * out),))
    try:
        said = lines(neuron()["o"])
    finally:
        object.__setattr__(tanh, "vjp", right)
    assert (
        "n.grad += o.grad * (1.0 + o.data * o.data) = 1.0 * (1.0 + 0.707107 * 0.707107) = 1.5"
        in said
    )
    assert "x1.grad += w1.data * x1w1.grad = -3.0 * 1.5 = -4.5" in said


def test_steps_by_level():
    by_node, by_level = (vgrad.animate(neuron()["o"], by=by) for by in ("node", "level"))
    assert sorted(lines(neuron()["o"])) == sorted(lines(neuron()["o"], by="level"))
    assert (len(by_node), len(by_level)) == (7, 5)
    assert {x.label for x in by_level.steps[-2].active} == {"x1w1", "x2w2"}


# --- pictures of steps ---------------------------------------------------------------------------


def fills(figure: Any) -> dict[str, str]:
    """The colour behind each text."""
    boxes = figure.findobj(FancyBboxPatch)
    found = {}
    for text in figure.findobj(Text):
        x, y = text.get_position()
        inside = [
            box
            for box in boxes
            if 0 < x - box.get_x() < box.get_width() and 0 < y - box.get_y() < box.get_height()
        ]
        if inside:
            found[text.get_text()] = to_hex(inside[-1].get_facecolor())
    return found


def test_a_step_shows_three_states_and_its_numbers():
    animation = vgrad.animate(neuron()["o"])
    figure = animation.draw(2)  # n, which passes its gradient to the sum and to b
    colour = fills(figure)
    assert colour["n"] != colour["x1"] == colour["x1w1"] != colour["o"] == colour["tanh"]
    assert colour["b"] == colour["x1"]  # as long as n is at work
    after = fills(animation.draw(3))
    assert after["b"] == after["n"] == colour["o"]
    shown = texts(figure)
    assert "step 3 of 7" in shown and "sum.grad += n.grad = 0.5\nb.grad += n.grad = 0.5" in shown
    at = shown.index("sum")
    assert shown[at : at + 3] == ["sum", "data -6.0", "grad 0.5"]
    assert shown[shown.index("x1") + 2] == "grad —"


def test_the_edges_of_a_step_stand_out():
    edges = vgrad.animate(neuron()["o"]).draw(2).findobj(PathPatch)
    assert sorted(edge.get_linewidth() for edge in edges)[-4:] == [1.0, 2.5, 2.5, 2.5]


def test_a_long_line_is_broken_so_that_the_figure_stays_narrow():
    a, b = Value(2.0, "a long name of some value"), Value(3.0, "another long name")
    figure = vgrad.animate(a**b).draw(1)
    assert figure.get_figwidth() < 13
    (caption,) = [text for text in texts(figure) if "+=" in text]
    assert "\n        = where(" in caption


def test_a_forward_step_shows_what_is_known():
    colour = fills(vgrad.animate(neuron()["o"], forward=True).draw(3))
    assert colour["sum"] != colour["x1w1"]  # though both are -6.0
    shown = texts(vgrad.animate(neuron()["o"], forward=True).draw(1))
    assert [shown[shown.index(x) + 1] for x in ("x1w1", "n")] == ["data -6.0", "data —"]


@pytest.mark.parametrize("step", [0, 3, -1])
def test_nothing_overlaps_in_a_step(step):
    x = Value(-1.23456e-7, "a label of several words")
    y = x * x + (x * 1e300).exp() + (x - 1).tanh() * x
    for root in (y, Value(3.0, "a"), y > y):  # the last two are narrow
        figure = vgrad.animate(root, forward=True).draw(step if root is y else 0)
        renderer = FigureCanvasAgg(figure).get_renderer()
        below = [text for text in figure.axes[0].texts if text.get_ha() != "center"]
        extents = [text.get_window_extent(renderer) for text in below]
        for k, a in enumerate(extents):
            assert within(a.extents, figure.bbox.extents), below[k]
            assert not any(a.overlaps(b) for b in extents[:k]), below[k]
        for text in below:
            text.set_text("")
        assert_nothing_overlaps(figure)


# --- files ---------------------------------------------------------------------------------------


def test_the_page_asks_for_nothing_and_has_every_step(tmp_path):
    values = neuron()
    values["n"].label = "</script>FRAMES <b>"
    values["o"].label = "<o>"
    animation = vgrad.animate(values["o"])
    animation.save(tmp_path / "backprop.html", seconds=2)
    text = (tmp_path / "backprop.html").read_text(encoding="utf-8")
    assert "<title>Backpropagation of (&lt;o&gt;)</title>" in text
    assert text.count("</script>") == 1 and "  }, 2000);" in text
    assert "document.onkeydown = " in text and "ArrowRight" in text
    data = json.loads(re.search(r"const data = (.*);", text)[1])
    assert data["words"] == ["\n".join(x.lines) for x in animation.steps]
    parts = set(re.findall(r'id="([a-z\d-]+)"', text))
    named = {f"box{k}" for k in range(len(data["fills"][0]))} | set(data["cells"]) | {"heads"}
    named |= {f"edge{k}" for along in data["along"] for k in along}
    assert {f"p0-{name}" for name in named} | {"graph", "words"} <= parts
    last = {changes[-1][1] for changes in data["cells"].values()}
    assert {"grad -1.5", "grad 1.0", "grad 0.0", "data 6.88137"} <= last
    links = []

    class Links(html.parser.HTMLParser):
        def handle_starttag(self, tag, attributes):
            links.extend(x for name, x in attributes if name.split(":")[-1] in ("href", "src"))

    Links().feed(text)
    assert links[0] == "data:," and all(link.startswith("#") for link in links[1:])
    assert "url(http" not in text and "@import" not in text
    for name in ("play", "back", "next", "slider"):
        assert f'id="{name}"' in text


def test_the_page_has_its_texts_whatever_the_users_settings(tmp_path):
    settings = {"path.effects": [withStroke(linewidth=4)], "font.family": "monospace"}
    animation = vgrad.animate(neuron()["o"])
    for more in ({}, settings):
        with mpl.rc_context(more):
            animation.save(tmp_path / "backprop.html")
        text = (tmp_path / "backprop.html").read_text(encoding="utf-8")
        assert len(re.findall(r'<g id="p0-cell[^"]*">\s*(?:<!--.*?-->)?\s*<text', text)) == 20


def test_the_gif_has_every_step_and_a_frame_nothing_of_those_before_it(tmp_path):
    """All frames are drawn on one figure, a single step on a new one: they must look the same."""
    a, b, c = Value(2.0, "a"), Value(-3.0, "b"), Value(0.5, "c")
    animation = vgrad.animate((a * b + c).tanh(), forward=True, by="level")
    animation.save(str(tmp_path / "backprop.gif"), seconds=0.5)
    with Image.open(tmp_path / "backprop.gif") as image:
        assert image.n_frames == len(animation) and image.info["duration"] == 500
        image.seek(len(animation) - 1)
        assert image.info["duration"] == 2500  # the last one is held
        for k in (0, 4, len(animation) - 1):
            image.seek(k)
            animation.draw(k, tmp_path / "step.png")
            with Image.open(tmp_path / "step.png") as alone:
                pair = [np.asarray(x.convert("RGB")).astype(int) for x in (image, alone)]
            # 256 colours in a GIF shift a colour somewhat, but turn no edge orange
            assert (np.abs(pair[0] - pair[1]).max(axis=2) > 60).mean() < 1e-4


def test_gradients_run_backward():
    def heads(figure: Any) -> list[float]:
        orange = figure.findobj(PathCollection)[-1]
        return sorted(orange.get_offsets()[:, 0])

    animation = vgrad.animate(Value(2.0, "a") * Value(3.0, "b"), forward=True)
    forward, backward = heads(animation.draw(1)), heads(animation.draw(3))
    assert all(left < right for left, right in zip(backward, forward))


def test_the_window(monkeypatch):
    """Played by a figure without one: the slider and the arrow keys, and what they show."""
    shown = []

    def use() -> None:
        canvas = pyplot.gcf().canvas
        assert "step 1 of 7" in texts(canvas.figure)
        for key in ("right", "right", "left", "x", *["right"] * 9):
            canvas.callbacks.process("key_press_event", KeyEvent("key_press_event", canvas, key))
            shown.extend(text for text in texts(canvas.figure) if text.startswith("step "))
        canvas.figure.set_size_inches(canvas.figure.get_size_inches() / 2)
        canvas.callbacks.process("resize_event", ResizeEvent("resize_event", canvas))
        shown.append(canvas.figure.axes[0].texts[0].get_fontsize())
        pyplot.close()

    monkeypatch.setattr(sys.modules["vgrad.pictures.figures"], "WINDOWLESS", set())
    monkeypatch.setattr(pyplot, "show", use)
    vgrad.animate(neuron()["o"]).show()
    *steps, size = shown
    assert steps[:4] == [f"step {k} of 7" for k in (2, 3, 2, 2)] and steps[-1] == "step 7 of 7"
    assert size == 4.5


def test_a_notebook_shows_the_page(in_a_notebook):
    animation = vgrad.animate(Value(1.0) * 2)
    assert animation._repr_html_().startswith("<iframe srcdoc=")
    animation.show()
    assert in_a_notebook == [animation]  # as IPython does with what a cell ends in


def test_a_window_is_refused_where_there_is_none():
    with pytest.raises(RuntimeError, match="must have a backend that opens windows"):
        vgrad.animate(neuron()["o"]).show()


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda x: vgrad.animate(3.0), TypeError, "animate takes a Value"),
        (lambda x: vgrad.animate(x, by="edge"), ValueError, "by must be"),
        (lambda x: vgrad.animate(sum([x] * 400)), ValueError, "at most 300 nodes"),
        (lambda x: vgrad.animate(x).draw(5), ValueError, "step must be a whole number, -2 to 1"),
        (lambda x: vgrad.animate(x).save("a.mp4"), ValueError, "path must end in .html or .gif"),
        (
            lambda x: vgrad.animate(x).save("a.gif", 0),
            ValueError,
            "seconds must be from 0.01 to 60",
        ),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(Value(1.0))
