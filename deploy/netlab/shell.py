"""Owns how the lab runs commands and waits; never what they mean."""

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


class CommandFailed(Exception):
    """A command of the lab ended badly: the command, its code and what it said."""


def run(*argv: str | Path, stdin: str = "", timeout_s: float = 60) -> str:
    """Standard output of a command that must succeed; CommandFailed otherwise."""
    done = subprocess.run(
        [str(a) for a in argv], input=stdin, capture_output=True, text=True, timeout=timeout_s
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise CommandFailed(f"{' '.join(map(str, argv))}: code {done.returncode}: {said}")
    return done.stdout


def attempt(*argv: str | Path, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """A command that may fail: for undoing and for probing."""
    return subprocess.run(
        [str(a) for a in argv], capture_output=True, text=True, timeout=timeout_s, check=False
    )


def wait_for(what: str, condition: Callable[[], bool], *, timeout_s: float = 15) -> None:
    """Return as soon as `condition` holds; TimeoutError naming `what` when it never does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s} s")
        time.sleep(0.002)


def stop(process: subprocess.Popen[Any], *, timeout_s: float = 10) -> None:
    """End a process that the lab started: ask, then insist."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout_s)


def in_namespace(namespace: str, cgroup: Path, argv: Sequence[str | Path]) -> list[str]:
    """The argv that runs `argv` in a network namespace and a cgroup of the lab."""
    enter = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
    return [
        "nsenter", f"--net=/run/netns/{namespace}", "sh", "-c", enter, str(cgroup), *map(str, argv),
    ]  # fmt: skip
