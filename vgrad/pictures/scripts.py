"""What a page with sliders runs: an engine, which computes and differentiates, and the sliders."""

from __future__ import annotations

# What `engine.backpropagate` and `steps` do, in the same order.
ENGINE = r"""
const leaves = [...page.start];
let now = { path: 0, data: [] };  // the graph that the leaves' numbers belong to, and all numbers
let lost = false;

function compute() {
  const order = [now.path, ...page.paths.keys()];  // most often it is the same as before
  for (const path of order) {
    const data = numbers(page.paths[path]);
    lost = !data || !page.paths[path].answers.every(([node, answer]) => data[node] === answer);
    if (!lost) {
      now = { path, data };
      return;
    }
  }
}

function numbers({ nodes }) {  // of all nodes, or null if an op goes a way that is not here
  const data = [];
  for (const { op, parents, leaf, number } of nodes) {
    const x = op ? forward[op](...parents.map(x => data[x])) : leaf >= 0 ? leaves[leaf] : number;
    if (x === undefined) return null;
    data.push(x);
  }
  return data;
}

function computed() {  // the nodes that an op computes, in order, and those that get a gradient
  const { nodes, reached } = page.paths[now.path], has = new Set(reached);
  const order = [...nodes.keys()].filter(k => nodes[k].op);
  return [order, order.filter(k => has.has(k)).reverse()];
}

function last() {
  const [order, backward] = computed();
  return order.length + backward.length + 2;
}

function look(k) {
  const [order] = computed(), { nodes, boxes } = page.paths[now.path];
  const seen = lost ? nothing() : k <= order.length ? ahead(k) : back(k - order.length - 1);
  const fills = Array(boxes).fill(0), cells = {};
  nodes.forEach((node, i) => {
    const known = seen.data.has(i) ? numeral(now.data[i]) : "\u2014";
    const grad = seen.grads.has(i) ? numeral(seen.grads.get(i)) : "\u2014";
    const state = seen.active === i ? 1 : seen.finished.has(i) ? 2 : 0;
    fills[node.box] = "number" in node ? page.noPart : state;
    if ("opBox" in node) fills[node.opBox] = state;
    if (!("number" in node)) {
      cells[`cell${node.box}-0`] = "data " + known;
      cells[`cell${node.box}-1`] = "grad " + grad;
    }
  });
  return {
    scene: now.path, fills, cells, along: seen.along,
    backward: seen.backward, words: seen.words.join("\n"),
  };
}

const nothing = () => ({
  data: new Set(), grads: new Map(), finished: new Set(), along: [], words: [page.lost],
});

function ahead(k) {  // step k of the values: 0 for the leaves, and then a node each
  const [order] = computed(), { nodes } = page.paths[now.path];
  const given = [...nodes.keys()].filter(i => !nodes[i].op);
  const finished = new Set([...given, ...order.slice(0, Math.max(0, k - 1))]);
  if (k === 0) {
    return { ...nothing(), data: finished, finished, words: [page.given] };
  }
  const i = order[k - 1], node = nodes[i];
  return {
    data: new Set([...finished, i]), grads: new Map(), finished, active: i,
    along: [...node.edges, node.edge],
    words: [filled(node.line, node.parents.map(x => now.data[x]), now.data[i])],
  };
}

function back(k) {  // step k of the gradients: 0 for that of the result, and then a node each
  const { nodes, result } = page.paths[now.path], [, backward] = computed();
  const data = new Set(nodes.keys()), grads = new Map([[result, 1]]), finished = new Set();
  const remaining = new Map();  // by leaf: how many nodes it is still to get a part from
  for (const i of backward) {
    for (const x of new Set(nodes[i].parents)) remaining.set(x, (remaining.get(x) || 0) + 1);
  }
  const name = nodes[result].name;
  let words = [`${name}.grad = 1.0, the derivative of ${name} by itself`], along = [];
  for (const [when, i] of backward.slice(0, k).entries()) {
    const node = nodes[i], before = grads.get(i) ?? 0;
    const numbers = [before, now.data[i], ...node.parents.map(x => now.data[x])];
    const done = [...new Set(node.parents)].filter(x => !nodes[x].op);
    done.forEach(x => remaining.set(x, remaining.get(x) - 1));
    for (const x of [i, ...done.filter(x => !remaining.get(x))]) {
      if (!grads.has(x)) grads.set(x, 0);
    }
    words = [];
    along = [];
    node.parts.forEach((line, j) => {
      if (line === null || before === 0) return;
      const x = node.parents[j], sum = grads.get(x) ?? 0;
      const part = vjp[node.op][j](...numbers), total = sum + part;
      grads.set(x, total);
      along.push(node.edges[j]);
      words.push(filled(line, numbers, part));
      if (sum !== 0) {
        const terms = [sum, part, total].map(numeral);
        words.push(`    ${nodes[x].name}.grad = ${terms[0]} + ${terms[1]} = ${terms[2]}`);
      }
    });
    if (!words.length) {
      const why = before === 0 ? "its gradient is 0.0" : `${node.title} has derivative 0`;
      words = [`${node.name} passes nothing on: ${why}`];
    }
    along.push(node.edge);
    if (when < k - 1) [i, ...done.filter(x => !remaining.get(x))].forEach(x => finished.add(x));
  }
  if (k > backward.length) {
    nodes.forEach(({ leaf }, i) => { if (leaf >= 0 && !grads.has(i)) grads.set(i, 0); });
    return { data, grads, finished: data, along: [], backward: true, words: [page.known] };
  }
  return {
    data, grads, finished, along, words, backward: true, active: k ? backward[k - 1] : result,
  };
}

function filled([start, names, blanks], numbers, result) {
  const texts = numbers.map(numeral);
  const text = blanks.replace(/(-?)\{(\d)\}( \*\*)?/g, (_, sign, k, power = "") => {
    const bare = texts[k].startsWith("-") && (sign || power) ? `(${texts[k]})` : texts[k];
    return sign + bare + power;
  });
  const sides = [names, text, numeral(result)];
  return start + sides.filter((side, k) => side !== sides[k - 1]).join(" = ");
}

function numeral(x) {  // as Python writes a float, with so many significant digits at most
  if (!Number.isFinite(x)) return Number.isNaN(x) ? "nan" : x < 0 ? "-inf" : "inf";
  const rounded = written(x.toExponential(page.digits - 1), page.digits);
  const full = pointed(written(x.toExponential(), 16));
  return (Object.is(x, -0) ? "-" : "") + (full.length < rounded.length ? full : pointed(rounded));
}

const pointed = text => /^-?\d+$/.test(text) ? text + ".0" : text;

function written(text, most) {  // "1.50e-7", with an exponent if it is large or small
  const [, sign, first, rest, exponent] = /^(-?)(\d)\.?(\d*)e(.*)$/.exec(text);
  const digits = (first + rest).replace(/(?!^)0+$/, ""), e = Number(exponent);
  if (e < -4 || e >= most) {
    const size = String(Math.abs(e)).padStart(2, "0");
    return `${sign}${digits[0]}${digits.length > 1 ? "." + digits.slice(1) : ""}e${
      e < 0 ? "-" : "+"}${size}`;
  }
  if (e < 0) return `${sign}0.${"0".repeat(-e - 1)}${digits}`;
  const whole = digits.slice(0, e + 1).padEnd(e + 1, "0"), behind = digits.slice(e + 1);
  return sign + whole + (behind && "." + behind);
}

compute();"""

# Sliders that a user drags, and the button that puts them back.
SLIDERS = r"""
const inputs = [...document.querySelectorAll(".leaf")];
function place() {  // all sliders of a leaf where its number is
  for (const input of inputs) {
    input.value = leaves[input.dataset.leaf];
    const beside = input.nextElementSibling;
    if (beside && beside.tagName === "OUTPUT") {
      beside.textContent = numeral(leaves[input.dataset.leaf]);
    }
  }
}
function drag(leaf, number) {
  const atEnd = step === last();
  leaves[leaf] = number;
  compute();
  pause();
  show(atEnd ? last() : step);
  place();
}
for (const input of inputs) {
  input.oninput = () => drag(input.dataset.leaf, Number(input.value));
}
at("reset").onclick = () => {
  page.start.forEach((number, leaf) => { leaves[leaf] = number; });
  if (page.start.length) drag(0, page.start[0]);
};
place();
bring(scene.part("box" + page.paths[now.path].nodes[page.paths[now.path].result].box)
  .getBoundingClientRect());"""
