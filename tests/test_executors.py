"""Programs on threads, in other processes and on a cluster; and the pickles that get them there."""

from __future__ import annotations

import copy
import pickle
import random
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_all_start_methods, get_context

import numpy as np
import pytest
from helpers import same_bits

import vgrad
from vgrad import ShapeError, Value, nn
from vgrad.compiler import compile_plan
from vgrad.program import runner

MODEL = nn.MLP(3, [5, 1], activation="tanh", rng=random.Random(0))
X = np.random.default_rng(0).normal(size=(333, 3))


def loss(x):
    score = MODEL(x)
    return (score - x[0]) ** 2 + 0.1 * sum(p * p for p in MODEL.parameters()), score


def results(executor: Executor | None, fuse: bool = True) -> list[np.ndarray]:
    """Every kind of call, over more shards than there are workers."""
    program = vgrad.compile(loss, MODEL.parameters(), fuse=fuse, tile=16, executor=executor)
    theta = program.theta()
    (value, outputs), grad = program.value_and_grad(theta, X, aux=True)
    return [
        *(np.array(value), *outputs, grad, *program(theta, X)),
        *(*program.input_grads(theta, X), program.per_sample_grads(theta, X)),
    ]


@contextmanager
def dask_cluster() -> Iterator[Executor]:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as it,
        distributed.Client(it) as client,
    ):
        yield client.get_executor()


EXECUTORS = {
    "threads": lambda: ThreadPoolExecutor(3),
    # spawned and not forked, as everywhere but on Linux: nothing is inherited, all is sent
    "processes": lambda: ProcessPoolExecutor(2, get_context("spawn")),
    "dask": dask_cluster,
}


@pytest.mark.parametrize("name", EXECUTORS)
def test_executors_give_what_none_gives_to_the_last_bit(name):
    with EXECUTORS[name]() as executor:
        for fuse in (True, False) if name == "threads" else (True,):
            for got, want in zip(results(executor, fuse), results(None, fuse)):
                assert same_bits(got, want)


@pytest.mark.parametrize("fuse", [True, False])
def test_a_gradient_that_is_not_finite_is_the_same_on_executors(fuse):
    """At a singularity of what is shared, where gradients must meet before they go through it."""
    w = Value(0.0)
    data = np.repeat([1.0, -1.0], 64)
    with ThreadPoolExecutor(2) as executor:
        for chosen in (None, executor):
            program = vgrad.compile(
                lambda x: x * vgrad.sqrt(w), [w], tile=16, executor=chosen, fuse=fuse
            )
            assert program.value_and_grad([0.0], data)[1].tolist() == [0.0]


def test_more_tasks_than_an_executor_is_given_at_once():
    results = []
    with ThreadPoolExecutor(2) as pool:
        for executor in (None, pool):
            program = vgrad.compile(loss, MODEL.parameters(), tile=2, executor=executor)
            results.append(program.value_and_grad(program.theta(), X))
    assert len(X) / 16 > 2 * vgrad.program.workers.AHEAD  # tasks of four shards
    assert results[0][0] == results[1][0] and same_bits(results[0][1], results[1][1])


def test_a_program_that_is_copied_is_the_same_program():
    program = vgrad.compile(loss, MODEL.parameters())
    assert copy.copy(program) is program


def test_a_pickled_program_computes_the_same():
    program = vgrad.compile(loss, MODEL.parameters())
    theta = program.theta(X)
    twin = pickle.loads(pickle.dumps(program))
    assert same_bits(twin.theta(), theta)
    for data in (X, X[:7]):
        for got, want in zip(
            twin.value_and_grad(theta, data, aux=True),
            program.value_and_grad(theta, data, aux=True),
        ):
            assert str(got) == str(want)
    again = pickle.loads(pickle.dumps(twin))
    assert same_bits(again.per_sample_grads(theta, X), program.per_sample_grads(theta, X))


def test_a_pickled_program_has_left_its_function_behind():
    program = vgrad.compile(lambda x: np.sum(x) * MODEL.parameters()[0], MODEL.parameters()[:1])
    with pytest.raises(TypeError, match="must have been called, or given arrays"):
        pickle.dumps(program)
    program.theta([[1.0, 2.0]])
    twin = pickle.loads(pickle.dumps(program))
    assert twin([2.0], [[1.0, 2.0]]).tolist() == [6.0]
    with pytest.raises(ShapeError, match=r"shapes that this program had seen .* \(\(2,\),\) \(got"):
        twin([2.0], [1.0])
    with pytest.raises(ValueError, match="must have Values to assign to"):
        twin.assign([1.0])
    copied = pickle.loads(pickle.dumps(vgrad.compile(vgrad.capture(Value(2.0) * 3))))
    assert copied.value_and_grad(copied.theta()) == (6.0, pytest.approx([3.0]))


def test_an_error_in_a_worker_is_raised_and_the_program_goes_on():
    class Broken(ThreadPoolExecutor):
        def submit(self, *args, **options):
            return super().submit(lambda: 1 / 0)

    with Broken(1) as executor:
        program = vgrad.compile(loss, MODEL.parameters(), tile=16, executor=executor)
        theta = program.theta()
        with pytest.raises(ZeroDivisionError):
            program.value_and_grad(theta, X)
        value, _ = program.value_and_grad(theta, X[:10])  # one shard, which runs right here
        assert value == vgrad.compile(loss, MODEL.parameters()).value_and_grad(theta, X[:10])[0]


@contextmanager
def busy_thread(where: str, monkeypatch) -> Iterator[vgrad.Program]:
    """A program that another thread is recording, or planning, until the block ends."""
    inside, done = threading.Event(), threading.Event()

    def wait() -> None:
        if threading.current_thread().name == "busy":
            inside.set()
            done.wait(20)

    def waiting(x):
        if where == "recording":
            wait()
        return loss(x)

    def planned(graph, **options):
        if where == "planning":
            wait()
        return compile_plan(graph, **options)

    monkeypatch.setattr(runner, "compile_plan", planned)
    program = vgrad.compile(waiting, tile=16)
    thread = threading.Thread(target=program.value_and_grad, args=(THETA, X), name="busy")
    thread.start()
    try:
        assert inside.wait(10)
        yield program
    finally:
        done.set()
        thread.join(10)


THETA = np.array([p.data for p in MODEL.parameters()])
forks = pytest.mark.skipif("fork" not in get_all_start_methods(), reason="no fork here")
warned = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@forks
@warned
@pytest.mark.parametrize("where", ["recording", "planning"])
def test_a_process_forked_while_another_thread_is_busy(where, monkeypatch):
    """It has the program as it was, without the thread, and waits for nobody."""
    want = vgrad.compile(loss).value_and_grad(THETA, X[:5])[0]
    context = get_context("fork")
    with busy_thread(where, monkeypatch) as program:
        receiver, sender = context.Pipe(False)
        child = context.Process(
            target=lambda: sender.send(program.value_and_grad(THETA, X[:5])[0]), daemon=True
        )
        child.start()
        arrived = receiver.poll(20)
        child.kill()
        child.join()
        assert arrived and receiver.recv() == want


@forks
@warned
@pytest.mark.parametrize("where", ["recording", "planning"])
def test_workers_forked_while_another_thread_is_busy(where, monkeypatch):
    want = results(None)[:1]
    with busy_thread(where, monkeypatch), ProcessPoolExecutor(2, get_context("fork")) as pool:
        program = vgrad.compile(loss, MODEL.parameters(), tile=16, executor=pool)
        with ThreadPoolExecutor(1) as caller:
            try:
                value, _ = caller.submit(program.value_and_grad, THETA, X).result(20)
            finally:
                for worker in pool._processes.values():
                    worker.kill()
    assert same_bits(value, want[0])


def test_bad_options_are_refused():
    for options, kind, message in (
        ({"tile": 0}, ValueError, "tile must be a number of samples, 1 or more .got 0"),
        ({"tile": 2.5}, ValueError, "got 2.5"),
        ({"executor": 4}, TypeError, "executor must have a method submit.* .got 4"),
    ):
        with pytest.raises(kind, match=message):
            vgrad.compile(loss, **options)
