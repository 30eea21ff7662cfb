"""Slow programs run beside the other tests, one after another, so that the suite uses two cores."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers import BENCHMARK, MOONS

os.environ["MPLBACKEND"] = "agg"  # no window opens, whatever machine this is

Result = subprocess.CompletedProcess[str]
# The fixtures whose programs are started at once, in this order.
SLOW = ["published_moons", "chain_of_a_million", "small_benchmark", "animated_moons"]
SMALL = "--steps 2 --batch 300 --captured 5 --nodes 3 --depth 20 --repeats 1 --slow-repeats 1"


class Background:
    """Runs commands in a thread, one at a time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._process: subprocess.Popen[str] | None = None

    def start(self, *command: object) -> Future[Result]:
        return self._pool.submit(self._run, [sys.executable, *map(str, command)])

    def _run(self, command: list[str]) -> Result:
        with subprocess.Popen(command, stdout=-1, stderr=-1, text=True) as self._process:
            output, errors = self._process.communicate()
        return Result(command, self._process.returncode, output, errors)

    def stop(self) -> None:
        """Waits for nothing: what runs is killed, and what waits is forgotten."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._process is not None:
            self._process.kill()


class Run(NamedTuple):
    """A program on its way, and the folder that it writes into."""

    future: Future[Result]
    out: Path

    def result(self) -> Result:
        """What it has printed, once it has come to a good end."""
        result = self.future.result()
        assert result.returncode == 0, result.stdout + result.stderr
        return result


@pytest.fixture(scope="session")
def background() -> Iterator[Background]:
    runner = Background()
    yield runner
    runner.stop()


@pytest.fixture(scope="session")
def published_moons(background: Background, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """`moons.py --engine both` with the default arguments."""
    out = tmp_path_factory.mktemp("moons") / "new"
    return Run(background.start(MOONS, "--engine", "both", "--out", out), out)


@pytest.fixture(scope="session")
def animated_moons(background: Background, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A short `moons.py --animate`."""
    out = tmp_path_factory.mktemp("animated")
    options = ["--steps", 12, "--samples", 20, "--hidden", 4, "--animate", "--out", out]
    return Run(background.start(MOONS, *options), out)


@pytest.fixture(scope="session")
def small_benchmark(background: Background, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Every case of `benchmark.py`, and the picture."""
    out = tmp_path_factory.mktemp("benchmark")
    options = ["--threads", "one", *SMALL.split(), "--plot", "--out", out]
    return Run(background.start(BENCHMARK, *options), out)


@pytest.fixture(scope="session")
def chain_of_a_million(background: Background, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """`chain_of_a_million.py`."""
    script = Path(__file__).with_name("chain_of_a_million.py")
    return Run(background.start(script), tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session", autouse=True)
def _start_early(request: pytest.FixtureRequest) -> None:
    wanted = {name for item in request.session.items for name in _fixtures(item)}
    for name in SLOW:
        if name in wanted:
            request.getfixturevalue(name)


def _fixtures(item: pytest.Item) -> list[str]:
    return getattr(item, "fixturenames", [])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests that wait for them come last, in the order in which they end."""

    def place(item: pytest.Item) -> int:
        return max((1 + k for k, name in enumerate(SLOW) if name in _fixtures(item)), default=0)

    items.sort(key=place)
