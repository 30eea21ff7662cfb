"""Paths: how they are recorded, shown, saved and checked, and what is done with too many."""

from __future__ import annotations

import pickle
import random
import time
import tracemalloc
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from helpers import same_bits

import vgrad
from vgrad import (
    GraphFormatError,
    NonFiniteError,
    ParityError,
    PathsWarning,
    ShapeError,
    TraceError,
    Value,
    nn,
)
from vgrad.program import branched
from vgrad.program.branched import Work

W = [Value(1.5, label="a"), Value(-0.7)]
THETA = np.array([1.5, -0.7])
X = np.random.default_rng(0).normal(size=500)


def bent(x):
    """Three paths, of two questions on different lines; the second parameter is on one alone."""
    if x > 0:
        return vgrad.sin(W[0] * x)
    if x < -1:
        return W[1] * x**2
    return x * W[0]


def bent_by_where(x):
    below = vgrad.where(x < -1, W[1] * x**2, x * W[0])
    return vgrad.where(x > 0, vgrad.sin(W[0] * x), below)


def halved(x):
    """A path for each number of steps."""
    steps = 0
    while x > 1:
        x, steps = x / 2, steps + 1
    return x * W[0] + steps


def paths_of(program):
    (paths,) = program.paths.values()
    return paths.runners


def close(a, b):
    """To a few roundings: sums over a batch are added up in another order, path by path."""
    return np.allclose(a, b, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("options", [{}, {"fuse": False}, {"reduce": "sum"}, {"tile": 7}])
def test_every_call_gives_what_where_gives(options):
    program = vgrad.compile(bent, W, **options)
    twin = vgrad.compile(bent_by_where, W, **options)
    for theta in (THETA, [0.3, 2.0]):
        assert close(program(theta, X), twin(theta, X))
        (value, outputs), gradient = program.value_and_grad(theta, X, aux=True)
        assert close(value, twin.value_and_grad(theta, X)[0]) and close(outputs, twin(theta, X))
        assert close(gradient, twin.value_and_grad(theta, X)[1])
        assert close(program.input_grads(theta, X)[0], twin.input_grads(theta, X)[0])
        assert close(program.per_sample_grads(theta, X), twin.per_sample_grads(theta, X))
        both = (x.hessian_vector_product(theta, [1.0, 2.0], X) for x in (program, twin))
        assert close(*both)
    assert len(paths_of(program)) == 3


def test_answers_that_depend_on_the_batch_are_refused():
    """An op of one's own may be wrong in a way that nobody tries when it is made."""
    rng = np.random.default_rng(0)

    @vgrad.op(vjp=None, name="moody")
    def moody(x):
        return np.floor(x) + (np.size(x) > 20 and rng.random() > 0.5)

    program = vgrad.compile(lambda x: x if moody(x) > 0.5 else -x, parameters=[])
    with pytest.raises(TraceError, match="whatever else is in its batch"):
        for _ in range(9):
            program([], np.linspace(0, 1.9, 200))


def test_float32_follows_the_numbers_that_it_has():
    program = vgrad.compile(halved, W, dtype=np.float32)
    outputs = program(THETA, 100 * abs(X))
    assert outputs.dtype == np.float32
    assert np.allclose(outputs, vgrad.compile(halved, W)(THETA, 100 * abs(X)), rtol=1e-6)


def test_a_loop_until_convergence_ends_in_float32_as_well():
    """The numbers that decide are rounded as those of the sweep are, so no sample is left alone."""

    def root(x):
        guess = x / 2
        for _ in range(30):
            step = (guess * guess - x) / (2 * guess)
            guess = guess - step
            if abs(step) < 1e-4 * guess:
                break
        return guess

    data = 1 + 50 * abs(X)
    outputs = vgrad.compile(root, parameters=[], dtype=np.float32)([], data)
    assert np.allclose(outputs, np.sqrt(data), rtol=1e-6)


@pytest.mark.parametrize("Pool", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_executors_give_the_same_bits(Pool):
    alone = vgrad.compile(bent, W, tile=16).value_and_grad(THETA, X)
    with Pool(2) as pool:
        program = vgrad.compile(bent, W, tile=16, executor=pool)
        value, gradient = program.value_and_grad(THETA, X)
        outputs = program(THETA, X)
    assert value == alone[0] and same_bits(gradient, alone[1])
    assert close(outputs, vgrad.compile(bent_by_where, W)(THETA, X))


def test_parameters_are_those_of_all_paths_of_the_first_batch():
    """In order of first use, path after path; later ones must not add to them."""
    program = vgrad.compile(bent)
    assert program.theta(X).tolist() == [1.5, -0.7]
    assert close(
        program.value_and_grad(THETA, X)[1], vgrad.compile(bent, W).value_and_grad(THETA, X)[1]
    )
    first = vgrad.compile(bent)
    assert first.theta([1.0, 2.0]).tolist() == [1.5]
    with pytest.raises(TraceError, match="no other parameters than in its first call"):
        first([1.5], [1.0, -2.0])
    with pytest.raises(ShapeError, match=r"theta must have shape \(2,\)"):
        vgrad.compile(bent)([1.5], X)
    with pytest.raises(ShapeError, match="theta must have one number for each parameter"):
        vgrad.compile(lambda x: x if W[0] > 0 else -x)([], [1.0])


def test_a_question_about_a_parameter_follows_theta():
    program = vgrad.compile(lambda x: W[0] * x if W[0] > W[1] else x - W[1], W)
    assert program([2.0, 1.0], [3.0]) == [6.0] and program([1.0, 2.0], [3.0]) == [1.0]
    assert program.value_and_grad([1.0, 2.0], [3.0])[1].tolist() == [0.0, -1.0]
    assert W[0].data == 1.5 and W[1].data == -0.7


def test_paths_go_into_files_and_pickles_and_are_all_there_are_then(tmp_path):
    program = vgrad.compile(bent, W)
    want = program(THETA, X)
    program.save(tmp_path / "program.npz")
    for twin in (vgrad.Program.load(tmp_path / "program.npz"), pickle.loads(pickle.dumps(program))):
        assert same_bits(twin(twin.theta(), X), want)
        assert [x.graph.questions[0].line for x in paths_of(twin)] == [
            x.graph.questions[0].line for x in paths_of(program)
        ]
    some = vgrad.compile(bent, W)
    some(THETA, [1.0])
    some.save(tmp_path / "some.npz")
    with pytest.raises(ShapeError, match=r"sample 1, which leaves them at test_paths.py:\d+"):
        vgrad.Program.load(tmp_path / "some.npz")(THETA, [1.0, -3.0])


def test_a_file_with_answers_that_cannot_be_is_refused(tmp_path):
    program = vgrad.compile(bent, W)
    program(THETA, X)
    graph = paths_of(program)[0].graph
    for question in (graph.questions[0]._replace(answer=7.0), ("hear", 1.0, "f.py:1", "f")):
        wrong = replace(graph, questions=(question, *graph.questions[1:]))
        with pytest.raises(GraphFormatError, match="an answer must|a question must"):
            wrong.save(tmp_path / "wrong.npz")


def test_threads_see_a_path_when_all_of_it_is_there(monkeypatch):
    """Its runner and its place in the tree come first, and what leads there last."""
    from vgrad.program.paths import Fork, Paths

    add = Paths.add
    linked = []

    class Children(dict):
        def setdefault(self, answer, child):
            linked.append(child.path)
            assert child.path < len(paths.runners) == len(paths._forks)
            return super().setdefault(answer, child)

    monkeypatch.setattr(Fork, "__init__", _with(Children, Fork.__init__))
    paths = None

    def watched(self, runner):
        nonlocal paths
        paths = self
        return add(self, runner)

    monkeypatch.setattr(Paths, "add", watched)
    vgrad.compile(bent, W)(THETA, X)
    assert len(linked) >= 5


def _with(Children, init):
    def initialised(self, *arguments):
        init(self, *arguments)
        self.children = Children()

    return initialised


def test_explain_has_the_questions_and_how_many_gave_which_answer():
    text = vgrad.compile(bent, W).explain(X)
    line = bent.__code__.co_firstlineno
    above, low = (X > 0).sum(), (X < -1).sum()
    head, first, second, *_ = text.splitlines()
    assert head.split() == ["question", "asked", "at", "samples", "answers"]
    assert first.split()[1] == f"test_paths.py:{line + 2}," and f"true: {above}, path" in first
    assert second.split()[1] == f"test_paths.py:{line + 4}," and f"true: {low}, path" in second
    assert text.count("level  kernel") == 3 and f"of {above} samples" in text


def test_explain_is_at_theta_or_at_the_parameters_present_numbers():
    program = vgrad.compile(lambda x: x if x > W[0] else -x, W)
    assert "true: 1, path" in program.explain([1.0, 2.0])
    assert "true: 2, path" in program.explain([1.0, 2.0], theta=[0.0, 0.0])


def test_the_tree_is_drawn():
    program = vgrad.compile(bent, W)
    program(THETA, X)
    text = vgrad.to_dot(program)
    assert text.count("in bent") == 2 and text.count("path ") == 3
    assert [text.count(f'"{x}"') for x in ("true", "false")] == [2, 2]


def test_verify_compares_paths(monkeypatch):
    program = vgrad.compile(bent, W)
    assert program.verify(THETA, X, samples=60).worst.share <= 1
    runner = paths_of(program)[0]
    answers = runner.graph.answers
    monkeypatch.setattr(  # as if every sample took path 0
        runner.asking.quick, "outputs", lambda *call: np.tile(answers, call[2])
    )
    with pytest.raises(ParityError, match=r"must take the path .*test_paths.py:\d+, sample \d+"):
        program.verify(THETA, X, samples=61)


def test_gradcheck_of_a_program_and_of_a_function_that_branch():
    some = X[abs(X) > 0.01][:20]
    assert vgrad.gradcheck(vgrad.compile(bent, W), THETA, some[abs(some + 1) > 0.01])
    assert vgrad.gradcheck(bent, -0.5) and vgrad.gradcheck(bent, 0.5)


def test_check_finite_names_the_sample_of_the_batch_and_the_path():
    def wrong(x):
        if x > 0:
            return x
        return vgrad.log(x + 1)

    program = vgrad.compile(wrong, parameters=[], check_finite=True)
    assert program([], [1.0, -0.5]).shape == (2,)
    for call in (program, program.value_and_grad, program.input_grads, program.per_sample_grads):
        with pytest.raises(NonFiniteError, match="sample 3") as error:
            call([], [1.0, -0.5, 2.0, -1.0])
        line = wrong.__code__.co_firstlineno
        assert f"on the path where test_paths.py:{line + 1} is false" in str(error.value)
        assert f"test_paths.py:{line + 3}" in str(error.value) and error.value.sample == 3


def test_check_finite_finds_a_sum_over_paths_that_overflows():
    program = vgrad.compile(
        lambda x: 1.5 * x if x > 1e307 else x, parameters=[], reduce="sum", check_finite=True
    )
    assert program.value_and_grad([], [1e308, 9e306])[0] == 1.59e308
    with pytest.raises(NonFiniteError, match="the sum of output 0 over the batch is inf"):
        program.value_and_grad([], [1e308, 9e306, *[9e306] * 6])


def test_check_finite_runs_nothing_twice_where_all_is_finite(monkeypatch):
    program = vgrad.compile(bent, W, check_finite=True)
    for name in ("value_and_grad", "input_grads", "per_sample_grads"):
        getattr(program, name)(THETA, X)
    calls = []
    run = branched.BranchedCall._call
    monkeypatch.setattr(branched.BranchedCall, "_call", lambda *a: calls.append(1) or run(*a))
    for name in ("value_and_grad", "input_grads", "per_sample_grads"):
        getattr(program, name)(THETA, X)
    assert len(calls) == 3 * len(paths_of(program))


# --- samples beyond the paths that are recorded -------------------------------------------------


def bisection(x):
    low, high = 0.0 * x, x + 1
    for _ in range(12):
        middle = (low + high) / 2
        if middle * middle > x:
            high = middle
        else:
            low = middle
    return middle * W[0]


def test_samples_beyond_the_limit_run_alone_with_the_same_results():
    data = abs(X[:30]) * 10
    want = vgrad.compile(bisection, W, paths=30)
    program = vgrad.compile(bisection, W, paths=3)
    line = bisection.__code__.co_firstlineno + 4
    with pytest.warns(PathsWarning, match=rf"of 30 samples .* test_paths.py:{line}, in bisection"):
        outputs = program(THETA, data)
    assert same_bits(outputs, want(THETA, data)) and len(paths_of(program)) == 3
    for name in ("value_and_grad", "input_grads", "per_sample_grads"):
        with pytest.warns(PathsWarning, match="where"):
            got = getattr(program, name)(THETA, data)
        for a, b in zip(got, getattr(want, name)(THETA, data)):
            assert close(a, b), name
    with pytest.warns(PathsWarning):
        product = program.hessian_vector_product(THETA, [1.0, 0.0], data)
    assert close(product, want.hessian_vector_product(THETA, [1.0, 0.0], data))
    with pytest.warns(PathsWarning):
        assert program.verify(THETA, data).worst.share <= 1
    with pytest.warns(PathsWarning, match="vgrad.take"):
        vgrad.compile(lambda x: x * int(10 * x), parameters=[], paths=2)([], data)


def test_what_samples_alone_give_has_the_dtype_of_the_program():
    program = vgrad.compile(halved, W, paths=2, dtype=np.float32)
    with pytest.warns(PathsWarning):
        _, gradient = program.value_and_grad(THETA, 100 * abs(X[:50]))
    want = vgrad.compile(halved, W, dtype=np.float32).value_and_grad(THETA, 100 * abs(X[:50]))
    assert gradient.dtype == np.float32 and np.allclose(gradient, want[1], rtol=1e-5)


def test_parameters_of_samples_alone_are_found_too():
    def f(x):
        if x > 1:
            return W[0] * x
        return x if x > 0 else W[1] * x

    program = vgrad.compile(f, paths=1 + 1)
    data = [0.5, 2.0, -1.0]
    with pytest.warns(PathsWarning):
        outputs = program(program.theta(data), data)
    assert program.theta().tolist() == [1.5, -0.7] and close(outputs, [0.5, 3.0, 0.7])


def test_thousands_of_answers_are_sorted_in_no_time():
    """One pass sorts them by their answers; it took minutes where each had one of its own."""
    data = np.arange(20_000) + 0.5
    program = vgrad.compile(lambda x: x if int(x) % 2 else -x, parameters=[], paths=2)
    start = time.perf_counter()
    call = program.prepared([], (data,))
    call._sorted([Work(0, np.arange(len(data)))])
    assert sum(len(samples) for samples, _ in call.lone) == len(data) - 2
    assert time.perf_counter() - start < 20


def test_the_warning_can_be_made_an_error_and_names_a_function_to_decorate():
    def step(x):
        return 2 * x if x < 0.5 else 2 - 2 * x

    def f(x):
        for _ in range(9):
            x = step(x)
        return x

    with pytest.raises(PathsWarning, match="decorate step with @vgrad.merge_branches"):
        vgrad.compile(f, parameters=[], paths=4)([], abs(X))
    with pytest.raises(ValueError, match="paths must be how many"):
        vgrad.compile(f, paths=0)


def test_the_warning_of_a_loop_says_how_to_take_as_many_steps_for_all():
    """A loop has more ways through it than `merge_branches` takes."""

    def halved(x):
        while x > 1:
            x = x / 2
        return x

    with pytest.raises(PathsWarning, match="in halved: use as many steps as it may take"):
        vgrad.compile(lambda x: halved(x), parameters=[], paths=2)([], [1.0, 3.0, 5.0, 9.0])


def test_one_path_refuses_branches():
    with pytest.raises(TraceError, match="without paths=1"):
        vgrad.compile(bent, W, paths=1)(THETA, X)
    with pytest.raises(TraceError, match="vgrad.compile without paths=1, which follows"):
        vgrad.trace(bent, ())


# --- functions that cannot be followed ----------------------------------------------------------


def test_an_exception_reaches_the_caller_and_names_the_sample():
    def careful(x):
        if x < -2:
            raise ArithmeticError("too low")
        return x * W[0]

    program = vgrad.compile(careful, W)
    with pytest.raises(ArithmeticError, match="too low") as error:
        program(THETA, [1.0, 2.0, -3.0])
    assert error.value.__notes__ == ["at sample 2 of the batch"]
    assert program(THETA, [1.0, 2.0]).tolist() == [1.5, 3.0]
    with pytest.raises(ValueError, match="NaN") as error:
        vgrad.compile(lambda x: x * int(x), parameters=[])([], [1.0, np.nan])
    assert error.value.__notes__ == ["at sample 1 of the batch"]


def test_what_is_not_the_same_when_it_is_called_again_is_refused():
    rng, scale = random.Random(1), [1.0]

    def moody(x):
        return x if x > rng.random() else -x

    def drifting(x):
        return x * scale[0] if x * scale[0] > 0 else -x

    def noisy(x):
        return x * rng.random() if x > 0 else -x

    for fn in (moody, noisy):
        with pytest.raises(TraceError, match=r"must ask and compute the same .*test_paths.py"):
            vgrad.compile(fn, parameters=[])([], X)

    def later(x):
        return x * scale[0] if x > 0 else -x * scale[0]

    def listed(x):
        return [x] if (x > 0) * scale[0] else (x,)

    for fn in (drifting, later):
        scale[0] = 1.0
        program = vgrad.compile(fn, parameters=[])
        program([], [1.0])
        scale[0] = 2.0
        with pytest.raises(TraceError, match="must ask and compute the same"):
            program([], [-1.0])
        assert len(paths_of(program)) == 1 and program([], [3.0]) == [3.0]


def test_every_path_must_return_the_same_structure():
    with pytest.raises(TraceError, match="same structure on every path"):
        vgrad.compile(lambda x: x if x > 0 else (x, x), parameters=[])([], X)


# --- merged branches ----------------------------------------------------------------------------


@vgrad.merge_branches
def leaky(x):
    return x if x > 0 else 0.1 * x


@vgrad.merge_branches
def corners(x, y):
    if x > 0:
        if y > 0:
            return [x, y]
        raise ValueError("no such corner")
    assert y < 5, "too high"
    return [x * y, 2.0]


def test_merged_branches_are_where():
    graph = vgrad.trace(leaky, ())
    twin = vgrad.trace(lambda x: vgrad.where(x > 0, x, 0.1 * x), ())
    assert graph.op.tolist() == twin.op.tolist()
    assert graph.parents.tolist() == twin.parents.tolist()
    assert leaky(-2.0) == -0.2 and leaky(Value(-2.0)).data == -0.2 and leaky.__name__ == "leaky"


def test_a_way_that_raises_gives_nan_where_it_is_taken_and_no_gradient_elsewhere():
    program = vgrad.compile(lambda x, y: sum(corners(x, y)), parameters=[])
    arrays = [1.0, 1.0, -1.0, -1.0], [2.0, -2.0, 3.0, -3.0]
    outputs = program([], *arrays)
    assert np.isnan(outputs[1]) and outputs[[0, 2, 3]].tolist() == [3.0, -1.0, 5.0]
    assert program.input_grads([], *arrays)[0].tolist() == [1.0, 0.0, 3.0, -3.0]
    assert not program.paths[(), ()].branch


def test_merging_within_merging_and_within_a_path():
    @vgrad.merge_branches
    def outer(x):
        return leaky(x - 1) if x > 0.5 else leaky(x) * W[0]

    def f(x):
        return outer(x) if x < 1 else outer(-x)

    program = vgrad.compile(f, W)
    want = [_outer(x, 1.5) if x < 1 else _outer(-x, 1.5) for x in X.tolist()]
    assert close(program(THETA, X), want) and len(paths_of(program)) == 2


def _outer(x, w):
    x, factor = (x - 1, 1.0) if x > 0.5 else (x, w)
    return (x if x > 0 else 0.1 * x) * factor


def test_a_condition_that_is_asked_twice_parts_the_ways_once():
    @vgrad.merge_branches
    def twice(x):
        y = x if x > 0 else -x
        return y + 1 if x > 0 else y - 1

    graph = vgrad.trace(twice, ())
    assert (graph.op == vgrad.ops.where.code).sum() == 1
    assert vgrad.compile(graph)([], [2.0, -2.0]).tolist() == [3.0, 1.0]

    @vgrad.merge_branches
    def both(x, y):
        if x:
            return 1.0 if y else 2.0
        return 3.0 if y else 4.0

    program = vgrad.compile(lambda x, y: both(x, y) * x + both(y, x), parameters=[])
    assert program([], [2.0, 2.0, 0.0, 0.0], [3.0, 0.0, 3.0, 0.0]).tolist() == [3.0, 7.0, 2.0, 4.0]


def test_merging_in_a_recording_within_another():
    """The one that began last records the call."""

    def f(x):
        inner = vgrad.trace(lambda y: leaky(y), ())
        return leaky(x) + len(inner)

    for _ in range(5):
        assert vgrad.compile(f, parameters=[])([], [-1.0]) == [6 - 0.1]


def test_merging_follows_parameters_too():
    @vgrad.merge_branches
    def capped(w):
        return w if w < 1 else 1.0

    program = vgrad.compile(lambda x: capped(W[0]) * x, W[:1])
    assert program([3.0], [2.0]) == [2.0] and program([0.5], [2.0]) == [1.0]
    assert program.value_and_grad([3.0], [2.0])[1] == [0.0]


def test_what_cannot_be_merged_is_refused():
    @vgrad.merge_branches
    def long(x):
        while x > 1:
            x = x / 2
        return x

    @vgrad.merge_branches
    def whole(x):
        return x * int(x)

    @vgrad.merge_branches
    def uneven(x):
        return [x] if x > 0 else [x, x]

    for fn, text in ((long, "at most 16 ways"), (whole, "whole number"), (uneven, "one length")):
        with pytest.raises(TraceError, match=text):
            vgrad.compile(fn, parameters=[])([], [3.0])

    with pytest.raises(TypeError, match="takes a function"):
        vgrad.merge_branches(3)

    @vgrad.merge_branches
    def mistaken(x):
        return x if x > 0 else y  # noqa: F821

    with pytest.raises(NameError):
        vgrad.compile(mistaken, parameters=[])([], [3.0])

    @vgrad.merge_branches
    def hopeless(x):
        raise ValueError("yes" if x > 0 else "no")

    with pytest.raises(ValueError, match="yes"):
        vgrad.compile(hopeless, parameters=[])([], [3.0])


def test_a_network_takes_an_activation_with_a_branch():
    def kinked(x):
        return x if x > 0 else 0.1 * x

    model = nn.MLP(2, [5, 4, 1], activation=kinked, rng=random.Random(1))
    twin = nn.MLP(
        2, [5, 4, 1], activation=lambda x: vgrad.where(x > 0, x, 0.1 * x), rng=random.Random(1)
    )
    program, other = (vgrad.compile(m, m.parameters()) for m in (model, twin))
    data = np.random.default_rng(1).normal(size=(50, 2))
    theta = program.theta()
    assert same_bits(program(theta, data), other(theta, data))
    assert not program.paths[((2,),)].branch and "kinked" in repr(model)
    assert close(program(theta, data[:5]), [model(row).data for row in data[:5].tolist()])
    with pytest.raises(ValueError, match="or a function"):
        nn.Neuron(2, activation="swish")


# --- what a sceptic found ------------------------------------------------------------------------


def test_the_error_of_a_question_must_not_be_caught():
    """Which sample it is for would not be known, and so all would take that path."""

    def lenient(x):
        try:
            return x * int(x)
        except ValueError:
            return 0.0 * W[0]

    for data in ([np.nan, 1.5], [1.5, np.nan]):
        with pytest.raises(TraceError, match="must not catch .* NaN .* x == x"):
            vgrad.compile(lenient, W)(THETA, data)


def test_a_program_within_a_function_answers_its_own_questions():
    """With its own theta: not the recording around it."""

    def f(x):
        inner = vgrad.compile(lambda y: W[0] * y if W[0] > 0 else 2 * y, W[:1])
        return x * float(inner([1.0], [3.0])[0]) * (1 if W[0] > 0 else -1)

    for _ in range(10):
        assert vgrad.compile(f, W[:1])([-1.0], [1.0]) == [-3.0]


def test_identity_decides_as_on_the_scalar_engine_whatever_is_a_parameter():
    frozen = Value(2.0, trainable=False)
    for given in (W, W[1:], [*W, frozen]):

        def f(x):
            if x == W[0]:
                return 10.0
            if frozen == 2.0:
                return 0.5
            return x

        theta = [p.data for p in given if p.trainable]
        want = f(Value(1.5, trainable=False))
        assert vgrad.compile(f, given)(theta, [1.5, 1.0]).tolist() == [want, 0.5]


def test_parameters_are_found_in_the_order_of_the_samples():
    many = [Value(float(k)) for k in range(6)]
    program = vgrad.compile(lambda x: many[int(x)] * x)
    assert program.theta([0, 1, 1, 2, 3, 3, 3, 4, 5]).tolist() == [0, 1, 2, 3, 4, 5]


def test_a_merged_function_may_ask_for_the_truth_of_a_parameter_and_change_its_arrays():
    @vgrad.merge_branches
    def changed(x):
        if W[0]:
            x[0] = 2 * x[0]
        else:
            x[1] = 3 * x[1]
        return x[0] + x[1]

    program = vgrad.compile(changed, W[:1])
    assert program([1.0], [[5.0, 7.0]]) == [17.0] and program([0.0], [[5.0, 7.0]]) == [26.0]
    assert vgrad.trace(changed, (2,), parameters=W[:1]).outputs.size == 1


def test_the_warning_is_shown_once_for_each_place(recwarn):
    program = vgrad.compile(lambda x: x * int(x), parameters=[], paths=2)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        for k in range(4):
            program([], np.arange(5.0) + 10 * k)
    assert len(shown) == 1
    assert program([], [1.0]) == [1.0] and not recwarn.list


def twenty_ifs(x):
    y = W[0] * 1.0
    for k in range(20):
        y = y + W[0] * x[k] if x[k] > 0 else y * 0.9 - x[k]
    return y


def twenty_wheres(x):
    y = W[0] * 1.0
    for k in range(20):
        y = vgrad.where(x[k] > 0, y + W[0] * x[k], y * 0.9 - x[k])
    return y


@pytest.mark.long
@pytest.mark.parametrize("patterns", [65, 3000])
def test_a_million_possible_paths_of_which_some_are_met(patterns):
    """Right numbers, a warning of those beyond 64, and memory that does not grow with them."""
    rng = np.random.default_rng(1)
    signs = np.unique(rng.choice([-1.0, 1.0], size=(2 * patterns, 20)), axis=0)[:patterns]
    data = rng.uniform(0.1, 1, (6000, 20)) * rng.permutation(signs)[np.arange(6000) % patterns]
    program = vgrad.compile(twenty_ifs, W[:1])
    alone = (np.arange(6000) % patterns >= 64).sum()
    tracemalloc.start()
    with pytest.warns(PathsWarning, match=f"{alone:,} of 6,000 samples"):
        value, gradient = program.value_and_grad(THETA[:1], data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    want = vgrad.compile(twenty_wheres, W[:1]).value_and_grad(THETA[:1], data)
    assert close(value, want[0]) and close(gradient, want[1])
    assert len(paths_of(program)) == 64 and peak < 60e6
