"""A folder of manifests as a source of intent."""

from collections.abc import Callable
from pathlib import Path

import pytest

from weft.proxy.model.objects import Kind, Ref
from weft.proxy.watch.events import Event, Listed, Moved, Refused
from weft.proxy.watch.folder import KINDS, Folder

NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: %s, labels: {team: %s}}\n"


class Watched:
    """A folder, its source, and what it posted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[Event] = []
        self.source = Folder(folder, self.events.append)

    def write(self, name: str, text: str) -> None:
        fresh = self.folder / f"{name}.tmp"
        fresh.write_text(text)
        fresh.rename(self.folder / name)

    def scan(self) -> list[Event]:
        self.events.clear()
        self.source.scan()
        return list(self.events)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def moved(events: list[Event]) -> dict[str, bool]:
    """Names that moved, and whether they are still there."""
    assert all(isinstance(event, Moved) for event in events)
    return {str(e.key): e.record is not None for e in events if isinstance(e, Moved)}


def test_the_first_scan_lists_every_kind_also_the_empty_ones(watched: Watched) -> None:
    watched.write("a.yaml", NAMESPACE % ("a", "x"))
    events = watched.scan()
    assert {e.kind for e in events if isinstance(e, Listed)} == set(KINDS)
    listed = next(e for e in events if isinstance(e, Listed) and e.kind is Kind.NAMESPACE)
    assert set(listed.records) == {Ref("", "a")}


def test_an_empty_folder_is_listed_once(watched: Watched) -> None:
    assert len(watched.scan()) == len(KINDS)
    assert watched.scan() == []


def test_a_second_scan_posts_what_came_changed_and_went(watched: Watched) -> None:
    for name in ("stays", "changes", "goes"):
        watched.write(f"{name}.yaml", NAMESPACE % (name, "x"))
    watched.scan()
    watched.write("changes.yaml", NAMESPACE % ("changes", "y"))
    watched.write("comes.yaml", NAMESPACE % ("comes", "x"))
    (watched.folder / "goes.yaml").unlink()
    assert moved(watched.scan()) == {"changes": True, "comes": True, "goes": False}


def test_a_file_holds_many_documents_and_lists(watched: Watched) -> None:
    item = "{apiVersion: v1, kind: Namespace, metadata: {name: %s}}"
    text = f"{item % 'a'}\n---\n{{apiVersion: v1, kind: List, items: [{item % 'b'}]}}\n"
    watched.write("many.yaml", text)
    watched.scan()
    (watched.folder / "many.yaml").unlink()
    assert moved(watched.scan()) == {"a": False, "b": False}


def test_a_file_that_is_no_yaml_keeps_what_it_last_said_and_is_reported(watched: Watched) -> None:
    watched.write("a.yaml", NAMESPACE % ("a", "x"))
    watched.scan()
    watched.write("a.yaml", "kind: [")
    assert watched.scan() == []
    assert list(watched.source.problems) == ["a.yaml"]
    watched.write("a.yaml", NAMESPACE % ("a", "y"))
    assert moved(watched.scan()) == {"a": True}
    assert watched.source.problems == {}


def test_an_object_that_cannot_be_understood_keeps_its_last_record(watched: Watched) -> None:
    policy = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: default}
spec: {podSelector: {}, ingress: []}
"""
    service = """
apiVersion: v1
kind: Service
metadata: {name: s, namespace: default}
spec: {clusterIP: %s, ports: [{port: 80}]}
"""
    watched.write("p.yaml", policy)
    watched.write("s.yaml", service % "10.96.0.1")
    watched.scan()
    watched.write("s.yaml", service % "{not: an address}")
    events = watched.scan()
    assert [e.broken.ref for e in events if isinstance(e, Refused)] == [Ref("default", "s")]
    assert not [e for e in events if isinstance(e, Moved)]


def test_a_change_of_the_folder_is_noticed_without_asking(
    watched: Watched, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    watched.source.start()
    try:
        eventually(lambda: len(watched.events) == len(KINDS))
        watched.write("a.yaml", NAMESPACE % ("a", "x"))
        eventually(lambda: bool(watched.events) and isinstance(watched.events[-1], Moved))
    finally:
        watched.source.stop()


def test_a_folder_that_is_not_there_is_an_error_naming_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        Folder(tmp_path / "missing", print).start()


def test_policies_are_not_listed_while_a_file_of_the_first_scan_cannot_be_read(
    watched: Watched,
) -> None:
    watched.write("policy.yaml", "kind: [")
    events = watched.scan()
    assert {e.kind for e in events if isinstance(e, Listed)} == set(KINDS) - {Kind.POLICY}
    watched.write("policy.yaml", NAMESPACE % ("a", "x"))
    events = watched.scan()
    assert {e.kind for e in events if isinstance(e, Listed)} == {Kind.POLICY}
    assert {str(e.key) for e in events if isinstance(e, Moved)} == {"a"}
    watched.write("later.yaml", "kind: [")
    assert watched.scan() == []
