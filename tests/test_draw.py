"""Pictures of graphs: what they say is what the engine has, and nothing is in the way of it."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest
from helpers import random_program, sweep
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.text import Text

import vgrad
from vgrad import Value, nn
from vgrad.engine import reachable
from vgrad.pictures.layout import layout
from vgrad.pictures.overview import overview


def neuron() -> dict[str, Value]:
    """The lecture's neuron, by name."""
    x1, x2 = Value(2.0, "x1", trainable=False), Value(0.0, "x2", trainable=False)
    w1, w2, b = Value(-3.0, "w1"), Value(1.0, "w2"), Value(6.8813735870195432, "b")
    values = {"x1w1": x1 * w1, "x2w2": x2 * w2}
    values["sum"] = values["x1w1"] + values["x2w2"]
    values["n"] = values["sum"] + b
    values["o"] = values["n"].tanh()
    for label, value in values.items():
        value.label = label
    return {x.label: x for x in (x1, x2, w1, w2, b)} | values


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def written(figure: Figure) -> dict[str, tuple[str, str]]:
    """What stands below each label: its data and its gradient."""
    lines = texts(figure)
    return {
        label: (data.removeprefix("data "), grad.removeprefix("grad "))
        for label, data, grad in zip(lines, lines[1:], lines[2:])
        if data.startswith("data ") and grad.startswith("grad ")
    }


def assert_shows(figure: Figure, values: dict[str, Value]) -> None:
    """Six significant digits are shown, so to half a unit of the sixth."""
    shown = written(figure)
    assert set(shown) == set(values)
    for label, value in values.items():
        for text, number in zip(shown[label], (value.data, value.grad)):
            assert float(text) == pytest.approx(number, rel=5e-6, abs=0, nan_ok=True), label


def test_the_numbers_are_the_engines():
    values = neuron()
    values["o"].backward()
    figure = vgrad.draw(values["o"])
    assert_shows(figure, values)
    assert [written(figure)[x][1] for x in ("x1", "x2", "w1", "w2")] == [
        "-1.5",
        "0.5",
        "1.0",
        "0.0",
    ]
    values["w1"].grad += 1e-3
    with pytest.raises(AssertionError, match="w1"):  # so the check above can fail
        assert_shows(figure, values)


def test_a_gradient_that_was_not_computed_is_no_zero():
    values = neuron()
    assert {grad for _, grad in written(vgrad.draw(values["o"])).values()} == {"—"}
    values["n"].backward()
    shown = written(vgrad.draw(values["o"]))
    assert (shown["o"][1], shown["n"][1], shown["w2"][1]) == ("—", "1.0", "0.0")
    below = Value(-2.0, "x") * 3.0
    (below.relu() * 2.0).backward()
    assert written(vgrad.draw(below))["x"][1] == "0.0"  # computed, though it is 0
    assert written(vgrad.draw(below + 1.0))["x"][1] == "0.0"  # whatever else is made of it
    values["w1"].grad = 0  # as micrograd's modules do it
    assert written(vgrad.draw(values["w1"] * 2.0))["w1"][1] == "—"
    values["o"].zero_grad()
    assert {grad for _, grad in written(vgrad.draw(values["o"])).values()} == {"—"}


@pytest.mark.parametrize(
    "number, text",
    [
        *((-3.0, "-3.0"), (1e-30, "1e-30"), (-1.5e300, "-1.5e+300"), (5e-324, "5e-324")),
        *((float("nan"), "nan"), (float("-inf"), "-inf"), (-0.0, "-0.0"), (123456.0, "123456.0")),
    ],
)
def test_numbers_of_every_form(number, text):
    assert f"data {text}" in texts(vgrad.draw(Value(number) * 1.0))


def test_digits():
    x = Value(0.1) + 0.2
    assert "data 0.3" in texts(vgrad.draw(x))
    assert "data 0.30000000000000004" in texts(vgrad.draw(x, digits=17))


def test_kinds_are_told_apart_by_colour_and_border():
    x, w = Value(1.0, trainable=False), Value(2.0)
    figure = vgrad.draw(w * x + 3.0)
    assert {"parameter", "input", "constant", "computed", "result"} <= set(texts(figure))
    boxes = [x for x in figure.findobj(FancyBboxPatch) if x.get_width() == pytest.approx(0.22)]
    assert len({to_hex(box.get_facecolor()) for box in boxes}) == 5
    looks = [(x.get_linewidth(), x.get_linestyle(), x.get_boxstyle().__class__) for x in boxes]
    assert len(set(looks)) >= 4


# --- nothing overlaps, nothing is cut ------------------------------------------------------------


def random_value(seed: int) -> Value:
    """A graph of all ops, with reuse, constants, long labels and long numbers."""
    program = random_program(seed, edges=seed % 2 == 0, size=12)
    rng = random.Random(seed)
    numbers = [Value(rng.uniform(-2, 2), trainable=False) for _ in range(program.inputs)]
    value = program(*numbers)[0]
    for k, node in enumerate(reachable(value)):
        if k % 3 == 0:
            node.label = rng.choice(["a", "a label of several words", "x" * 40, "$a_1^2$ {b|c}"])
    if seed % 3:
        value.backward()
    return value


def assert_nothing_overlaps(figure: Figure) -> None:
    """Measured as drawn, in pixels: boxes, what is written in them, and edges."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    patches = figure.findobj(FancyBboxPatch)
    boxes = np.array([patch.get_window_extent(renderer).extents for patch in patches])
    assert all(within(box, figure.bbox.extents) for box in boxes)
    inner = np.array(
        [a for k, a in enumerate(boxes) if not any(within(b, a) for b in boxes[k + 1 :])]
    )
    low, high = inner[:, :2], inner[:, 2:]
    for k, a in enumerate(inner):
        apart = ((a[:2] >= high) | (low >= a[2:])).any(axis=1)
        assert apart[:k].all(), (a, inner[:k][~apart[:k]])
    for text in figure.findobj(Text):
        if text.get_text() and text.get_text() not in FREE:
            extent = text.get_window_extent(renderer).extents
            # hinting may move a glyph by half a pixel
            assert any(within(extent, box, room=0.5) for box in boxes), text
    for edge in figure.findobj(PathPatch):
        way = edge.get_path().transformed(edge.get_transform()).to_polygons(closed_only=False)[0]
        points = np.concatenate([np.linspace(a, b, 40) for a, b in pairwise(way)])
        # an edge may touch the border of the box where it ends
        inside = (points[:, None] > low + 2) & (points[:, None] < high - 2)
        assert not inside.all(axis=2).any(), edge


FREE = {
    "…",
    "parameter",
    "input",
    "constant",
    "computed",
    "result",
    "chosen",
}  # written beside boxes


def within(a: np.ndarray, b: np.ndarray, room: float = 0.0) -> bool:
    return bool((a[:2] >= b[:2] - room).all() and (a[2:] <= b[2:] + room).all())


@pytest.mark.parametrize("seed", sweep(12, 1))
def test_nothing_overlaps_on_random_graphs(seed):
    assert_nothing_overlaps(vgrad.draw(random_value(seed)))


def test_the_check_for_overlaps_can_fail():
    figure = vgrad.draw(neuron()["o"])
    text = next(text for text in figure.findobj(Text) if text.get_text() == "data 6.88137")
    text.set_text("data 6.88137358701954")
    with pytest.raises(AssertionError):
        assert_nothing_overlaps(figure)


def test_a_node_used_five_times_has_one_box_and_five_edges():
    x = Value(3.0, "x")
    y = x * x + x.exp() + (x - 1).tanh() * x
    figure = vgrad.draw(y)
    assert texts(figure).count("x") == 1 and len(reachable(y)) == 9
    operands = sum(len(node.parents) for node in reachable(y))
    results = sum(bool(node.parents) for node in reachable(y))
    assert len(figure.findobj(PathPatch)) == operands + results
    assert_nothing_overlaps(figure)


def test_edges_into_one_box_end_at_it_one_below_the_other():
    columns, sizes = [0] * 20 + [1], [(0.5, 0.3)] * 21
    ends = [way[-1][1] for way in layout(columns, sizes, [(k, 20) for k in range(20)], [20]).ways]
    middle = layout(columns, sizes, [(k, 20) for k in range(20)], [20]).centres[20][1]
    assert ends == sorted(ends) and middle - 0.15 < ends[0] < ends[-1] < middle + 0.15


def test_an_op_stands_between_its_operands():
    values = neuron()
    (axes,) = vgrad.draw(values["o"]).axes
    y = {text.get_text(): text.get_position()[1] for text in axes.texts}
    assert y["x1"] < y["w1"] < y["x2"] < y["w2"] and y["x1w1"] < y["x2w2"] < y["b"]
    for x, z, label in (("x1", "w1", "x1w1"), ("x2", "w2", "x2w2"), ("x1w1", "x2w2", "sum")):
        assert y[x] < y[label] < y[z] + 0.1, label
    assert y["n"] == pytest.approx(y["o"], abs=0.02)  # a chain is a straight line


def test_crossings_are_taken_out():
    """Depth first puts box 2 on top, whose two edges then cross those of 3 and 4."""
    centres = layout(
        [0, 0, 1, 1, 1], [(1.0, 0.5)] * 5, [(0, 2), (1, 2), (0, 3), (1, 4)], [2]
    ).centres
    y = [y for _, y in centres]
    assert y[3] < y[2] < y[4] if y[0] < y[1] else y[4] < y[2] < y[3]


def test_what_has_no_label_is_called_as_in_the_formulas():
    model = nn.MLP(2, [2, 1], rng=random.Random(0))
    score = model([1.0, 2.0])
    drawn, said = written(vgrad.draw(score)), vgrad.animate(score)
    assert {p.label for p in model.parameters()} < set(drawn) == set(written(said.draw(-1)))
    assert len(drawn) == len([x for x in reachable(score) if x.op.name != "const"])
    assert said.steps[0].lines[0].startswith(f"{list(drawn)[-1]}.grad = 1.0")  # of the result
    near = vgrad.draw(score, around="v3", hops=1)
    focus, _ = [x for x in near.findobj(FancyBboxPatch) if x.get_linewidth() == 4]
    place = next(text.get_position() for text in near.axes[0].texts if text.get_text() == "v3")
    assert focus.get_bbox().contains(*place)
    assert "{v3 | data" in vgrad.to_dot(score)
    w, v = Value(1.0, "w"), Value(2.0, "w")
    assert set(written(vgrad.draw(w * v))) == {"w", "w_2", "v1"}


def test_names_of_a_large_graph_take_no_time():
    """Each is found at once, also where thousands have the same label, or none."""
    total = x = Value(1.0, "x")
    for _ in range(5000):
        total = with_label(total + x, "x") + x
    assert list(written(vgrad.draw(total, around=total, hops=1))) == ["x", "x_5001", "v5000"]


def test_a_label_is_shown_whole_and_as_it_is():
    label = "a label_with $dollars$, {braces} | bars\nand a line of " + "x" * 60
    shown = "".join("".join(texts(vgrad.draw(Value(1.0, label)))).split())
    assert "".join(label.split()) in shown
    assert not any(text.get_parse_math() for text in vgrad.draw(Value(1.0, label)).axes[0].texts)


def test_a_label_that_is_no_string():
    x, y = Value(1.0), Value(2.0)
    x.label, y.label = 7, None
    assert "7" in texts(vgrad.draw(x * y)) and "None" not in texts(vgrad.draw(x * y))
    assert "7" in texts(vgrad.animate(x * y).draw(0))


def test_a_label_of_spaces_and_an_array_of_values():
    graph = vgrad.trace(lambda x: with_label(x * 2.0, " \t") + 1.0, ())
    assert "output" in texts(vgrad.draw(graph))
    assert texts(vgrad.draw(np.array([Value(1.0, "a"), Value(2.0, "b")]))) == texts(
        vgrad.draw([Value(1.0, "a"), Value(2.0, "b")])
    )


def with_label(node: Value, label: str) -> Value:
    node.label = label
    return node


def test_left_to_right_by_level():
    o = neuron()["o"]
    figure = vgrad.draw(o)
    place = {text.get_text(): text.get_position()[0] for text in figure.findobj(Text)}
    assert place["x1w1"] == place["x2w2"] < place["sum"] < place["n"] < place["o"]
    assert all(place[leaf] < place["x1w1"] for leaf in ("x1", "x2", "w1", "w2"))


# --- graphs and programs -------------------------------------------------------------------------


def moons_loss(hidden: int = 16):
    model = nn.MLP(2, [hidden, hidden, 1], rng=random.Random(0))

    def loss(x, y):
        score = model(x)
        penalty = 1e-4 * sum(p * p for p in model.parameters())
        return (1 - y * score).relu() + penalty, score

    return loss, model.parameters()


def test_a_recorded_graph_shows_what_is_known_of_it():
    w = Value(3.0, "w")
    graph = vgrad.trace(lambda x: (w * x[0] + 0.5, x[1]), (2,), parameters=[w])
    shown = texts(vgrad.draw(graph))
    assert {"x[0]", "x[1]", "w", "data 3.0", "0.5", "*", "+", "output 0", "output 1"} <= set(shown)
    assert not any(text.startswith("grad") for text in shown)


def test_a_large_graph_is_drawn_as_its_plan():
    loss, parameters = moons_loss()
    graph = vgrad.trace(loss, (2,), (), parameters=parameters)
    shown = texts(vgrad.draw(graph))
    assert len(graph) == 1662 and vgrad.to_dot(graph).count("label=") == 15  # the README says so
    assert {"16 × dot of 3\nmatmul", "16 × relu", "x: 2 inputs", "272 parameters"} <= set(shown)
    assert {"result", "once per call"} <= set(shown)
    dot = vgrad.to_dot(graph)
    for many, uses in ((48, 2), (272, 2), (17, 2)):
        (box,) = re.findall(rf'(\d+) \[label="{{{many} parameters}}"', dot)
        assert dot.count(f"  {box} -> ") == uses


def test_the_limit_is_where_the_plan_begins():
    x = Value(1.0)
    y = sum([x] * 10)
    assert len(reachable(y)) == 12
    assert "+" in texts(vgrad.draw(y, limit=12)) and "+" not in texts(vgrad.draw(y, limit=11))


def test_a_value_of_a_large_graph_is_drawn_as_its_plan():
    _, parameters = moons_loss()
    penalty = sum(p * p for p in parameters)
    assert {"1 × dot of 337\nmatmul", "337 parameters"} <= set(texts(vgrad.draw(penalty)))
    total = sum(p.tanh() for p in parameters)
    assert {"337 × tanh", "1 × sum of 337\nmatmul"} <= set(texts(vgrad.draw(total)))


def test_a_program_is_drawn_as_its_plan():
    loss, parameters = moons_loss(4)
    for fuse, title in ((True, "4 × dot of 3\nmatmul"), (False, "8 × mul")):
        program = vgrad.compile(loss, parameters=parameters, fuse=fuse)
        program.theta([[1.0, 2.0]], [1.0])
        assert title in texts(vgrad.draw(program))


def test_a_stack_is_drawn_with_what_it_reads_and_no_more():
    """The means of what came before: what is left out of a stack is no node, also not the last."""

    def means(x):
        rows = [
            [sum(a * b for a, b in zip(x[: t + 1, t], x[: t + 1, j])) for j in (6, 7, 8, 9)]
            for t in range(6)
        ]
        return sum(vgrad.tanh(z) for row in rows for z in row) + p * q  # the last node is p * q

    p, q = Value(1.0), Value(2.0)
    (runner,) = vgrad.compile(vgrad.trace(means, (6, 10))).runners.values()
    picture = overview(runner)
    titles = [box.title for box in picture.boxes]
    stack = titles.index("24 × dot of 1 to 6\nstack")
    assert [titles[a] for a, b in picture.edges if b == stack] == ["x: 60 inputs"]


def test_every_node_is_in_the_plan():
    """The nodes that the boxes stand for add up to those of the graph."""
    loss, parameters = moons_loss()
    graph = vgrad.trace(loss, (2,), (), parameters=parameters)
    computed = int((graph.level > 0).sum())
    for fuse in (True, False):
        program = vgrad.compile(graph, fuse=fuse)
        shown = [text.split() for text in texts(vgrad.draw(program))]
        counts = [
            int(words[0].replace(",", "")) for words in shown if words[1:] in (["nodes"], ["node"])
        ]
        assert sum(counts) == computed


def test_a_chain_of_thousands_of_kernels_is_one_box():
    x = y = Value(1.0)
    for _ in range(2000):
        y = (y * x).tanh()
    assert texts(vgrad.draw(y))[:5] == [
        *("2,000 turns of", "1 × mul\n1 × tanh", "4,000 nodes", "output", "1 parameter")
    ]


def recursion(x: Value, turns: int) -> Value:
    """Each turn reads the last in two places; the first and the last turn are not as the others."""
    y = x.exp() + 1
    for _ in range(turns):
        y = (x * y + 0.1).tanh() - 0.5 * y.sin()
    return (y * y).exp() + y


@pytest.mark.parametrize("turns", [20, 200])
def test_a_loop_is_a_box_between_those_before_and_after_it(turns):
    figure = vgrad.draw(recursion(Value(0.5, "x"), turns), limit=50)
    shown = texts(figure)
    (title,) = [text for text in shown if text.endswith(" turns of")]
    assert turns - 2 <= int(title.split()[0]) <= turns
    told = shown[shown.index(title) + 1].split("\n")
    assert sorted(told) == ["1 × dot of 2", "1 × dot of 2", "1 × sin", "1 × tanh"]
    assert "1 × exp" in shown and len(shown) < 40
    assert_nothing_overlaps(figure)


def test_a_turn_of_many_kernels_tells_the_first():
    y = x = Value(0.5)
    for _ in range(50):
        y = y.sin().cos().tanh().exp().cosh().relu().sin().log() * x + 1
    turn = next(text for text in texts(vgrad.draw(y)) if text.count("\n") > 3)
    assert turn.split("\n")[-1] == "and 4 other kernels" and turn.count("\n") == 5


def test_kernels_without_a_loop_share_boxes_by_rank():
    rng, y = random.Random(0), Value(0.5)
    for _ in range(400):
        y = getattr(y, rng.choice(["sin", "cos", "tanh", "exp", "relu"]))()
    shown = texts(vgrad.draw(y))
    assert len(shown) < 100 and any(text.endswith(" kernels") for text in shown)


def test_what_the_boxes_of_a_loop_read_was_computed_before():
    """Edges go from left to right, each box's nodes are counted once."""
    graph = vgrad.capture(recursion(Value(0.5), 100))
    (runner,) = vgrad.compile(graph).runners.values()
    picture = overview(runner)
    assert all(picture.boxes[a].column < picture.boxes[b].column for a, b in picture.edges)
    counts = [cell.split() for box in picture.boxes for cell in box.cells]
    nodes = [int(n) for n, *what in counts if what in (["nodes"], ["node"])]
    assert sum(nodes) == (graph.level > 0).sum()


@pytest.mark.parametrize("hops", [1, 2, 9])
def test_around(hops):
    values = neuron()
    figure = vgrad.draw(values["o"], around=values["n"], hops=hops)
    labels = set(written(figure))
    assert labels == {1: {"n", "sum", "b", "o"}, 2: {"n", "sum", "b", "o", "x1w1", "x2w2"}}.get(
        hops, set(values)
    )
    assert ("…" in texts(figure)) == (hops < 9)
    assert texts(figure) == texts(vgrad.draw(values["o"], around="n", hops=hops))
    focus, swatch = [x for x in figure.findobj(FancyBboxPatch) if x.get_linewidth() == 4]
    place = {text.get_text(): text.get_position() for text in figure.axes[0].texts}
    assert focus.get_bbox().contains(*place["n"])
    assert swatch.get_y() < place["chosen"][1] < swatch.get_y() + swatch.get_height()
    assert "chosen" not in texts(vgrad.draw(values["o"]))
    assert vgrad.to_dot(values["o"], around="n").count("penwidth=4") == 1
    assert_nothing_overlaps(figure)


def test_around_in_a_graph_of_any_size():
    loss, parameters = moons_loss()
    graph = vgrad.trace(loss, (2,), (), parameters=parameters)
    last = int(graph.outputs[0])
    assert "output 0" in texts(vgrad.draw(graph, around=last, hops=1))
    assert len(texts(vgrad.draw(graph, around=last, hops=50, limit=30))) < 100


def test_a_neighbourhood_of_ops_alone():
    graph = vgrad.trace(lambda x: x.exp().sin().cos().tanh().exp().sin(), ())
    shown = texts(vgrad.draw(graph, around=4, hops=1))
    assert sorted(shown) == sorted(["…", "cos", "tanh", "exp", "…", "chosen"])


def test_every_hidden_operand_has_its_own_sign():
    a, b = Value(1.0), Value(2.0)
    difference = a * b - b / a
    assert texts(vgrad.draw(difference, around=difference, hops=1)).count("…") == 4
    assert len(texts(vgrad.draw(difference, around=difference, hops=10**9))) > 10


@pytest.mark.parametrize("fuse", [True, False])
def test_a_plan_tells_which_outputs_it_computes_and_which_are_given(fuse):
    w = Value(2.0)
    program = vgrad.compile(lambda x, y: (w * x, y, x - y), parameters=[w], fuse=fuse)
    program([3.0], [1.0], [1.0])
    shown = texts(vgrad.draw(program))
    assert {"output 0", "output 1", "output 2", "as given"} <= set(shown)
    nothing = vgrad.compile(lambda: Value(3.0, trainable=False), parameters=[], fuse=fuse)
    nothing([])
    assert texts(vgrad.draw(nothing)) == ["output", "as given", "result"]


# --- DOT -----------------------------------------------------------------------------------------


def test_dot_has_every_number_and_edge(tmp_path):
    values = neuron()
    values["o"].backward()
    text = vgrad.to_dot(values["o"])
    for line in ("{w1 | data -3.0 | grad 1.0}", "{x2 | data 0.0 | grad 0.5}"):
        assert line in text
    assert text.count(" -> ") == 9 + 5  # operands and results
    assert "ordering=in" in text  # else a - b may come out with b on top
    odd = Value(1.0, '&amp; a "label" {with|all} <that> \\ means\nsomething')
    source = tmp_path / "graph.dot"
    source.write_text(vgrad.to_dot(odd * values["o"]), encoding="utf-8")
    if shutil.which("dot"):
        command = ["dot", "-Tsvg", str(source)]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True)
        assert done.stderr == ""
        assert "&amp;amp; a &quot;label&quot;" in done.stdout and "{with|all}" in done.stdout


# --- files, notebooks, errors --------------------------------------------------------------------


@pytest.mark.parametrize(
    "ending, start", [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")]
)
def test_files(ending, start, tmp_path):
    path = tmp_path / f"graph.{ending}"
    vgrad.draw(neuron()["o"], path)
    first = path.read_bytes()
    assert first.startswith(start)
    vgrad.draw(neuron()["o"], str(path))
    assert path.read_bytes() == first and b"CreationDate" not in first


def test_notebooks_show_values_and_graphs():
    value = neuron()["o"]
    for thing in (value, vgrad.capture(value)):
        assert "<svg" in thing._repr_svg_()


def test_a_notebook_shrinks_a_wide_picture_but_not_until_it_cannot_be_read():
    loss, parameters = moons_loss()
    program = vgrad.compile(loss, parameters=parameters)
    program.theta([[1.0, 2.0]], [1.0])
    (style,) = re.findall(r'<svg style="(.*?)" ', program._repr_svg_())
    assert style.startswith("max-width: 100%;") and style.endswith("height: auto")
    least, points = (
        float(re.search(rf"{at}([\d.]+)pt", program._repr_svg_())[1])
        for at in ("min-width: ", ' width="')
    )
    assert 9 * least / points > 5  # points, of the text
    assert points < 1000 and least < 600  # a cell has about 700


def test_drawing_needs_no_screen(drawn_without_a_screen):
    drawn_without_a_screen.result()
    assert (drawn_without_a_screen.out / "graph.png").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"axes.xmargin": 0.5, "text.color": "white", "font.size": 20},
        {"font.family": "monospace"},
        {"figure.autolayout": True, "savefig.bbox": "tight", "savefig.transparent": True},
    ],
)
def test_a_picture_suits_the_users_settings(settings, tmp_path):
    with mpl.rc_context(settings):
        assert_nothing_overlaps(vgrad.draw(neuron()["o"], tmp_path / "graph.png"))


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: vgrad.draw(3.0), TypeError, "draw takes a Value or a list of them, a Graph or"),
        (lambda: vgrad.draw([]), TypeError, "draw takes a Value or a list of them"),
        (lambda: vgrad.draw(vgrad.compile(abs)), ValueError, "must have been called"),
        (lambda: vgrad.draw(Value(1.0), limit=0), ValueError, "limit must be a whole number"),
        (lambda: vgrad.draw(Value(1.0), digits=2.5), ValueError, "digits must be a whole number"),
        (lambda: vgrad.draw(Value(1.0), around="x"), ValueError, "which no node has"),
        (lambda: vgrad.draw(Value(1.0, "x") + Value(1.0, "x"), around="x"), ValueError, "2 nodes"),
        (lambda: vgrad.draw(Value(1.0), around=Value(1.0)), ValueError, "around must be a node"),
        (lambda: vgrad.draw(Value(1.0), "graph"), ValueError, "path must end in .svg"),
        (lambda: vgrad.draw(vgrad.trace(abs, ()), around=9), ValueError, "its number, 0 to 1"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
