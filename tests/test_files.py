"""Graphs and programs in files: they come back to the bit, or an error says why they cannot."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import socket
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import random_program, same_bits, sweep

import vgrad
from vgrad import Graph, GraphFormatError, Program, ShapeError, Value, nn, ops, optim
from vgrad.flat.graph import MAX_NESTING

MODEL = nn.MLP(2, [4, 1], activation="tanh", rng=random.Random(0))
W = Value(3.0, label="w")
X, Y = np.random.default_rng(0).normal(size=(9, 2)), np.linspace(-1, 1, 9)
NAN = struct.unpack("<d", b"\x2a\0\0\0\0\0\xf8\xff")[0]  # one with a sign and a payload


def loss(x, y):
    score = MODEL(x)
    return (score - y) ** 2, score, (np.array([score, y]), [W * NAN])


def traced() -> Graph:
    return vgrad.trace(loss, (2,), (), lines=True)


def assert_same_graph(a: Graph, b: Graph) -> None:
    """To the bit, payloads of nan included."""
    for field in fields(Graph):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, np.ndarray):
            assert (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes()), field.name
            assert y.flags.owndata and y.flags.writeable
        elif field.name != "leaves":
            assert x == y and type(x) is type(y), field.name
    assert b.leaves == ()


def there_and_back(graph: Graph, path: Path) -> Graph:
    graph.save(path)
    back = Graph.load(path)
    assert_same_graph(graph, back)
    return back


# --- graphs --------------------------------------------------------------------------------------


def test_a_graph_comes_back_as_it_was(tmp_path):
    graph = traced()
    back = there_and_back(graph, tmp_path / "graph.npz")
    assert back.labels[int(graph.inputs[0])] == "x[0]" and len(back.lines) > len(MODEL.parameters())
    old, new = vgrad.compile(graph), vgrad.compile(back)
    assert str(new.value_and_grad(new.theta(), X, Y)) == str(old.value_and_grad(old.theta(), X, Y))


@pytest.mark.parametrize("seed", sweep(40, 10))
def test_random_graphs_compute_the_same_bits(seed, tmp_path):
    program = random_program(seed, edges=bool(seed % 2))
    shapes = [()] * program.inputs
    graph = vgrad.trace(program, *shapes, parameters=program.parameters)
    back = there_and_back(graph, tmp_path / "graph")
    data = np.random.default_rng(seed).normal(size=(program.inputs, 5))
    old, new = vgrad.compile(graph), vgrad.compile(back)
    for name in ("__call__", "value_and_grad", "input_grads", "per_sample_grads"):
        got, want = (getattr(p, name)(p.theta(), *data) for p in (new, old))
        assert len(got) == len(want) and all(map(same_bits, got, want)), name


@pytest.mark.parametrize(
    "make",
    {
        "one node": lambda: vgrad.trace(lambda x: x, ()),
        "no input": lambda: vgrad.capture(W * NAN),
        "an argument without numbers": lambda: vgrad.trace(lambda x, y: y, (0, 3), ()),
        "captured": lambda: vgrad.capture(W * 2 + MODEL.parameters()[0], W, inputs=[W]),
        "lists in lists": lambda: vgrad.trace(lambda x: [x[0], [[x], [x[1]]]], (2,)),
        "odd labels": lambda: vgrad.capture(Value(1.0, '"\ud800\0é\n') + Value(2.0, "{}")),
    }.values(),
)
def test_unusual_graphs(make, tmp_path):
    there_and_back(make(), tmp_path / "graph.npz")


def test_a_label_that_is_no_string_comes_back_as_its_text(tmp_path):
    x, y = Value(1.0), Value(2.0)
    x.label, y.label = 7, None
    graph = vgrad.capture(x * y)
    graph.labels[2] = None
    graph.save(tmp_path / "graph")
    assert list(Graph.load(tmp_path / "graph").labels.values()) == ["7"]


def test_a_file_is_plain_arrays_and_the_same_bytes_each_time(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two.data"
    graph = traced()
    graph.save(one)
    Graph.load(str(one)).save(str(two))
    assert one.read_bytes() == two.read_bytes()
    replace(graph, parents=np.asfortranarray(graph.parents)).save(two)
    assert one.read_bytes() == two.read_bytes()
    with zipfile.ZipFile(one) as stored:
        assert {info.date_time[0] for info in stored.infolist()} == {1980}
    with np.load(one, allow_pickle=False) as stored:
        assert stored["parents"].tolist() == graph.parents.tolist()
        header = json.loads(stored["header"].tobytes())
    assert header["format"] == "vgrad.Graph" and header["version"] == 1
    assert sorted(os.listdir(tmp_path)) == ["one", "two.data"]  # the names are as they were given


def test_a_file_outlives_a_new_order_of_the_op_table(tmp_path):
    """The codes mean what the file's own table of names says."""

    def reverse(header: dict[str, Any], arrays: dict[str, Any]) -> None:
        arrays["op"] = (len(header["ops"]) - 1 - arrays["op"]).astype(np.uint8)
        header["ops"] = [*reversed(header["ops"]), "an op of a later version, not used here"]

    assert_same_graph(traced(), Graph.load(changed(tmp_path, reverse)))


def test_a_broken_graph_is_not_saved(tmp_path):
    graph = traced()
    graph.level[0] = 7
    with pytest.raises(GraphFormatError, match="a node's level"):
        graph.save(tmp_path / "graph.npz")
    assert not os.listdir(tmp_path)


# --- programs ------------------------------------------------------------------------------------

OPTIMISERS = {
    "sgd": lambda: optim.SGD(lambda k: 0.1 / (k + 1)),
    "momentum": lambda: optim.SGD(0.05, momentum=0.9),
    "adam": lambda: optim.Adam(lambda k: 0.1 * 0.9**k),
}


def trained(program: Program, theta: Any, optimiser: optim.Optimiser, steps: int) -> Any:
    for _ in range(steps):
        optimiser.step(theta, program.value_and_grad(theta, X, Y)[1])
    return theta


def square(x, y):
    return (MODEL(x) - y) ** 2, MODEL(x)


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("fuse", [True, False])
def test_training_goes_on_to_the_bit(name, fuse, tmp_path):
    path = tmp_path / "program.npz"
    program = vgrad.compile(square, MODEL.parameters(), reduce="sum", fuse=fuse, tile=4)
    optimiser = OPTIMISERS[name]()
    theta = trained(program, program.theta(), optimiser, 7)
    program.save(path, theta, optimiser)
    want = trained(program, theta.copy(), optimiser, 5)
    again = OPTIMISERS[name]()
    twin = Program.load(path, again)
    assert again.steps == 7 and same_bits(twin.theta(), theta)
    assert same_bits(trained(twin, twin.theta(), again, 5), want)
    assert again.steps == optimiser.steps == 12


def test_a_program_keeps_every_shape_it_had_seen_and_its_options(tmp_path):
    path = tmp_path / "program.npz"
    program = vgrad.compile(lambda x: np.sum(x) * W, reduce="sum", tile=2)
    with pytest.raises(TypeError, match="must have been called, or given arrays"):
        program.save(path)
    assert not path.exists()
    program.theta([1.0])
    program.theta([[1.0, 2.0]])
    program.save(path)
    twin = Program.load(path)
    assert twin.theta().tolist() == [3.0]
    assert twin.value_and_grad([2.0], [1.0, 5.0])[0] == 12.0  # the sum
    assert twin([2.0], [[1.0, 5.0]]).tolist() == [12.0]
    assert twin._options == program._options
    with np.load(path) as stored:
        assert "executor" not in json.loads(stored["header"].tobytes())["options"]
    with pytest.raises(ShapeError, match=r"that this program had seen .* \(\(\),\), \(\(2,\),\)"):
        twin([2.0], [[1.0, 5.0, 6.0]])
    with pytest.raises(ValueError, match="must have Values to assign to"):
        twin.assign([1.0])
    twin.save(tmp_path / "again.npz")
    assert path.read_bytes() == (tmp_path / "again.npz").read_bytes()
    assert pickle.loads(pickle.dumps(twin))([2.0], [1.0]).tolist() == [2.0]


OTHER_TABLE = """
import pickle, sys
from vgrad import Graph, GraphFormatError, ops

identity = ops.Op("identity", "id", lambda x: x * 1.0, vjp=(lambda g, out, x: g,))  # cube's code
pickles = open(sys.argv[1], "rb").read()
for read in (lambda: pickle.loads(pickles), lambda: Graph.load(sys.argv[2])):
    try:
        read()
    except GraphFormatError as error:
        assert "every op must be known (got 'cube', which must be defined first)" in str(error)
    else:
        raise AssertionError
cube = ops.Op("cube", "3", lambda x: x * x * x, vjp=(lambda g, out, x: 3 * g * x * x,))
program, graph = pickle.loads(pickles)
assert program([], [2.0]) == [8.0] and program.input_grads([], [2.0])[0] == [12.0]
for graph in (graph, Graph.load(sys.argv[2])):
    assert graph.op[-1] == cube.code and graph.to_values(sample=(2.0,))[-1].data == 8.0
"""


def test_another_table_of_ops_computes_the_same(tmp_path, monkeypatch):
    """Pickles and files hold names of ops: codes depend on what a process has defined."""
    monkeypatch.setattr(ops, "OPS", list(ops.OPS))
    cube = ops.Op("cube", "3", lambda x: x * x * x, vjp=(lambda g, out, x: 3 * g * x * x,))
    graph = vgrad.trace(lambda x: cube(x), ())
    graph.save(tmp_path / "file")
    (tmp_path / "pickle").write_bytes(pickle.dumps((vgrad.compile(graph), graph)))
    arguments = [tmp_path / "pickle", tmp_path / "file"]
    subprocess.run([sys.executable, "-c", OTHER_TABLE, *arguments], check=True)


def test_a_program_without_parameters(tmp_path):
    program = vgrad.compile(vgrad.trace(lambda x: x * 2, ()))
    program.save(tmp_path / "program", optimiser=optim.Adam())
    assert Program.load(tmp_path / "program", optim.Adam())([], [1.0]).tolist() == [2.0]


def stepped(optimiser: optim.Optimiser, size: int) -> optim.Optimiser:
    optimiser.step(np.ones(size), np.full(size, 0.5))
    return optimiser


def test_an_optimiser_that_does_not_fit_is_refused_and_left_as_it_was(tmp_path):
    path = tmp_path / "program"
    program = vgrad.compile(lambda x: x * W)
    program.theta([1.0])
    program.save(path, optimiser=stepped(optim.Adam(), 1))
    for optimiser, message in (
        (optim.SGD(0.1), r"must be of the optimiser's kind, SGD .got Adam"),
        (stepped(optim.Adam(), 2), r"one shape \(P,\).* .got \(1,\), \(2,\).; restore into a new"),
    ):
        before = str(vars(optimiser))
        with pytest.raises(ValueError, match=message) as caught:
            Program.load(path, optimiser)
        assert not isinstance(caught.value, GraphFormatError) and str(vars(optimiser)) == before
    Program.load(path)  # the state may be left
    with pytest.raises(TypeError, match="optimiser must be one of vgrad.optim .got 0.1, a float"):
        Program.load(path, 0.1)
    with pytest.raises(TypeError, match="optimiser must be one of vgrad.optim"):
        program.save(path, optimiser=0.1)
    with pytest.raises(ValueError, match=r"must have theta's shape \(1,\) .got \(2,\)"):
        program.save(path, optimiser=stepped(optim.Adam(), 2))
    with pytest.raises(ShapeError, match=r"theta must have shape \(1,\)"):
        program.save(path, [1.0, 2.0])
    program.save(path)
    adam = stepped(optim.Adam(), 1)
    with pytest.raises(ValueError, match="must hold an optimiser's state.* leave it out here"):
        Program.load(path, adam)
    assert adam.steps == 1


def test_an_optimiser_of_ones_own(tmp_path):
    """Its class need not say how many arrays it keeps."""

    class Own(optim.Optimiser):
        def _descent(self, grad):
            if not self._state:
                self._state = [np.zeros_like(grad) for _ in range(3)]
            for k, array in enumerate(self._state):
                array += k * grad
            return sum(self._state)

    program = vgrad.compile(lambda x: x * W)
    program.theta([1.0])
    optimiser, again = stepped(Own(0.1), 1), Own(0.1)
    program.save(tmp_path / "program", optimiser=optimiser)
    Program.load(tmp_path / "program", again)
    assert [x.tolist() for x in again._state] == [[0.0], [0.5], [1.0]]
    state = optimiser.state()
    optimiser.step(np.ones(1), np.ones(1))
    assert state["arrays"][1].tolist() == [0.5]  # a copy
    again.restore(state)
    again.step(np.ones(1), np.ones(1))
    assert state["arrays"][1].tolist() == [0.5]
    with pytest.raises(ValueError, match=r"one shape \(P,\).* .got \(2, 2\)"):
        Own(0.1).restore({"kind": "Own", "steps": 1, "arrays": [np.ones((2, 2))]})


# --- writing -------------------------------------------------------------------------------------


def fails(error: BaseException) -> Callable[..., Any]:
    def function(*args: Any, **options: Any) -> None:
        raise error

    return function


def test_a_failure_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "graph.npz"
    vgrad.trace(lambda x: x, ()).save(path)
    old = path.read_bytes()
    write, calls = np.lib.format.write_array, []

    def second_fails(*args: Any, **options: Any) -> None:
        calls.append(args)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        write(*args, **options)

    for where, name, function in (
        (os, "replace", fails(PermissionError("in use"))),
        (os, "fsync", fails(OSError(28, "No space left on device"))),
        (os, "fsync", fails(KeyboardInterrupt())),
        (np.lib.format, "write_array", second_fails),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, function)
            with pytest.raises((OSError, KeyboardInterrupt)):
                traced().save(path)
        assert path.read_bytes() == old and os.listdir(tmp_path) == ["graph.npz"], name
    assert len(calls) == 2


CRASH = """
import os, sys, vgrad
os.replace = lambda *paths: os._exit(9)
vgrad.trace(lambda x: x * 2, ()).save(sys.argv[1])
"""


def test_a_process_that_dies_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "graph.npz"
    graph = traced()
    graph.save(path)
    assert subprocess.run([sys.executable, "-c", CRASH, path], check=False).returncode == 9
    assert_same_graph(graph, Graph.load(path))


def test_the_bytes_reach_the_disk_before_the_name(tmp_path, monkeypatch):
    path, done, sync, rename = tmp_path / "graph.npz", [], os.fsync, os.replace

    def synced(descriptor: int) -> None:
        done.append(os.fstat(descriptor).st_size)
        sync(descriptor)

    def replaced(old: str, new: str) -> None:
        assert os.path.dirname(old) == os.path.dirname(new)  # on one disk, where it is one step
        done.append("replaced")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    traced().save(path)
    assert done[:2] == [path.stat().st_size, "replaced"]


def test_links_and_permissions_stay(tmp_path):
    path, link = tmp_path / "graph.npz", tmp_path / "link.npz"
    traced().save(path)
    path.chmod(0o600)
    try:
        link.symlink_to(path)
    except OSError:
        pytest.skip("no links here")
    vgrad.trace(lambda x: x, ()).save(link)
    assert link.is_symlink() and len(Graph.load(path)) == 1
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_is_no_file_is_the_systems_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        Graph.load(tmp_path / "none.npz")
    with pytest.raises(FileNotFoundError):
        Program.load(tmp_path / "none.npz")
    with pytest.raises(FileNotFoundError):
        traced().save(tmp_path / "none" / "graph.npz")
    for call in (Graph.load, traced().save):
        with pytest.raises((IsADirectoryError, PermissionError)):
            call(tmp_path)
        with pytest.raises(TypeError):
            call(3)
    assert not os.listdir(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_what_is_no_plain_file_is_not_replaced_or_read(tmp_path):
    """Pipes, sockets and links to them: nothing waits until somebody writes into one.

    And no device: should this fail, it must not be /dev/null that is gone.
    """
    os.mkfifo(tmp_path / "pipe")
    os.symlink("pipe", tmp_path / "link")
    held = os.open(tmp_path / "pipe", os.O_RDWR)  # so that opening would not wait, if it were tried
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket"))  # whose name must be short
        for name in ("pipe", "link", "socket"):
            for call in (traced().save, vgrad.compile(traced()).save, Graph.load, Program.load):
                with pytest.raises(OSError, match="must be a file, not a device.*; give") as error:
                    call(tmp_path / name)
                assert os.path.basename(error.value.filename) in (name, "pipe")
    os.close(held)
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe", "socket"]
    assert not any((tmp_path / name).is_file() for name in os.listdir(tmp_path))


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="no such device here")
def test_devices_are_not_read():
    """Not /dev/zero, which has no end: should this fail, it would take all memory."""
    for load in (Graph.load, Program.load):
        with pytest.raises(OSError, match="must be a file, not a device"):
            load("/dev/null")


# --- damaged files -------------------------------------------------------------------------------


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The file with one of the things done to it that disks, networks and people do."""
    out, size = bytearray(data), len(data)
    a = rng.randrange(size)
    b = min(size, a + rng.choice([1, 2, 8, 100, 1000]))
    kind = rng.randrange(8)
    if kind == 0:
        for _ in range(rng.choice([1, 1, 2, 20])):
            out[rng.randrange(size)] ^= 1 << rng.randrange(8)
    elif kind == 1:
        out[a:b] = bytes(b - a)
    elif kind == 2:
        out[a:b] = rng.randbytes(b - a)
    elif kind == 3:
        del out[a:]
    elif kind == 4:
        out += rng.randbytes(rng.choice([1, 22, 1000, 70000]))
    elif kind == 5:
        c = rng.randrange(size)
        length = min(rng.randrange(1, 500), size - max(a, c))
        out[a : a + length], out[c : c + length] = data[c : c + length], data[a : a + length]
    elif kind == 6:
        del out[a:b]
    else:  # the directory at the end, which is where a zip says how large things are
        a = rng.randrange(data.index(b"PK\1\2"), size)
        out[a : a + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", rng.randbytes(4)])
    return bytes(out)


def trained_program() -> tuple[Program, Any, optim.Optimiser]:
    program, adam = vgrad.compile(square, MODEL.parameters()), optim.Adam()
    program.theta(X, Y)
    return program, trained(program, program.theta(), adam, 3), adam


def reload(path: Path, out: Path, graph: bool) -> None:
    if graph:
        Graph.load(path).save(out)
        return
    adam = optim.Adam()
    program = Program.load(path, adam)
    program.save(out, optimiser=adam)


def assert_damage_is_found(path: Path, seeds: range) -> None:
    """Each damaged file is refused or, where the damage is to what says nothing, read rightly."""
    sound, out, refused = path / "sound", path / "out", 0
    traced().save(sound)
    files = {True: sound.read_bytes()}
    program, theta, adam = trained_program()
    program.save(sound, theta, adam)
    files[False] = sound.read_bytes()
    assert all(len(data) > 2000 for data in files.values())
    tracemalloc.start()
    try:
        for seed in seeds:
            rng = random.Random(seed)
            graph = rng.random() < 0.5
            (path / "damaged").write_bytes(damaged(files[graph], rng))
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            try:
                reload(path / "damaged", out, graph)
            except GraphFormatError as error:
                refused += 1
                assert str(path / "damaged") in str(error) and len(str(error)) < 1000
            else:
                assert out.read_bytes() == files[graph], seed
            assert tracemalloc.get_traced_memory()[1] - before < 10_000_000, seed
    finally:
        tracemalloc.stop()
    assert refused > 0.6 * len(seeds)


def test_sixty_damaged_files(tmp_path):
    assert_damage_is_found(tmp_path, range(1000, 1060))


@pytest.mark.long
def test_a_thousand_damaged_files(tmp_path):
    assert_damage_is_found(tmp_path, range(1000))


# --- files made by hand --------------------------------------------------------------------------

Change = Callable[[dict[str, Any], dict[str, Any]], None]


def changed(folder: Path, change: Change, program: bool = False) -> Path:
    """A file whose header and arrays were changed, and which is a sound .npz."""
    path = folder / "made.npz"
    if program:
        saved, theta, adam = trained_program()
        saved.save(path, theta, adam)
    else:
        traced().save(path)
    with np.load(path) as stored:
        arrays = dict(stored)
    header = json.loads(arrays.pop("header").tobytes())
    change(header, arrays)
    text = header if isinstance(header.get("raw"), bytes) else json.dumps(header).encode()
    text = header["raw"] if isinstance(text, dict) else text
    np.savez(path, **{"header": np.frombuffer(text, np.uint8), **arrays})
    return path


def put(name: str, index: Any, number: Any) -> Change:
    """A change of one number of an array."""

    def change(header: dict[str, Any], arrays: dict[str, Any]) -> None:
        arrays[name][index] = number

    return change


def cast(name: str, dtype: Any) -> Change:
    return lambda header, arrays: arrays.update({name: arrays[name].astype(dtype)})


def say(**fields: Any) -> Change:
    return lambda header, arrays: header.update(fields)


LOOP: list[Any] = []
LOOP.append(LOOP)


def nested(depth: int, inner: Any = None) -> Any:
    inner = [] if inner is None else inner
    for _ in range(depth):
        inner = [inner]
    return inner


MADE = {
    "a parent that is not there": (put("parents", (-1, 0), 10**6), "every parent must come before"),
    "a parent below -1": (put("parents", (-1, 0), -2), "every parent must come before its child"),
    "a node that is its own parent": (
        lambda h, a: put("parents", (-1, 0), len(a["op"]) - 1)(h, a),
        "every parent must come before its child",
    ),
    "a cycle": (put("parents", (30, 0), 40), "every parent must come before its child"),
    "too few parents": (put("parents", (-1, 0), -1), "as many parents as its op takes"),
    "an unknown op": (put("op", 0, 200), r"op codes must be below \d+ .got 200"),
    "an op of another version": (
        lambda h, a: h["ops"].__setitem__(int(a["op"][-1]), "mish"),
        "every op must be known .got 'mish'",
    ),
    "ops that are no names": (say(ops=[[]] * 256), r"every op must be known .got \[\]"),
    "no list of ops": (say(ops=3), "with a list of ops"),
    "a level": (put("level", -1, 2**31 - 1), "a node's level"),
    "an input that is not there": (put("inputs", 0, 10**9), "inputs must name every input node"),
    "an input twice": (put("inputs", 0, 1), "inputs must name every input node"),
    "a parameter below 0": (put("parameters", 0, -1), "parameters must name every"),
    "an output that is not there": (put("outputs", 0, 10**9), "outputs must be one or more nodes"),
    "an output below 0": (put("outputs", 0, -1), "outputs must be one or more nodes"),
    "value as int32": (lambda h, a: a.update(value=a["level"]), r"value must be float64"),
    "value as float32": (cast("value", np.float32), r"member 'value.npy' must be uint8, int32 or"),
    "op as int32": (cast("op", np.int32), "op must be uint8"),
    "parents as int64": (cast("parents", np.int64), "must be uint8, int32 or float64"),
    "parents column after column": (
        lambda h, a: a.update(parents=np.asfortranarray(a["parents"])),
        "row after row",
    ),
    "parents with other axes": (lambda h, a: a.update(parents=a["parents"].T.copy()), "parents"),
    "op as one number": (lambda h, a: a.update(op=a["op"][0]), "op must be an array .got uint8"),
    "three axes": (lambda h, a: a.update(op=a["op"][:, None, None]), "one or two axes"),
    "nothing in it": (lambda h, a: a.update({k: x[:0] for k, x in a.items()}), "outputs must be"),
    "an array missing": (lambda h, a: a.pop("level"), "its arrays must have level"),
    "an array more": (lambda h, a: a.update(more=a["op"]), "got 'more' too"),
    "labels missing": (lambda h, a: h.pop("labels"), "its header must have labels"),
    "a field with a very long name": (say(**{"x" * 10**6: 1}), "its header must be"),
    "a field more": (say(more=1), "its header must be .* .got 'more' too"),
    "another version": (say(version=2), r"its version must be 1 .got 2.; save it again"),
    "a version that is no number": (say(version=True), "its version must be 1 .got True"),
    "no version": (lambda h, a: h.pop("version"), "its version must be 1 .got None"),
    "another format": (say(format="pickle"), "its format must be vgrad.Graph .got 'pickle'"),
    "a format that is no name": (say(format=["vgrad"]), "must say of what format"),
    "a header that is a list": (say(raw=b"[1]"), "must say of what format"),
    "a header that is no text": (say(raw=b"\xff\xfe{}"), "UnicodeDecodeError"),
    "a header that is no JSON": (say(raw=b"{'format'"), "JSONDecodeError"),
    "an empty header": (say(raw=b""), "JSONDecodeError"),
    "JSON nested deep": (say(raw=b"[" * 100_000 + b"]" * 100_000), "RecursionError"),
    "a number of 10,000 digits": (say(raw=b"1" * 10_000), "but "),
    "sizes that overflow to 0": (
        say(output_shapes=[2**32, 2**32]),
        "output_shapes must hold 5 numbers",
    ),
    "inputs that overflow": (say(input_shapes=[[2**63, 2], [1]]), "input_shapes .* must hold 3"),
    "sizes below 0": (say(input_shapes=[[-3, -1]]), "input_shapes must be tuples of at most"),
    "sizes that are floats": (say(input_shapes=[[3.0]]), "input_shapes must be tuples of at most"),
    "sizes that are nan": (say(output_shapes=[float("nan")]), "output_shapes must hold 5 numbers"),
    "sizes that are true": (say(output_shapes=[True] * 5), "output_shapes must hold 5 numbers"),
    "sizes that are text": (say(input_shapes="aaa"), "input_shapes must be tuples of at most"),
    "shapes that are none": (say(input_shapes=None), "TypeError"),
    "more axes than there are": (say(input_shapes=[[1] * 99 + [3]]), "at most 63 sizes"),
    "outputs of nothing": (say(output_shapes=[[[]] * 5, [[0]]]), "output_shapes must hold 5"),
    "outputs that are none": (say(output_shapes={}), "output_shapes must hold 5 numbers"),
    "outputs nested too deep": (
        say(output_shapes=nested(MAX_NESTING + 2)),
        "nested 100 deep",
    ),
    "labels of no node": (say(labels=[[10**6, "a"]]), "labels and lines must be of nodes"),
    "labels of half nodes": (say(labels=[[1.5, "a"]]), "labels and lines must be of nodes"),
    "lines of true": (say(lines=[[True, "a"]]), "labels and lines must be of nodes"),
    "labels of lists": (say(labels=[[[], "a"]]), "TypeError"),
    "labels that are no text": (say(labels=[[1, 2]]), "labels must be texts"),
    "labels that are no pairs": (say(labels=[1]), "TypeError"),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_a_file_made_by_hand_is_refused(name, tmp_path):
    change, message = MADE[name]
    path = changed(tmp_path, change)
    with pytest.raises(GraphFormatError, match=message) as caught:
        Graph.load(path)
    assert str(caught.value).startswith(f"{path} must be a whole file of vgrad.Graph.save, but ")
    assert len(str(caught.value)) < 1000


def twice(depth: int) -> Any:
    """A list that would take 2**depth steps to walk through."""
    return [twice(depth - 1)] * 2 if depth else ()


@pytest.mark.parametrize(
    "broken",
    {
        "sizes that overflow to 0": {"input_shapes": ((2**32, 2**32),)},
        "shapes that are lists": {"input_shapes": ([0],)},
        "an output that is text": {"output_shapes": ""},
        "an output that is none": {"output_shapes": None},
        "a list of nothing": {"output_shapes": [(), []]},
        "one number, too deep": {"output_shapes": nested(MAX_NESTING + 1, ())},
        "a list that has itself": {"output_shapes": LOOP},
        "a very large list": {"output_shapes": twice(60)},
        "a list of lists": {"parents": [[-1, -1, -1]]},
        "a label of text": {"labels": {"0": "a"}},
    }.values(),
)
def test_check_holds_for_what_no_file_can_say(broken):
    graph = vgrad.capture(Value(3.0) * 2)
    graph.check()
    with pytest.raises(GraphFormatError):
        replace(graph, **broken).check()


MADE_PROGRAMS = {
    "no graphs": (say(graphs=[]), "it must have graphs"),
    "graphs that are not there": (say(graphs=[{}] * 5), "its arrays must have 1/op"),
    "very many graphs": (say(graphs=[0] * 100_000), "it must have graphs"),
    "a graph that is none": (say(graphs=[3]), "its header must have names .got a int"),
    "a broken graph": (put("0/level", -1, 0), "a node's level"),
    "theta of another size": (lambda h, a: a.update(theta=a["theta"][1:]), "every graph must have"),
    "theta and state of another size": (
        lambda h, a: a.update(theta=a["theta"][1:], optimiser=a["optimiser"][:, 1:]),
        "every graph must have theta's 16 parameters .got 17",
    ),
    "theta of whole numbers": (cast("theta", np.int32), "theta must be float64"),
    "state of one axis": (lambda h, a: a.update(optimiser=a["theta"]), "the optimiser's state"),
    "state of another size": (
        lambda h, a: a.update(optimiser=a["optimiser"][:, 1:]),
        r"the optimiser's state must be float64 \(K, 17\)",
    ),
    "no theta": (lambda h, a: a.pop("theta"), "its arrays must have theta"),
    "no options": (lambda h, a: h.pop("options"), "its header must have options"),
    "options that are none": (say(options=3), "TypeError"),
    "an unknown option": (say(options={"speed": 9}), "unexpected keyword argument 'speed'"),
    "a bad option": (say(options={"tile": -1}), "tile must be a number of samples"),
    "steps below 0": (say(optimiser={"kind": "Adam", "steps": -1}), "number of steps"),
    "a number of steps that overflows": (
        say(optimiser={"kind": "Adam", "steps": 10**400}),
        "number of steps",
    ),
    "a name that is none": (say(optimiser={"kind": 1, "steps": 1}), "must have a name"),
    "an optimiser that is none": (say(optimiser=1), "its optimiser must have names"),
}


@pytest.mark.parametrize("name", MADE_PROGRAMS)
def test_a_program_made_by_hand_is_refused(name, tmp_path):
    change, message = MADE_PROGRAMS[name]
    path, adam = changed(tmp_path, change, program=True), optim.Adam()
    with pytest.raises(GraphFormatError, match=message):
        Program.load(path, adam)
    assert adam.steps == 0


def test_a_state_with_an_array_too_few_is_refused(tmp_path):
    path = changed(tmp_path, lambda h, a: a.update(optimiser=a["optimiser"][:1]), program=True)
    with pytest.raises(ValueError, match="state of Adam must have 2 arrays.* .got 1"):
        Program.load(path, optim.Adam())


def test_a_graph_is_no_program_and_the_reverse(tmp_path):
    traced().save(tmp_path / "graph")
    program, *_ = trained_program()
    program.save(tmp_path / "program")
    with pytest.raises(GraphFormatError, match="got one of vgrad.Program.save.; use vgrad.Program"):
        Graph.load(tmp_path / "program")
    with pytest.raises(
        GraphFormatError, match="got one of vgrad.Graph.save.; use vgrad.Graph.load"
    ):
        Program.load(tmp_path / "graph")


class Bomb:
    """What a pickle may do, if anything reads it."""

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def test_a_pickle_in_a_file_does_not_run(tmp_path):
    bomb = Bomb()
    bomb.path = str(tmp_path / "ran")
    path = changed(tmp_path, lambda h, a: a.update(op=np.array([bomb], object)))
    with pytest.raises(GraphFormatError, match="must be uint8, int32 or float64.* .got object"):
        Graph.load(path)
    assert not (tmp_path / "ran").exists()
    path.write_bytes(pickle.dumps(bomb))
    with pytest.raises(GraphFormatError, match="not a zip file"):
        Graph.load(path)
    assert not (tmp_path / "ran").exists()


# --- sizes that are not there --------------------------------------------------------------------


def archive(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as out:
        for name, data in members.items():
            out.writestr(name, data)
    return path


def npy(shape: Any, descr: str = "|u1", data: bytes = b"") -> bytes:
    """An array that may say of itself what is not so."""
    out = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, header)
    return out.getvalue() + data


def raw(text: str) -> bytes:
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode()


def refused(path: Path, message: str) -> None:
    """Without ever having taken more than the size of a small file."""
    tracemalloc.start()
    try:
        with pytest.raises(GraphFormatError, match=message):
            Graph.load(path)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.filterwarnings("ignore")  # NumPy's on what it takes for a header of Python 2
@pytest.mark.parametrize(
    "member, message",
    [
        (npy((10**15,)), "must fill its 0 bytes"),
        (npy((10**15,), "<f8"), "must fill its 0 bytes"),
        (npy((2**32, 2**32)), "must fill its 0 bytes"),
        (npy((2**64, 0)), r"but .*; save it again"),
        (npy((-1,), data=b"1"), "one or two axes"),
        (npy((True,), data=b"1"), "one or two axes"),
        (npy((1,) * 40, data=b"1"), "one or two axes"),
        (npy((2,), "|V1000000000"), "must be uint8"),
        (npy((2,), "|O"), "got object"),
        (npy((1,), ">f8", b"12345678"), "must be uint8, int32 or float64"),
        (npy((3,), data=b"1234"), "must fill its 4 bytes"),
        (b"", "magic"),
        (b"\x93NUMPY", "magic"),
        (b"\x93NUMPY\1\0\xff\0{", "but ValueError: EOF"),
        (b"\x93NUMPY\2\0" + npy((1,))[8:], "version 1.0 of .npy"),
        (raw("(" * 60000), "a header of at most 300 bytes"),
        (raw("(" * 5000), "a header of at most 300 bytes"),
        (raw("(" * 150), "but "),
        (raw("{'descr': '|u1', 'fortran_order': False, 'shape': (1L,), }"), "its header|but "),
        (raw("__import__('os').abort()"), "but "),
    ],
)  # fmt: skip
def test_a_member_that_says_what_is_not_so(member, message, tmp_path):
    refused(archive(tmp_path / "made", {"header.npy": member}), message)


@pytest.mark.parametrize("megabytes", [64, pytest.param(1024, marks=pytest.mark.long)])
def test_compressed_files_are_refused_unread(megabytes, tmp_path):
    """Zeros, of which a thousandth is left in the file."""
    path = tmp_path / "bomb"
    out = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with out, out.open("header.npy", "w", force_zip64=True) as member:
        member.write(npy((megabytes << 20,)))
        for _ in range(megabytes):
            member.write(bytes(1 << 20))
    assert path.stat().st_size < megabytes << 13
    refused(path, "member 'header' must be uncompressed")


def test_sizes_beyond_the_file_are_refused(tmp_path):
    """A directory that promises 4 GB, and one whose members all are the same bytes."""
    path = archive(tmp_path / "made", {"header.npy": npy((1 << 20,), data=bytes(1 << 20))})
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\1\2")
    data[at + 20 : at + 28] = struct.pack("<II", 0xFFFFFFF0, 0xFFFFFFF0)
    path.write_bytes(data)
    refused(path, r"its members must fit into its \d+ bytes .got 4294967280")
    members = {f"{i:06}": (b"" if i else npy((1 << 20,), data=bytes(1 << 20))) for i in range(50)}
    data = bytearray(archive(path, members).read_bytes())
    first = data.index(b"PK\1\2")
    sizes, at = data[first + 16 : first + 28], first
    while (at := data.find(b"PK\1\2", at + 1)) > 0:
        data[at + 16 : at + 28], data[at + 42 : at + 46] = sizes, bytes(4)
    path.write_bytes(data)
    refused(path, "its members must fit into")


def test_members_that_are_there_twice_are_refused(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile has its doubts
        with zipfile.ZipFile(tmp_path / "made", "w") as out:
            for _ in range(2):
                out.writestr("header.npy", npy((0,)))
    refused(tmp_path / "made", "each member must be there once .got 'header' twice")
    refused(archive(tmp_path / "made", {"header": b"", "header.npy": b""}), "got 'header' twice")


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "made"
    for data in (b"", b"PK", b"import vgrad\n", bytes(100_000), b"PK\5\6" + b"\xff" * 18):
        path.write_bytes(data)
        refused(path, r"made must be a whole file of vgrad.Graph.save, but .*; save it again")
    np.savez(tmp_path / "other.npz", weights=np.ones((2, 2)))
    refused(tmp_path / "other.npz", "must have a member 'header'")
