"""What happens at the limits: too little memory, an interrupted call, a worker that dies."""

from __future__ import annotations

import _thread
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

import numpy as np
import pytest
from helpers import mostly_fused, same_bits

import vgrad
from vgrad import Graph, OutOfMemoryError, VgradError, WorkerError, nn, ops
from vgrad.flat import memory, recorded

MODEL = nn.MLP(3, [8, 8, 1], activation="tanh", rng=random.Random(0))
X = np.random.default_rng(0).normal(size=(4000, 3))


def loss(x):
    return (MODEL(x) - x[0]) ** 2


MODEL_THETA = np.array([p.data for p in MODEL.parameters()])


def compiled(**options):
    return vgrad.compile(loss, MODEL.parameters(), **options)


# --- memory --------------------------------------------------------------------------------------

MEGABYTE = 1_000_000
CALLS = ["__call__", "value_and_grad", "input_grads", "per_sample_grads", "hessian_vector_product"]


@pytest.fixture
def small_machine(monkeypatch):
    """A machine of forty megabytes, of which a call may take thirty."""
    monkeypatch.setattr(memory, "machine_memory", lambda: 40 * MEGABYTE)


def call(program, name: str, data: np.ndarray):
    theta = program.theta()
    extra = [theta] if name == "hessian_vector_product" else []
    return getattr(program, name)(theta, *extra, data)


@mostly_fused
@pytest.mark.parametrize("name", CALLS)
def test_a_tile_that_is_too_large_is_refused_with_one_that_fits(name, fuse, small_machine):
    data = np.resize(X, (7_500 if name == "per_sample_grads" else 160_000, 3))
    with pytest.raises(
        OutOfMemoryError, match=r"no more than 75% .*, 30 MB \(got tiles of"
    ) as error:
        call(compiled(tile=len(data), fuse=fuse), name, data)
    assert isinstance(error.value, MemoryError)
    tile = int(str(error.value).split("compile with tile=")[1].split(",")[0])
    call(compiled(tile=tile, fuse=fuse), name, data)
    with pytest.raises(OutOfMemoryError):
        call(compiled(tile=2 * tile, fuse=fuse), name, data[: 2 * tile])


def test_results_that_are_too_large_are_refused_with_a_number_of_samples(small_machine):
    program = compiled()
    data = np.resize(X, (40_000, 3))
    with pytest.raises(OutOfMemoryError, match=r"results for 40,000 samples.*; call it with") as e:
        program.per_sample_grads(program.theta(), data)
    fits = int(str(e.value).split("call it with ")[1].split(" samples")[0].replace(",", ""))
    assert len(program.per_sample_grads(program.theta(), data[:fits])) == fits


def test_a_graph_too_large_for_a_single_sample(small_machine):
    program = vgrad.compile(lambda x: sum((x * k).tanh() for k in range(1000)), [], tile=1)
    memory_of_one = 2 * 8 * 2000
    assert program([], [1.0]).shape == (1,)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "machine_memory", lambda: memory_of_one)
        with pytest.raises(OutOfMemoryError, match="not even tile=1 would fit"):
            program.value_and_grad([], [1.0])


def test_nothing_is_allocated_before_the_refusal_and_the_program_goes_on(small_machine):
    import tracemalloc

    program = compiled(tile=1_000_000)
    theta = program.theta()
    data = np.broadcast_to(X[:1], (1_000_000, 3))
    program.value_and_grad(theta, X[:5])
    tracemalloc.start()
    with pytest.raises(OutOfMemoryError):
        program.value_and_grad(theta, data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MEGABYTE
    assert same_bits(program(theta, X[:5]), compiled()(theta, X[:5]))


def test_the_forecast_is_what_is_taken(monkeypatch):
    """What NumPy says it has allocated in the call, to a tenth."""
    import tracemalloc

    data = np.resize(X, (60_000, 3))
    monkeypatch.setattr(memory, "machine_memory", lambda: MEGABYTE)
    with pytest.raises(OutOfMemoryError) as error:
        call(compiled(tile=len(data)), "value_and_grad", data)
    forecast = float(str(error.value).split("takes about ")[1].split(" MB")[0]) * MEGABYTE
    monkeypatch.undo()
    program = compiled(tile=len(data))
    program.value_and_grad(program.theta(), data[:10])
    tracemalloc.start()
    program.value_and_grad(program.theta(), data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak == pytest.approx(forecast, rel=0.1)


def test_workers_and_results_count(small_machine):
    data = np.resize(X, (160_000, 3))
    compiled(tile=40_000).value_and_grad(MODEL_THETA, data)
    with ThreadPoolExecutor(4) as pool:
        program = compiled(tile=40_000, executor=pool)
        with pytest.raises(OutOfMemoryError, match="tiles of 40,000 samples for 2 workers"):
            program.value_and_grad(MODEL_THETA, data)
    data = data[:85_000]
    outputs = vgrad.compile(lambda x: np.sin([x[0] * k for k in range(11)]), [], tile=85_000)
    with pytest.raises(OutOfMemoryError, match="compile with tile="):
        outputs([], data)  # 15 MB of results and copies, and 16 of buffers


def test_inputs_that_must_be_converted_count(small_machine):
    few = np.ones((10, 3), np.int8)
    many = np.broadcast_to(few[:1], (2_000_000, 3))
    program = compiled()
    program.value_and_grad(MODEL_THETA, few)
    with pytest.raises(
        OutOfMemoryError, match=r"array 0 as float64 for 2,000,000 samples.*call it"
    ):
        program.value_and_grad(MODEL_THETA, many)


def test_large_buffers_do_not_pile_up():
    program = compiled(tile=1_000_000)
    for size in (120_000, 120_001, 120_002):
        program.value_and_grad(MODEL_THETA, np.resize(X, (size, 3)))
    (runner,) = program.runners.values()
    kept = [bound for bounds in runner.quick._free.values() for bound in bounds]
    assert len(kept) == 1 and kept[0].nbytes > 32 * MEGABYTE


def test_rules_of_numbers_that_are_not_used_again_do_not_pile_up():
    """An exponent that is another one at every step, as that of a schedule may be."""
    gc.collect()
    before = sum(type(x) is Graph for x in gc.get_objects())
    for k in range(5_000):
        recorded(ops.pow, ops.pow.vjp[0], 1 + k / 5_000, leading=2)
    assert sum(type(x) is Graph for x in gc.get_objects()) - before < 4_500


def test_how_much_memory_there_is(tmp_path, monkeypatch):
    total = memory.machine_memory()
    assert total is None or 10 * MEGABYTE < total < 1e16
    assert memory.in_bytes(1.5e9) == "1.5 GB" and memory.in_bytes(12) == "12 bytes"


# --- interrupts ----------------------------------------------------------------------------------


def interrupt_after(seconds: float, caught: threading.Event) -> None:
    """Like Ctrl-C, again and again until somebody says that it has come."""

    def work():
        time.sleep(seconds)
        while not caught.is_set():
            _thread.interrupt_main()
            caught.wait(0.5)

    threading.Thread(target=work, daemon=True).start()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_interrupted_call_leaves_everything_usable(workers, request):
    """Ctrl-C in the middle of many calls on a large batch, at several moments."""
    pool = ThreadPoolExecutor(workers) if workers else None
    program = compiled(tile=16, executor=pool)
    theta = program.theta()
    data = np.resize(X, (40_000, 3))
    want = program.value_and_grad(theta, X)
    before = theta.copy()
    gc.collect()
    gc.disable()  # an interrupt in a finaliser would be lost, whoever's that is
    request.addfinalizer(gc.enable)
    for k in range(5):
        caught = threading.Event()
        try:
            interrupt_after(0.01 * (k + 1), caught)
            for _ in range(1000):  # minutes
                program.value_and_grad(theta, data)
        except KeyboardInterrupt:
            caught.set()
        assert caught.is_set()
        assert (theta == before).all() and (program.theta() == before).all()
        value, grad = program.value_and_grad(theta, X)
        assert value == want[0] and same_bits(grad, want[1])
    if pool:
        pool.shutdown()


def test_an_interrupted_training_goes_on_where_it_was(tmp_path):
    """A real SIGINT, to a real process, while it trains; then it says what it has left."""
    script = tmp_path / "train.py"
    script.write_text(
        "import random, sys, numpy as np, vgrad\n"
        "from vgrad import nn, optim\n"
        "model = nn.MLP(3, [8, 1], rng=random.Random(0))\n"
        "program = vgrad.compile(lambda x: (model(x) - x[0]) ** 2, model.parameters())\n"
        "theta, X = program.theta(), np.random.default_rng(0).normal(size=(50_000, 3))\n"
        "adam = optim.Adam(0.01)\n"
        "first, _ = program.value_and_grad(theta, X)\n"
        "try:\n"
        "    print('training', flush=True)\n"
        "    while True:\n"
        "        adam.step(theta, program.value_and_grad(theta, X)[1])\n"
        "except KeyboardInterrupt:\n"
        "    program.assign(theta)\n"
        "    last, grad = program.value_and_grad(program.theta(), X)\n"
        "    adam.step(theta, grad)\n"
        "    print(adam.steps > 1, last < first, np.isfinite(theta).all())\n"
    )
    process = subprocess.Popen([sys.executable, script], stdout=-1, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "training\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert out == "True True True\n" and process.returncode == 0


# --- workers -------------------------------------------------------------------------------------


def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)


class Deadly(ProcessPoolExecutor):
    """The third task kills the worker that has it."""

    given = 0

    def submit(self, fn, /, *args, **options):
        self.given += 1
        return super().submit(kill if self.given == 3 else fn, *args, **options)


def test_a_worker_that_dies_is_a_clear_error_and_nothing_hangs():
    with Deadly(2, get_context("spawn")) as pool:
        program = compiled(tile=100, executor=pool)
        theta = program.theta()
        before = theta.copy()
        for _ in range(2):  # the pool stays broken
            with pytest.raises(
                WorkerError, match="must live until .*compile again with a new"
            ) as e:
                program.value_and_grad(theta, X)
            assert isinstance(e.value, BrokenProcessPool.__mro__[1]) and isinstance(
                e.value, VgradError
            )
        assert (theta == before).all()
        value, _ = program.value_and_grad(theta, X[:50])  # one shard, which runs right here
        assert value == compiled().value_and_grad(theta, X[:50])[0]


def test_a_task_that_somebody_cancels_is_a_clear_error():
    class Cancelling(ThreadPoolExecutor):
        def submit(self, fn, /, *args, **options):
            future = Future()
            future.cancel()
            return future

    with Cancelling(1) as pool, pytest.raises(WorkerError, match="got CancelledError"):
        compiled(tile=100, executor=pool).value_and_grad(MODEL_THETA, X)


def test_tasks_that_wait_are_cancelled_after_an_error():
    ran = []

    class Failing(ThreadPoolExecutor):
        def submit(self, fn, /, *args, **options):
            def work():
                ran.append(1)
                time.sleep(0.02)
                raise ZeroDivisionError

            return super().submit(work)

    with Failing(1) as pool:
        program = compiled(tile=10, executor=pool)
        with pytest.raises(ZeroDivisionError):
            program.value_and_grad(program.theta(), X)
    assert len(ran) < 20
