"""What takes long, in words, for those who wait."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

Report = Callable[[str], object]

PATIENCE = 1.0  # seconds, before anything is said
PAUSE = 0.1  # seconds from one text to the next, of those that may be left out


class Progress:
    """Calls `report`, if there is one, with what is being done, once work has taken a second."""

    def __init__(self, report: Report | None = None) -> None:
        if report is not None and not callable(report):
            raise TypeError(f"progress must be a function of a text (got {report!r})")
        self._report = report
        self._begins = perf_counter() + PATIENCE
        self._next = self._begins

    def __call__(self, text: str) -> None:
        if self._report is not None and perf_counter() >= self._begins:
            self._report(text)

    def often(self, text: Callable[[], str]) -> None:
        """The same, from a place that is passed often."""
        if self._report is not None and (now := perf_counter()) >= self._next:
            self._next = now + PAUSE
            self._report(text())
