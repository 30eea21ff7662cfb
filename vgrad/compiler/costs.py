"""What time it takes: a cost model for the choice of sweep and tile.

Measured on one machine of two cores, 2 MB of cache each, over the programs of `demos/sequences.py`
and the moons: a NumPy call on few numbers, the same where there are so many calls that a cache does
not hold them, and a number in a call, by how much memory a tile works on. Elsewhere all of it may
be off by a factor of 2, and so may the width at which one choice becomes better than the other;
what is far from it is chosen rightly all the same.
"""

CALLS = 8  # of a kernel, forward and backward
CALL = 0.3e-6  # seconds
COLD_CALL = 1e-6  # seconds, of each of more calls than HELD_CALLS
HELD_CALLS = 4000
NUMBER = ((1 << 20, 0.15e-9), (1 << 23, 0.3e-9), (1 << 29, 0.5e-9))  # up to so many bytes, seconds
