"""Pictures: of graphs and plans, of backpropagation step by step, and of training.

A picture of a graph begins as a `Diagram`, boxes and edges, without a place: node by node
(`nodes`), or kernel by kernel if the graph is large (`overview`, which reads the summary that every
sweep gives). `layout` finds places for the boxes and ways for the edges, `drawing` puts them on a
figure, and `figures` brings that into a file, a notebook or a window. These two are the only files
that import matplotlib, and only once a picture is asked for.

    Value, Graph, Program  ->  Diagram  ->  Layout  ->  Figure

`steps` runs a backward pass and writes down what it does, in the words of the op table's own rules;
`animation` shows the steps one after the other, in a window, as a GIF, or as the web page that
`page` has the text of. `explorer` makes the same page with a slider at every leaf, for each of the
graphs that `scenes` finds, a path of a function each: there the page itself computes (`scripts`),
by the rules of the op table, which `javascript` writes out. `plots` has the curves of a training
and the regions of a classifier.

This wing imports program, flat and the definition, and nobody imports it; `Value` and `Graph` name
it for notebooks, which ask them for a picture.
"""

from .animation import Animation, animate
from .drawing import draw, notebook_svg, to_dot
from .explorer import Exploration, explore
from .plots import LivePlot, plot_boundary, plot_training

# fmt: off
__all__ = [
    "Animation", "Exploration", "LivePlot", "animate", "draw", "explore", "notebook_svg",
    "plot_boundary", "plot_training", "to_dot",
]
# fmt: on
