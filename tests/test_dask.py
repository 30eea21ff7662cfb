"""Programs over dask arrays, and with a dask cluster's `Client` as their executor."""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import numpy as np
import pytest
from helpers import same_bits

import vgrad
from vgrad import ShapeError, nn
from vgrad.program.cluster import parts_of

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")

MODEL = nn.MLP(3, [5, 1], activation="tanh", rng=random.Random(0))
THETA = np.array([p.data for p in MODEL.parameters()])
X = np.random.default_rng(0).normal(size=(1000, 3))
Y = np.random.default_rng(1).normal(size=1000)


def loss(x, y):
    score = MODEL(x)
    return (score - y) ** 2 + 0.1 * sum(p * p for p in MODEL.parameters()), score, x


def bent(x, y):
    """Four paths, each with its own numbers."""
    score = MODEL(x)
    if x[0] > 0:
        score = score * y
    return score * score if x[1] > 0.5 else vgrad.exp(score), score, x


def compiled(fn=loss, **options):
    return vgrad.compile(fn, MODEL.parameters(), **options)


def in_tree(parts):
    while len(parts) > 1:
        pairs = [(a[0] + b[0], a[1] + b[1]) for a, b in zip(parts[::2], parts[1::2])]
        parts = pairs + parts[len(parts) - len(parts) % 2 :]
    return parts[0]


def of_parts(ends, fn=loss):
    """What NumPy arrays give that are cut at the same places."""
    program = compiled(fn, reduce="sum")
    parts = [program.value_and_grad(THETA, X[a:b], Y[a:b]) for a, b in zip([0, *ends], ends)]
    value, gradient = in_tree(parts)
    return value / ends[-1], gradient / ends[-1]


def agree(got, want, fn=loss):
    """To the bit; sums over paths, in the order in which these were met, to rounding."""
    if fn is bent:
        assert got[0] == pytest.approx(want[0], rel=1e-12)
        np.testing.assert_allclose(got[1], want[1], rtol=1e-10, atol=1e-13)
    else:
        assert got[0] == want[0] and same_bits(got[1], want[1])


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


# --- dask arrays ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fn", [loss, bent])
@pytest.mark.parametrize("sizes", [(1000,), (300, 300, 400), (1, 0, 99, 200, 400, 200, 100)])
def test_a_gradient_is_that_of_arrays_cut_at_the_same_places(fn, sizes):
    x, y = da.from_array(X, (sizes, 2)), da.from_array(Y, (sizes,))
    ends = np.cumsum([size for size in sizes if size]).tolist()
    agree(compiled(fn).value_and_grad(THETA, x, y), of_parts(ends, fn), fn)


def test_arrays_that_are_chunked_differently_are_cut_at_all_places():
    x, y = da.from_array(X, (400, 3)), da.from_array(Y, 300)
    agree(compiled().value_and_grad(THETA, x, y), of_parts([300, 400, 600, 800, 900, 1000]))


def test_arrays_in_memory_are_cut_like_those_of_dask():
    program = compiled()
    agree(program.value_and_grad(THETA, da.from_array(X, 400), Y), of_parts([400, 800, 1000]))
    with pytest.raises(ShapeError, match="must have one batch size.*got 1000, 999"):
        program.value_and_grad(THETA, da.from_array(X, 400), Y[1:])


def unknown(x, chunks):
    """All rows, by a mask, whose number dask does not know."""
    x = da.from_array(x, chunks)
    return x[da.ones(len(x), chunks=x.chunks[0]) > 0]


def test_chunks_of_unknown_size():
    program = compiled()
    x, y = unknown(X, (400, 3)), unknown(Y, 400)
    agree(program.value_and_grad(THETA, x, y), of_parts([400, 800, 1000]))
    scores = program(THETA, x, y)[1]
    assert np.isnan(scores.shape[0])
    np.testing.assert_allclose(scores.compute(), program(THETA, X, Y)[1], rtol=1e-12)
    for other in (Y, unknown(Y, 500)):
        with pytest.raises(ShapeError, match="as many blocks where their sizes are unknown"):
            program.value_and_grad(THETA, x, other)


def test_blocks_that_turn_out_to_differ_in_size():
    with pytest.raises(ShapeError, match="one batch size in each block .got 400, 300"):
        compiled().value_and_grad(THETA, unknown(X[:800], (400, 3)), unknown(Y[:600], 300))


def test_no_samples():
    with pytest.raises(ShapeError, match="at least one sample .got none"):
        compiled().value_and_grad(THETA, da.zeros((0, 3)), da.zeros(0))


def test_what_each_sample_has_is_lazy_and_its_chunks_are_known():
    computed = []

    def block(x):
        if x.size:  # not of dask's meta
            computed.append(len(x))
        return x

    program = compiled()
    x = da.from_array(X, (400, 3)).map_blocks(block, dtype=float, meta=np.empty((0, 0)))
    y = da.from_array(Y, 300)
    found = [
        *program(THETA, x, y),
        *program.input_grads(THETA, x, y),
        program.per_sample_grads(THETA, x, y),
    ]
    assert not computed
    want = [
        *program(THETA, X, Y),
        *program.input_grads(THETA, X, Y),
        program.per_sample_grads(THETA, X, Y),
    ]
    for got, expected in zip(found, want):
        assert got.chunks[0] == (300, 100, 200, 200, 100, 100) and got.shape == expected.shape
        np.testing.assert_allclose(got.compute(), expected, rtol=1e-12, atol=1e-14)
    assert computed


def test_a_gradient_computes_each_block_once():
    computed = []

    def block(x):
        computed.append(x.shape)
        return x

    x = da.from_array(X, (250, 3)).map_blocks(block, dtype=float, meta=np.empty((0, 0)))
    compiled().value_and_grad(THETA, x, Y)
    assert [shape for shape in computed if shape[0]] == [(250, 3)] * 4


def test_aux_gives_outputs_lazily():
    program = compiled()
    x = da.from_array(X, (500, 2))
    (value, (each, scores, rows)), gradient = program.value_and_grad(THETA, x, Y, aux=True)
    agree((value, gradient), of_parts([500, 1000]))
    np.testing.assert_allclose(scores.compute(), program(THETA, X, Y)[1], rtol=1e-12)
    assert same_bits(rows.compute(), X)
    assert each.shape == (1000,) and isinstance(each, da.Array)


def test_a_term_is_added_once_and_sums_are_not_divided():
    options = {"once": lambda: sum(p * p for p in MODEL.parameters()), "reduce": "sum"}
    value, gradient = compiled(**options).value_and_grad(THETA, da.from_array(X, 500), Y)
    want = compiled(**options).value_and_grad(THETA, X, Y)
    assert value == pytest.approx(want[0]) and gradient == pytest.approx(want[1])


def test_other_axes_and_what_all_samples_share():
    program = vgrad.compile(lambda x, c: MODEL(x) * c[0], MODEL.parameters(), in_axes=(1, None))
    got = program.value_and_grad(THETA, da.from_array(X.T, (3, 300)), [2.0, 0.0])
    want = program.value_and_grad(THETA, X.T, [2.0, 0.0])
    assert got[0] == pytest.approx(want[0]) and got[1] == pytest.approx(want[1])
    with pytest.raises(TypeError, match="array 1, which all samples share, must be in memory"):
        program(THETA, X.T, da.ones(2))


def test_by_name_and_of_another_dtype():
    program = compiled(dtype=np.float32)
    got = program.value_and_grad(THETA, y=da.from_array(Y, 300), x=da.from_array(X, 300))
    assert got[1].dtype == np.float32
    assert got[0] == pytest.approx(of_parts([1000])[0], rel=1e-5)


def test_calls_that_take_arrays_in_memory_alone_say_so():
    with pytest.raises(TypeError, match="array 0 must be in memory for this call .got a dask"):
        compiled().hessian(THETA, da.from_array(X, 500), Y)


def test_what_is_no_array_of_numbers():
    program = compiled()
    with pytest.raises(TypeError, match="array 0 must be a dask array .got a DelayedLeaf"):
        program.value_and_grad(THETA, dask.delayed(X), Y)
    with pytest.raises(TypeError, match="array 1 must hold real numbers .got an array of complex"):
        program.value_and_grad(THETA, X, da.from_array(1j * Y, 500))


def test_a_pool_of_threads_computes_blocks():
    from concurrent.futures import ThreadPoolExecutor

    names = set()

    def block(x):
        names.add(threading.current_thread().name)
        return x

    with ThreadPoolExecutor(1, "mine") as pool:
        x = da.from_array(X, (250, 3)).map_blocks(block, dtype=float, meta=np.empty((0, 0)))
        compiled(executor=pool).value_and_grad(THETA, x, Y)
    assert "mine_0" in names


# --- a cluster -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fn", [loss, bent])
def test_a_cluster_computes_blocks(client, fn):
    """Also where workers meet paths that are not recorded yet, without the function."""
    program = compiled(fn, executor=client)
    x, y = da.from_array(X, (250, 3)), da.from_array(Y, 250)
    agree(program.value_and_grad(THETA, x, y), of_parts([250, 500, 750, 1000], fn), fn)
    scores = client.compute(program(THETA, x, y)[1]).result()
    np.testing.assert_allclose(scores, program(THETA, X, Y)[1], rtol=1e-12)


def test_too_many_paths_for_a_cluster(client):
    program = compiled(bent, executor=client, paths=2)
    with pytest.raises(ShapeError, match="beyond the 2 of paths="), pytest.warns():
        program.value_and_grad(THETA, da.from_array(X, (250, 3)), Y)


def results(program, *arrays):
    (value, outputs), gradient = program.value_and_grad(THETA, *arrays, aux=True)
    each = program.per_sample_grads(THETA, *arrays)
    return [np.array(value), *outputs, gradient, *program.input_grads(THETA, *arrays), each]


@pytest.mark.parametrize("fn", [loss, bent])
def test_a_client_gives_what_no_executor_gives(client, fn):
    want = results(compiled(fn, tile=16), X, Y)
    for executor in (client, client.get_executor()):
        program = compiled(fn, tile=16, executor=executor)
        assert all(map(same_bits, results(program, X, Y), want))
        program = compiled(fn, tile=16, executor=executor)  # sums over paths depend on calls before
        with program.place(X, Y) as data:
            assert repr(data).endswith("with a cluster's workers)")
            assert all(map(same_bits, results(program, data), want))


def test_a_client_whose_scheduler_was_restarted(client):
    program = compiled(tile=16, executor=client)
    data = program.place(X, Y)
    want = program.value_and_grad(THETA, data)
    for x in data._batch.rows:
        assert parts_of(x, client) is not None and parts_of(x[1:], client) is None
    client.restart()
    agree(program.value_and_grad(THETA, data), want)
    agree(program.value_and_grad(THETA, X, Y), want)
    agree(want, compiled(tile=16).value_and_grad(THETA, X, Y))


def slow(x):
    time.sleep(0.2)
    return x


def test_a_worker_that_is_killed_in_a_call_over_blocks(client):
    program = compiled(executor=client)
    x = da.from_array(X, (100, 3)).map_blocks(slow, dtype=float, meta=np.empty((0, 0)))
    pid = client.submit(os.getpid, pure=False).result()
    killer = threading.Timer(0.5, os.kill, (pid, signal.SIGKILL))
    killer.start()
    agree(program.value_and_grad(THETA, x, Y), of_parts(list(range(100, 1001, 100))))
    killer.join()
    client.wait_for_workers(2, timeout=30)


def test_a_worker_that_is_killed_in_a_call(client):
    """Either the result is right or there is a clear error, and the next call is right."""
    many = np.tile(X, (100, 1)), np.tile(Y, 100)
    program = compiled(tile=16, executor=client)
    want = compiled(tile=16).value_and_grad(THETA, *many)
    data = program.place(*many)
    for arrays in (many, (data,)):
        agree(program.value_and_grad(THETA, *arrays), want)
        pid = client.submit(os.getpid, pure=False).result()
        killer = threading.Timer(0.02, os.kill, (pid, signal.SIGKILL))
        killer.start()
        try:
            agree(program.value_and_grad(THETA, *arrays), want)
        except vgrad.WorkerError as error:
            assert "must live until the call returns" in str(error)
        killer.join()
        client.wait_for_workers(2, timeout=30)
        agree(program.value_and_grad(THETA, *arrays), want)


@pytest.mark.long
def test_a_hundred_million_samples_in_bounded_memory():
    import resource

    n, block = 100_000_000, 1_000_000
    x = da.random.default_rng(0).normal(size=n, chunks=block)
    w = vgrad.Value(2.0)
    program = vgrad.compile(lambda x: (w * x - 1) ** 2, [w], reduce="sum")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with dask.config.set(num_workers=2):
        value, gradient = program.value_and_grad([2.0], x)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kilobytes
    assert value == pytest.approx(5.0 * n, rel=1e-3)
    assert gradient == pytest.approx(4.0 * n, rel=1e-3)
