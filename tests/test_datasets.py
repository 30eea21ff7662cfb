"""The data sets, to the bit."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from helpers import long

from vgrad import datasets

# Of scikit-learn 1.9.1's make_moons with these arguments. Rounded to 1e-9, since the last bits of
# a cosine differ between processors; the test against scikit-learn itself is to the bit.
SKLEARN = {
    (100, 0.1, 1337): "e3a254407b2bdeb4",
    (101, None, 0): "3f74a5e4aadaad54",
    (7, 0.0, 3): "82bfc13c769f991e",
    (1000, 0.25, 42): "7a89064d1bdb634f",
    (1, 0.1, 1): "414427ff30d6a2de",
}


def digest(X, y):
    rounded = np.rint(X * 1e9).astype(np.int64)
    return hashlib.sha256(rounded.tobytes() + y.astype(np.int64).tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("arguments", SKLEARN, ids=str)
def test_moons_are_scikit_learns(arguments):
    X, y = datasets.make_moons(*arguments)
    assert X.dtype == np.float64 and y.dtype == np.int64 and len(X) == len(y) == arguments[0]
    assert digest(X, y) == SKLEARN[arguments]


@long  # it takes seconds to import, and the digests above are of its results
def test_moons_against_scikit_learn_itself():
    sklearn = pytest.importorskip("sklearn.datasets")
    for n, noise, seed in [(100, 0.1, 1337), (33, None, 5), (1000, 0.3, 0)]:
        for ours, theirs in zip(
            datasets.make_moons(n, noise, seed),
            sklearn.make_moons(n_samples=n, noise=noise, random_state=seed),
        ):
            assert np.array_equal(ours, theirs)


def test_moons_refuses_bad_arguments():
    with pytest.raises(ValueError, match="n_samples must not be negative .got -1"):
        datasets.make_moons(-1)
    with pytest.raises(ValueError, match="noise must not be negative .got -0.1"):
        datasets.make_moons(10, noise=-0.1)


def test_the_lecture():
    X, y = datasets.make_lecture()
    assert X.tolist() == [[2, 3, -1], [3, -1, 0.5], [0.5, 1, 1], [1, 1, -1]]
    assert y.tolist() == [1, -1, -1, 1]
