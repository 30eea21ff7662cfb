"""The one slow demo runs beside the other tests, so that the suite uses two cores."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers import MOONS


class Running(NamedTuple):
    process: subprocess.Popen[str]
    out: Path


@pytest.fixture(scope="session")
def published_moons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """`moons.py --engine both` with the default arguments, on its way."""
    out = tmp_path_factory.mktemp("moons") / "new"
    command = [sys.executable, str(MOONS), "--engine", "both", "--out", str(out)]
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True) as process:
        yield Running(process, out)
        process.kill()


@pytest.fixture(scope="session", autouse=True)
def _start_early(request: pytest.FixtureRequest) -> None:
    if any(
        "published_moons" in getattr(item, "fixturenames", ()) for item in request.session.items
    ):
        request.getfixturevalue("published_moons")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The test that waits for it comes last."""
    items.sort(key=lambda item: "published_moons" in getattr(item, "fixturenames", ()))
