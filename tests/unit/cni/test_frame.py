"""The bytes between shim and daemon, and the deletions that wait in files of them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.cni.deletions import DeletionQueue
from weft.cni.frame import (
    CONFIG_BYTES_MAX,
    REQUEST_HEADER,
    BadFrame,
    Call,
    body_bytes,
    decode_call,
    encode_call,
)
from weft.cni.spec import Key

words = st.text(st.characters(exclude_characters="\0=", exclude_categories=["Cs"]), min_size=1)


def decode(data: bytes) -> Call:
    return decode_call(data[: REQUEST_HEADER.size], data[REQUEST_HEADER.size :])


@given(st.dictionaries(words, words), st.binary(max_size=200))
def test_a_call_comes_back_as_it_went(env: dict[str, str], config: bytes) -> None:
    assert decode(encode_call(Call(env, config))) == Call(env, config)


@pytest.mark.parametrize(
    "header",
    [
        REQUEST_HEADER.pack(b"HTTP", 1, 0, 0),
        REQUEST_HEADER.pack(b"WEFT", 2, 0, 0),
        REQUEST_HEADER.pack(b"WEFT", 1, 0, CONFIG_BYTES_MAX + 1),
    ],
)
def test_what_no_shim_of_this_version_sends_is_refused(header: bytes) -> None:
    with pytest.raises(BadFrame):
        body_bytes(header)


CALL = Call({"CNI_COMMAND": "DEL"}, b"{}")


def queue_with(folder: Path, **files: bytes) -> DeletionQueue:
    queue = DeletionQueue(folder / "deletions")
    queue.open()
    for name, data in files.items():
        (folder / "deletions" / name).write_bytes(data)
    return queue


def test_a_queued_deletion_waits_until_it_is_removed(tmp_path: Path) -> None:
    queue = queue_with(tmp_path, **{"c1@eth0": encode_call(CALL)})
    assert queue.waiting() == [Key("c1", "eth0")]
    assert queue.find(Key("c1", "eth0")) == CALL
    queue.remove(Key("c1", "eth0"))
    assert queue.waiting() == []
    assert queue.find(Key("c1", "eth0")) is None
    queue.remove(Key("c1", "eth0"))


def test_a_deletion_that_is_still_being_written_is_not_seen(tmp_path: Path) -> None:
    queue = queue_with(tmp_path, **{".c1@eth0.77": encode_call(CALL)[:9]})
    assert queue.waiting() == []


def test_a_file_that_is_no_deletion_is_removed_and_the_others_are_read(tmp_path: Path) -> None:
    queue = queue_with(tmp_path, **{"a@eth0": b"junk", "b@eth0": encode_call(CALL)})
    found = {key: queue.find(key) for key in queue.waiting()}
    assert found == {Key("a", "eth0"): None, Key("b", "eth0"): CALL}
    assert [one.name for one in (tmp_path / "deletions").iterdir()] == ["b@eth0"]


def test_an_attachment_with_an_endless_id_has_no_queued_deletion(tmp_path: Path) -> None:
    assert queue_with(tmp_path).find(Key("c" * 300, "eth0")) is None
