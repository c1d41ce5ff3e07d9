"""Ids: equal content, equal id; nothing else."""

from hypothesis import given
from hypothesis import strategies as st

from weft.proxy.model.ids import content_id

parts = st.lists(st.text(max_size=4) | st.binary(max_size=4) | st.integers(), max_size=4)


@given(one=parts, other=parts)
def test_different_content_has_a_different_id(
    one: list[str | bytes | int], other: list[str | bytes | int]
) -> None:
    assert (content_id(*one) == content_id(*other)) == (one == other)


@given(one=parts)
def test_an_id_is_64_bits_and_never_zero(one: list[str | bytes | int]) -> None:
    assert 0 < content_id(*one) < 2**64


def test_an_id_is_the_same_on_every_machine_and_after_every_restart() -> None:
    assert content_id("shop", "web", 80) == 6622892532106821397
