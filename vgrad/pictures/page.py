"""A web page that plays steps: one file that loads nothing else."""

from __future__ import annotations

import html
import json
import re
from typing import Any

_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>TITLE</title>
<link rel="icon" href="data:,">
<style>
  body { font: 16px sans-serif; margin: 1em; color: #222; background: #fff; }
  #graph { overflow: auto; max-height: 72vh; }
  #graph svg { display: block; }
  #graph.fit svg { width: 100%; height: auto; max-height: 72vh; }
  #graph [id^="head"], #graph [id^="tail"] { display: none; }
  nav { display: flex; gap: .4em; align-items: center; max-width: 56em; margin: .6em 0; }
  button { font: inherit; min-width: 5em; padding: .3em; }
  input { flex: 1; }
  #words { font: 15px monospace; white-space: pre-wrap; min-height: LINESem; margin: 0; }
</style>
<div id="graph">
SVG
</div>
<nav>
  <button id="play">play</button>
  <button id="back" title="left arrow key">back</button>
  <button id="next" title="right arrow key">next</button>
  <input id="slider" type="range" min="0" value="0" aria-label="step">
  <span id="count"></span>
  <button id="fit" title="all of the graph">fit</button>
</nav>
<p id="words" aria-live="polite"></p>
<script>
  const data = DATA;
  const last = data.words.length - 1;
  const at = id => document.getElementById(id);
  const path = id => at(id).querySelector("path");
  const plain = at("plain").querySelectorAll("use");  // the head of each edge, at its end
  let step = 0, timer = null, stands_out = [];
  function show(k) {
    step = Math.max(0, Math.min(last, k));
    [...data.fills[step]].forEach((state, box) => {
      path("box" + box).style.fill = data.colours.fills[state];
    });
    for (const [id, changes] of Object.entries(data.cells)) {
      at(id).querySelector("text").textContent = changes.filter(([when]) => when <= step).pop()[1];
    }
    const end = data.backward[step] ? "tail" : "head";
    for (const [edge, head] of stands_out) {
      Object.assign(path(edge).style, { stroke: data.colours.edge, strokeWidth: 1 });
      at(head).style.display = "none";
      plain[edge.slice(4)].style.display = "inline";
    }
    stands_out = data.along[step].map(edge => ["edge" + edge, end + edge]);
    for (const [edge, head] of stands_out) {
      Object.assign(path(edge).style, { stroke: data.colours.along, strokeWidth: 2.5 });
      at(head).style.display = "inline";
      plain[edge.slice(4)].style.display = "none";
    }
    const active = data.fills[step].indexOf("1");
    if (active >= 0) bring(at("box" + active).getBoundingClientRect());
    at("words").textContent = data.words[step];
    at("slider").value = step;
    at("count").textContent = (step + 1) + " / " + (last + 1);
  }
  function bring(box) {  // into the middle, without moving the page around the graph
    const graph = at("graph"), frame = graph.getBoundingClientRect();
    graph.scrollLeft += (box.left + box.right - frame.left - frame.right) / 2;
    graph.scrollTop += (box.top + box.bottom - frame.top - frame.bottom) / 2;
  }
  function pause() {
    clearInterval(timer);
    timer = null;
    at("play").textContent = "play";
  }
  function play() {
    if (step === last) show(0);
    at("play").textContent = "pause";
    timer = setInterval(() => {
      show(step + 1);
      if (step === last) pause();
    }, INTERVAL);
  }
  function turn(by) { pause(); show(step + by); }
  at("slider").max = last;
  at("slider").oninput = event => { pause(); show(Number(event.target.value)); };
  at("play").onclick = () => timer === null ? play() : pause();
  at("back").onclick = () => turn(-1);
  at("next").onclick = () => turn(1);
  at("fit").onclick = () => at("graph").classList.toggle("fit");
  document.onkeydown = event => {
    const keys = { ArrowLeft: () => turn(-1), ArrowRight: () => turn(1), " ": at("play").onclick };
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
  };
  show(0);
</script>
</html>
"""


def page(title: str, svg: str, data: dict[str, Any], seconds: float) -> str:
    """The page's text; `seconds` is how long a step stays when it plays.

    `data` says, mostly per step, how elements of the SVG look: box0, edge0, head0, tail0 and so on,
    those named in `data["cells"]`, and "plain", the heads of edges that do not stand out.
    """
    parts = {
        "TITLE": html.escape(title),
        "SVG": svg[svg.index("<svg") :],
        "DATA": json.dumps(data).replace("<", "\\u003c"),  # no label can end the script
        "LINES": f"{1.3 * max(words.count(chr(10)) + 1 for words in data['words']):.1f}",
        "INTERVAL": str(round(1000 * seconds)),
    }
    return re.sub(rf"\b({'|'.join(parts)})", lambda match: parts[match[0]], _PAGE)
