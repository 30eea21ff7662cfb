"""A web page that plays the steps of graphs: one file that loads nothing else."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from typing import Any

from .. import ops

# Every script of a page says what a step looks like, in JavaScript:
#     last() is the number of the last step
#     look(k) is {scene, fills, cells, along, backward, words}: the graph to show, the fill of each
#         box, the text of each cell by its name, the edges that stand out, whether they point
#         backward, and the words below.
# Parts of graph number i have names with the prefix p{i}-: box0, edge0 and so on, those of cells,
# and "heads", those of all edges.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>@TITLE@</title>
<link rel="icon" href="data:,">
<style>
  :root { color-scheme: light dark; }
  body { font: 16px sans-serif; margin: 1em; color: #222; background: #fff; }
  #graph { overflow: auto; max-height: 72vh; background: #fff; }
  .scene { display: none; position: relative; margin: auto; }
  .scene.shown { display: block; }
  .scene svg { display: block; width: 100%; height: auto; }
  .scene input { position: absolute; margin: 0; touch-action: none; color-scheme: light; }
  #panel { display: none; gap: .1em 1.2em; max-width: 56em; max-height: 9em; overflow: auto; }
  #panel { grid-template-columns: repeat(auto-fill, minmax(17em, 1fr)); margin: .6em 0; }
  .large #panel { display: grid; }
  #panel label { display: grid; grid-template-columns: 6em 1fr 6em; gap: .4em; }
  #panel span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
  #panel span { text-align: right; }
  nav { display: flex; flex-wrap: wrap; gap: .4em; align-items: center; margin: .6em 0; }
  nav { max-width: 56em; }
  button { font: inherit; min-width: 4.4em; padding: .3em; }
  #slider { flex: 1 1 14em; }
  #count { white-space: nowrap; font-variant-numeric: tabular-nums; }
  #words { font: 15px monospace; white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }
  #words { min-height: @LINES@em; }
  @media (max-width: 600px) {
    body { margin: .5em; }
    button { min-width: 3.6em; }
    #slider { flex-basis: 100%; order: 1; }
  }
  @media (prefers-color-scheme: dark) { body { color: #ddd; background: #1c1c1c; } }
</style>
<div id="graph">
@SCENES@
</div>
<nav>
  <button id="play">play</button>
  <button id="back" title="left arrow key">back</button>
  <button id="next" title="right arrow key">next</button>
  @BUTTONS@
  <button id="fit">fit</button>
  <span id="count"></span>
  <input id="slider" type="range" min="0" value="0" aria-label="step">
</nav>
<div id="panel">@PANEL@</div>
<p id="words" aria-live="polite"></p>
<script>
@SCRIPT@
const colours = @COLOURS@;
const at = id => document.getElementById(id);
const scenes = [...document.querySelectorAll(".scene")].map((element, i) => ({
  element,
  part: name => at(`p${i}-${name}`),
  path: name => at(`p${i}-${name}`).querySelector("path"),
  heads: at(`p${i}-heads`).querySelectorAll("use"),  // one of each edge, at its end
  width: element.querySelector("svg").viewBox.baseVal.width * 4 / 3,  // pixels, of points
  height: element.querySelector("svg").viewBox.baseVal.height * 4 / 3,
  standing_out: [],
}));
let step = 0, timer = null, scene = scenes[0], chosen = null;

function show(k) {
  step = Math.max(0, Math.min(last(), k));
  const now = look(step), { part, path, heads } = scene = scenes[now.scene];
  if (!scene.element.classList.contains("shown")) {
    scenes.forEach(other => other.element.classList.toggle("shown", other === scene));
    resize();
  }
  [...now.fills].forEach((state, box) => { path("box" + box).style.fill = colours.fills[state]; });
  for (const [id, text] of Object.entries(now.cells)) {
    part(id).querySelector("text").textContent = text;
  }
  for (const [edge, head] of scene.standing_out) {
    Object.assign(path("edge" + edge).style, { stroke: colours.edge, strokeWidth: 1 });
    heads[edge].style.display = "inline";
    head.remove();
  }
  scene.standing_out = now.along.map(edge => [edge, heads[edge].cloneNode()]);
  for (const [edge, head] of scene.standing_out) {
    Object.assign(path("edge" + edge).style, { stroke: colours.along, strokeWidth: 2.5 });
    heads[edge].after(head);
    heads[edge].style.display = "none";
    head.style.fill = colours.along;
    if (now.backward) turn_round(head, path("edge" + edge).getPointAtLength(0));
  }
  const active = [...now.fills].findIndex(state => Number(state) === 1);
  if (active >= 0) bring(part("box" + active).getBoundingClientRect());
  at("words").textContent = now.words;
  at("slider").max = last();
  at("slider").value = step;
  at("count").textContent = `step ${step + 1} of ${last() + 1}`;
}

function turn_round(head, { x, y }) {  // to the other end of its edge
  for (const [name, value] of Object.entries({ x, y, transform: `rotate(180 ${x} ${y})` })) {
    head.setAttribute(name, value);
  }
}

function bring(box) {  // into the middle, if it is not in view, without moving the page around
  const graph = at("graph"), frame = graph.getBoundingClientRect();
  const beside = box.left < frame.left || box.right > frame.right;
  const below = box.top < frame.top || box.bottom > frame.bottom;
  if (beside) graph.scrollLeft += (box.left + box.right - frame.left - frame.right) / 2;
  if (below) graph.scrollTop += (box.top + box.bottom - frame.top - frame.bottom) / 2;
}

function resize() {  // as large as it is drawn, unless a little less lets all of it be seen
  const room = at("graph").clientWidth / scene.width;
  const all = Math.min(1, room, 0.7 * innerHeight / scene.height);
  const fits = chosen === null ? all >= 0.7 : chosen;
  scene.element.style.width = `${scene.width * (fits ? all : 1)}px`;
  at("fit").textContent = fits ? "zoom" : "fit";
  at("fit").title = fits ? "as large as it is drawn" : "all of the graph";
  at("fit").hidden = all === 1;
  document.body.classList.toggle("large", !fits && all < 1);
}

function pause() {
  clearInterval(timer);
  timer = null;
  at("play").textContent = "play";
}

function play() {
  if (step === last()) show(0);
  at("play").textContent = "pause";
  timer = setInterval(() => {
    show(step + 1);
    if (step === last()) pause();
  }, @INTERVAL@);
}

function turn(by) { pause(); show(step + by); }

at("slider").oninput = event => { pause(); show(Number(event.target.value)); };
at("play").onclick = () => timer === null ? play() : pause();
at("back").onclick = () => turn(-1);
at("next").onclick = () => turn(1);
at("fit").onclick = () => { chosen = at("fit").textContent === "fit"; resize(); };
window.onresize = resize;
document.onkeydown = event => {
  const keys = { ArrowLeft: () => turn(-1), ArrowRight: () => turn(1), " ": at("play").onclick };
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.target.type === "range" && event.target.id !== "slider") return;
  if (event.key === " " && event.target.tagName === "BUTTON") return;
  if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
};
show(@FIRST@);
@AFTER@
</script>
</html>
"""


def page(
    title: str,
    scenes: Sequence[str],
    script: str,
    colours: dict[str, Any],
    *,
    lines: int,
    seconds: float,
    buttons: str = "",
    panel: str = "",
    first: str = "0",
    after: str = "",
) -> str:
    """The page's text, with a scene, an SVG and what lies over it, for each graph.

    `lines` is how many lines of words a step has at most, `seconds` how long one stays when it
    plays, `first` the step to begin with, and `after` what the script does then. The `panel` is
    there where a graph is too large to be seen at once.
    """
    parts = {
        "TITLE": html.escape(title),
        "SCENES": "\n".join(f'<div class="scene">{scene}</div>' for scene in scenes),
        "SCRIPT": script,
        "COLOURS": in_script(colours),
        "LINES": f"{1.3 * lines:.1f}",
        "INTERVAL": str(round(1000 * seconds)),
        "BUTTONS": buttons,
        "PANEL": panel,
        "FIRST": first,
        "AFTER": after,
    }
    return re.sub("@([A-Z]+)@", lambda match: parts[match[1]], _PAGE)


def require_seconds(seconds: float) -> None:
    """Raise ValueError unless a step can stay that long."""
    if not 0.01 <= ops.number(seconds) <= 60:
        raise ValueError(f"seconds must be from 0.01 to 60 (got {seconds!r})")


def in_script(data: Any) -> str:
    """Data as JavaScript, within a page."""
    return json.dumps(data).replace("<", "\\u003c")  # no label can end the script


def in_page(svg: str) -> str:
    """An SVG file of matplotlib as an element of a page, in half as many characters.

    Its texts have one font, which is said once, and places have two digits behind the point.
    """
    text = re.sub("<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    text = re.sub(
        r' (?:d|x|y|transform)="[^"]*"',
        lambda places: re.sub(r"(\.\d\d)\d+", r"\1", places[0]),
        text,
    )
    font = re.search('font-family: [^;"]*', text)
    if font is not None:
        text = text.replace(f"{font[0]}; ", "").replace("<svg", f'<svg style="{font[0]}"', 1)
    return re.sub(r"\n\s*", "\n", text)


def frame(text: str, width: float, height: float) -> str:
    """A page within a notebook; the size of its graph is in inches."""
    style = f"max-width: {96 * width + 60:.0f}px; height: {min(96 * height + 120, 800):.0f}px"
    return f'<iframe srcdoc="{html.escape(text)}" style="border: 0; width: 100%; {style}"></iframe>'
