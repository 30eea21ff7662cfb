"""Two slow programs run beside the other tests, so that the suite uses two cores."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers import MOONS

os.environ["MPLBACKEND"] = "agg"  # no window opens, whatever machine this is

Process = subprocess.Popen[str]
SLOW = {"published_moons", "chain_of_a_million"}  # the fixtures that are started at once


class Moons(NamedTuple):
    process: Process
    out: Path


def start(*command: object) -> Process:
    arguments = [sys.executable, *map(str, command)]
    return subprocess.Popen(arguments, stdout=-1, stderr=-1, text=True)


@pytest.fixture(scope="session")
def published_moons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moons]:
    """`moons.py --engine both` with the default arguments, on its way."""
    out = tmp_path_factory.mktemp("moons") / "new"
    with start(MOONS, "--engine", "both", "--out", out) as process:
        yield Moons(process, out)
        process.kill()


@pytest.fixture(scope="session")
def chain_of_a_million() -> Iterator[Process]:
    """`chain_of_a_million.py`, on its way."""
    with start(Path(__file__).with_name("chain_of_a_million.py")) as process:
        yield process
        process.kill()


@pytest.fixture(scope="session", autouse=True)
def _start_early(request: pytest.FixtureRequest) -> None:
    for name in sorted(SLOW & _fixtures(request.session.items)):
        request.getfixturevalue(name)


def _fixtures(items: list[pytest.Item]) -> set[str]:
    return {name for item in items for name in getattr(item, "fixturenames", ())}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests that wait for them come last."""
    items.sort(key=lambda item: bool(SLOW & _fixtures([item])))
