"""The generated stubs are those of weft.proto as it stands."""

from pathlib import Path

from weft.proxy.api import generate, weft_pb2


def test_the_stubs_checked_in_are_what_the_generator_makes(tmp_path: Path) -> None:
    texts = generate.generate(tmp_path)
    assert texts.keys() == set(generate.STUBS)
    for name, text in texts.items():
        assert (generate.HERE / name).read_text() == text, f"{name} is stale: make api"


def test_the_api_only_answers_questions() -> None:
    calls = weft_pb2.DESCRIPTOR.services_by_name["Weft"].methods_by_name
    assert all(name.startswith(("Get", "List", "Watch", "Compare")) for name in calls)
