"""The compiler pass by pass, each on an example small enough to write its result down."""

from __future__ import annotations

import numpy as np
import pytest

import vgrad
from vgrad import Value, exp, log, ops, tanh, where
from vgrad.compiler import compile_plan
from vgrad.compiler.fuse import (
    CONTRACTION,
    GONE,
    Terms,
    contract_sums,
    drop_guards,
    split_mixed,
    split_residuals,
    split_shared,
    unfused,
)
from vgrad.compiler.grids import find_grids, find_stacks
from vgrad.compiler.levels import (
    as_late_as_possible,
    as_soon_as_possible,
    find_kinds,
    find_levels,
    in_steps,
    pull_together,
)
from vgrad.compiler.simplify import merge_constants


def guard(x, y):
    return ops.guard(x, y, y)


W = [Value(0.1 * k, label=f"w{k}") for k in range(1, 9)]
w1, w2, w3, w4, w5, w6, w7, w8 = W


def layer(x):
    """Two neurons; what the compiler makes of them is followed through all passes."""
    return [tanh(w1 * x[0] + w2 * x[1] + w3), tanh(w4 * x[0] + w5 * x[1] + w6)]


def recorded(fn, inputs):
    return vgrad.trace(fn, (inputs,), parameters=W)


def after(passes, graph, alone=False):
    """The graph after these passes, or after all."""
    fused = unfused(graph, alone)
    for rewrite in passes:
        fused = rewrite(fused, graph) if rewrite is drop_guards else rewrite(fused)
    return fused if passes else compile_plan(graph, alone).fused


def written(fn, inputs, *passes, **options):
    """What is computed for each output after these passes; a contraction is (its terms)."""
    graph = recorded(fn, inputs)
    fused = after(passes, graph, **options)
    names = {k: f"x{i}" for i, k in enumerate(fused.stands[graph.inputs].tolist())}
    names |= {k: w.label for k, w in zip(fused.stands[graph.parameters].tolist(), W)}
    for k in np.argsort(fused.depth, kind="stable").tolist():
        parents = [names[x] for x in fused.parents[k].tolist() if x >= 0]
        if fused.op[k] == CONTRACTION:
            names[k] = f"({' + '.join(products(fused, names, k))})"
        elif fused.op[k] == ops.const.code:
            names[k] = f"{fused.value[k]:g}"
        elif k not in names and fused.op[k] != GONE:
            names[k] = f"{ops.OPS[fused.op[k]].name}({', '.join(parents)})"
    return [names[k] for k in fused.outputs.tolist()]


def products(fused, names, contraction):
    for _, u, v, coef in zip(*fused.terms.take(fused.terms.node == contraction)):
        number = [] if coef == 1 else [f"{coef:g}"]
        yield "*".join([*number, *(names[x] for x in (u, v) if x != fused.one)])


# --- fuse ----------------------------------------------------------------------------------------


def test_a_layer_is_a_contraction_per_neuron():
    assert written(layer, 2) == ["tanh((w1*x0 + w2*x1 + w3))", "tanh((w4*x0 + w5*x1 + w6))"]
    fused = compile_plan(recorded(layer, 2)).fused
    assert fused.sources[fused.op == CONTRACTION].tolist() == [4, 4]  # two products, two additions
    assert len(fused.op) == 10 + 10 + 1 - 6  # of which six are parts of the others
    assert fused.number.tolist() == [*range(10), 16, 17, 18, 19, 20]


def test_equal_constants_are_one():
    def fn(x):
        return [x[0] ** 2.0, x[1] ** 2.0, x[0] ** 1.0, x[0] ** 0.0, x[1] ** -0.0]

    fused = after([merge_constants], recorded(fn, 2))
    square, again, one, zero, minus_zero = fused.parents[fused.outputs, 1].tolist()
    assert square == again and one == fused.one
    assert zero != minus_zero  # other bits
    assert (fused.op == GONE).sum() == 2  # a 2 and a 1


def test_guards_go_where_nan_shows():
    """Also a guard of a guard; but not before an op that could hide nan, nor if alone."""

    def guards(fn, **options):
        fused = after([drop_guards], recorded(fn, 2), **options)
        left = int((fused.op == ops.guard.code).sum())
        assert fused.unguarded == (left == 0)
        return left

    assert guards(lambda x: exp(guard(x[0], x[1]))) == 0
    assert guards(lambda x: exp(guard(x[0], guard(x[0], x[1])))) == 0
    assert guards(lambda x: exp(guard(x[0], x[1])), alone=True) == 1
    assert guards(lambda x: exp(guard(x[0], x[1])) > 1) == 1
    inner = written(lambda x: exp(guard(x[0], guard(x[0], x[1]))), 2, drop_guards)
    assert inner == ["exp(x1)"]


@pytest.mark.parametrize(
    ("fn", "result"),
    [
        (lambda x: w1 * x[0] - (w2 * x[1] - w3), "(-1*w2*x1 + w1*x0 + w3)"),
        (lambda x: -(x[0] - x[1]), "(-1*x0 + x1)"),
        (lambda x: sum([x[0], x[1]]), "(x0 + x1)"),  # 0 + x0 + x1
        (lambda x: w1 + 3 * (x[0] * x[1]), "(3*x0*x1 + w1)"),
        (lambda x: w1 + 0.5 * (x[0] * x[1]), "(0.5*mul(x0, x1) + w1)"),  # might lose digits
        (lambda x: 3 * (x[0] + x[1] + w1), "mul(3, (x0 + x1 + w1))"),  # would round both terms
        (lambda x: x[0] + tanh(x[1] + w1 + w2), "add(x0, tanh((x1 + w1 + w2)))"),
        (lambda x: x[0] * (x[1] + w1 + w2), "mul(x0, (x1 + w1 + w2))"),
        (lambda x: x[0] + (w1 + w2), "add(x0, add(w1, w2))"),  # shared: once and not per sample
        (lambda x: x[0] * x[1], "mul(x0, x1)"),  # no sum
    ],
)
def test_trees_of_sums(fn, result):
    assert written(fn, 2, merge_constants, contract_sums) == [result]


def test_a_node_that_is_used_twice_is_in_no_tree():
    def fn(x):
        product = x[0] * x[1]
        return [product + w1, product + w2]

    assert written(fn, 2, contract_sums) == ["add(mul(x0, x1), w1)", "add(mul(x0, x1), w2)"]


def test_where_picks_a_parameter():
    def pick(other):
        return lambda x: where(x[0] > 0, w1, other) + where(x[0] > 1, w2, other)

    fused = compile_plan(recorded(pick(0.0), 1)).fused
    assert fused.picks
    assert written(pick(0.0), 1) == ["(gt(x0, 0)*w1 + gt(x0, 1)*w2)"]
    for fn, options in ((pick(1.0), {}), (pick(0.0), {"alone": True})):
        assert (
            "where" in written(fn, 1, **options)[0]
            and not compile_plan(recorded(fn, 1), **options).fused.picks
        )


def test_what_constants_alone_make_is_known():
    two, three = (Value(number, trainable=False) for number in (2.0, 3.0))
    assert written(lambda x: x[0] + two * three * 4, 1) == ["add(x0, 24)"]
    program = vgrad.compile(lambda x: x + two * three * 4, [])
    assert program(program.theta(), np.array([1.0, 2.0])).tolist() == [25.0, 26.0]


@pytest.mark.parametrize(
    ("split", "fn", "result"),
    [
        (split_shared, lambda x: x[0] + w1 * w1 + w2 * w2, "(x0 + (w1*w1 + w2*w2))"),
        (split_shared, lambda x: x[0] + w1 * w2, "(x0 + (w1*w2))"),
        (split_shared, lambda x: w1 * x[0] + w2, "(w1*x0 + w2)"),  # a bias
        (
            split_mixed,
            lambda x: w1 * x[0] + w2 * x[1] + w3 * x[2] + x[0] * x[1] + x[1] * x[2],
            "(w1*x0 + w2*x1 + w3*x2 + (x0*x1 + x1*x2))",
        ),
        (
            split_mixed,
            lambda x: w1 * x[0] + w2 * x[1] + x[0] * x[1] + x[1] * x[2],
            "(w1*x0 + w2*x1 + x0*x1 + x1*x2)",  # short
        ),
        (
            split_residuals,
            lambda x: x[0] + sum(w * tanh(x[k % 3]) for k, w in enumerate(W[:5])),
            "(x0 + (w1*tanh(x0) + w2*tanh(x1) + w3*tanh(x2) + w4*tanh(x0) + w5*tanh(x1)))",
        ),
        (
            split_residuals,
            lambda x: x[0] + sum(w * tanh(x[k % 3]) for k, w in enumerate(W[:4])),
            "(w1*tanh(x0) + w2*tanh(x1) + w3*tanh(x2) + w4*tanh(x0) + x0)",  # short
        ),
    ],
)
def test_splits(split, fn, result):
    assert written(fn, 3, contract_sums, split) == [result]


def test_biases_that_differ_between_sums_of_the_same_weights():
    """They are split off as residuals are; a bias that goes with its weights is not."""

    def positions(*biases):
        return lambda x: [
            sum(w * x[k + i] for i, w in enumerate(W[:5])) + bias for k, bias in enumerate(biases)
        ]

    row = "w1*x0 + w2*x1 + w3*x2 + w4*x3 + w5*x4"
    assert written(positions(w6, w6), 6)[0] == f"({row} + w6)"
    assert written(positions(w6, w7), 6)[0] == f"(w6 + ({row}))"
    assert written(positions(w6, w6, w7), 7)[0] == f"(w6 + ({row}))"


# --- levels --------------------------------------------------------------------------------------


def kinds_of(fn, inputs):
    fused = compile_plan(recorded(fn, inputs)).fused
    return fused, find_kinds(fused)


def equal(numbers, nodes):
    """Which of the nodes have the same number, as the first place of each: [0, 1, 0]."""
    found = numbers[nodes].tolist()
    return [found.index(number) for number in found]


def test_the_neurons_of_a_layer_are_of_one_family_and_share_factors():
    def fn(x):
        return [*layer(x), *layer(x[2:]), tanh(x[0] * x[1] + x[2] * x[3] + w1)]

    fused, kinds = kinds_of(fn, 4)
    maps = fused.outputs.astype(int)
    sums = fused.parents[maps, 0]
    assert equal(kinds.family, maps) == [0, 0, 0, 0, 0]  # tanh
    assert equal(kinds.family, sums) == [0, 0, 0, 0, 4]
    assert equal(kinds.factors, sums) == [0, 0, 2, 2, 4]
    assert equal(kinds.weights, sums) == [0, 1, 0, 1, 4]
    assert kinds.uniform[sums].tolist() == [True, True, True, True, False]
    assert (kinds.family[fused.op != CONTRACTION] > 0).sum() == 5  # leaves have none


def test_a_constant_exponent_matters_to_the_family():
    fused, kinds = kinds_of(lambda x: [x[0] ** 2, x[1] ** 2, x[0] ** 3, x[0] ** w1, w1**2], 2)
    assert equal(kinds.family, fused.outputs) == [0, 0, 2, 3, 4]


def paths(x):
    """Three exp, one of them used later; two log, one of them behind a longer path."""
    return log(exp(x[0])) + log(exp(x[1]) + exp(x[2]))


def levels_of(fn, inputs, find):
    """{op, or "sum" of contractions: the levels of its nodes}."""
    fused, kinds = kinds_of(fn, inputs)
    level, found = find(fused, kinds), {}
    for k in kinds.computed.tolist():
        name = "sum" if fused.op[k] == CONTRACTION else ops.OPS[fused.op[k]].name
        found.setdefault(name, []).append(int(level[k]))
    return {name: sorted(found[name]) for name in found}


def soon(fused, kinds):
    return as_soon_as_possible(fused, in_steps(fused, fused.depth))


def late(fused, kinds):
    last = int(soon(fused, kinds).max())
    return as_late_as_possible(fused, in_steps(fused, fused.depth), last)


def pulled(fused, kinds):
    level = late(fused, kinds)
    return pull_together(kinds, in_steps(fused, level), level)


def test_levels_as_soon_and_as_late_as_possible_and_pulled_together():
    assert levels_of(paths, 3, soon) == {"exp": [1, 1, 1], "log": [2, 3], "add": [2, 4]}
    assert levels_of(paths, 3, late) == {"exp": [1, 1, 2], "log": [3, 3], "add": [2, 4]}
    assert levels_of(paths, 3, pulled) == {"exp": [1, 1, 1], "log": [3, 3], "add": [2, 4]}


def test_the_levels_are_those_with_the_fewest_families():
    def chain(x):
        return tanh(exp(tanh(x[0])))

    assert levels_of(paths, 3, find_levels) == levels_of(paths, 3, pulled)
    assert levels_of(chain, 1, find_levels) == {"tanh": [1, 3], "exp": [2]}


def neurons(x):
    return [w1 * x[0] + w2 * x[1] + w3, w4 * x[0] + w5 * x[1] + w6]


def samples(x):
    return [w1 * a + w2 * b + w3 for a, b in (x[:2], x[2:])]


@pytest.mark.parametrize("fn", [neurons, samples])
def test_what_is_used_later_goes_down_to_what_has_its_factors_or_weights(fn):
    def later(x):
        first, second = fn(x)
        return exp(exp(first)) * second

    assert levels_of(later, 4, late)["sum"] == [1, 3]
    assert levels_of(later, 4, pulled)["sum"] == [1, 1]


def test_nodes_a_level_apart_that_cannot_meet_stay_apart():
    """The one log is below the other."""
    assert levels_of(lambda x: log(log(exp(x[0])) + exp(x[1])), 2, find_levels)["log"] == [2, 4]


def test_steps_are_what_runs_together_and_what_it_reads():
    fused, _ = kinds_of(layer, 2)
    sums, maps = in_steps(fused, fused.depth)
    assert fused.op[sums.nodes].tolist() == [CONTRACTION] * 2
    assert sums.users.tolist() == np.repeat(sums.nodes, 6).tolist()  # two factors, three terms
    assert sums.starts.tolist() == [0, 6]
    assert maps.users.tolist() == maps.nodes.tolist() == fused.outputs.tolist()
    assert maps.operands.tolist() == sums.nodes.tolist()


# --- grids and stacks ----------------------------------------------------------------------------

U = np.array([[1, 2], [3, 4], [5, 6]])  # three rows of weights
V = np.array([[7, 8], [9, 10]])  # two rows of inputs


def found(pairs):
    """The grids among the sums of these (row of u, row of v)."""
    rows = np.array(pairs).T
    u, v = U[rows[0]], V[rows[1]]
    grids = find_grids(u, v, np.ones(u.shape))
    return [(cells.tolist(), u[a].tolist(), v[b].tolist()) for cells, a, b in grids]


def test_every_row_of_u_meets_every_row_of_v_in_a_grid():
    pairs = [(2, 0), (0, 0), (1, 1), (0, 1), (2, 1), (1, 0)]
    ((cells, u, v),) = found(pairs)
    assert sorted(cells) == [0, 1, 2, 3, 4, 5]
    reached = [(u[k % 3], v[k // 3]) for k in range(6)]
    assert reached == [(U[pairs[k][0]].tolist(), V[pairs[k][1]].tolist()) for k in cells]


@pytest.mark.parametrize(
    "pairs",
    [
        [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)],  # a pair is missing
        [(0, 0), (1, 0), (1, 1), (2, 1)],  # as many pairs in each row, but other ones
        [(0, 0), (1, 1), (0, 1), (0, 1)],  # one is missing, another there twice
        [(0, 0), (0, 1), (1, 0), (1, 1), (0, 0)],  # a pair is there twice
    ],
)
def test_what_is_almost_a_grid(pairs):
    assert found(pairs) == []


def test_grids_with_no_rows_in_common_are_several():
    assert [cells for cells, *_ in found([(0, 0), (1, 1), (2, 1)])] == [[0], [1, 2]]


def causal(n, k, wanted=lambda i, j: j <= i):
    """The terms of the scores of n positions: row i of u, from 0, meets row j of v, from n * k."""
    pairs = [(i, j) for i in range(n) for j in range(n) if wanted(i, j)]
    node = 1000 + np.repeat(np.arange(len(pairs)), k)
    u = np.concatenate([i * k + np.arange(k) for i, _ in pairs])
    v = np.concatenate([(n + j) * k + np.arange(k) for _, j in pairs])
    return Terms(node, u, v, np.ones(len(u)))


def test_a_stack_has_cells_that_are_not_wanted():
    (stack,), left = find_stacks(causal(4, 8))
    assert not left.any()
    assert stack.nodes.tolist() == [
        [
            [1000, 1001, 1003, 1006],  # row 0 of v meets all rows of u,
            [-1, 1002, 1004, 1007],
            [-1, -1, 1005, 1008],
            [-1, -1, -1, 1009],  # row 3 the last one
        ]
    ]
    assert stack.u.tolist() == np.arange(32).reshape(1, 4, 8).tolist()
    assert stack.v.tolist() == np.arange(32, 64).reshape(1, 4, 8).tolist()
    assert stack.nodes.reshape(-1)[stack.cells()].tolist() == list(range(1000, 1010))


def test_rows_of_a_stack_may_end_early():
    """Means of what came before: position i has i + 1 terms, v is the column's beginning."""
    lengths = [i + 1 for i in range(6) for _ in range(5)]
    node = np.repeat(np.arange(30), lengths)
    u = np.concatenate([100 + 10 * i + np.arange(i + 1) for i in range(6) for _ in range(5)])
    v = np.concatenate([200 + 10 * j + np.arange(i + 1) for i in range(6) for j in range(5)])
    for terms in (Terms(node, u, v, np.ones(len(u))), Terms(node, v, u, np.ones(len(u)))):
        (stack,), left = find_stacks(terms)
        assert not left.any()
        assert stack.u.shape == (1, 6, 6) and stack.v.shape == (1, 5, 6)
        assert [(row >= 0).sum() for row in stack.u[0]] == [1, 2, 3, 4, 5, 6]
        assert (stack.v >= 0).all()


@pytest.mark.parametrize(
    "terms",
    [
        causal(4, 8, lambda i, j: True),  # a grid
        causal(4, 2),  # too small
        causal(9, 8, lambda i, j: j in (0, i)),  # 17 of 81 are wanted
        causal(4, 8).joined(causal(4, 8, lambda i, j: i == j == 0)._replace(node=np.full(8, 2000))),
    ],
    ids=["a grid", "small", "sparse", "a pair twice"],
)
def test_what_is_almost_a_stack(terms):
    found, left = find_stacks(terms)
    assert found == [] and left.all()
