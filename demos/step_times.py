"""How long a step takes on n workers, by formulas, and by workers with delays that check them.

    B      samples in a step
    a, r   seconds that a task takes, and that each of its samples takes
    m      bytes of theta, and of a gradient
    c      seconds that one scheduler takes for a task: to send it, and to take its result
    alpha  latency of a message, s
    beta   bandwidth, bytes / s

A message of m bytes takes alpha + m / beta, during which both ends are busy (Hockney 1994). Each
worker computes for C = a + r ceil(B / n). In a binomial tree, as in MPI, theta goes out and
gradients are added up in ceil(log2 n) rounds each (Thakur, Rabenseifner, Gropp 2005):

    tree(n) = C + 2 ceil(log2 n) (alpha + m / beta)

which is least near n = r B ln 2 / (2 (alpha + m / beta)). One scheduler, as dask's, sends N tasks
and takes N results one after another, each in s = c / 2 + m / beta. With w = N / n tasks a worker,
and C = a + r ceil(B / N), one of three is the last to end: its own work, the last task that it
sends, or the worker that starts last:

    star(n) = max(2 N s,  (N + 1) s + C + 2 alpha,  (n + 1) s + w C + 2 alpha)

which for w = 1 is least near n = sqrt(r B / s). Left out are the adding up of gradients, workers
that differ, cores and networks that others use, and that dask's client asks for results one after
another: a real step is slower.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from typing import Any, NamedTuple

import numpy as np

MOST = 1 << 16  # workers among which the best are looked for


class Step(NamedTuple):
    """What a step is made of, by the letters above."""

    batch: int  # B
    task: float  # a
    sample: float  # r
    bytes: int  # m
    overhead: float  # c
    latency: float  # alpha
    bandwidth: float  # beta

    def message(self) -> float:
        return self.latency + self.bytes / self.bandwidth

    def service(self) -> float:
        return self.overhead / 2 + self.bytes / self.bandwidth

    def compute(self, parts: Any) -> Any:
        return self.task + self.sample * np.ceil(self.batch / parts)

    def tree(self, n: Any) -> Any:
        """Seconds, for a number of workers or an array of them."""
        rounds = np.frexp(np.subtract(n, 1))[1]  # ceil(log2(n)), exactly
        return self.compute(n) + 2 * rounds * self.message()

    def star(self, n: Any, each: float = 1) -> Any:
        """The same with one scheduler, and so many tasks a worker."""
        tasks, s, wait = n * each, self.service(), 2 * self.latency
        compute = self.compute(tasks)
        last_task, last_worker = (tasks + 1) * s + compute, (n + 1) * s + each * compute
        return np.maximum(2 * tasks * s, np.maximum(last_task, last_worker) + wait)


WAYS = {"tree": Step.tree, "one scheduler": Step.star}


def best(times: Callable[..., Any], step: Step) -> int:
    """The number of workers whose step is the quickest; of several, the smallest."""
    return 1 + int(np.argmin(times(step, np.arange(1, min(step.batch, MOST) + 1))))


# --- checked by workers with delays --------------------------------------------------------------


def acts(rank: int, n: int) -> Iterator[int]:
    """What a worker of the tree does: meets others, in turn, and computes (itself, here)."""
    children = [rank + 2**j for j in range(n.bit_length()) if rank < 2**j < n - rank]
    parent = rank - (1 << rank.bit_length() >> 1)
    yield from [parent, *children] if rank else children
    yield rank
    yield from reversed([parent, *children] if rank else children)


def shares(step: Step, parts: int) -> list[float]:
    """Seconds that each part of the batch takes, the larger ones first."""
    size, more = divmod(step.batch, parts)
    return [step.task + step.sample * (size + (k < more)) for k in range(parts)]


def simulated_tree(step: Step, n: int) -> float:
    """Seconds until rank 0 has the gradient; who meets waits for the other, then both are busy."""
    clock, own, waiting = [0.0] * n, shares(step, n), set[tuple[int, int]]()
    plans, ready = [acts(rank, n) for rank in range(n)], deque(range(n))
    while ready:
        rank = ready.popleft()
        for other in plans[rank]:
            if other == rank:
                clock[rank] += own[rank]
            elif (other, rank) not in waiting:
                waiting.add((rank, other))
                break
            else:
                waiting.remove((other, rank))
                clock[rank] = clock[other] = max(clock[rank], clock[other]) + step.message()
                ready.append(other)
    return clock[0]


def simulated_star(step: Step, n: int, each: int = 1) -> float:
    """Seconds until the scheduler has all results, which it takes as they come."""
    clock, free, results = 0.0, [0.0] * n, list[float]()
    for k, seconds in enumerate(shares(step, n * each)):
        clock += step.service()
        free[k % n] = max(free[k % n], clock + step.latency) + seconds
        heappush(results, free[k % n] + step.latency)
    while results:
        clock = max(clock, heappop(results)) + step.service()
    return clock


def slept_tree(step: Step, n: int) -> float:
    """Seconds that the tree takes with threads for workers, and sleep for what they do."""
    own, meetings = shares(step, n), dict[tuple[int, int], threading.Barrier]()
    for rank in range(n):
        for other in {*acts(rank, n)} - {rank}:
            meetings.setdefault((min(rank, other), max(rank, other)), threading.Barrier(2))

    def work(rank: int) -> None:
        for other in acts(rank, n):
            if other != rank:
                meetings[min(rank, other), max(rank, other)].wait()
            time.sleep(own[rank] if other == rank else step.message())

    others = [threading.Thread(target=work, args=(rank,)) for rank in range(1, n)]
    start = time.perf_counter()
    for thread in others:
        thread.start()
    work(0)
    seconds = time.perf_counter() - start
    for thread in others:
        thread.join()
    return seconds


SIMULATED = {"tree": simulated_tree, "one scheduler": simulated_star}


def quickest(program: Any, theta: np.ndarray, rows: list[np.ndarray]) -> float:
    """Seconds for a gradient, where this runs: the least of five, after one that plans."""
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        program.value_and_grad(theta, *rows)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])
