"""Rings: every place somebody's, even shares, little moves, the same from the same backends."""

import random
from collections import Counter

import pytest

from weft.proxy.plan.maglev import ring, ring_size


def backends(count: int, seed: int = 1) -> tuple[int, ...]:
    source = random.Random(seed)
    return tuple(sorted(source.getrandbits(64) for _ in range(count)))


@pytest.mark.parametrize(
    ("count", "size"),
    [(0, 0), (1, 1), (2, 251), (3, 503), (99, 16_001), (100, 16_001), (5_000, 65_537)],
)
def test_a_ring_is_a_prime_of_at_least_a_hundred_places_for_each(count: int, size: int) -> None:
    assert ring_size(count) == size


@pytest.mark.parametrize("count", [1, 2, 10, 100])
def test_every_place_is_somebodys_and_shares_are_even(count: int) -> None:
    shares = Counter(ring(backends(count)))
    fair = ring_size(count) / count
    assert set(shares) == set(range(count))
    assert all(0.8 * fair <= share <= 1.2 * fair for share in shares.values())


@pytest.mark.parametrize("gone", [0, 1, 37, 50, 98, 99])
def test_of_a_hundred_one_goes_and_at_most_one_percent_of_the_others_places_move(gone: int) -> None:
    every = backends(100)
    rest = every[:gone] + every[gone + 1 :]
    before, after = ring(every), ring(rest)
    assert len(before) == len(after)
    others = [place for place in range(len(before)) if before[place] != gone]
    moved = [place for place in others if every[before[place]] != rest[after[place]]]
    assert len(moved) <= len(others) / 100


def test_the_order_of_events_does_not_count() -> None:
    ring.cache_clear()
    first = ring(backends(20))
    ring.cache_clear()
    assert ring(backends(20)) == first
