"""The page with sliders: what a browser computes on it is what the scalar engine computes."""

from __future__ import annotations

import html
import json
import math
import random
import re
import shutil
import subprocess
import sys
import webbrowser
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import COMPUTED, EDGES, random_program

import vgrad
from vgrad import Value
from vgrad.engine import reachable
from vgrad.pictures.javascript import takes_order

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync --disable-extensions"
in_browser = pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")

# Drags every slider to shares of its way, or to a number given as a string, and tells what the page
# then shows, step by step.
DRIVER = """
<pre id="found"></pre>
<script>
const exactly = (_, x) =>  // as JSON has neither infinities nor -0
  Object.is(x, -0) ? "-0" : typeof x === "number" && !Number.isFinite(x) ? String(x) : x;
const text = element => element === null ? null : element.textContent;
const found = SHARES.map(shares => {
  shares.forEach((share, leaf) => {
    if (typeof share === "string") { leaves[leaf] = Number(share); return; }
    const same = inputs.filter(input => Number(input.dataset.leaf) === leaf);
    same[0].value = Number(same[0].min) + share * (same[0].max - same[0].min);
    same[0].dispatchEvent(new Event("input"));
  });
  if (shares.some(share => typeof share === "string")) drag(0, leaves[0]);
  const steps = [];
  for (let k = 0; STEPS && k <= last(); k++) {
    at("slider").value = k;
    at("slider").dispatchEvent(new Event("input"));
    steps.push(text(at("words")));
  }
  const cells = {};
  page.paths[now.path].nodes.forEach((node, i) => {
    cells[node.name || i] = [0, 1].map(
      cell => text(document.querySelector(`[id="p${now.path}-cell${node.box}-${cell}"] text`)));
  });
  const shown = scenes.filter(({ element }) => element.offsetWidth > 0).length;
  return { leaves: [...leaves], steps, cells, path: now.path, lost, shown };
});
at("found").textContent = JSON.stringify(found, exactly);
</script>
"""


def dragged(exploration: Any, positions: Any, tmp_path: Path, steps: bool = False) -> list[Any]:
    """What the page shows, and on request step by step.

    `positions` are how many random ones of the sliders to take, or numbers by the sliders' names.
    """
    names, rng = [slider.name for slider in exploration._sliders], random.Random(0)
    if isinstance(positions, int):
        shares: Any = [[rng.random() for _ in names] for _ in range(positions)]
    else:
        shares = [[written(position[name]) for name in names] for position in positions]
    path = tmp_path / "explore.html"
    exploration.save(path)
    text = path.read_text(encoding="utf-8")
    driver = DRIVER.replace("SHARES", json.dumps(shares)).replace("STEPS", json.dumps(steps))
    states = found_by(text.replace("</html>", f"{driver}</html>"), path)
    return [state | {"leaves": dict(zip(names, state["leaves"]))} for state in states]


def found_by(text: str, path: Path) -> Any:
    """What a page's script has put into the element "found"."""
    path.write_text(text, encoding="utf-8")
    command = [BROWSER, *FLAGS.split(), f"--user-data-dir={path.parent / 'profile'}", "--dump-dom"]
    printed = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=60)
    found = re.search(r'<pre id="found">(.*?)</pre>', printed.stdout, re.DOTALL)
    assert found is not None and found[1], printed.stderr
    return json.loads(html.unescape(found[1]))


def written(x: float) -> str:
    return str(x).replace("inf", "Infinity").replace("nan", "NaN")


def number(text: str) -> float:
    return float(text.split()[-1].replace("—", "nan"))


@in_browser
def test_every_op_is_computed_in_the_browser_as_by_the_engine(tmp_path):
    """All rows at 20 positions. Functions of two libraries may differ in some last bits: 1e-13."""
    domains = list(dict.fromkeys(limits for op in COMPUTED for limits in op.domain))
    domains = [limits for limits in domains if limits[0] < limits[1]]

    def everything(numbers: list[Any]) -> Any:
        leaf = dict(zip(domains, numbers))
        terms = []
        for op in COMPUTED:
            operands = [leaf.get(limits, limits[0]) for limits in op.domain]
            if op.arity == 2 and operands[0] is operands[1]:
                operands[1] = operands[1] * 0.75
            terms.append(op(*operands))
            terms[-1].label = f"{op.name}!"
        return vgrad.sum(terms)

    leaves = [Value(sum(limits) / 2, f"d{k}") for k, limits in enumerate(domains)]
    ranges = {leaf.label: limits for leaf, limits in zip(leaves, domains)}
    seen = dragged(vgrad.explore(everything(leaves), ranges=ranges, digits=17), 20, tmp_path)
    assert len(seen) == 20
    for state in seen:
        now = [Value(state["leaves"][leaf.label], leaf.label) for leaf in leaves]
        root = everything(now)
        root.backward()
        labelled = [x for x in reachable(root) if x.label]
        assert len(labelled) == len(COMPUTED) + len(leaves)
        for x in labelled:
            data, grad = map(number, state["cells"].get(x.label) or state["cells"][f"({x.label})"])
            assert data == pytest.approx(x.data, rel=1e-13, abs=1e-300), x.label
            # sums of some 60 parts, of which a few are a hundred times as large as the sum
            assert grad == pytest.approx(x.grad, rel=1e-11, abs=1e-13), x.label


@in_browser
@pytest.mark.parametrize("half", [0, 1])
def test_edge_numbers_are_computed_as_by_the_engine(half, tmp_path):
    """Every op on leaves of its own, and its result times an edge number, at pairs of these."""

    def everything(leaf: Callable[[str], Value]) -> Value:
        terms = []
        for op in COMPUTED[half::2]:
            operands = [
                limits[0] if limits[0] == limits[1] else leaf(f"{letter}_{op.name}")
                for limits, letter in zip(op.domain, "xyz")
            ]
            result = op(*operands)
            result.label = f"{op.name}!"
            terms.append(result * leaf(f"w_{op.name}"))
        return vgrad.sum(terms)

    page = vgrad.explore(everything(lambda name: Value(0.5, name)), digits=17)
    names = [slider.name for slider in page._sliders]
    pairs = [
        {
            name: (x, y, EDGES[k % 7], EDGES[(k + j) % len(EDGES)])["xyzw".index(name[0])]
            for name in names
        }
        for k, x in enumerate(EDGES)
        for j, y in enumerate(EDGES)
    ]
    for state in dragged(page, pairs[2::6], tmp_path):  # among them (-1, inf)
        leaves = {name: Value(float(x), name) for name, x in state["leaves"].items()}
        root = everything(leaves.__getitem__)
        root.backward()
        for x in filter(lambda x: x.label, reachable(root)):
            cells = state["cells"].get(x.label) or state["cells"][f"({x.label})"]
            data, grad = map(number, cells)
            assert data == pytest.approx(x.data, rel=1e-13, abs=1e-300, nan_ok=True), x
            if data == 0 and x.label != "erf!":  # of which a page has erf(-0.0) as 0.0
                assert math.copysign(1, data) == math.copysign(1, x.data), x
            # results that are small by cancellation, as 1 - tanh(x)**2, lose digits
            assert grad == pytest.approx(x.grad, rel=1e-9, abs=1e-15, nan_ok=True), x


def exact(*xs: Any) -> Any:
    """Only what IEEE 754 rounds in one way, so that all texts are the same."""
    a, b, c = xs
    total = (a * b - c) / (b * b + 1.5) + vgrad.maximum(a, -b) * (c > a)
    return (total.relu() + abs(a) + vgrad.where(b > c, b * a, 0.5 - c)) * total + 2.0**a * 0.0


@in_browser
def test_the_steps_are_those_of_the_engine_at_20_positions(tmp_path):
    """Word for word, with what each number reads like: of zeros, of signs, of large and small."""
    names = ["a", "b", "c"]
    ranges = {"a": (-3, 3), "b": (-1e-4, 1e-4), "c": (-2e6, 2e6)}
    root = exact(*[Value(1.0, name) for name in names])
    seen = dragged(vgrad.explore(root, ranges=ranges), 20, tmp_path, steps=True)
    assert len({tuple(state["leaves"].values()) for state in seen}) == 20
    for state in seen:
        root = exact(*[Value(state["leaves"][name], name) for name in names])
        animation = vgrad.animate(root, forward=True, digits=4)
        assert state["steps"] == ["\n".join(step.lines) for step in animation.steps]
        root.backward()
        for x in reachable(root):
            if x.label:
                assert number(state["cells"][x.label][1]) == pytest.approx(x.grad, rel=1e-3)


def bounces(x: Any, slope: Any = 0.5) -> Any:
    turns = 0
    while x > 1:
        x, turns = x / 2 - 0.1, turns + 1
    return x * gain * slope if turns % 2 else vgrad.tanh(x) + int(slope) * x


gain = Value(3.0, "gain")


@in_browser
def test_a_function_with_branches_takes_the_path_of_the_numbers(tmp_path):
    page = vgrad.explore(bounces, 2.0, ranges={"x": (-2, 8)}, digits=17)
    seen = dragged(page, 20, tmp_path)
    assert len({state["path"] for state in seen}) > 3
    for state in seen:
        assert not state["lost"] and state["shown"] == 1
        x, slope, factor = (Value(x) for x in state["leaves"].values())
        gain.data = factor.data
        gain.zero_grad()
        root = bounces(x, slope)
        root.backward()
        assert number(state["cells"]["output"][0]) == pytest.approx(root.data, rel=1e-14)
        for name, leaf in {"x": x, "slope": slope, "gain": gain}.items():
            assert number(state["cells"][name][1]) == pytest.approx(leaf.grad, rel=1e-14)
    gain.data = 3.0


@in_browser
def test_numbers_without_a_path_are_said_to_have_none(tmp_path):
    def steep(x: Any) -> Any:
        return x * int(1000 * x)

    seen = dragged(vgrad.explore(steep, 0.5), 3, tmp_path, steps=True)
    assert any(state["lost"] for state in seen)
    for state in seen:
        if state["lost"]:
            assert set(state["steps"]) == {"None of the paths on this page fits these numbers."}
            assert number(state["cells"]["output"][0]) != number(state["cells"]["output"][0])


def vectorized(fn: Callable[..., float]) -> Any:
    return wraps(fn)(np.vectorize(fn, otypes=[float]))


@vgrad.op(vjp=(lambda g, out, x, y: g * (x > y), lambda g, out, x, y: g * (x <= y)))
@vectorized
def larger(x, y):
    return x if x > y else y


@in_browser
def test_an_op_of_ones_own_may_branch_and_go_where_nobody_was(tmp_path):
    for state in dragged(vgrad.explore(lambda x, y: larger(x, y), 5.0, 2.0), 20, tmp_path):
        x, y = state["leaves"].values()
        assert number(state["cells"]["output"][0]) == pytest.approx(max(x, y), rel=1e-3)

    @vgrad.op(vjp=lambda g, out, x: g)
    @vectorized
    def narrow(x):
        return x if 0.3123 < x < 0.3124 else -x

    page = vgrad.explore(lambda x: narrow(x), 0.5)
    there, here = dragged(page, [{"x": 0.4}, {"x": 0.31235}], tmp_path)
    assert not there["lost"] and here["lost"]


@pytest.mark.parametrize(
    "fn, at, paths",
    [
        (lambda x: x.relu() if x != 0 else x + 5, [1.0], 2),
        (lambda a, b, c: max(a, b, c), [1.0, 2.0, 3.0], 4),
        (lambda x: x + (1 if x == int(x) else 2), [1.25], 6),
        (lambda x, y: x * y if y == 0 else x / y, [1.0, 2.0], 2),
    ],
)
def test_paths_at_ties_and_at_whole_numbers_are_found(fn, at, paths):
    assert len(vgrad.explore(fn, *at)._scenes) >= paths


def test_a_parameter_of_another_path_has_its_name():
    p, q = Value(1.0, "p"), Value(2.0, "q")
    page = vgrad.explore(lambda x: p * x if x > 0 else q * x, 1.0, ranges={"q": (0, 1)})
    assert [slider.name for slider in page._sliders] == ["x", "p", "q"]
    assert page._sliders[2][2:4] == (0.0, 1.0)


def test_orders_of_all_kinds_and_names_like_theirs(tmp_path):
    @vgrad.op(vjp=lambda g, out, x: g)
    def polygamma_1(x):
        return x + 1.0

    x = Value(2.0, "x")
    orders = [vgrad.polygamma(n, x) for n in (1, 1.5, 2, 1e6, -1)]
    page = vgrad.explore(vgrad.sum([*orders, polygamma_1(x)]))
    names = re.findall(r"^  ([\w$]+): ", page._library.text, re.MULTILINE)
    orders = ["1_0", "1_5", "2_0", "1000000_0", "_1_0"]
    assert {"polygamma_1", *(f"polygamma${order}" for order in orders)} <= set(names)
    assert all(re.fullmatch(r"[A-Za-z_$][\w$]*", name) for name in names)


# Measures a page in a frame as wide as a phone: no window of a browser is that narrow.
PHONE = """<!DOCTYPE html>
<iframe id="phone" width="420" height="900" style="border: 0" srcdoc="PAGE"></iframe>
<pre id="found"></pre>
<script>
phone.onload = () => {
  const { document, innerWidth } = phone.contentWindow;
  const box = element => element.getBoundingClientRect();
  const parts = [...document.querySelectorAll("button, #count, #slider, #panel, #words")];
  const frame = box(document.getElementById("graph"));
  const result = [...document.querySelectorAll('[id^="p0-cell"]')].map(box).pop();
  found.textContent = JSON.stringify({
    width: innerWidth,
    page: document.documentElement.scrollWidth,
    parts: parts.filter(x => box(x).width).map(x => [box(x).left, box(x).right]),
    result: [result.left - frame.left, frame.right - result.right],
    panel: box(document.getElementById("panel")).height > 0,
  });
};
</script>
"""


@in_browser
@pytest.mark.parametrize("make", [vgrad.explore, vgrad.animate])
def test_nothing_is_cut_off_on_a_phone(make, tmp_path):
    root = exact(*[Value(1.0, name) for name in ("a", "b", "c")])
    make(root).save(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    found = found_by(PHONE.replace("PAGE", html.escape(text)), tmp_path / "phone.html")
    assert found["width"] == 420 and found["page"] <= 420
    assert len(found["parts"]) > 6
    assert all(0 <= left < right <= 420 for left, right in found["parts"])
    if make is vgrad.explore:  # which begins with the result, and has all sliders below the graph
        assert min(found["result"]) >= 0 and found["panel"]


def test_the_page_asks_for_nothing(tmp_path):
    a = Value(1.0, '</script><b title="x">')
    vgrad.explore(a * 2).save(tmp_path / "explore.html")
    text = (tmp_path / "explore.html").read_text(encoding="utf-8")
    assert text.count("</script>") == 1 and "<b title" not in text
    links = re.findall(r'(?:href|src)="([^"]*)"', text)
    assert links[0] == "data:," and all(link.startswith("#") for link in links[1:])
    assert "url(http" not in text and "@import" not in text and "fetch(" not in text


def test_ranges_reach_from_the_number_to_both_sides_and_stop_at_round_numbers():
    a, b, c = Value(0.2, "a"), Value(0.0, "b"), Value(-100.0, "c")
    page = vgrad.explore(a * b + c, ranges={"c": (-1, 2)})
    found = {slider.name: slider[2:] for slider in page._sliders}
    assert found == {"a": (-0.2, 0.6, 0.001), "b": (-1.0, 1.0, 0.01), "c": (-1.0, 2.0, 0.01)}


@pytest.mark.parametrize("number", [math.inf, -math.nan, 1e-320, -1e308, 0.0])
def test_any_number_has_a_slider(number):
    (slider,) = vgrad.explore(Value(number, "a") * 2)._sliders
    assert -math.inf < slider.low < slider.high < math.inf and slider.step > 0


def test_arguments_have_defaults_lists_and_parameters():
    weights = np.array([Value(1.0, "p"), Value(2.0, "q")])

    def f(xs: Any, y: Any, power: Any = 2.0) -> Any:
        return (weights @ xs + y) ** power

    page = vgrad.explore(f, [3.0, 4.0])
    sliders = [(slider.name, slider.number) for slider in page._sliders]
    assert sliders == [("xs[0]", 3), ("xs[1]", 4), ("y", 1), ("power", 2), ("p", 1), ("q", 2)]
    assert repr(page).startswith("Exploration(xs[0], xs[1], y, power, ...; ")


def test_it_is_shown_in_a_notebook_or_a_browser(in_a_notebook, monkeypatch):
    page = vgrad.explore(Value(1.0, "a") * 2)
    page.show()
    assert in_a_notebook == [page]
    monkeypatch.delitem(sys.modules, "IPython")
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda uri: bool(opened.append(uri)))
    with pytest.raises(RuntimeError, match="must be a browser"):
        page.show()
    assert opened[0].startswith("file:///") and opened[0].endswith("explore.html")


def test_two_outputs_and_a_notebook():
    page = vgrad.explore(lambda x: (x * x, x + 1))
    assert [item.title for item in page._scenes[0].items if item.title] == [
        *("x", "output 0", "output 1")
    ]
    assert page._repr_html_().startswith("<iframe srcdoc=")


def endless(x: Any) -> Any:
    while x < 0:
        x = x * 2
    return x if x > 1 else gain * x


def test_a_function_may_not_end_elsewhere():
    page = vgrad.explore(endless, 2.0)
    assert len(page._scenes) == 2 and [slider.name for slider in page._sliders] == ["x", "gain"]


def test_what_is_no_number_is_left_to_the_function():
    page = vgrad.explore(lambda x, kind="up", steps=2: x * steps if kind == "up" else x, 3.0)
    assert [slider.name for slider in page._sliders] == ["x"]
    assert len(vgrad.explore(np.exp, 3.0)._sliders) == 1


def test_paths_are_found_beyond_where_the_function_raises():
    def positive(x: Any) -> Any:
        if x < 0:
            raise ValueError("no")
        return x if x > 1 else x * x

    assert len(vgrad.explore(positive, 0.5, ranges={"x": (-2, 2)})._scenes) == 2
    with pytest.raises(ValueError, match="no"):
        vgrad.explore(positive, -1.0)


@pytest.mark.parametrize("seed", range(5))
def test_random_graphs_are_written_in_javascript(seed, tmp_path):
    program = random_program(seed)
    page = vgrad.explore(lambda *xs: program(*xs)[0], *[0.3] * program.inputs)
    page.save(tmp_path / "a.html")


@vgrad.op(vjp=lambda g, out, x: g)
def unwritable(x):
    return np.array([float(y) for y in np.ravel(x)]).reshape(np.shape(x))


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda x: vgrad.explore(3.0), TypeError, "explore takes a Value or a function"),
        (lambda x: vgrad.explore(x, 1.0), ValueError, "at must be left out for a Value"),
        (lambda x: vgrad.explore(sum([x] * 400)), ValueError, "at most 300 nodes"),
        (lambda x: vgrad.explore(x * 2, ranges={"y": (0, 1)}), ValueError, "names of leaves, a"),
        (lambda x: vgrad.explore(x * 2, ranges={"a": (1, 1)}), ValueError, r"range of a must be"),
        (lambda x: vgrad.explore(x * 2, ranges={"a": 1}), ValueError, r"range of a must be"),
        (lambda x: vgrad.explore(lambda: x), ValueError, "which takes none"),
        (lambda x: vgrad.explore(lambda v: v, 1.0, 2.0), ValueError, r"each of 1 argument \(got 2"),
        (lambda x: vgrad.explore(vgrad.compile(abs)), TypeError, "a Program"),
        (lambda x: vgrad.explore(x, digits=18), ValueError, "digits must be at most 17"),
        (lambda x: vgrad.explore(lambda v: v, "up"), TypeError, "no number must be fixed"),
        (lambda x: vgrad.explore(x, ranges=[1]), TypeError, "ranges must be a dict"),
        (lambda x: vgrad.explore(endless, -1.0), ValueError, "or that does not end"),
        (lambda x: vgrad.explore(x, ranges={"a": (0, 5e-324)}), ValueError, "range of a must be"),
        (lambda x: vgrad.explore(x).save("a.gif"), ValueError, "path must end in .html"),
        (lambda x: vgrad.explore(x).save("a.html", 0), ValueError, "seconds must be from 0.01"),
        (
            lambda x: vgrad.explore(unwritable(x)),
            TypeError,
            "an op must be a function of NumPy's, or",
        ),
        (lambda x: vgrad.explore(vgrad.polygamma(x, 2.0)), TypeError, "the order of polygamma"),
        (lambda x: vgrad.explore(lambda v: [v, v], [1.0, 2.0]), vgrad.ShapeError, "one number"),
    ],
)
def test_bad_input_is_refused(call: Callable[[Value], Any], error, message):
    with pytest.raises(error, match=message):
        call(Value(1.0, "a"))


def test_orders_are_known():
    assert [op.name for op in COMPUTED if takes_order(op)] == ["ierfcx", "polygamma"]
