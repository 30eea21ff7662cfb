"""Two small data sets to classify.

>>> import vgrad
>>> X, y = vgrad.datasets.make_moons(100, noise=0.1, seed=1337)
>>> X.shape, y.shape
((100, 2), (100,))
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["make_lecture", "make_moons"]


def make_moons(
    n_samples: int = 100, noise: float | None = None, seed: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Two interleaved half circles: points (n, 2) and their classes, 0 or 1, (n,).

    The outer half circle gets half of the points, rounded down. `noise` is the standard deviation
    of the normal noise added; None adds none. Bit for bit what scikit-learn's function of this name
    gives with `random_state=seed`.

    >>> X, y = make_moons(4, seed=0)
    >>> y
    array([1, 1, 0, 0])

    Raises ValueError for a negative number of samples or negative noise.
    """
    if n_samples < 0:
        raise ValueError(f"n_samples must not be negative (got {n_samples})")
    if noise is not None and noise < 0:
        raise ValueError(f"noise must not be negative (got {noise})")
    outer = np.linspace(0, np.pi, n_samples // 2)
    inner = np.linspace(0, np.pi, n_samples - n_samples // 2)
    across = np.append(np.cos(outer), 1 - np.cos(inner))
    up = np.append(np.sin(outer), 1 - np.sin(inner) - 0.5)
    X = np.column_stack([across, up])
    y = np.append(np.zeros(len(outer), np.int64), np.ones(len(inner), np.int64))
    random = np.random.RandomState(seed)
    order = random.permutation(n_samples)
    X, y = X[order], y[order]
    if noise is not None:
        X += random.normal(scale=noise, size=X.shape)
    return X, y


def make_lecture() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The four samples of the micrograd lecture: points (4, 3) and targets -1 or 1, (4,).

    >>> X, y = make_lecture()
    >>> X[0], y
    (array([ 2.,  3., -1.]), array([ 1., -1., -1.,  1.]))
    """
    X = np.array([[2.0, 3.0, -1.0], [3.0, -1.0, 0.5], [0.5, 1.0, 1.0], [1.0, 1.0, -1.0]])
    return X, np.array([1.0, -1.0, -1.0, 1.0])


def __dir__() -> list[str]:
    return __all__
