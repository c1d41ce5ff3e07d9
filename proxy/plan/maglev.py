"""Owns the rings by which clients outside are spread: a table of places, each a backend's.

After Maglev (Eisenbud and others, NSDI 2016): each backend has an order of the places, all its own,
and takes free ones by turns. Where the paper's backend seeks on until it finds a free place, here
its turn ends after a few: shares are a little less even (a tenth, of 100 backends), and of the
other backends' places fewer than 1 % move when one goes. From ids alone, so that all nodes agree.
"""

from array import array
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

SIZES = (251, 503, 1_009, 2_003, 4_001, 8_009, 16_001, 32_003, 65_537)
_PLACES_EACH = 100
_TRIES = 4


def ring_size(backends: int) -> int:
    """How many places there are: a prime, so that every step visits each of them.

    In steps of two: another size is another ring, and where one backend comes or goes it must stay.
    """
    if backends <= 1:
        return backends
    return next((size for size in SIZES if size >= _PLACES_EACH * backends), SIZES[-1])


@lru_cache(maxsize=16)
def ring(backends: tuple[int, ...]) -> Sequence[int]:
    """For each place the index in `backends`, which are ids in their order, of whose it is."""
    size = ring_size(len(backends))
    walks = [_walk(backend, size) for backend in backends]
    ats, steps = [at for at, _ in walks], [step for _, step in walks]
    # Hundreds of thousands of tries: a list's items are objects already, an array's are made.
    places, left, tries = [-1] * size, size, range(_TRIES)
    while left > 0:
        for index, step in enumerate(steps):
            at = ats[index]
            for _ in tries:
                place = at
                at += step
                if at >= size:
                    at -= size
                if places[place] < 0:
                    places[place] = index
                    left -= 1
                    break
            ats[index] = at
    return array("H", places)


def _walk(backend: int, size: int) -> tuple[int, int]:
    """Where a backend begins and the step that it goes on by."""
    digest = blake2b(backend.to_bytes(8, "big"), digest_size=16).digest()
    start, step = int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")
    return start % size, step % (size - 1) + 1 if size > 1 else 0
