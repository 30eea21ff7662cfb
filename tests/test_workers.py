"""What travels to workers, shared memory, placed data, and workers that are lost or interrupted."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path

import numpy as np
import pytest
from helpers import same_bits

import vgrad
from vgrad import WorkerError, nn
from vgrad.program import mapped, runner, workers
from vgrad.program.mapped import Block, Mapped
from vgrad.program.work import BLOCKS, Work, total_of

MODEL = nn.MLP(3, [5, 1], activation="tanh", rng=random.Random(0))
THETA = np.array([p.data for p in MODEL.parameters()])
X = np.random.default_rng(0).normal(size=(3000, 3))
Y = np.random.default_rng(1).normal(size=3000)

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
on_linux = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="elsewhere it is a file")


def loss(x, y):
    score = MODEL(x)
    return (score - y) ** 2 + 0.1 * sum(p * p for p in MODEL.parameters()), score


def compiled(**options):
    return vgrad.compile(loss, MODEL.parameters(), **{"tile": 16, **options})


def results(program, *arrays):
    (value, outputs), gradient = program.value_and_grad(THETA, *arrays, aux=True)
    each = program.per_sample_grads(THETA, *arrays)
    return [np.array(value), *outputs, gradient, *program.input_grads(THETA, *arrays), each]


@pytest.fixture(scope="module")
def pool():
    with ProcessPoolExecutor(2) as pool:
        yield pool


# --- the tree ------------------------------------------------------------------------------------


def test_sums_are_the_same_to_the_bit_however_many_shards_a_task_takes():
    rng = np.random.default_rng(2)
    for n in [*range(1, 40), 255, 256, 257]:
        shards = [(float(x), np.exp(3 * rng.normal(size=4)), None) for x in rng.normal(size=n)]
        want = total_of(shards, None)
        for size in (2, 4, 8, 16):
            blocks = [total_of(shards[k : k + size], None) for k in range(0, n, size)]
            value, gradient, _ = total_of(blocks, None)
            assert value == want[0] and same_bits(gradient, want[1])


def test_the_tree_is_binary():
    """Of seven: each is in the sum once, at the depth that the picture in work.py shows."""

    class Term(str):
        def __add__(self, other):
            return Term(f"({self}{other})")

    terms = [(0.0, Term(k), None) for k in range(7)]
    assert total_of(terms, None)[1] == "(((01)(23))((45)6))"


def test_blocks_are_a_power_of_two_of_shards_and_enough_for_all_workers():
    work = Work("quick", "gradient", 8, 16)
    for batch in (17, 100, 1000, 12345):
        for n in (1, 2, 5):
            blocks = work.blocks(batch, n, batch)
            sizes = [x.stop - x.start for x in blocks]
            assert sum(sizes) == batch and blocks[0].start == 0
            assert {*sizes[:-1]} <= {16 << k for k in range(20)} and sizes[-1] <= max(sizes)
            assert len(blocks) <= 2 * BLOCKS * n
            assert len(blocks) >= min(BLOCKS * n, -(-batch // 16))
    assert len(work.blocks(12345, 1, 100)) == -(-12345 // 64)


# --- what travels --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", get_all_start_methods())
def test_processes_give_what_none_gives_to_the_last_bit(method):
    with ProcessPoolExecutor(2, get_context(method)) as pool:
        program = compiled(executor=pool)
        want = results(compiled(), X, Y)
        assert all(map(same_bits, results(program, X, Y), want))
        with program.place(X, Y) as data:
            assert all(map(same_bits, results(program, data), want))


def test_a_program_travels_to_each_worker_once():
    sent = []

    class Counting(ProcessPoolExecutor):
        def submit(self, fn, /, *args, **options):
            if args and args[0].whole:
                sent.append(1)
            return super().submit(fn, *args, **options)

    with Counting(2) as pool:
        program = compiled(executor=pool)
        want = compiled().value_and_grad(THETA, X, Y)
        for _ in range(20):
            value, gradient = program.value_and_grad(THETA, X, Y)
            assert value == want[0] and same_bits(gradient, want[1])
        assert 1 <= len(sent) <= 2 * workers.AHEAD * 2
        before = len(sent)
        twin = compiled(executor=pool)  # another program of the same hash
        twin.value_and_grad(THETA, X, Y)
        assert len(sent) <= before + 1


def test_a_worker_keeps_the_last_programs_that_it_met(monkeypatch):
    runners = [vgrad.compile(lambda x, k=k: x * float(k), []) for k in range(runner.KNOWN + 1)]
    for program in runners:
        program([], [1.0])
    made = [next(iter(program.runners.values())) for program in runners]
    monkeypatch.setattr(runner, "_known", runner.OrderedDict())
    assert runner.known(made[0].key) is None
    first = [runner.known(x.key, x._pickled) for x in made[:-1]]
    assert runner.known(made[0].key) is first[0]  # used again, so another one is the oldest
    runner.known(made[-1].key, made[-1]._pickled)
    assert runner.known(made[0].key) is first[0] and runner.known(made[1].key) is None


def test_threads_are_given_the_arrays_themselves():
    given = []

    class Watching(ThreadPoolExecutor):
        def submit(self, fn, /, *args, **options):
            given.extend(args[3])
            return super().submit(fn, *args, **options)

    with Watching(2) as pool:
        compiled(executor=pool).value_and_grad(THETA, X, Y)
    assert given and all(np.shares_memory(x, X) or np.shares_memory(x, Y) for x in given)


class Remote:
    """An executor that pickles what it is given, as MPI's does, and says nothing of its workers."""

    def __init__(self):
        self.sizes = []

    def submit(self, fn, /, *args):
        import pickle

        pickled = pickle.dumps((fn, args))
        self.sizes.append(len(pickled))
        fn, args = pickle.loads(pickled)
        future = Future()
        future.set_result(fn(*args))
        return future


def test_other_executors_are_given_each_task_with_its_samples(monkeypatch):
    monkeypatch.setattr(runner, "_known", runner.OrderedDict())
    remote = Remote()
    program = compiled(executor=remote)
    value, gradient = program.value_and_grad(THETA, X, Y)
    want = compiled().value_and_grad(THETA, X, Y)
    assert value == want[0] and same_bits(gradient, want[1])
    whole = [size for size in remote.sizes if size > 4000]
    assert len(whole) <= len(remote.sizes) / 2  # the program went along where it was asked for
    assert len(remote.sizes) > 90 and min(remote.sizes) < 3000


# --- shared memory -------------------------------------------------------------------------------


def open_files():
    paths = [*Path("/proc/self/fd").iterdir()]
    return [path for path in paths if path.exists() and "memfd:vgrad" in os.readlink(path)]


def mappings():
    return Path("/proc/self/maps").read_text().count("memfd:vgrad")


@on_linux
def test_memory_is_given_back_after_a_call_and_with_placed_data(pool):
    program = compiled(executor=pool)
    program.value_and_grad(THETA, X, Y)
    assert not open_files() and not mappings()
    data = program.place(X, Y)
    before = open_files()
    assert before
    program.value_and_grad(THETA, data)
    assert open_files() == before
    del data
    gc.collect()
    assert not open_files() and not mappings()
    with program.place(X, Y) as data:
        assert open_files()
    assert repr(data) == "Placed(closed)" and not open_files() and not mappings()


@on_linux
def test_a_forked_worker_inherits_no_memory():
    with ProcessPoolExecutor(2, get_context("fork")) as pool:
        program = compiled(executor=pool)
        data = program.place(X, Y)
        program.value_and_grad(THETA, X, Y)
        for pid in pool._processes:
            assert "memfd:vgrad" not in Path(f"/proc/{pid}/maps").read_text()
        data.close()


def test_rows_of_a_block_are_found_and_gone_when_it_is_closed():
    whole = np.arange(24.0).reshape(6, 4)
    block = Block([whole, np.broadcast_to([1.0, 2.0], (5, 2)), whole[:, 1]])
    first, second, third = map(Mapped.of, block.arrays)
    assert same_bits(first.array(), whole) and same_bits(first[2:4].array(), whole[2:4])
    assert same_bits(Mapped.of(block.arrays[0][3:]).array(), whole[3:])
    assert second[1:4].array().tolist() == [[1.0, 2.0]] * 3
    assert same_bits(third[1:3].array(), whole[1:3, 1])
    assert Mapped.of(block.arrays[0][:, 1]) is None and Mapped.of(whole) is None
    assert Mapped.of(block.arrays[0][:0]) is None
    block.close()
    another = Block([whole])  # perhaps by the same name
    with pytest.raises(FileNotFoundError):
        first.array()
    another.close()


def test_where_there_is_no_nameless_memory_a_file_is_removed(monkeypatch):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    block = Block([X])
    place = Mapped.of(block.arrays[0])
    assert Path(place.path).exists() and same_bits(place[5:9].array(), X[5:9])
    block.close()
    assert not Path(place.path).exists()


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int16])
def test_a_mapped_file_is_read_where_it_lies(dtype, pool, tmp_path, monkeypatch):
    monkeypatch.setattr("vgrad.program.arrays.LARGE", 1000)
    numbers = (100 * X).astype(dtype)
    numbers.tofile(tmp_path / "x")
    x = np.memmap(tmp_path / "x", dtype, "r", 0, X.shape)
    copied = []
    copy = mapped._copied
    monkeypatch.setattr(mapped, "_copied", lambda x, *a: copied.append(x) or copy(x, *a))
    want = results(compiled(), numbers.astype(float), Y)
    for program in (compiled(), compiled(executor=pool), compiled(tile=None)):
        batch, _ = program._batch((x, Y), {})
        assert np.shares_memory(batch.rows[0], x)
        if program._options.tile:
            assert all(map(same_bits, results(program, x[:], Y), want))
        else:
            program.value_and_grad(THETA, x, Y)
    assert copied and not any(np.shares_memory(one, x) for one in copied)


def test_placed_data_is_not_copied_again(pool, monkeypatch):
    program, copied = compiled(executor=pool), []
    data = program.place(X, Y)
    copy = mapped._copied
    monkeypatch.setattr(mapped, "_copied", lambda x, *a: copied.append(x) or copy(x, *a))
    program.value_and_grad(THETA, data)
    assert [x.shape for x in copied] == [THETA.shape]


@on_linux
def test_a_file_that_was_replaced_is_not_read(tmp_path):
    path = tmp_path / "x"
    X.tofile(path)
    x = np.memmap(path, np.float64, "r", 0, X.shape)
    assert Mapped.of(x) is not None
    (2 * X).tofile(tmp_path / "new")
    os.replace(tmp_path / "new", path)
    assert Mapped.of(x) is None
    os.unlink(path)
    assert Mapped.of(x) is None


def test_a_copy_on_write_is_not_read_from_its_file(tmp_path, pool):
    X.tofile(tmp_path / "x")
    x = np.memmap(tmp_path / "x", np.float64, "c", 0, X.shape)
    x[:] = 0.0
    program = compiled(executor=pool)
    assert program.value_and_grad(THETA, x, Y)[0] == compiled().value_and_grad(THETA, 0 * X, Y)[0]


# --- placed data ---------------------------------------------------------------------------------


def test_placed_data_says_what_it_is_and_what_it_must_be(pool):
    program = compiled(executor=pool)
    data = program.place(X, y=Y)
    assert repr(data) == "Placed((3000, 3), (3000,), float64, in shared memory)"
    for arrays, named in (((data, Y), {}), ((X,), {"y": data}), ((data,), {"y": Y})):
        with pytest.raises(TypeError, match="the only argument after theta"):
            program(THETA, *arrays, **named)
    with pytest.raises(ValueError, match="same dtype and in_axes .got data of dtype float64"):
        compiled(dtype=np.float32)(THETA, data)
    want = program.value_and_grad(THETA, X, Y)
    for executor in (None, pool):
        assert compiled(executor=executor).value_and_grad(THETA, data)[0] == want[0]
    data.close()
    data.close()
    assert repr(data) == "Placed(closed)"
    with pytest.raises(ValueError, match="must not be closed yet .got data whose memory"):
        program(THETA, data)


def test_every_call_takes_placed_data(pool):
    program = compiled(executor=pool)
    data = program.place(X[:200], Y[:200])
    for name, options in (("hessian", ()), ("jvp", (THETA,)), ("input_hessian", ())):
        call = getattr(program, name)
        got, want = call(THETA, *options, data), call(THETA, *options, X[:200], Y[:200])
        for a, b in zip(got, want):
            assert all(map(same_bits, a, b)) if isinstance(a, tuple) else same_bits(a, b)


def test_what_all_samples_share_is_placed_once(pool):
    program = vgrad.compile(
        lambda x, c: MODEL(x) * c[0], MODEL.parameters(), tile=16, in_axes=(0, None), executor=pool
    )
    with program.place(X, [2.0, 1.0]) as data:
        assert repr(data).startswith("Placed((3000, 3), (2,)")
        assert same_bits(program(THETA, data), program(THETA, X, [2.0, 1.0]))
        got, want = (program.input_grads(THETA, *a) for a in ((data,), (X, [2.0, 1.0])))
        assert all(map(same_bits, got, want))


# --- workers that are lost -----------------------------------------------------------------------


def slow_pool():
    """A pool of two, and a program and data for which a call takes a second or more."""
    n = 1_000_000
    return np.resize(X, (n, 3)), np.resize(Y, n)


def test_a_worker_that_is_killed_in_a_call():
    arrays = slow_pool()
    with ProcessPoolExecutor(2) as pool:
        program = compiled(executor=pool)
        program.value_and_grad(THETA, X, Y)
        killer = threading.Timer(0.1, os.kill, (next(iter(pool._processes)), signal.SIGKILL))
        killer.start()
        with pytest.raises(WorkerError, match="must live until the call returns"):
            while True:
                program.value_and_grad(THETA, *arrays)
        killer.join()
    assert compiled().value_and_grad(THETA, X, Y)[0]


INTERRUPTED = """
import random, sys, time, numpy as np, vgrad
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from vgrad import nn

def main():
    model = nn.MLP(3, [8, 1], rng=random.Random(0))
    X = np.random.default_rng(0).normal(size=(300_000, 3))
    with ProcessPoolExecutor(2, get_context(sys.argv[1])) as pool:
        program = vgrad.compile(lambda x: model(x) ** 2, model.parameters(), executor=pool, tile=8)
        theta = program.theta()
        program.value_and_grad(theta, X[:1000])
        print("ready", flush=True)
        try:
            while True:
                program.value_and_grad(theta, X)
        except KeyboardInterrupt:
            print("interrupted", flush=True)

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("method", get_all_start_methods())
def test_an_interrupt_for_the_whole_group_ends_the_call_and_the_program(method, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    process = subprocess.Popen(
        [sys.executable, script, method], stdout=-1, stderr=-1, text=True, start_new_session=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=30)
        assert output == "interrupted\n" and process.returncode == 0
    finally:
        process.kill()


def test_calls_run_where_their_data_is_placed(pool):
    """Also those of a program that has no executor of its own."""
    ran = []
    program, X = vgrad.compile(lambda x: x * x, parameters=[], tile=4), np.arange(100.0)

    class Counting:
        def submit(self, *args):
            ran.append(args)
            return pool.submit(*args)

    data = program.place(X, executor=Counting())
    assert (program([], data) == X * X).all() and len(ran) > 1
    with pytest.raises(TypeError, match="executor must have a method submit"):
        program.place(X, executor=3)
