"""The lab's hands on this machine: commands, background processes, cgroups and waiting.

Owns how the lab touches the host and nothing of what it does there. A process of a cluster lives
in the cluster's cgroup, so that `down` finds it by asking the kernel, also after a crash.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_UNTIL = "the lab gave up waiting until {what} ({timeout_s:.0f} s); see {where}"


def run(*argv: str | Path, stdin: str | None = None, timeout_s: float = 120) -> str:
    """Runs a command to its end and gives its output.

    Raises RuntimeError that names the command and what it wrote when it fails.
    """
    words = [str(word) for word in argv]
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=timeout_s)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise RuntimeError(f"`{' '.join(words)}` exited with {done.returncode}: {said}")
    return done.stdout


def succeeds(*argv: str | Path) -> bool:
    """Whether a command ends well within ten seconds; what it writes is thrown away."""
    try:
        run(*argv, timeout_s=10)
    except (RuntimeError, subprocess.TimeoutExpired):
        return False
    return True


def wait_until(
    what: str,
    holds: Callable[[], bool],
    *,
    timeout_s: float,
    where: Path,
    every_s: float = 0.1,
) -> None:
    """Returns when `holds()` does; TimeoutError names `what` and `where` the logs are."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(_UNTIL.format(what=what, timeout_s=timeout_s, where=where))
        time.sleep(every_s)


def spawn(argv: list[str], *, log: Path, cgroup: str) -> subprocess.Popen[bytes]:
    """Starts a background process in `cgroup` of every hierarchy, its output in `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            [*joining(cgroup), *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def joining(cgroup: str) -> list[str]:
    """The words before a command that run it in `cgroup` of every hierarchy."""
    joins = "".join(f"echo $$ > {folder}/cgroup.procs; " for folder in cgroup_folders(cgroup))
    return ["/bin/sh", "-ec", f'{joins}exec "$@"', "sh"]


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted cgroup hierarchy: its folder, file system type and mount options."""

    folder: Path
    type: str
    options: str


def hierarchies() -> list[Hierarchy]:
    """Every cgroup hierarchy that this machine has mounted, version 1 and 2."""
    rows = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return [
        Hierarchy(Path(row[1]), row[2], row[3].split(",", 2)[-1] if row[2] == "cgroup" else "")
        for row in rows
        if row[2] in ("cgroup", "cgroup2")
    ]


def is_unified() -> bool:
    """Whether this machine has cgroup version 2 only, as systemd sets it up."""
    return all(hierarchy.type == "cgroup2" for hierarchy in hierarchies())


def cgroup_folders(name: str) -> list[Path]:
    return [hierarchy.folder / name for hierarchy in hierarchies()]


def create_cgroup(name: str) -> None:
    """Makes the cgroup in every hierarchy, ready to hold processes and children."""
    for folder in cgroup_folders(name):
        for part in reversed([folder, *folder.parents][: len(Path(name).parts)]):
            _create_cgroup(part)


def _create_cgroup(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    # Version 1: without CPUs and memory nodes a cpuset takes no process.
    for knob in ("cpuset.cpus", "cpuset.mems"):
        if (folder / knob).exists():
            (folder / knob).write_text((folder.parent / knob).read_text())
            (folder / "cgroup.clone_children").write_text("1")
    # Version 2: a child has only the controllers that its parent hands on.
    if (folder / "cgroup.controllers").exists() and is_unified():
        given = (folder.parent / "cgroup.controllers").read_text().split()
        handed_on = " ".join(f"+{controller}" for controller in given)
        (folder.parent / "cgroup.subtree_control").write_text(handed_on)


def members(name: str) -> set[int]:
    """The ids of all processes in the cgroup and below it, in any hierarchy."""
    return {pid for folder in cgroup_folders(name) for pid in _members(folder)}


def _members(folder: Path) -> Iterator[int]:
    for procs in folder.rglob("cgroup.procs"):
        try:
            yield from map(int, procs.read_text().split())
        except OSError:
            continue  # the cgroup went while it was read


def destroy_cgroup(name: str, *, timeout_s: float = 20) -> None:
    """Ends every process in the cgroup, by id, and removes it from every hierarchy."""

    def is_empty() -> bool:
        pids = members(name)
        for pid in pids:
            _kill(pid)
        return not pids

    wait_until(f"cgroup {name} is empty", is_empty, timeout_s=timeout_s, where=Path("/proc"))
    for folder in cgroup_folders(name):
        gone = functools.partial(_removed, folder)
        wait_until(f"{folder} is gone", gone, timeout_s=5, where=folder)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _removed(folder: Path) -> bool:
    """Tries to remove a cgroup with its children; a dying process may hold it for a moment."""
    children = sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True)
    for child in (*children, folder):
        try:
            child.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True


def namespace_exec(namespace: str) -> list[str]:
    """The words before a command that run it in a named network namespace, /sys untouched."""
    return ["nsenter", f"--net=/run/netns/{namespace}", "--"]
