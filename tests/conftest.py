"""How the suite uses two cores: slow programs run beside the other tests, one after another, and of
the whole suite every second test runs in a second pytest, which this one starts and waits for."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from helpers import BENCHMARK, DEMOS, MOONS

os.environ["MPLBACKEND"] = "agg"  # no window opens, whatever machine this is

Result = subprocess.CompletedProcess[str]
# The fixtures whose programs are started at once, in this order.
SLOW = [
    *("published_moons", "chain_of_a_million", "small_benchmark", "animated_moons"),
    *("visualized_neuron", "accumulated", "vector_lecture", "drawn_without_a_screen"),
    *("bad_moons", "help_of_moons"),
]
TINY = "--steps 12 --samples 20 --hidden 4"
SMALL = "--steps 2 --batch 300 --captured 5 --nodes 3 --depth 20 --length 4 --repeats 1"
SMALL += " --slow-repeats 1"


class Background:
    """Runs commands in a thread, one at a time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._process: subprocess.Popen[str] | None = None

    def start(
        self, *command: object, environment: dict[str, str | None] | None = None
    ) -> Future[Result]:
        """Python with these arguments, its environment changed so (None takes a variable away)."""
        changed = os.environ | (environment or {})
        kept = {name: x for name, x in changed.items() if x is not None}
        return self._pool.submit(self._run, [sys.executable, *map(str, command)], kept)

    def _run(self, command: list[str], environment: dict[str, str]) -> Result:
        with subprocess.Popen(
            command, stdout=-1, stderr=-1, text=True, env=environment
        ) as self._process:
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

    def printed(self) -> str:
        """The same as text, if there were no errors or warnings."""
        result = self.result()
        assert result.stderr == ""
        return result.stdout


@pytest.fixture(scope="session")
def background() -> Iterator[Background]:
    runner = Background()
    yield runner
    runner.stop()


def in_background(script: Path, *options: object, out: bool = True) -> Any:
    """A fixture that runs a script, told to write into a new folder if it takes `--out`."""

    @pytest.fixture(scope="session")
    def started(background: Background, tmp_path_factory: pytest.TempPathFactory) -> Run:
        folder = tmp_path_factory.mktemp("out") / "new"
        where = ["--out", folder] if out else []
        return Run(background.start(script, *options, *where), folder)

    return started


published_moons = in_background(MOONS, "--engine", "both")
chain_of_a_million = in_background(Path(__file__).with_name("chain_of_a_million.py"), out=False)
small_benchmark = in_background(BENCHMARK, "--threads", "one", *SMALL.split(), "--plot")
animated_moons = in_background(MOONS, *TINY.split(), "--animate")
accumulated = in_background(DEMOS / "accumulate.py")
vector_lecture = in_background(DEMOS / "lecture.py", "--engine", "vector")
bad_moons = in_background(MOONS, "--steps", 0, out=False)
help_of_moons = in_background(MOONS, "--help", out=False)


@pytest.fixture(scope="session")
def visualized_neuron(background: Background, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """`neuron.py --visualize`, with a browser that writes down what it is asked to open."""
    out = tmp_path_factory.mktemp("neuron")
    opener = out / "browser"
    opener.write_text(f'#!/bin/sh\necho "$1" > {out / "opened"}\n')
    opener.chmod(0o755)
    command = DEMOS / "neuron.py", "--visualize", "--step", 8, "--out", out
    return Run(background.start(*command, environment={"BROWSER": str(opener)}), out)


@pytest.fixture(scope="session")
def drawn_without_a_screen(background: Background, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("screen")
    path = str(out / "graph.png")
    code = f"import vgrad; vgrad.draw(vgrad.Value(1.0) + 1, {path!r})"
    without = {"DISPLAY": None, "MPLBACKEND": None}
    return Run(background.start("-c", code, environment=without), out)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """Gives the names of a demo, read in this process, which is quicker than to start one."""
    monkeypatch.syspath_prepend(DEMOS)
    return lambda name: runpy.run_path(str(DEMOS / f"{name}.py"))


@pytest.fixture
def here(load, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a demo prints that runs in this process, after it has come to a good end."""

    def demo(name: str, *arguments: object) -> str:
        assert load(name)["main"]([*map(str, arguments)]) == 0
        printed = capsys.readouterr()
        assert printed.err == ""
        return printed.out

    return demo


@pytest.fixture
def in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What IPython is asked to show. It is no dependency, and so played by a stand-in."""
    shown: list[Any] = []

    def display(thing: Any, display_id: bool = False) -> Any:
        shown.append(thing)
        return SimpleNamespace(update=shown.append) if display_id else None

    shell = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()))
    module = SimpleNamespace(Image=lambda data, format: data, display=display)
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return shown


@pytest.fixture(scope="session", autouse=True)
def _start_early(request: pytest.FixtureRequest) -> None:
    wanted = {name for item in request.session.items for name in _fixtures(item)}
    for name in SLOW:
        if name in wanted:
            request.getfixturevalue(name)


def _fixtures(item: pytest.Item) -> list[str]:
    return getattr(item, "fixturenames", [])


# --- every second test elsewhere -----------------------------------------------------------------

HARMLESS = {"-q", "-v", "-x", "-qq", "--durations=20"}  # options that both processes can have


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--second", action="store_true", help="run every second test and no other")


def pytest_configure(config: pytest.Config) -> None:
    options = config.invocation_params.args
    shared = HARMLESS.issuperset(options) and (os.cpu_count() or 1) > 1
    config.stash[OTHER] = None
    if shared and not config.option.collectonly:
        command = [sys.executable, "-m", "pytest", *options, "--second", "-p", "no:cacheprovider"]
        config.stash[OTHER] = subprocess.Popen(command, stdout=-1, stderr=-2, text=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail if the other process did; interrupted, this one does not wait for it."""
    other = session.config.stash[OTHER]
    if other is None:
        return
    if session.exitstatus == pytest.ExitCode.INTERRUPTED:
        other.kill()
    session.config.stash[PRINTED], _ = other.communicate()
    if other.returncode and not session.exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    printed = config.stash.get(PRINTED, "").rstrip()
    if printed:
        failed = config.stash[OTHER].returncode != 0
        terminalreporter.section("every second test, in a process of its own")
        terminalreporter.write_line(printed if failed else printed.splitlines()[-1])


OTHER = pytest.StashKey[Any]()
PRINTED = pytest.StashKey[str]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The tests that wait for programs come last, in the order in which these end."""

    def place(item: pytest.Item) -> int:
        return max((1 + k for k, name in enumerate(SLOW) if name in _fixtures(item)), default=0)

    if config.option.second or config.stash[OTHER] is not None:
        waiting = [] if config.option.second else [item for item in items if place(item)]
        others = [item for item in items if not place(item)]
        items[:] = waiting + others[config.option.second :: 2]
    items.sort(key=place)
