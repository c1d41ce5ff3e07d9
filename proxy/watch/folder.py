"""Owns a folder of manifests as a source of intent: YAML files, watched, instead of an API server.

A file that cannot be read keeps what it last said, and is reported. Never writes to the folder.
"""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from weft.proxy.model.decode import decode_manifest, manifests_in
from weft.proxy.model.objects import Broken, Kind
from weft.proxy.model.world import Key, Record
from weft.proxy.watch.events import Listed, Moved, Post, Refused, key_of
from weft.proxy.watch.inotify import FolderWatch

log = logging.getLogger(__name__)

KINDS = (
    Kind.NODE,
    Kind.NAMESPACE,
    Kind.POD,
    Kind.POLICY,
    Kind.SERVICE,
    Kind.SLICE,
    Kind.SERVICE_CIDR,
)
SUFFIXES = (".yaml", ".yml", ".json")
# libyaml's loader is ten times faster; PyYAML may be built without it.
_LOADER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Place = tuple[Kind, Key]
_Stamp = tuple[int, int, int]


@dataclass(slots=True)
class _File:
    stamp: _Stamp
    records: Mapping[Place, Record] = field(default_factory=dict)
    broken: tuple[Broken, ...] = ()


class Folder:
    """Posts the folder's records, then their changes. Several files naming one object: the last
    file in the order of names wins.
    """

    def __init__(self, folder: Path, post: Post) -> None:
        self.problems: dict[str, str] = {}
        """Files that could not be read, by name, with the reason."""
        self._folder = folder
        self._post = post
        self._files: dict[str, _File] = {}
        self._said: dict[Place, Record] = {}
        self._listed: set[Kind] = set()
        self._watch: FolderWatch | None = None

    def start(self) -> None:
        """Post what is there and follow, on a thread. OSError when it cannot be watched."""
        self._watch = watch = FolderWatch(self._folder)
        threading.Thread(target=self._follow, args=(watch,), name="folder", daemon=True).start()

    def stop(self) -> None:
        if self._watch is not None:
            self._watch.close()

    def _follow(self, watch: FolderWatch) -> None:
        self.scan()
        while watch.wait():
            self.scan()

    def troubles(self) -> Mapping[str, str]:
        """The files that cannot be read, with the reason."""
        return dict(self.problems)

    def scan(self) -> None:
        """Read the files that changed and post the difference; the first time, everything."""
        found = self._stamps()
        for name in self._files.keys() - found.keys():
            del self._files[name]
            self.problems.pop(name, None)
        for name, stamp in found.items():
            held = self._files.get(name)
            if held is None or held.stamp != stamp:
                self._files[name] = self._read(name, stamp, held)
        self._say()

    def _stamps(self) -> dict[str, _Stamp]:
        found: dict[str, _Stamp] = {}
        for path in self._folder.iterdir():
            if path.suffix in SUFFIXES and not path.name.startswith("."):
                try:
                    stat = path.stat()
                except OSError:
                    continue
                found[path.name] = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        return found

    def _read(self, name: str, stamp: _Stamp, held: _File | None) -> _File:
        try:
            documents = list(yaml.load_all((self._folder / name).read_bytes(), Loader=_LOADER))
        except (OSError, ValueError, yaml.YAMLError) as error:
            self.problems[name] = str(error)
            log.error("manifest unreadable", extra={"file": name, "error": str(error)})
            return _File(stamp, held.records if held else {})
        self.problems.pop(name, None)
        records: dict[Place, Record] = {}
        broken: list[Broken] = []
        for manifest in (m for document in documents for m in manifests_in(document)):
            said = decode_manifest(manifest)
            if isinstance(said, Broken):
                broken.append(said)
            elif said is not None:
                records[said[0], key_of(said[1])] = said[1]
        return _File(stamp, records, tuple(broken))

    def _say(self) -> None:
        now: dict[Place, Record] = {}
        refused: list[Broken] = []
        for name in sorted(self._files):
            now.update(self._files[name].records)
            refused += self._files[name].broken
        for broken in refused:
            place = (broken.kind, broken.ref)
            if place not in now and place in self._said:
                now[place] = self._said[place]
        before, self._said = self._said, now
        known = frozenset(self._listed)
        for kind in KINDS:
            if kind not in known and self._may_list(kind):
                self._list(kind, now, refused)
        self._move(known, before, now, refused)

    def _may_list(self, kind: Kind) -> bool:
        """A file that cannot be read may hold a policy: at the start nobody knows what it said, so
        policies count as not listed, and pods wait closed, until it can be read or is gone.
        """
        return kind is not Kind.POLICY or not self.problems

    def _list(self, kind: Kind, now: Mapping[Place, Record], refused: list[Broken]) -> None:
        records = {key: record for (of, key), record in now.items() if of is kind}
        self._post(Listed(kind, records, tuple(b for b in refused if b.kind is kind)))
        self._listed.add(kind)

    def _move(
        self,
        kinds: frozenset[Kind],
        before: Mapping[Place, Record],
        now: Mapping[Place, Record],
        refused: list[Broken],
    ) -> None:
        for kind, key in before.keys() - now.keys():
            if kind in kinds:
                self._post(Moved(kind, key, None))
        for (kind, key), record in now.items():
            if kind in kinds and before.get((kind, key)) != record:
                self._post(Moved(kind, key, record))
        for broken in refused:
            if broken.kind in kinds:
                self._post(Refused(broken))
