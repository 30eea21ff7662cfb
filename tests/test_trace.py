"""Recording: one graph from either source, and a clear error for what cannot be recorded."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import dataclasses
import inspect
import math
import os
import pickle
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import EVERY, random_program, same_bits

import vgrad
from vgrad import GraphFormatError, ShapeError, TraceError, Value, nn, ops
from vgrad.flat import recording

MODEL = nn.MLP(2, [4, 3, 1], rng=random.Random(1))
W, V = Value(0.5, label="w"), Value(-1.5)
FROZEN = Value(3.0, trainable=False)


def moons_loss(x, y):
    score = MODEL(x)
    return (1 - y * score).relu() + 1e-4 * sum(p * p for p in MODEL.parameters()), score


def matrix(x):
    return np.array([[1.0, W], [V, 2.0]]) @ x


FUNCTIONS = [
    ("one input", lambda x: x, [()]),
    ("one parameter", lambda: W, []),
    ("shared only", lambda: W * V + 1, []),
    ("reuse", lambda x: (x + x) * x, [()]),
    ("diamond", lambda x, y: (x * y) * (x + y), [(), ()]),
    ("constants", lambda x: 1 - 2 * x / 3 + x**2 - 2**x, [()]),
    ("same constant", lambda x: x * 2 + 2 - 2, [()]),
    ("parameters", lambda x: W * x + V * W - FROZEN, [()]),
    ("unused input", lambda x, y: W * x, [(), ()]),
    ("dead code", lambda x: [x.exp(), W.tanh() * x, x * 3][1], [()]),
    (
        "late use of early work",
        lambda x: (lambda h: h[1] + h[0])([x[0] * x[1], x[0] + x[1]]),
        [(2,)],
    ),
    ("several outputs", lambda x: (x[0] * W, [x[1], x[0]], x), [(2,)]),
    ("one output twice", lambda x: (x * 2,) * 2, [()]),
    (
        "comparisons",
        lambda x, y: vgrad.where(x > y, x, y) + (W < x) + (2 >= y) + (x == y),
        [(), ()],
    ),
    ("numpy scalars", lambda x: np.float64(2) * x + (np.float64(1) > x), [()]),
    ("numpy functions", lambda x: np.exp(x[0]) + np.maximum(x[1], 0.0) + np.square(x[0]), [(2,)]),
    ("array arithmetic", lambda x: ((x - 1.0) ** 2).sum() + np.mean(x), [(2, 3)]),
    ("matrix", matrix, [(2,)]),
    ("arrays and numbers", lambda x, y: np.array([1.0, 2.0]) * x + y / x, [(), (2,)]),
    ("array compared", lambda x: (np.array([1.0, 2.0]) > x) + (x <= np.array([0.0, 3.0])), [()]),
    ("moons", moons_loss, [(2,), ()]),
    *((op.name, op, [()] * op.arity) for op in EVERY),
]


def captured(fn, shapes, **options):
    inputs = []
    for shape in shapes:
        array = np.empty(shape, dtype=object)
        for index in np.ndindex(*shape):
            array[index] = Value(random.Random(str(index)).uniform(0.1, 1), trainable=False)
        inputs.append(array[()])
    return vgrad.capture(fn(*inputs), inputs=inputs, **options)


def assert_same_graph(a: vgrad.Graph, b: vgrad.Graph) -> None:
    for name in ("op", "parents", "level", "inputs", "outputs"):
        assert getattr(a, name).dtype == getattr(b, name).dtype
        assert getattr(a, name).tolist() == getattr(b, name).tolist(), name
    assert dict(zip(a.parameters.tolist(), a.leaves)) == dict(zip(b.parameters.tolist(), b.leaves))
    ours = np.isin(a.op, [ops.const.code, ops.parameter.code])
    assert same_bits(a.value[ours], b.value[ours])
    assert a.input_shapes == b.input_shapes and a.output_shapes == b.output_shapes
    a.check()
    b.check()


@pytest.mark.parametrize("fn, shapes", [f[1:] for f in FUNCTIONS], ids=[f[0] for f in FUNCTIONS])
def test_traced_and_captured_graphs_are_the_same(fn, shapes):
    assert_same_graph(vgrad.trace(fn, *shapes), captured(fn, shapes))
    given = [V, *MODEL.parameters(), W]
    traced = vgrad.trace(fn, *shapes, parameters=given)
    again = captured(fn, shapes, parameters=given)
    assert_same_graph(traced, again)
    assert traced.parameters.tolist() == again.parameters.tolist()


@pytest.mark.parametrize("seed", range(100))
def test_traced_and_captured_random_graphs_are_the_same(seed):
    program = random_program(seed, edges=bool(seed % 2))
    shapes = [()] * program.inputs
    assert_same_graph(vgrad.trace(program, *shapes), captured(program, shapes))


@pytest.mark.parametrize("seed", range(20))
def test_a_graph_survives_the_way_through_values(seed):
    """to_values and capture are inverse to each other."""
    program = random_program(seed)
    graph = vgrad.trace(program, *[()] * program.inputs, parameters=program.parameters)
    sample = [random.Random(seed + i).uniform(-1, 1) for i in range(program.inputs)]
    values = graph.to_values(sample=sample)
    again = vgrad.capture(
        [values[k] for k in graph.outputs],
        inputs=[values[k] for k in graph.inputs],
        parameters=[values[k] for k in graph.parameters],
    )
    assert_same_graph(dataclasses.replace(graph, leaves=again.leaves), again)
    theta = [p.data for p in program.parameters]
    compiled = vgrad.compile(graph, fuse=False)
    want = compiled(theta, *[[x] for x in sample])
    assert same_bits([values[k].data for k in graph.outputs], [x[0] for x in want])


def test_the_flat_graph_by_hand():
    graph = vgrad.trace(lambda x: W * x + 2.0, ())
    names = [ops.OPS[code].name for code in graph.op]
    assert names == ["parameter", "input", "const", "mul", "add"]
    assert graph.parents.tolist() == [[-1] * 3] * 3 + [[0, 1, -1], [3, 2, -1]]
    assert graph.level.tolist() == [0, 0, 0, 1, 2]
    assert (graph.value[0], graph.value[2]) == (0.5, 2.0)
    assert (graph.inputs, graph.parameters, graph.outputs) == ([1], [0], [4])
    assert graph.labels == {0: "w", 1: "x"} and graph.leaves == (W,)


def test_parameters_are_found_in_order_of_first_use():
    """By the function when it is traced, by an evaluation of the expression when captured."""
    a, b, c = Value(1.0, "a"), Value(2.0, "b"), Value(3.0, "c")
    for fn, order in (
        (lambda x: (b * x + c).tanh() * a + b, "bca"),
        (lambda x: (x * 2).exp() * a + b * x, "ab"),
        (lambda x: a + b * x, "ba"),
        (lambda x: x * (c * a + b * b), "cab"),
        (lambda x: vgrad.where(x, b, a) + c, "bac"),
    ):
        for graph in (vgrad.trace(fn, ()), captured(fn, [()])):
            assert "".join(p.label for p in graph.leaves) == order

    def late(x):
        early = [a * x, b * x]
        return early[1] + early[0]

    assert [p.label for p in vgrad.trace(late, ()).leaves] == ["a", "b"]
    layer = nn.Layer(2, 2)
    used = [p for n in layer.neurons for p in (n.w[0], n.b, n.w[1])]  # b + w0 * x0, then + w1 * x1
    assert all(p is q for p, q in zip(vgrad.trace(layer, (2,)).leaves, used))


def test_given_parameters_fix_the_order_and_freeze_the_others():
    a, b, unused = Value(1.0), Value(2.0), Value(3.0)
    graph = vgrad.trace(lambda x: a * x + b, (), parameters=[unused, b])
    assert [p.data for p in graph.leaves] == [3.0, 2.0]
    assert [ops.OPS[graph.op[i]].name for i in graph.parameters] == ["parameter"] * 2
    assert (graph.op == ops.const.code).sum() == 1


def test_parameters_may_come_from_a_generator():
    graph = vgrad.trace(moons_loss, (2,), (), parameters=(p for p in MODEL.parameters()))
    assert all(a is b for a, b in zip(graph.leaves, MODEL.parameters()))


def test_a_value_in_a_trace_keeps_its_label_and_a_node_takes_one():
    def f(x):
        h = x * W
        h.label = "hidden"
        assert h.label == "hidden" and x.label == "x"
        return h + 1

    assert set(vgrad.trace(f, ()).labels.values()) == {"x", "w", "hidden"}
    assert vgrad.trace(lambda x: x.sum(), (2, 2)).labels[3] == "x[1, 1]"


def test_lines_are_recorded_on_demand():
    def f(x):
        a = x * 2
        return vgrad.exp(a)

    first = inspect.getsourcelines(f)[1]
    assert vgrad.trace(f, ()).lines == {}
    lines = vgrad.trace(f, (), lines=True).lines
    assert [lines[i] for i in (2, 3)] == [
        f"test_trace.py:{first + 1}",
        f"test_trace.py:{first + 2}",
    ]


def test_a_penalty_over_values_joins_the_trace_once():
    penalty = sum(p * p for p in MODEL.parameters())
    graph = vgrad.trace(lambda x: x * penalty + penalty, ())
    n = len(MODEL.parameters())
    assert (graph.op == ops.mul.code).sum() == n + 1


# --- what cannot be recorded ---------------------------------------------------------------------


def loop(x):
    while x > 0:
        x -= 1
    return x


def checked(x):
    assert x > 0, "max(x) must be positive"
    return x


FLOW = {
    "if": lambda x: x if x > 0 else -x,
    "while": loop,
    "and": lambda x: x and 1,
    "not": lambda x: not x,
    "max": lambda x: max([x, x * 2]),
    "min": lambda x: min(x, 1),
    "sorted": lambda x: sorted([x, -x]),
    "in": lambda x: x in [x + 1],
    "assert": checked,
    "if in a comprehension": lambda x: [x for _ in range(1) if x == 3],
    "if beside max": lambda x: max(1, 2) * x if x > 0 else x,  # min(
    "if beside a string": lambda x: x if x > 0 else "max(x)",
    "a < b < c": lambda x: 0 < x < 1,
    "bool": lambda x: bool(x > 0),
    "any": lambda x: any([x > 0, x < 3]),
    "np.maximum of arrays": lambda x: np.maximum.reduce(np.array([x, x * 2])),
    "array comparison": lambda x: np.array([x, x * 2]) > 0,
    "two comparisons of arrays": lambda x: (np.array([x]) > 0) * (np.array([x]) < 1),
    "float": lambda x: float(x),
    "math.exp": lambda x: math.exp(x),
    "math.floor": lambda x: math.floor(x),
    "float array": lambda x: np.array([x, x], dtype=float),
    "int": lambda x: int(x),
    "round": lambda x: round(x),
    "index": lambda x: [1.0, 2.0][x],
    "range": lambda x: range(x),
    "range of int": lambda x: range(int(x)),
    "index of int": lambda x: [1.0, 2.0][int(x)],
    "index of an array": lambda x: np.eye(3)[x].sum(),
    "round to digits": lambda x: round(x, 2),
    "trunc": lambda x: math.trunc(x),
    "format": lambda x: f"{x:.3f}",
    "str.format": lambda x: "{:.3g}".format(x),  # noqa: UP032
    "complex": lambda x: complex(x),
    "%": lambda x: "%.3f" % x,  # noqa: UP031
    "set": lambda x: x if x in {1.0} else -x,
    "dict": lambda x: {1.0: 2.0}.get(x, 0.0) * x,
    "grad": lambda x: x.grad,
    "backward": lambda x: x.backward(),
    "learn": lambda x: x.learn(0.1),
}
INSTEAD = {
    "use vgrad.where(condition, a, b)": [
        *("if", "np.maximum of arrays", "if in a comprehension", "bool"),
        *("if beside max", "if beside a string"),
    ],
    "(a < b) * (b < c)": ["a < b < c"],
    "vgrad.maximum of x == a": ["in"],
    "one comparison for each number": ["array comparison", "two comparisons of arrays"],
    "the product of the conditions": ["any"],
    "x = vgrad.where(condition, step(x), x)": ["while"],
    "x = vgrad.where(k < n, step(x), x)": ["range", "range of int"],
    "a * b, vgrad.maximum(a, b) and 1 - a": ["and", "not"],
    "use vgrad.maximum(a, b), pair": ["max"],
    "use vgrad.minimum(a, b), pair": ["min"],
    "which put two in order": ["sorted"],
    "and assert that": ["assert"],
    "vgrad.exp": ["float", "math.exp", "float array", "complex", "%"],
    "the scalar engine to print numbers, or return the value": ["format", "str.format"],
    "arithmetic": ["int", "round", "math.floor", "trunc"],
    "vgrad.rint(100 * x) / 100": ["round to digits"],
    "vgrad.take(rows, index)": ["index", "index of int", "index of an array"],
    "to look up": ["set", "dict"],
    "further output": ["grad", "backward", "learn"],
}  # fmt: skip


@pytest.mark.parametrize("kind", FLOW)
def test_control_flow_on_a_traced_value_is_refused(kind):
    """Never a silently frozen branch: the error names the line and what to write instead."""
    instead = next(text for text, kinds in INSTEAD.items() if kind in kinds)
    line = FLOW[kind].__code__.co_firstlineno
    with pytest.raises(TraceError) as error:
        vgrad.trace(FLOW[kind], ())
    line += kind in ("while", "assert")
    assert f"(test_trace.py:{line})" in str(error.value) and instead in str(error.value)


def test_what_a_library_makes_of_a_refusal_does_not_hide_it():
    """NumPy turns it into an IndexError of its own."""
    table = np.array([[W, V], [V, W]])
    with pytest.raises(TraceError, match=r"use vgrad.take\(rows, index\)") as error:
        vgrad.trace(lambda i: table[i][0], (), parameters=[W, V])
    assert isinstance(error.value.__cause__, IndexError)


def test_data_is_the_number_without_its_gradient():
    """Of a node and of a parameter, whose number is theta's."""
    program = vgrad.compile(lambda x: x * W.data + x.data * V, parameters=[W, V])
    value, gradient = program.value_and_grad([3.0, 5.0], [2.0])
    assert value == 16.0 and gradient.tolist() == [0.0, 2.0]
    assert program.input_grads([3.0, 5.0], [2.0])[0] == [3.0]
    assert vgrad.trace(lambda x: x.data, ()).op[-1] == ops.stop_gradient.code


def test_setting_the_data_of_a_node_is_refused():
    with pytest.raises(TraceError, match="data must not be set on"):
        vgrad.trace(lambda x: setattr(x, "data", 3.0) or x, ())


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda w: pickle.loads(pickle.dumps(w))]
)
def test_a_parameter_must_not_be_copied(copied):
    """The copy would be a constant, with the number that the Value happens to hold."""
    with pytest.raises(TraceError, match=r"a copy must not be made of .*use the value itself"):
        vgrad.trace(lambda x: copied(W) * x + W, ())
    assert copied(W).data == W.data


def test_an_interrupt_anywhere_leaves_values_readable():
    """At every line of the function that records, on its way in and out."""
    room, hits = vgrad.trace.__globals__, 0
    codes = [room[name].__code__ for name in ("record", "_called", "_attempt")]
    lines = {line for code in codes for *_, line in code.co_lines() if line}
    for line in sorted(lines):

        def tracer(frame, event, arg, line=line):
            nonlocal hits
            if frame.f_code in codes and event == "line" and frame.f_lineno == line:
                hits += 1
                sys.settrace(None)
                raise KeyboardInterrupt
            return tracer

        program = vgrad.compile(lambda x: W * x, [W])
        before = sys.gettrace()
        sys.settrace(tracer)
        try:
            program([2.0], [1.0])
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        assert W.data == program.theta()[0] and program([2.0], [1.0]).tolist() == [2.0]
    assert hits >= 12


def test_the_line_is_the_users_even_inside_vgrad_and_numpy():
    def f(x):
        return np.sort(x)

    with pytest.raises(TraceError, match=rf"test_trace.py:{f.__code__.co_firstlineno + 1}\)"):
        vgrad.trace(f, (2,))


def test_a_refusal_cannot_be_swallowed():
    """TraceError is a TypeError, which the function itself may catch."""

    def f(x):
        try:
            return x if x > 0 else -x
        except TypeError:
            return x * 0

    with pytest.raises(TraceError, match=r"test_trace.py"):
        vgrad.trace(f, ())


def test_the_line_is_not_the_standard_librarys():
    import statistics

    def f(x):
        return statistics.median([x, x * 2, x * 3])

    with pytest.raises(TraceError, match=rf"test_trace.py:{f.__code__.co_firstlineno + 1}\)"):
        vgrad.trace(f, ())


def test_labels_of_results_are_captured():
    h = W * V
    h.label = "h"
    assert "h" in vgrad.capture(h + 1).labels.values()


CAPTURED = vgrad.capture(W * V)
LOOKS = {
    "if": lambda x: W * x if W > 0 else x,
    "if of a result": lambda x: x if (W * 2).tanh() < V else -x,
    "max": lambda x: x * max(W, V),
    "float": lambda x: x * float(W),
    "math.exp": lambda x: x * math.exp(V * W),
    "float array": lambda x: np.array([W, V], dtype=float) * x,
    "int": lambda x: x * int(W),
    "round": lambda x: x * round(W * 3.0, 1),
    "floor": lambda x: x * math.floor(V),
    "index": lambda x: x * [1.0, 2.0][(W - W) * 1.0],
    "format": lambda x: x * len(f"{W:.3f}"),
    "captured": lambda x: x * vgrad.capture(W * 2).value.sum(),
    "captured as a constant": lambda x: x * vgrad.capture(W * 2, parameters=[]).value.sum(),
    "traced": lambda x: x * vgrad.trace(lambda: W).value[0],
    "compiled as a constant": lambda x: x * vgrad.compile(lambda y: W * y, [])([], [1.0])[0],
    "rebuilt": lambda x: x * CAPTURED.to_values()[0].data,
    "in another context": lambda x: x * contextvars.Context().run(lambda: int(W)),
    "setting data": lambda x: setattr(V, "data", -1.5) or x,
    "backward": lambda x: (W * V).backward() or x,
}


@pytest.mark.parametrize("kind", LOOKS)
def test_control_flow_on_a_parameter_is_refused_just_as(kind):
    """A parameter's number is theta's, not the one that its Value happens to hold."""
    line = LOOKS[kind].__code__.co_firstlineno
    for options in ({}, {"parameters": [W, V]}):
        with pytest.raises(TraceError, match=rf"\(test_trace.py:{line}\)"):
            vgrad.trace(LOOKS[kind], (), **options)
    if "float" in kind or "math" in kind:
        with pytest.raises(TypeError, match="gradient they would lose"):
            LOOKS[kind](Value(1.0))
    else:
        LOOKS[kind](Value(1.0))  # which is fine outside


def test_a_parameters_number_is_not_shown_while_a_function_is_recorded():
    """Nor in text, from which it could be read."""
    texts = []
    vgrad.trace(lambda x: texts.extend([repr(W), f"{W * V}", str(FROZEN)]) or x, ())
    vgrad.trace(lambda x: texts.append(str(W)) or x, (), parameters=[V])
    shown = [text[: text.index(", grad=")] for text in texts]
    assert shown == [f"Value({x}" for x in ("w, data=?", "data=?", "data=3.0", "w, data=0.5")]
    assert "data=0.5" in repr(W)


def test_a_functions_own_thread_may_print_a_parameter():
    """Its number is left out there too, and that is all."""
    texts = []
    vgrad.trace(lambda x: texts.append(in_thread(lambda: str(W))) or x, ())
    assert len(texts) == 1 and "data=?" in texts[0]


def test_lists_of_parameters_may_be_searched_while_a_function_is_recorded():
    """No number is looked at, where identity tells them apart."""
    graph = vgrad.trace(lambda x: x * sum(p for p in [W, V, W] if p not in [V]), ())
    assert graph.leaves == (W,)


POOL = ThreadPoolExecutor(1)  # whose thread begins before any recording


def in_thread(task):
    found = []
    thread = threading.Thread(target=lambda: found.append(task()))
    thread.start()
    thread.join()
    return found[0]


def in_own_pool(task):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(task).result()


def in_event_loop(task):
    return asyncio.run(asyncio.to_thread(task))


ELSEWHERE = [in_thread, in_own_pool, in_event_loop, lambda task: POOL.submit(task).result()]


@pytest.mark.parametrize("elsewhere", ELSEWHERE)
@pytest.mark.parametrize(
    "look",
    [lambda: W.data, lambda: 2.0 if W > 0 else 3.0, lambda: int(W * 4), lambda: float(f"{W:.3f}")],
)
def test_a_parameter_that_a_functions_own_thread_looks_at_is_found(elsewhere, look, monkeypatch):
    """Threads inherit no context; what they look at would be frozen without a word."""
    monkeypatch.setattr(recording, "PAUSE", 1e-4)  # nothing else is about to begin
    for options in ({}, {"parameters": [W, V]}):
        with pytest.raises(TraceError, match=rf"test_trace.py:{look.__code__.co_firstlineno}\)"):
            vgrad.trace(lambda x: x * elsewhere(look), (), **options)
    kept = POOL.submit(lambda: FROZEN.data).result()
    assert len(vgrad.trace(lambda x: x * elsewhere(lambda: FROZEN.data) * kept, ())) == 5


def test_a_float_in_a_pool_is_found_though_no_code_of_the_users_runs_there():
    for task in (W.__int__, W.__bool__):
        with pytest.raises(TraceError):
            vgrad.trace(lambda x, task=task: x * POOL.submit(task).result(), ())


def test_other_threads_read_their_parameters_while_a_function_is_recorded():
    """Of the same model: one that was at it before, and tasks that begin at that very moment."""
    begun, done, numbers = threading.Event(), threading.Event(), []

    def train():
        while not done.is_set():
            numbers.append(W.data + (1.0 if W > 0 else 0.0) + round(V))
            begun.set()

    calls = []

    def slow(x):
        calls.append(x)
        if len(calls) == 1:
            started = threading.Event()
            others.append(threading.Thread(target=once, args=[started]))
            others[0].start()
            started.wait()
        return sum((x * W * k + V for k in range(1000)), x)

    def once(started):
        numbers.append(W.data)
        started.set()
        done.wait()

    others = []
    trainer = threading.Thread(target=train)
    trainer.start()
    try:
        begun.wait()
        graph = vgrad.trace(slow, ())
    finally:
        done.set()
        for thread in (trainer, *others):
            thread.join()
    assert len(calls) == 2 and len(graph.parameters) == 2
    assert set(numbers) == {0.5 + 1.0 - 2, 0.5}


def test_threads_that_begin_one_after_the_other_do_not_refuse_a_recording():
    """More of them than there are attempts, each during one, as those of a pool at its start."""
    w, done = Value(2.0), threading.Event()

    def look_and_wait():
        assert w.data == 2.0
        done.wait(5)

    def slow(x):
        time.sleep(0.004)
        return x * w

    threads = [threading.Thread(target=look_and_wait) for _ in range(8)]

    def start():
        for thread in threads:
            thread.start()
            time.sleep(0.003)

    starter = threading.Thread(target=start)
    starter.start()
    try:
        assert vgrad.compile(slow, [w])([2.0], [1.0]) == 2.0
    finally:
        done.set()
        for thread in (starter, *threads):
            thread.join()


def test_first_calls_by_a_pool_that_reads_the_parameters_itself():
    """Each task reads theta out of the Values, while another may be recording."""
    w, v = Value(0.5), Value(-1.5)

    def task(k):
        theta = np.array([w.data, v.data])
        return float(program.value_and_grad(theta, [1.0 * k])[0])

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(5):
            program = vgrad.compile(lambda x: sum((x * w + v for _ in range(200)), x), [w, v])
            with ThreadPoolExecutor(8) as pool:
                results = list(pool.map(task, range(8)))
            assert results == pytest.approx([k + 200 * (k * 0.5 - 1.5) for k in range(8)])
    finally:
        sys.setswitchinterval(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_while_another_thread_records_leaves_the_recording_behind():
    """In the child there is none, so that nothing is hidden there."""
    begun, done = threading.Event(), threading.Event()
    thread = threading.Thread(
        target=vgrad.trace, args=[lambda x: (begun.set(), done.wait(), x)[2], ()]
    )
    thread.start()
    begun.wait()
    child = os.fork()
    if not child:
        os._exit("data=0.5" not in in_thread(lambda: repr(W)))
    done.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("caught", [False, True])
def test_a_tape_is_used_by_one_thread_only(caught):
    """Two at once would mix it up; the refusal holds even if the thread swallows it."""

    def f(x):
        def work():
            with contextlib.suppress(TypeError if caught else ()):
                return x * 2

        in_own_pool(work)
        return x + 1

    line = f.__code__.co_firstlineno + 3
    with pytest.raises(TraceError, match=rf"in the thread that records .*test_trace.py:{line}\)"):
        vgrad.trace(f, ())
    with pytest.raises(TraceError, match="in the thread that records"):
        vgrad.trace(f, (), lines=True)


def test_many_threads_on_one_tape_never_give_a_graph():
    def f(x):
        with ThreadPoolExecutor(4) as pool:
            parts = list(pool.map(lambda k: sum((x * W for _ in range(50)), x * k), range(8)))
        return sum(parts)

    for _ in range(20):
        with pytest.raises(TraceError, match="in the thread that records"):
            vgrad.trace(f, ())


def test_a_context_that_outlives_the_recording_reads_as_ever():
    kept = []
    vgrad.trace(lambda x: kept.append(contextvars.copy_context()) or x, ())
    assert kept[0].run(lambda: W.data) == 0.5


def test_data_must_not_be_set_while_a_function_is_recorded():
    """Not even a constant's: it may have been recorded with its old number."""

    def f(x):
        c = Value(0.0, trainable=False)
        total = x * c
        c.data = 1.0
        return total + x * c

    with pytest.raises(
        TraceError, match=rf"be set on .*test_trace.py:{f.__code__.co_firstlineno + 3}"
    ):
        vgrad.trace(f, ())
    assert f(Value(2.0)).data == 2.0


def test_a_constants_number_may_decide():
    """A leaf that is no parameter is a constant of the graph, and so is what it decides."""

    def f(x):
        print(W, FROZEN)
        return x * FROZEN.data if FROZEN > 0 and max(FROZEN, 1) == 3 else x

    assert len(vgrad.trace(f, ())) == 3
    assert len(vgrad.trace(lambda x: x * 2 if W > 0 else x, (), parameters=[V])) == 4
    with pytest.raises(TraceError):
        vgrad.trace(lambda x: x * vgrad.compile(lambda y: y if W > 0 else -y, [])([], [1.0])[0], ())


def test_wrapping_a_node_in_a_value_is_refused():
    with pytest.raises(TypeError, match="plain number .* can be used as it is"):
        vgrad.trace(lambda x: Value(x) * 2, ())


@pytest.mark.parametrize("bad", [None, 3.0, "x", (), [], {}, np.array([]), np.array([1.0])])
def test_what_is_no_traced_value_is_no_result(bad):
    for result in (bad, (W, bad)):
        with pytest.raises(
            TraceError, match=r"what <lambda> \(test_trace.py:\d+\) returns must be a"
        ):
            vgrad.trace(lambda x, r=result: r, ())
    with pytest.raises(TraceError, match="each root of capture must be a"):
        vgrad.capture(bad)


def test_nodes_of_two_traces_do_not_mix():
    kept = []
    vgrad.trace(lambda x: kept.append(x) or x * 2, ())
    for use in (lambda: kept[0] + 1, lambda: W * kept[0], lambda: vgrad.exp(kept[0])):
        with pytest.raises(TraceError, match=r"must not outlive .*test_trace.py"):
            use()
    for use in (lambda x: x + kept[0], lambda x: kept[0] * x, lambda x: (x, kept[0])):
        with pytest.raises(TraceError, match=r"test_trace.py"):
            vgrad.trace(use, ())

    def outer(x):
        return vgrad.compile(lambda y: x * y)([], [1.0])

    with pytest.raises(TraceError, match=r"another call, test_trace.py"):
        vgrad.trace(outer, ())


def test_an_error_in_the_function_passes_through_unchanged():
    with pytest.raises(ZeroDivisionError):
        vgrad.trace(lambda x: 1 // 0, ())


@pytest.mark.parametrize(
    "parameters, kind, message",
    [
        ([3.0], TypeError, "parameters must be Values .got 3.0, a float"),
        ([W, W], ValueError, "distinct .got 2, 1 distinct"),
        (3.0, TypeError, "parameters must be a list of Values"),
        ([W * 2], ValueError, "leaves"),
    ],
)
def test_parameters_must_be_distinct_leaf_values(parameters, kind, message):
    for call in (lambda: vgrad.trace(lambda x: x, (), parameters=parameters),
                 lambda: vgrad.capture(W * 3, parameters=parameters),
                 lambda: vgrad.compile(lambda x: x, parameters=parameters)):  # fmt: skip
        with pytest.raises(kind, match=message):
            call()
    with pytest.raises(kind, match=message.replace("parameters", "inputs")):
        vgrad.capture(W * 3, inputs=parameters)


def test_other_bad_arguments():
    with pytest.raises(ValueError, match="an input or a parameter, not both"):
        vgrad.capture(W * 2, inputs=[W], parameters=[W])
    with pytest.raises(TypeError, match="must be a function .got 3, a int"):
        vgrad.trace(3, ())
    with pytest.raises(TypeError, match=r"a shape must be a tuple"):
        vgrad.trace(lambda x: x, 2)


# --- the flat form -------------------------------------------------------------------------------

BROKEN = {
    "op codes": lambda g: {"op": g.op + np.uint8(200)},
    "as many parents": lambda g: {"parents": np.full_like(g.parents, -1)},
    "before its child": lambda g: {"parents": np.where(g.parents < 0, -1, len(g) - 1).astype("i4")},
    "level": lambda g: {"level": g.level[::-1].copy()},
    "inputs must name": lambda g: {"inputs": g.inputs[:0]},
    "parameters must name": lambda g: {"parameters": g.inputs},
    "outputs must be one": lambda g: {"outputs": g.outputs + len(g)},
    "op must be uint8": lambda g: {"op": g.op.astype(int)},
    "value must be": lambda g: {"value": g.value[1:]},
    "input_shapes": lambda g: {"input_shapes": ((7,),)},
    "one or more nodes": lambda g: {"outputs": g.outputs[:0], "output_shapes": []},
    "labels and lines": lambda g: {"labels": {99: "a"}},
    "leaves must be": lambda g: {"leaves": (W, V)},
    "parents must be int32": lambda g: {"parents": g.parents[:, :2]},
    "output_shapes": lambda g: {"output_shapes": [(), ()]},
}  # fmt: skip


@pytest.mark.parametrize("message", BROKEN)
def test_check_names_what_is_broken(message):
    graph = vgrad.trace(lambda x, y: W * x[0] + x[1] * y, (2,), ())
    graph.check()
    broken = dataclasses.replace(graph, **BROKEN[message](graph))
    with pytest.raises(GraphFormatError, match=message):
        broken.check()
    with pytest.raises(GraphFormatError, match=message):
        vgrad.compile(broken)


def test_to_values_refuses_what_does_not_fit():
    graph = vgrad.trace(lambda x: W * x.sum(), (2,))
    with pytest.raises(
        ShapeError, match=r"the sample must have shapes \(\(2,\),\) \(got \(\(3,\),\)\)"
    ):
        graph.to_values(sample=([1.0, 2.0, 3.0],))
    with pytest.raises(ShapeError, match=r"theta must have shape \(1,\)"):
        graph.to_values([1.0, 2.0], sample=([1.0, 2.0],))


@pytest.mark.parametrize("show", [vgrad.to_dot, vgrad.draw], ids=["to_dot", "draw"])
def test_a_picture_of_a_parameter_is_refused_while_a_function_is_recorded(show):
    """As it has the number, which could be read in it."""
    w = Value(2.0)
    with pytest.raises(TraceError, match="format such as .* must not be given"):
        vgrad.compile(lambda x: x * len(str(show(w))), [w])([2.0], [1.0])
    show(w)
