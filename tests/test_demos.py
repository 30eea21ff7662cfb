"""The demos run as a user runs them, and the published numbers come out."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys

import pytest
from helpers import BENCHMARK, MOONS

# micrograd's published notebook: loss and accuracy in % at these steps
PUBLISHED = {
    0: (0.8958441028683222, 50.0),
    1: (1.7235905336972022, 81.0),
    2: (0.7429006313851131, 77.0),
    3: (0.7705641260584198, 82.0),
    4: (0.3692793385976538, 84.0),
    99: (0.010978370135492, 100.0),
}


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def moons(*arguments: object) -> str:
    result = run(MOONS, *arguments)
    assert result.returncode == 0 and result.stderr == "", result.stderr
    return result.stdout


def steps_of(output: str) -> list[tuple[float, float]]:
    lines = re.findall(r"^step (\d+) loss (\S+), accuracy (\S+)%$", output, re.MULTILINE)
    return [(float(loss), float(accuracy)) for _, loss, accuracy in lines]


def test_the_published_run_comes_out_on_both_engines(published_moons):
    """1e-9 relative, as micrograd adds in another order and 100 steps pass the roundings on."""
    output, errors = published_moons.process.communicate()
    assert published_moons.process.returncode == 0 and errors == ""
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
def test_moons_options(engine, tmp_path):
    options = ["--steps", 3, "--samples", 20, "--noise", 0, "--hidden", 4, "--activation", "tanh"]
    output = moons("--engine", engine, "--batch", 8, "--seed", 7, *options, "--out", tmp_path)
    assert "17 parameters, 20 samples" in output and len(steps_of(output)) == 3
    assert (tmp_path / "moons.png").exists()


def test_both_engines_agree_on_random_batches(tmp_path):
    options = ["--steps", 4, "--samples", 30, "--batch", 10, "--hidden", 5, 3, "--no-plot"]
    steps = steps_of(moons("--engine", "both", *options, "--out", tmp_path))
    assert steps[:4] == [(pytest.approx(loss, rel=1e-9), acc) for loss, acc in steps[4:]]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--steps", 0], "must be at least 1"),
        (["--samples", "many"], "invalid positive value"),
        (["--noise", -1], "must not be negative"),
        (["--engine", "gpu"], "invalid choice"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(arguments, message):
    result = run(MOONS, *arguments)
    assert result.returncode == 2 and message in result.stderr
    assert "Traceback" not in result.stderr


def test_help():
    assert "--hidden" in moons("--help")


SMALL = "--steps 2 --batch 300 --captured 5 --nodes 3 --depth 20 --repeats 1 --slow-repeats 1"


def test_the_benchmark_runs_small(tmp_path):
    """Every case and the picture, after all peers have agreed; the times themselves are no test."""
    result = run(BENCHMARK, "--threads", "one", *SMALL.split(), "--plot", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    for case in "abcdef":
        assert f"\n({case}) " in result.stdout
    for peer in ("NumPy by hand", "vgrad, fuse=False", "vgrad's scalar engine"):
        assert re.search(rf"  {peer} +\S+ ms +\S+\n", result.stdout)
    assert (tmp_path / "benchmark.png").read_bytes().startswith(b"\x89PNG")


def test_the_benchmark_prints_no_time_of_a_peer_that_is_wrong(capsys):
    benchmark = runpy.run_path(str(BENCHMARK))
    peer, args = benchmark["Peer"], benchmark["parse"](["--repeats", "1"])
    peers = [peer("right", lambda: 1.0), peer("wrong", lambda: 1.0 + 1e-8)]
    with pytest.raises(SystemExit, match=r"wrong must agree with right \(1.00000001 and 1.0\)"):
        benchmark["compare"]("title", peers, args)
    assert capsys.readouterr().out == ""
