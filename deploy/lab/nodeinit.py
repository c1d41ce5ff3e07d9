"""The first process of a lab node: makes the machine's view of the world, then minds its agents.

Runs as process 1 in the node's own network, mount, UTS, cgroup and PID namespaces, so that ending
it ends the node and everything mounted in it. Owns the node's mounts and starts containerd and
kubelet again when they end, as a service manager would. Standard library only; never imports
another file of the lab. usage: nodeinit.py PLAN.json
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SCRATCH = Path("/run")
_ROOT = _SCRATCH / "root"
_OLD_ROOT = "/old-root"


@dataclass(frozen=True, slots=True)
class Agent:
    """A process that the node always runs: its words, its log, the socket it must wait for."""

    argv: list[str]
    log: str
    after: str | None


def main(plan_path: str) -> None:
    """Builds the node that the plan describes and stays until it is killed."""
    plan: dict[str, Any] = json.loads(Path(plan_path).read_text())
    signal.signal(signal.SIGTERM, _leave)
    socket.sethostname(plan["name"])
    _mount_root(plan["binds"])
    _mount_system(plan["hierarchies"], with_bpffs=plan["bpffs"])
    _enter_root()
    _leave_root_cgroup(plan["hierarchies"])
    for path, text in plan["files"].items():
        _write(Path(path), text)
    for path, target in plan["links"].items():
        Path(path).symlink_to(target)
    for argv in plan["commands"]:
        subprocess.run(argv, check=True)
    _mind([Agent(**agent) for agent in plan["agents"]])


def _leave(number: int, frame: object) -> None:
    sys.exit(0)


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def _mount_root(binds: dict[str, str]) -> None:
    """This machine's files as a root that may be written to: what is written dies with the node.

    The upper layer is memory: overlayfs refuses one that lies inside of its own lower layer.
    """
    _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", _SCRATCH)
    upper, work = _SCRATCH / "upper", _SCRATCH / "work"
    for folder in (upper, work, _ROOT):
        folder.mkdir()
    layers = f"lowerdir=/,upperdir={upper},workdir={work}"
    _mount("-t", "overlay", "-o", layers, "overlay", _ROOT)
    for target, source in {**binds, "/dev": "/dev"}.items():
        inside = _inside(target)
        inside.mkdir(parents=True, exist_ok=True)
        _mount("--rbind", source, inside)


def _mount_system(hierarchies: list[list[str]], *, with_bpffs: bool) -> None:
    """A /sys of the node's own network namespace, its cgroups with its own roots, a fresh /run."""
    _mount("-t", "proc", "proc", _inside("/proc"))
    _mount("-t", "sysfs", "sysfs", _inside("/sys"))
    if "/sys/fs/cgroup" not in [folder for folder, _, _ in hierarchies]:
        _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", _inside("/sys/fs/cgroup"))
    for folder, kind, options in hierarchies:
        _inside(folder).mkdir(exist_ok=True)
        _mount("-t", kind, *(("-o", options) if options else ()), kind, _inside(folder))
    if with_bpffs:
        _mount("-t", "bpf", "bpf", _inside("/sys/fs/bpf"))
    _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", _inside("/run"))
    _inside("/run/lock").mkdir()


def _inside(path: str) -> Path:
    return _ROOT / path.lstrip("/")


def _enter_root() -> None:
    """Makes the node's root the namespace's only one, shared, so that pods' mounts propagate."""
    _inside(_OLD_ROOT).mkdir()
    os.chdir(_ROOT)
    subprocess.run(["pivot_root", ".", _OLD_ROOT.lstrip("/")], check=True)
    os.chdir("/")
    subprocess.run(["umount", "--lazy", _OLD_ROOT], check=True)
    Path(_OLD_ROOT).rmdir()
    _mount("--make-rshared", "/")


def _leave_root_cgroup(hierarchies: list[list[str]]) -> None:
    """Version 2 only: a cgroup that hands controllers on to children may hold no process itself."""
    if [kind for _, kind, _ in hierarchies] == ["cgroup2"]:
        init = Path(hierarchies[0][0]) / "init"
        init.mkdir()
        (init / "cgroup.procs").write_text("1")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text)


def _mind(agents: list[Agent]) -> None:
    """Starts every agent in order, again when it ends, and reaps orphaned children for ever."""
    running = {_start(agent): agent for agent in agents}
    while True:
        pid, _ = os.wait()
        agent = running.pop(pid, None)
        if agent is not None:
            time.sleep(1)
            running[_start(agent)] = agent


def _start(agent: Agent) -> int:
    """Starts an agent and gives its id. Not by Popen, which would reap behind os.wait's back."""
    while agent.after is not None and not _answers(agent.after):
        time.sleep(0.05)
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, agent.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    return os.posix_spawnp(agent.argv[0], agent.argv, os.environ, file_actions=actions, setsid=True)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


if __name__ == "__main__":
    main(sys.argv[1])
