"""Owns the bytes between the shim and the daemon; cni/shim/weft-cni.c writes the same.

A request is a header, the environment as NUL-terminated `NAME=value` and the configuration; the
first byte may carry two descriptors: the pod's namespace and a rtnetlink socket inside it. An
answer is a header and the text for stdout. A queued deletion is a request in a file.
Numbers are in host order: both ends are on one machine.
"""

import struct
from dataclasses import dataclass

MAGIC, VERSION = b"WEFT", 1
REQUEST_HEADER = struct.Struct("=4sIII")  # magic, version, environment bytes, configuration bytes
ANSWER_HEADER = struct.Struct("=II")  # exit code, bytes of text
ENVIRONMENT_BYTES_MAX = 1 << 16
CONFIG_BYTES_MAX = 1 << 22

# The shim's own word: it could not open CNI_NETNS, and this is errno.
NETNS_ERRNO = "WEFT_NETNS_ERRNO"


class BadFrame(Exception):
    """What came is not a request of a shim of this version."""


@dataclass(frozen=True, slots=True)
class Answer:
    exit_code: int
    text: bytes


@dataclass(frozen=True, slots=True)
class Call:
    """One run of the shim: its CNI_ environment and what it read from stdin."""

    env: dict[str, str]
    config: bytes


def body_bytes(header: bytes) -> tuple[int, int]:
    """Sizes of the environment and the configuration. Raises BadFrame."""
    magic, version, environment, config = REQUEST_HEADER.unpack(header)
    if magic != MAGIC or version != VERSION:
        raise BadFrame(f"{magic!r} version {version}, expected {MAGIC!r} version {VERSION}")
    if environment > ENVIRONMENT_BYTES_MAX or config > CONFIG_BYTES_MAX:
        raise BadFrame(f"{environment} + {config} bytes are more than a shim sends")
    return environment, config


def decode_call(header: bytes, body: bytes) -> Call:
    """Raises BadFrame. Bytes that are no UTF-8 survive as surrogates."""
    environment, config = body_bytes(header)
    if len(body) != environment + config:
        raise BadFrame(f"{len(body)} bytes, the header says {environment + config}")
    texts = body[:environment].decode(errors="surrogateescape").split("\0")
    pairs = [text.partition("=") for text in texts if text]
    return Call({name: value for name, _, value in pairs}, body[environment:])


def encode_call(call: Call) -> bytes:
    environment = b"".join(
        f"{name}={value}\0".encode(errors="surrogateescape") for name, value in call.env.items()
    )
    header = REQUEST_HEADER.pack(MAGIC, VERSION, len(environment), len(call.config))
    return header + environment + call.config


def encode_answer(answer: Answer) -> bytes:
    return ANSWER_HEADER.pack(answer.exit_code, len(answer.text)) + answer.text
