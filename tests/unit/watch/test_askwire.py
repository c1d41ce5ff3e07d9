"""The bytes that nodes exchange: what was said is what is read, and nothing else is read."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.proxy.model.objects import Ref
from weft.proxy.watch.askwire import (
    NONCE_BYTES,
    Answer,
    GivenOn,
    Heard,
    Message,
    Question,
    decode,
    encode,
)

V4, V6, NONCE = ip_address("10.244.2.5"), ip_address("fd00:2::5"), bytes(range(NONCE_BYTES))
MESSAGES: tuple[Message, ...] = (
    Question(NONCE, V4),
    Question(NONCE, V6),
    Answer(NONCE, V4, Ref("default", "web-0"), "e9c7-uid"),
    Answer(NONCE, V6, Ref("", ""), ""),
    GivenOn(V6),
    Heard(V4),
)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: f"{type(m).__name__} {m.address}")
def test_what_was_said_is_what_is_read(message: Message) -> None:
    data = encode(message)
    assert decode(data) == message
    assert all(decode(data[:length]) is None for length in range(len(data)))
    assert decode(data + b"x") is None
    assert decode(b"\x02" + data[1:]) is None


def test_a_text_that_does_not_fit_leaves_nobody_named() -> None:
    answer = Answer(NONCE, V4, Ref("default", "a" * 256), "uid")
    assert decode(encode(answer)) == Answer(NONCE, V4, Ref("", ""), "")


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_none(data: bytes) -> None:
    for text in (data, b"\x01\x02" + data):
        message = decode(text)
        assert message is None or message.address is not None
