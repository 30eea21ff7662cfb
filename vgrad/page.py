"""A web page that plays pictures: one file, which asks for nothing else."""

from __future__ import annotations

import html
import json
import re
from base64 import b64encode
from collections.abc import Sequence

_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>TITLE</title>
<link rel="icon" href="data:,">
<style>
  body { font: 16px sans-serif; margin: 1em; color: #222; background: #fff; }
  img { display: block; width: WIDTHpx; max-width: 100%; height: auto; }
  nav { display: flex; gap: .4em; align-items: center; max-width: WIDTHpx; margin: .6em 0; }
  button { font: inherit; min-width: 5em; padding: .3em; }
  input { flex: 1; }
</style>
<img id="picture" alt="">
<nav>
  <button id="play">play</button>
  <button id="back" title="left arrow key">back</button>
  <button id="next" title="right arrow key">next</button>
  <input id="slider" type="range" min="0" value="0" aria-label="step">
  <span id="count"></span>
</nav>
<script>
  const frames = FRAMES;  // [picture, words]
  const at = id => document.getElementById(id);
  let step = 0, timer = null;
  function show(k) {
    step = Math.max(0, Math.min(frames.length - 1, k));
    at("picture").src = "data:image/png;base64," + frames[step][0];
    at("picture").alt = frames[step][1];
    at("slider").value = step;
    at("count").textContent = (step + 1) + " / " + frames.length;
  }
  function pause() {
    clearInterval(timer);
    timer = null;
    at("play").textContent = "play";
  }
  function play() {
    if (step === frames.length - 1) show(0);
    at("play").textContent = "pause";
    timer = setInterval(() => {
      show(step + 1);
      if (step === frames.length - 1) pause();
    }, INTERVAL);
  }
  function turn(by) { pause(); show(step + by); }
  at("slider").max = frames.length - 1;
  at("slider").oninput = event => { pause(); show(Number(event.target.value)); };
  at("play").onclick = () => timer === null ? play() : pause();
  at("back").onclick = () => turn(-1);
  at("next").onclick = () => turn(1);
  document.onkeydown = event => {
    const keys = { ArrowLeft: () => turn(-1), ArrowRight: () => turn(1), " ": at("play").onclick };
    if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
  };
  show(0);
</script>
</html>
"""


def page(title: str, frames: Sequence[tuple[bytes, str]], width: int, interval: float) -> str:
    """The page's text. Frames are PNGs and what they say in words; `interval` is in seconds."""
    encoded = json.dumps([[b64encode(png).decode(), words] for png, words in frames])
    parts = {
        "TITLE": html.escape(title),
        "WIDTH": str(width),
        "INTERVAL": str(round(1000 * interval)),
        "FRAMES": encoded.replace("<", "\\u003c"),  # no label can end the script
    }
    return re.sub("|".join(parts), lambda match: parts[match[0]], _PAGE)
