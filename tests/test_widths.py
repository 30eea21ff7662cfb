"""Batches of any size, which share few widths of tile; and samples that leave a path: what does not
belong to a call weighs nothing in it."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from helpers import same_bits

import vgrad
from vgrad import Value, nn
from vgrad.compiler import FusedSweep
from vgrad.compiler import sweep as sweeps
from vgrad.compiler.bound import Filled
from vgrad.compiler.sweep import FIRST, KEPT_WIDTHS, OFTEN, REGULAR, Rounded, round_up
from vgrad.flat import PlainSweep, Question
from vgrad.program.call import FEW, Call
from vgrad.program.runner import Runner

MODEL = nn.MLP(2, [4, 1], activation="tanh", rng=random.Random(0))
PARAMETERS = MODEL.parameters()
THETA = np.array([p.data for p in PARAMETERS])
CALLS = ["value_and_grad", "aux", "__call__", "input_grads", "per_sample_grads"]
SIZES = [1, 2, 3, 5, 17, 100, 1000]
DATA = np.random.default_rng(0).uniform(0.5, 2.0, size=(1000, 2))
TARGET = np.random.default_rng(1).normal(size=1000)
INF, NAN = np.inf, np.nan


def penalty():
    return 0.1 * sum(p * p for p in PARAMETERS)


def loss(x, y):
    """Where x[0] is 0, a branch that is not taken is infinite."""
    score = MODEL(x)
    guarded = vgrad.where(x[0] > 0, vgrad.log(x[0]) * score, 0.5 * score)
    return (score - y) ** 2 + guarded + penalty(), score


def hinge(x, y):
    """Gradients of rows that are constant at some times."""
    return vgrad.relu(1 - y * MODEL(x)) + PARAMETERS[0] * x[1], y * x[0]


def of_parameters(x, y):
    """An objective that no sample reaches: it counts for every one."""
    return penalty() * vgrad.exp(PARAMETERS[1]), MODEL(x) * y


FUNCTIONS = {"loss": loss, "hinge": hinge, "shared": of_parameters}


def result(program: vgrad.Program, call: str, x: Any, y: Any) -> list[np.ndarray]:
    """All numbers that a call gives, as a list of arrays."""
    if call == "aux":
        (value, outputs), gradient = program.value_and_grad(THETA, x, y, aux=True)
        return [np.array(value), *outputs, gradient]
    found = getattr(program, call)(THETA, x, y)
    return [np.asarray(part) for part in (found if isinstance(found, tuple) else (found,))]


def agree(got, want, rtol=1e-12):
    """As sums in another order do, of numbers that are about 1; nan and inf in the same places."""
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


def sweep_of(program: vgrad.Program) -> Any:
    (runner,) = program.runners.values()
    return runner.quick


def kept(sweep: FusedSweep) -> list[Any]:
    return [bound for bounds in sweep._free.values() for bound in bounds]


# --- batches of any size -------------------------------------------------------------------------


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_sizes_in_any_order_give_what_the_plain_sweep_gives(name, call):
    """Whatever was asked before, and whether or not the size has a plan of its own."""
    compiled = partial(vgrad.compile, FUNCTIONS[name], PARAMETERS)
    fused, plain, narrow = compiled(), compiled(fuse=False), compiled(tile=16)
    order = random.Random(0).sample([*range(2, 40), *SIZES[4:]], 25)
    for n in order:
        x, y = DATA[:n], TARGET[:n]
        want = result(plain, call, x, y)
        agree(result(fused, call, x, y), want)
        agree(result(narrow, call, x, y), want)


@pytest.mark.parametrize("options", [{"fuse": False}, {"dtype": np.float32}], ids=str)
def test_sizes_in_any_order_without_fusion_and_in_float32(options):
    program, plain = (
        vgrad.compile(loss, PARAMETERS, **some) for some in (options, {"fuse": False})
    )
    for n in random.Random(1).sample([*SIZES, *range(6, 12)] * 2, 26):
        for call in CALLS:
            got, want = (result(p, call, DATA[:n], TARGET[:n]) for p in (program, plain))
            agree(got, want, 1e-12 if "fuse" in options else 1e-4)  # float32: 1e3 roundings of 6e-8


@pytest.mark.parametrize("places", [[-1], [1, -1]], ids=str)
@pytest.mark.parametrize("number", [0.0, INF, NAN])
def test_what_fills_a_tile_up_weighs_nothing_where_a_sample_is_not_finite(number, places):
    """A branch not taken is infinite where x[0] is 0; and what is not finite stays so."""
    program, plain = (vgrad.compile(loss, PARAMETERS, fuse=fuse) for fuse in (True, False))
    for n in (8, 9, 10, 11, 13, 35):
        x = DATA[:n].copy()
        x[places, 0] = number
        for call in CALLS:
            got, want = (result(p, call, x, TARGET[:n]) for p in (program, plain))
            agree(got, want)
            assert number or np.isfinite(np.concatenate([*map(np.ravel, got)])).all()
    assert any(isinstance(bound, Filled) for bound in kept(sweep_of(program)))


def test_fillers_have_a_gradient_of_0_and_not_0_times_one():
    """A filler that is a copy of a sample with a huge gradient adds nothing at all."""
    w = Value(1.0)
    program = vgrad.compile(lambda x: w * x, [w], reduce="sum")
    for n in [2, 3, 4, 5, *range(6, 40)]:
        x = np.ones(n)
        x[-1] = 2.0**200
        value, gradient = program.value_and_grad([1.0], x)
        assert value == gradient[0] == 2.0**200
        x[-1] = 2.0
        assert program.value_and_grad([1.0], x)[0] == n + 1


def test_few_widths_are_bound_for_many_sizes():
    """The widths that are rounded up to, up to 1,024, and the regular ones: no more are bound."""
    program = vgrad.compile(hinge, PARAMETERS)
    order = random.Random(2)
    for _ in range(300):
        n = order.randint(1, 1000)
        program.value_and_grad(THETA, DATA[:n], TARGET[:n])
    sweep = sweep_of(program)
    widths = {round_up(n, sweep.least, sweep.tile) for n in range(2, 1001)}
    assert len(widths) == 9
    assert sweep._times_bound <= len(widths) + REGULAR + 1  # and 1 alone
    assert len(kept(sweep)) <= KEPT_WIDTHS


def test_buffers_take_no_more_than_so_much_together(monkeypatch):
    """Those that were not used for longest go first; results are the same."""
    monkeypatch.setattr(sweeps, "KEPT_BYTES", 1 << 20)
    program, plain = (vgrad.compile(hinge, PARAMETERS, fuse=fuse) for fuse in (True, False))
    order = random.Random(3)
    for _ in range(40):
        n = order.randint(1, 1000)
        for call in ("value_and_grad", "__call__"):
            got, want = (result(p, call, DATA[:n], TARGET[:n]) for p in (program, plain))
            agree(got, want)
        used = sum(bound.nbytes for bound in kept(sweep_of(program)))
        assert used <= 1 << 20


def test_a_size_asked_for_often_has_a_plan_of_its_own():
    program = vgrad.compile(hinge, PARAMETERS)
    program.theta(DATA, TARGET)
    sweep = sweep_of(program)
    for n in range(10, 10 + FIRST):
        assert type(sweep.tile_for(n)) is int
    found = [type(sweep.tile_for(n)) for n in [*range(50, 55), 70, 60, 70, 61, 70, 70]]
    assert found == [*[Rounded] * 9, int, int]
    assert OFTEN == 3
    for n in range(100, 130):  # others in between change nothing
        assert type(sweep.tile_for(n)) is Rounded
    assert type(sweep.tile_for(70)) is int


def test_more_regular_sizes_than_there_is_room_for_do_not_push_each_other_out():
    program = vgrad.compile(hinge, PARAMETERS)
    program.theta(DATA, TARGET)
    sweep = sweep_of(program)
    sizes = [101 + k for k in range(REGULAR + 2)]
    for n in sizes * 20:
        sweep.tile_for(n)
    before = set(sweep._regular)
    for n in sizes * 20:
        sweep.tile_for(n)
    assert set(sweep._regular) == before and len(before) == REGULAR
    for n in [700, 800] * 100:  # but those that nobody asks for any more make room
        sweep.tile_for(n)
    assert {700, 800} < set(sweep._regular)


def test_a_regular_size_keeps_its_exact_tiles(monkeypatch):
    """And a tile that divides the batch, if there is one; a rare size has full tiles and a rest."""
    taken = []
    right = FusedSweep._take
    monkeypatch.setattr(
        FusedSweep, "_take", lambda *args: taken.append(int(args[1])) or right(*args)
    )
    program = vgrad.compile(hinge, PARAMETERS, tile=16)
    for n in (100, 90, 30, 5, 95, 96, 97, 5):
        taken.clear()
        program.value_and_grad(THETA, DATA[:n], TARGET[:n])
        want = {
            **{100: [15] * 3 + [15, 10], 90: [15], 30: [15], 5: [5]},
            **{95: [16, 16, 16], 96: [16] * 3, 97: [16, 16, 16, 1]},
        }
        assert set(taken) == set(want[n]), n


@pytest.mark.parametrize("call", CALLS)
def test_executors_give_what_none_gives_where_sizes_are_rare(call):
    with ThreadPoolExecutor(3) as pool:
        programs = [
            vgrad.compile(loss, PARAMETERS, tile=16, executor=executor) for executor in (None, pool)
        ]
        order = random.Random(4)
        for _ in range(12):
            n = order.randint(1, 200)
            x = DATA[:n].copy()
            x[order.randrange(n), 0] = 0.0
            got, want = (result(p, call, x, TARGET[:n]) for p in programs)
            assert all(map(same_bits, got, want))


def test_threads_that_ask_for_sizes_of_their_own():
    program, plain = (vgrad.compile(hinge, PARAMETERS, fuse=fuse) for fuse in (True, False))
    want = {n: result(plain, "value_and_grad", DATA[:n], TARGET[:n]) for n in range(1, 60)}

    def work(seed):
        order = random.Random(seed)
        for _ in range(40):
            n = order.randint(1, 59)
            agree(result(program, "value_and_grad", DATA[:n], TARGET[:n]), want[n])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))


# --- samples that leave a path -------------------------------------------------------------------


def right(x, y):
    """The path of x[0] > 0: infinite or nan for others."""
    score = MODEL(x)
    value = score * vgrad.log(x[0]) + (score - y) ** 2 + penalty()
    return (value, score, vgrad.sqrt(x[0])), x[0] > 0


def right_of_parameters(x, y):
    return (penalty(), vgrad.log(x[0]) * y), x[0] > 0


PATHS = {"batched": right, "shared": right_of_parameters}


def path(fn, parameters=PARAMETERS, shapes=((2,), ()), **options) -> Runner:
    """A path whose only question was answered with True."""
    graph = vgrad.trace(
        lambda *inputs: (lambda found: (found[0], np.array([found[1]])))(fn(*inputs)),
        *shapes,
        parameters=parameters,
    )
    graph = replace(graph, questions=(Question("bool", 1.0, "f.py:1", "f"),))
    return Runner(graph, **options)


def with_leavers(batch: int, left: Any, numbers: Any = (-1.0, 0.0)) -> np.ndarray:
    """Samples of which these leave the path; their objective is nan or infinite."""
    x = DATA[:batch].copy()
    x[left, 0] = np.resize(numbers, x[left, 0].shape)
    return x


LEFT = {
    **{"none": [], "first": [0], "last": [-1], "every other": slice(None, None, 2)},
    **{"all but one": slice(1, None), "all": slice(None), "a tile": slice(16, 32)},
}
OPTIONS: dict[str, dict[str, Any]] = {
    **{"fused": {}, "tiles": {"tile": 16}, "plain": {"fuse": False}},
    **{"plain tiles": {"fuse": False, "tile": 16}, "float32": {"dtype": np.dtype(np.float32)}},
}


@pytest.mark.parametrize("left", LEFT)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", PATHS)
def test_only_samples_that_follow_the_path_count(name, options, left):
    """Values and gradients are to 1e-12 those of a call with them alone, where sums over the batch
    are added in another order; of float32 to 1e-5."""
    runner = path(PATHS[name], **OPTIONS[options])
    rtol = 1e-12 if runner.dtype == np.float64 else 1e-5
    theta = THETA.astype(runner.dtype)
    samples = [with_leavers(50, [])]
    samples += [with_leavers(batch, LEFT[left]) for batch in (50, 3, 51, 52, 53, 54)]
    samples += [with_leavers(51, LEFT[left], (-INF, NAN))]
    for x in samples:
        batch, x = len(x), x.astype(runner.dtype)
        call = Call(runner, theta, [x, TARGET[:batch].astype(runner.dtype)], batch)
        follows = x[:, 0] > 0
        want = 0.0, np.zeros(len(THETA)), None
        if follows.any():
            want = call.some(follows).gradient(batch, aux=True)
        for aux in (True, False):
            value, gradient, outputs = call.gradient(batch, aux)
            agree([value, gradient], want[:2], rtol)
            if aux:
                assert (runner.graph.follows(outputs) == follows).all()
            if aux and follows.any():
                agree([outputs[:, follows]], [want[2]], rtol)


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
def test_a_lone_sample_follows_the_path_or_does_not(fuse):
    runner = path(right, fuse=fuse)
    for x in (np.array([[-1.0, 2.0]]), np.array([[1.0, 2.0]])):
        for aux in (False, True):
            value, gradient, _ = Call(runner, THETA, [x, TARGET[:1]], 1).gradient(1.0, aux)
            assert (value == 0.0 and not gradient.any()) == (x[0, 0] < 0)
            assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize("aux", [True, False])
def test_followers_that_are_doubtful_beside_samples_that_leave(aux, monkeypatch):
    """Of more than FEW samples the plain sweep gets those alone that are not finite and stay."""

    def fn(x, y):
        return (vgrad.log(x[1]) * PARAMETERS[0] + MODEL(x) * vgrad.log(x[0]), y), x[0] > 0

    runner, batch = path(fn), 2 * FEW
    x, y = np.resize(DATA, (batch, 2)), np.resize(TARGET, batch)
    x[::3, 0], x[::7, 1] = -1.0, 0.0
    call, follows = Call(runner, THETA, [x, y], batch), x[:, 0] > 0
    alone, plain = [], PlainSweep.gradient
    monkeypatch.setattr(PlainSweep, "gradient", lambda *a: alone.append(a[3]) or plain(*a))
    value, gradient, outputs = call.gradient(batch, aux)
    assert alone == [np.count_nonzero(follows & (x[:, 1] == 0))]
    twin = replace(runner, fuse=False)
    want = call.some(follows)._replace(runner=twin).gradient(batch, aux)
    agree([value, gradient], want[:2])
    assert np.isfinite(gradient[1:]).all() and not np.isfinite(value)
    if aux:
        agree([outputs[:, follows]], [want[2]])
        assert (runner.graph.follows(outputs) == follows).all()


def test_a_sample_that_leaves_costs_no_other_sweep(monkeypatch):
    """Though sums are nan where it does, none of them is behind an answer."""
    asked, plain = [], PlainSweep.gradient
    monkeypatch.setattr(PlainSweep, "gradient", lambda *a: asked.append(1) or plain(*a))
    for numbers in ((-1.0, 0.0), (-INF, NAN)):
        x = with_leavers(50, [3, 4, 5], numbers)
        Call(path(right), THETA, [x, TARGET[:50]], 50).gradient(1.0)
    assert not asked


def test_leavers_at_a_singularity_of_what_is_shared():
    """Without a follower there is no gradient that could meet it, and not 0 times inf."""
    w = Value(0.0)
    for fuse in (True, False):
        runner = path(lambda x: (x * vgrad.sqrt(w), x > 0), [w], [()], fuse=fuse)
        x = np.array([-1.0, -2.0, -3.0])
        value, gradient, _ = Call(runner, np.array([0.0]), [x], 3).gradient(3.0, True)
        assert value == 0.0 and gradient.tolist() == [0.0]


def test_few_widths_are_bound_however_many_leave():
    """Those of the batch, and few of those who stay."""
    runner = path(right)
    for left in range(100):
        x = with_leavers(100, slice(0, left))
        Call(runner, THETA, [x, TARGET[:100]], 100).gradient(1.0, True)
    assert 3 < runner.quick._times_bound <= 7  # 64, 96, 128 and 100; 100 and 1 exactly


def test_no_tile_runs_twice_where_all_follow(monkeypatch):
    calls = []
    right_one = FusedSweep._of_some
    monkeypatch.setattr(FusedSweep, "_of_some", lambda *a: calls.append(a[3]) or right_one(*a))
    runner = path(right, tile=16)
    Call(runner, THETA, [DATA[:100], TARGET[:100]], 100).gradient(1.0, True)
    assert not calls
    x = with_leavers(100, [20, 21])
    Call(runner, THETA, [x, TARGET[:100]], 100).gradient(1.0, True)
    assert calls == [14]  # of one tile of 16, all but two


def test_executors_give_what_none_gives_where_samples_leave_a_path():
    with ThreadPoolExecutor(3) as pool:
        order, runners = random.Random(5), [path(right, tile=16) for _ in range(2)]
        for _ in range(20):
            n = order.randint(1, 200)
            x = with_leavers(n, order.sample(range(n), n // 3))
            found = [
                Call(runner, THETA, [x, TARGET[:n]], n, executor).gradient(1.0, True)
                for runner, executor in zip(runners, (None, pool))
            ]
            assert all(map(same_bits, *found))
