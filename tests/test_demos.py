"""The demos run as a user runs them, and the published numbers come out."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from helpers import DEMOS, MOONS, central_difference, long
from PIL import Image, ImageChops

import vgrad
from vgrad import Value

# micrograd's published notebook: loss and accuracy in % at these steps
PUBLISHED = {
    0: (0.8958441028683222, 50.0),
    1: (1.7235905336972022, 81.0),
    2: (0.7429006313851131, 77.0),
    3: (0.7705641260584198, 82.0),
    4: (0.3692793385976538, 84.0),
    99: (0.010978370135492, 100.0),
}


def steps_of(output: str) -> list[tuple[float, float]]:
    lines = re.findall(r"^step (\d+) loss (\S+), accuracy (\S+)%$", output, re.MULTILINE)
    return [(float(loss), float(accuracy)) for _, loss, accuracy in lines]


def test_the_published_run_comes_out_on_both_engines(published_moons):
    """1e-9 relative, as micrograd adds in another order and 100 steps pass the roundings on."""
    output = published_moons.printed()
    steps = steps_of(output)
    assert len(steps) == 200
    for engine in (steps[:100], steps[100:]):
        for k, (loss, accuracy) in PUBLISHED.items():
            assert engine[k] == (pytest.approx(loss, rel=1e-9), accuracy)
    assert re.search(r"the vector engine is \S+ times faster", output)
    for what in ("loss", "parameters"):
        gap = re.search(rf"largest difference in {what}:\s+(\S+)", output)
        assert gap is not None and float(gap[1]) < 1e-9
    assert (published_moons.out / "moons.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("engine", ["vector", "scalar"])
def test_moons_options(engine, tmp_path, here):
    options = ["--steps", 3, "--samples", 20, "--noise", 0, "--hidden", 4, "--activation", "tanh"]
    options += ["--engine", engine, "--batch", 8, "--seed", 7, "--out", tmp_path]
    output = here("moons", *options)
    assert "17 parameters, 20 samples" in output and len(steps_of(output)) == 3
    assert (tmp_path / "moons.png").exists()


def test_both_engines_agree_on_random_batches(tmp_path, here):
    options = ["--steps", 4, "--samples", 30, "--batch", 10, "--hidden", 5, 3, "--no-plot"]
    steps = steps_of(here("moons", "--engine", "both", *options, "--out", tmp_path))
    assert steps[:4] == [(pytest.approx(loss, rel=1e-9), acc) for loss, acc in steps[4:]]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--steps", 0], "must be at least 1"),
        (["--samples", "many"], "must be a whole number (got 'many')"),
        (["--noise", -1], "must not be negative"),
        (["--engine", "gpu"], "invalid choice"),
        (["--no-plot", "--animate"], "leave --no-plot out"),
        (["--out", __file__ + "/below"], "must be a folder"),
        (["--seed", -1], "must be from 0 to"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(arguments, message, capsys, load):
    with pytest.raises(SystemExit, match="2"):
        load("moons")["main"]([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert message in printed.err.splitlines()[-1] and printed.out == ""


@pytest.mark.parametrize(
    "name", ["moons", "neuron", "lecture", "accumulate", "gpt", "benchmark", "branches", "scale"]
)
def test_help(name, capsys, load):
    with pytest.raises(SystemExit, match="0"):
        load(name)["main"](["--help"])
    printed = capsys.readouterr()
    common = {"--out", "--seed", "--no-plot"} if name != "benchmark" else {"--out", "--plot"}
    assert common <= set(re.findall(r"--[a-z-]+", printed.out)) and printed.err == ""


def scripts(page: str) -> list[str]:
    return re.findall("<script>(.*?)</script>", page, re.DOTALL)


def test_an_error_and_the_help_end_the_process_as_they_should(bad_moons, help_of_moons):
    bad, good = bad_moons.future.result(), help_of_moons.future.result()
    assert (bad.returncode, bad.stdout) == (2, "") and "must be at least 1" in bad.stderr
    assert (good.returncode, good.stderr) == (0, "") and "--steps" in good.stdout


def test_a_demo_ends_quietly_where_nobody_reads_on():
    command = [sys.executable, DEMOS / "accumulate.py", "--no-plot"]
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()  # before there is anything to read
        assert process.stderr.read() == ""
    assert process.returncode == 141


@pytest.mark.parametrize("path", sorted(DEMOS.glob("*.py")), ids=lambda path: path.stem)
def test_every_demo_that_runs_does_so_in_one_way(path):
    ends = path.read_text(encoding="utf-8").partition('if __name__ == "__main__":\n')[2]
    assert ends in ("", "    run_main(main)\n")


def test_the_help_of_the_benchmark_says_what_its_cases_are(load, capsys):
    names = load("benchmark")
    with pytest.raises(SystemExit, match="0"):
        names["main"](["--help"])
    shown = re.findall(r"^  ([a-z])  ([A-Z].*\.)$", capsys.readouterr().out, re.MULTILINE)
    assert shown == [(letter, case.__doc__) for letter, case in names["CASES"].items()]


def test_a_window_that_cannot_be_opened_is_said_to_need_something(load, capsys):
    with pytest.raises(SystemExit, match=r"pip install PyQt6.* --animate writes"):
        load("moons")["main"](["--live", "--steps", "1"])


def test_the_animated_boundary(animated_moons):
    animated_moons.result()
    with Image.open(animated_moons.out / "moons.gif") as image:
        assert image.n_frames == 12
        frames = []
        for k in (0, 11):
            image.seek(k)  # below the title, which has the number of the step
            assert image.info["duration"] == (2500 if k else 100)  # the last one is held
            frames.append(image.convert("RGB").crop((0, 40, *image.size)))
    moved = np.asarray(ImageChops.difference(*frames)).max(axis=2) > 40  # more than the palette's
    assert moved.mean() > 0.01


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_progress_stays_on_one_line_in_a_terminal_and_is_plain_elsewhere(here):
    import pty

    options = ["--steps", "6", "--samples", "60", "--engine", "scalar", "--no-plot"]
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, MOONS, *options], stdout=theirs) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # that the other side is closed is an error on Linux
            while part := os.read(ours, 1 << 16):
                shown += part
        os.close(ours)
    assert process.returncode == 0
    (progress,) = [line for line in shown.decode().split("\n") if "step " in line]
    written = progress.strip("\r").split("\r")
    assert len(written) >= 4 and written[-1].startswith("step 5 loss")
    elsewhere = here("moons", *options, "--samples", 10)
    assert len(steps_of(elsewhere)) == 6 and "\r" not in elsewhere


# --- the lecture ---------------------------------------------------------------------------------


def test_the_neuron(visualized_neuron):
    output, out = visualized_neuron.printed(), visualized_neuron.out
    grads = dict(re.findall(r"^(\w+) .*grad +(\S+)$", output, re.MULTILINE))
    wanted = {"x1": -1.5, "x2": 0.5, "w1": 1.0, "w2": 0.0, "b": 0.5, "o": 1.0}
    assert {name: float(grad) for name, grad in grads.items()} == wanted
    for name in ("graph.svg", "backprop.html", "backprop.png"):
        assert f"wrote {out / name}" in output and (out / name).stat().st_size > 1000
    page = (out / "backprop.html").read_text(encoding="utf-8")
    assert "x1.grad += w1.data * x1w1.grad = -3.0 * 0.5 = -1.5" in page
    if sys.platform != "win32":
        assert (out / "opened").read_text().strip() == (out / "backprop.html").as_uri()


def test_the_neuron_with_other_numbers(tmp_path, here):
    with pytest.raises(SystemExit, match=r"--step must be at most 13 \(got 99\)$"):
        here("neuron", "--step", 99, "--out", tmp_path)
    assert here("neuron", "--seed", 1, "--no-plot") != here("neuron", "--seed", 2, "--no-plot")
    here("neuron", "--no-plot", "--out", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_lectures_network_on_both_engines(tmp_path, here, vector_lecture):
    """Ten digits of each loss agree: the engines add in other orders, which comes to 1e-15."""
    scalar = here("lecture", "--engine", "scalar", "--out", tmp_path)
    vector = vector_lecture.printed()
    assert vector.replace(str(vector_lecture.out), str(tmp_path)) == scalar
    losses = re.findall(r"^Epoch (\d+): Loss = (\S+)$", vector, re.MULTILINE)
    assert [int(epoch) for epoch, _ in losses] == list(range(0, 101, 10))
    assert float(losses[0][1]) > 1 and float(losses[-1][1]) < 0.02
    last, targets = re.findall(r"^(?:final predictions|targets): +(.*)$", vector, re.MULTILINE)
    for prediction, target in zip(last.split(), targets.split()):
        assert float(prediction) == pytest.approx(float(target), abs=0.1)
    for out in (tmp_path, vector_lecture.out):
        assert (out / "lecture.png").read_bytes().startswith(b"\x89PNG")


def test_right_and_wrong_ways_to_accumulate(accumulated):
    output = accumulated.printed()
    last = {line[:20].strip(): float(line.split()[-1]) for line in output.splitlines()[3:7]}
    measured = last.pop("how much c changes w")
    assert last == {"right": 4.0, "wrong: too soon": 6.0, "wrong: overwritten": 1.0}
    assert measured == 4.0
    assert "too soon: b passed 1 + 2 = 3 on, where its gradient was 2\n" in output
    assert "b got 1 + 1 = 2, and kept 1, a got 1 + 1 = 2, and kept 1\n" in output
    assert (accumulated.out / "accumulate.svg").stat().st_size > 1000


def test_the_benchmark_runs_small(small_benchmark):
    """Every case and the picture, after all peers have agreed; the times themselves are no test."""
    output = small_benchmark.result().stdout
    for case in "abcdefghijs":
        assert f"\n({case}) " in output
    for peer in ("NumPy by hand", "vgrad, fuse=False", "vgrad's scalar engine"):
        assert re.search(rf"  {peer} +\S+ ms +\S+\n", output)
    assert (small_benchmark.out / "benchmark.png").read_bytes().startswith(b"\x89PNG")


def test_the_benchmark_prints_no_time_of_a_peer_that_is_wrong(capsys, load):
    benchmark = load("benchmark")
    peer, args = benchmark["Peer"], benchmark["parse"](["--repeats", "1"])
    peers = [peer("right", lambda: 1.0), peer("wrong", lambda: 1.0 + 1e-8)]
    with pytest.raises(SystemExit, match=r"wrong must agree with right \(1.00000001 and 1.0\)"):
        benchmark["compare"]("title", peers, args)
    assert capsys.readouterr().out == ""


# --- sequences -----------------------------------------------------------------------------------

SEQUENCES = ["garch", "kalman", "hmm", "orbit", "pendulum", "rnn", "ctc"]


class OnScalars:
    """What a peer computes, as a function of plain numbers or `Value`s, those of `start`."""

    arrays: tuple[Any, ...]
    start: list[float]

    def __call__(self, *numbers: Any) -> Any:
        raise NotImplementedError

    def gradient(self) -> tuple[Any, ...]:
        """What the peers give."""
        leaves = [Value(x) for x in self.start]
        value = self(*leaves)
        value.backward()
        return self.shaped(value.data, np.array([leaf.grad for leaf in leaves]))

    def shaped(self, value: float, gradient: Any) -> tuple[Any, ...]:
        """As a peer gives them."""
        return value, gradient


class SequenceOnScalars(OnScalars):
    """A sequence's loss, a function of theta or the logits of CTC."""

    def __init__(self, name: str, peers: dict[str, Any]) -> None:
        sequence = peers["SEQUENCES"][name]
        (self.steps, _), *_ = peers["sizes"](name, 6, 1)
        self.arrays = sequence.arrays(1 if name == "ctc" else 2, self.steps)
        self.loss, self.is_ctc = sequence.loss(self.steps), name == "ctc"
        self.start = (self.arrays[0] if self.is_ctc else sequence.theta).ravel().tolist()

    def __call__(self, *numbers: Any) -> Any:
        if self.is_ctc:
            return self.loss([], np.reshape(numbers, (self.steps, -1)))
        samples = [*zip(*(x.tolist() for x in self.arrays))]
        return sum(self.loss(list(numbers), *sample) for sample in samples) / len(samples)

    def shaped(self, value: float, gradient: Any) -> tuple[Any, ...]:
        return (gradient.reshape(self.arrays[0].shape),) if self.is_ctc else (value, gradient)


def assert_a_library_agrees(
    library: str, peers: dict[str, Any], scalars: OnScalars, name: str, *sizes: int
) -> None:
    module = pytest.importorskip(library)
    run = peers[f"{library}_gradient"](module, name, *sizes, *scalars.arrays)
    assert_same(run(), scalars.gradient())


def assert_same(got: tuple[Any, ...], want: tuple[Any, ...]) -> None:
    """Within 1e-12 of the largest: sums of some hundred terms run in other orders."""
    assert len(got) == len(want)
    for x, y in zip(got, want):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-12 * np.abs(y).max())


@pytest.mark.parametrize("name", SEQUENCES)
def test_gradients_of_a_sequence(name, load):
    """Against the scalar engine, and central differences, within 1e-8 of the largest and 1e-10.

    The square of their step is 1e-10, and the roundings of losses of about 1 come to 1e-16 / 1e-5.
    """
    peers = load("sequence_peers")
    sequence, scalars = peers["SEQUENCES"][name], SequenceOnScalars(name, peers)
    program, arrays = sequence.program(scalars.steps), scalars.arrays
    gradient = program.input_grads if name == "ctc" else program.value_and_grad
    want = scalars.gradient()
    assert_same(gradient(sequence.theta, *arrays), want)
    if name in peers["BY_HAND"]:
        assert_same(peers["BY_HAND"][name](sequence.theta, *arrays), want)
    some = range(0, len(scalars.start), 3 if len(scalars.start) > 10 else 1)
    differences = [central_difference(scalars, scalars.start, k, 1e-5) for k in some]
    bound = 1e-8 * np.abs(want[-1]).max() + 1e-10
    np.testing.assert_allclose(want[-1].ravel()[some], differences, rtol=0, atol=bound)


@long  # to import and to compile takes seconds
@pytest.mark.parametrize("library", ["jax", "torch"])
@pytest.mark.parametrize("name", SEQUENCES)
def test_a_library_agrees_on_a_sequence(name, library, load):
    peers = load("sequence_peers")
    scalars = SequenceOnScalars(name, peers)
    assert_a_library_agrees(library, peers, scalars, name, scalars.steps)
    if (name, library) == ("ctc", "torch"):
        module = pytest.importorskip(library)
        assert_same(peers["torch_ctc_loss"](module, *scalars.arrays)(), scalars.gradient())


# --- formulas ------------------------------------------------------------------------------------

FORMULAS = ["options", "sabr", "cubic", "mdn", "glm", "kan", "gmm"]


class FormulaOnScalars(OnScalars):
    """A formula's mean over two samples, as a function of theta; of options, their sum."""

    def __init__(self, name: str, peers: dict[str, Any]) -> None:
        self.formula, self.is_options = peers["FORMULAS"][name], name == "options"
        self.arrays = self.formula.arrays(2)
        start = np.array(self.arrays) if self.is_options else self.formula.theta
        self.start = start.ravel().tolist()

    def __call__(self, *numbers: Any) -> Any:
        arrays, w = self.arrays, list(numbers)
        if self.is_options:
            arrays, w = np.reshape(numbers, (5, 2)), []
        samples = [*zip(*(x.tolist() for x in arrays))]
        total = sum(self.formula.fn(vgrad, w, *sample) for sample in samples)
        return total if self.is_options else total / len(samples)

    def shaped(self, value: float, gradient: Any) -> tuple[Any, ...]:
        return (*gradient.reshape(5, 2),) if self.is_options else (value, gradient)


@pytest.mark.parametrize("name", FORMULAS)
def test_gradients_of_a_formula(name, load):
    """Against the scalar engine, and central differences to 1e-6 of the largest: steps of 1e-6 of
    a number leave 1e-12, or 1e-10 of the roundings.
    """
    peers = load("formula_peers")
    scalars = FormulaOnScalars(name, peers)
    program, arrays, theta = scalars.formula.program(), scalars.arrays, scalars.formula.theta
    gradient = program.input_grads if name == "options" else program.value_and_grad
    want = scalars.gradient()
    assert_same(gradient(theta, *arrays), want)
    if name in peers["BY_HAND"]:
        assert_same(peers["BY_HAND"][name](theta, *arrays), want)
    slopes = np.ravel(want if name == "options" else want[-1])
    some = np.arange(0, len(slopes), 1 + len(slopes) // 8)
    start = scalars.start
    steps = [1e-6 * max(abs(start[k]), 0.1) for k in some]
    found = [central_difference(scalars, start, k, step) for k, step in zip(some, steps)]
    np.testing.assert_allclose(slopes[some], found, rtol=1e-6, atol=1e-6 * abs(slopes).max())


@long  # to import and to compile takes seconds
@pytest.mark.parametrize("library", ["jax", "torch"])
@pytest.mark.parametrize("name", FORMULAS)
def test_a_library_agrees_on_a_formula(name, library, load):
    peers = load("formula_peers")
    assert_a_library_agrees(library, peers, FormulaOnScalars(name, peers), name)


# --- derivatives ---------------------------------------------------------------------------------


def test_a_camera_is_fitted(here):
    """Down to the noise, half a pixel times weights of 0.5 to 1."""
    found = [float(x) for x in re.findall(r": (\S+) pixels", here("derivatives"))]
    assert (
        found[0] > 1 and 0.3 < found[-1] < 0.45 and found[-1] == pytest.approx(found[-2], rel=1e-3)
    )


@pytest.mark.parametrize(
    "name", ["bundle", "20 outputs", "20, inputs", "hessian", "gammas", "PINN"]
)
def test_derivatives_of_the_demo(name, load):
    """What the program gives, by the scalar engine: sums of sizes, in other orders."""
    derivative = load("derivatives")["DERIVATIVES"][name]
    program, arrays = derivative.program(), derivative.arrays(3)
    theta = program.theta()
    got = derivative.call(program, theta, *arrays)
    slow = derivative.program(fuse=False)
    for a, b in zip(got, derivative.call(slow, theta, *arrays)):
        # second derivatives divide differences of numbers by small ones: 1e-9 of the largest
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * np.abs(b).max())


@long  # to import and to compile takes seconds
@pytest.mark.parametrize(
    "name", ["bundle", "20 outputs", "20, inputs", "hessian", "gammas", "PINN"]
)
def test_jax_agrees_on_derivatives(name, load):
    jax = pytest.importorskip("jax")
    derivative = load("derivatives")["DERIVATIVES"][name]
    program, arrays = derivative.program(), derivative.arrays(4)
    theta = program.theta()
    got = derivative.call(program, theta, *arrays)
    peers = load("derivative_peers")["jax_derivatives"](jax, name, theta, arrays)
    for run in peers.values():
        for a, b in zip(got, run()):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8 * np.abs(b).max())


# --- balls ---------------------------------------------------------------------------------------


def test_balls_find_their_places_through_their_bounces(tmp_path, here):
    """1e-12 of the scalar engine, on distances and gradients of some ten."""
    options = ["--balls", 60, "--steps", 60, "--seed", 3, "--explore", "--out", tmp_path]
    output = here("branches", *options)
    before, after = re.findall(r"(\S+) m²", output)
    assert float(before) > 5 and float(after) < 0.2 * float(before)
    assert 2 < int(re.search(r"paths found: +(\d+)", output)[1]) < 64
    value, gradient = re.search(
        r"difference: +(\S+) in values, (\S+) in gradients", output
    ).groups()
    assert float(value) < 1e-12 and float(gradient) < 1e-12
    assert (tmp_path / "branches.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "explore.html").read_text(encoding="utf-8")
    stored = (DEMOS / "pictures" / "explore.html").read_text(encoding="utf-8")
    assert scripts(page) == scripts(stored)  # the one that the README leads to
    assert page.count('<div class="scene">') > 2 and 'aria-label="vx, 4 to 16"' in page


# --- scale ---------------------------------------------------------------------------------------

# B, a, r, m, c, alpha, beta: as measured of the moons and of the GPT, for messages without latency,
# slow ones, a batch of a few samples, and a scheduler that is quicker than its workers.
STEPS = [
    (200_000, 6e-5, 1.7e-7, 2696, 4e-3, 1e-4, 1.25e9),
    (1024, 3e-4, 6e-5, 33_792, 4e-3, 1e-4, 1.25e9),
    (1000, 0.0, 1e-3, 8, 1e-3, 0.0, 1e9),
    (1000, 0.0, 1e-3, 10**6, 1e-3, 1e-2, 1e8),
    (5, 1e-3, 1e-3, 800, 1e-4, 1e-3, 1e9),
    (4096, 1e-3, 1e-4, 8000, 1e-6, 1e-5, 1e10),
]
WORKERS = [*range(1, 40), 64, 65, 100, 128, 1000, 1024]


@pytest.mark.parametrize("numbers", STEPS)
def test_simulated_steps_take_what_the_formulas_say(numbers, load):
    """Roundings for the tree, in which rank 0 has as much to do as any.

    With one scheduler up to one sample for each task, as the formula has all tasks as large as the
    largest.
    """
    times = load("step_times")
    step = times["Step"](*numbers)
    for n in WORKERS:
        assert times["simulated_tree"](step, n) == pytest.approx(step.tree(n), rel=1e-12)
        for each in (1, 4, 7):
            got, want = times["simulated_star"](step, n, each), step.star(n, each)
            assert want * (1 - 1e-12) - each * step.sample <= got <= want * (1 + 1e-12)


@pytest.mark.parametrize("numbers", STEPS)
def test_the_best_number_of_workers_is_that_of_the_simulation(numbers, load):
    """Of the tree the same one; with one scheduler one that is within a sample of the quickest."""
    times = load("step_times")
    step = times["Step"](*numbers)
    among = range(1, min(step.batch, 130) + 1)
    for way, simulate in times["SIMULATED"].items():
        found = [simulate(step, n) for n in among]
        predicted = int(np.argmin(times["WAYS"][way](step, np.array(among))))
        slack = 0.0 if way == "tree" else step.sample
        assert found[predicted] <= min(found) * (1 + 1e-12) + slack
        best = times["best"](times["WAYS"][way], step)
        assert best == predicted + 1 or best > among[-1]


def test_steps_by_hand(load):
    """8 samples of 1 s, messages of 1 + 1 s; a scheduler that takes 2 + 1 s for each message."""
    times = load("step_times")
    step = times["Step"](8, 0.0, 1.0, 10, 4.0, 1.0, 10.0)
    assert [step.tree(n) for n in (1, 2, 3, 4, 8)] == [8, 8, 11, 10, 13]
    assert step.star(1) == 3 + 1 + 8 + 1 + 3  # sent, on its way, computed, on its way, taken
    assert step.star(2) == 3 + 3 + 1 + 4 + 1 + 3
    assert step.star(8) == 8 * 6  # the scheduler has no time to lose
    assert step.star(1, 2) == 3 + 1 + 8 + 1 + 3  # its second task is there before it is needed
    quick = step._replace(overhead=0.0, bytes=0)
    assert quick.star(2, 2) == 4 + 2 and times["best"](times["WAYS"]["tree"], step) == 1


def test_the_closed_forms_of_the_best_number(load):
    """Within a factor of 2, as rounds of the tree are whole, for the moons and the GPT."""
    times = load("step_times")
    for numbers in STEPS[:2]:
        step = times["Step"](*numbers)
        whole = step.sample * step.batch
        tree, star = whole * np.log(2) / 2 / step.message(), np.sqrt(whole / step.service())
        for form, way in ((tree, "tree"), (star, "one scheduler")):
            assert 0.5 < times["best"](times["WAYS"][way], step) / form < 2


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_threads_that_sleep_take_no_less_than_the_formula_says(n, load):
    """A sleep may be longer, but ends no earlier; 1% for clocks that tick."""
    times = load("step_times")
    step = times["Step"](40, 1e-3, 1e-3, 1000, 0.0, 4e-3, 1e6)
    assert times["slept_tree"](step, n) > 0.99 * step.tree(n)


def test_both_models_train_on_a_cluster(tmp_path, here):
    """The gradients are those of one process to the bit, and theta and gradients alone move."""
    pytest.importorskip("distributed")
    options = ["--samples", 20_000, "--batch", 300, "--steps", 3, "--out", tmp_path]
    output = here("scale", *options)
    assert re.findall(r"gradient of one process: (\S+)", output) == ["0.0e+00"] * 4
    rows = re.findall(r"^step \d loss (\S+), [\d,]+ samples a second, (\S+) kB", output, re.M)
    assert len(rows) == 12
    two_moons, two_gpt, one_moons, one_gpt = (rows[k : k + 3] for k in range(0, 12, 3))
    assert [x for x, _ in two_moons] == [x for x, _ in one_moons]  # both start from the same theta
    assert [x for x, _ in two_gpt] == [x for x, _ in one_gpt]
    assert float(two_gpt[-1][0]) < float(two_gpt[0][0])
    tasks = [int(x) for x in re.findall(r"^\d workers?, (\d+) tasks?:", output, re.M)]
    bytes_each = [2 * 8 * parameters for parameters in (337, 337, 4224, 4224)]
    for size, number, moved in zip(bytes_each, tasks, (one_moons, two_moons, one_gpt, two_gpt)):
        assert [float(x) for _, x in moved] == [pytest.approx(number * size / 1e3, abs=0.05)] * 3
    assert re.search(r"^best +\d+ +\d+ +\d+ +\d+$", output.replace(",", ""), re.M)
    assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")


def test_a_check_says_how_far_simulations_are_from_predictions(load, capsys):
    scale = load("scale")
    step = scale["Step"](40, 1e-4, 1e-3, 100, 1e-3, 1e-3, 1e6)
    scale["check"]("moons", step)
    tree, star, slept = capsys.readouterr().out.splitlines()
    for line, gap in ((tree, 1e-12), (star, 0.1)):
        found, predicted, most = re.search(
            r"with (\d+) .*predicted (\d+); .*within (\S+)", line
        ).groups()
        assert found == predicted and float(most) <= gap
    assert re.search(r"ms by workers .*: 1: \S+ \(40.1\), 2: ", slept)


def test_without_dask_the_demo_says_what_to_install(load, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(SystemExit, match="2"):
        load("scale")["main"]([])
    printed = capsys.readouterr()
    assert printed.err.endswith("dask must be installed: python -m pip install distributed\n")
    assert printed.out == ""


@pytest.mark.parametrize(
    "option, message",
    [
        (["--latency", "-1"], "must be finite, 0 or more (got -1.0)"),
        (["--bandwidth", "0"], "must be above 0, finite (got 0.0)"),
        (["--workers", "0"], "must be at least 1"),
        (["--seed", "-1"], "must be from 0 to"),
    ],
)
def test_networks_and_clusters_that_cannot_be(option, message, load, capsys):
    with pytest.raises(SystemExit, match="2"):
        load("scale")["main"](option)
    assert message in capsys.readouterr().err.splitlines()[-1]
