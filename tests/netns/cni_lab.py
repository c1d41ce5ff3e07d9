"""A node and pods as network namespaces, and runtimes' ways to call a plugin there."""

import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
SHIM = ROOT / "build/weft-cni"
DAEMON = ROOT / "tests/netns/cni_daemon.py"
RANGES = ("10.77.0.0/24", "fd77::/64")
_numbers = itertools.count()


def run(*command: str | Path, check: bool = True, stdin: int = subprocess.DEVNULL) -> str:
    words = [str(one) for one in command]
    done = subprocess.run(words, stdin=stdin, capture_output=True, text=True, timeout=60, cwd=ROOT)
    if check and done.returncode:
        raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def wait_until(what: str, condition: Callable[[], bool], timeout_s: float = 10) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"waited {timeout_s} s in vain until {what}")
        time.sleep(0.01)


def pings(ns: str, address: str) -> bool:
    """One packet there and back, at the first try."""
    out = run("ip", "netns", "exec", ns, "ping", "-c1", "-W2", address, check=False)
    return " 1 received" in out


@dataclass(frozen=True)
class Outcome:
    """What a runtime gets: exit code, stdout decoded (None when silent), stderr."""

    code: int
    answer: Any
    stderr: str


@dataclass
class Lab:
    """One node with its folder; pods are namespaces of their own."""

    folder: Path
    node: str
    exit: ExitStack
    config: dict[str, object] = field(default_factory=dict)

    def pod(self) -> str:
        """A new pod's namespace, by name."""
        return self.exit.enter_context(namespace("pod"))

    def ip(self, *words: str, ns: str | None = None) -> Any:
        """`ip -j` in the node's namespace or in `ns`."""
        text = run("ip", "-j", "-n", ns or self.node, *words)
        return json.loads(text) if text.strip() else []

    def links(self) -> set[str]:
        return {one["ifname"] for one in self.ip("link") if one["ifname"].startswith("weft")}

    def leases(self, file: str = "leases.jsonl") -> set[str]:
        """Addresses that a lease file in the node's folder says are held."""
        held: dict[tuple[str, str], list[str]] = {}
        for line in (self.folder / file).read_text().splitlines():
            record = json.loads(line)
            for kind in ("held", "released"):
                if kind in record:
                    key = (record[kind]["container_id"], record[kind]["ifname"])
                    held.pop(key, None)
            if "held" in record:
                held[record["held"]["container_id"], record["held"]["ifname"]] = record["held"][
                    "addresses"
                ]
        return {address for addresses in held.values() for address in addresses}

    def environment(self, verb: str, pod: str, container: str, ifname: str) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": f"/run/netns/{pod}" if pod else "",
            "CNI_IFNAME": ifname,
            "CNI_PATH": str(SHIM.parent),
            "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_UID=u1",
            "WEFT_CNI_SOCKET": str(self.folder / "cni.sock"),
            "WEFT_CNI_DELETIONS": str(self.folder / "deletions"),
            "WEFT_CNI_WAIT_MS": "300",
        }

    def start(
        self,
        verb: str,
        pod: str = "",
        container: str = "c1",
        ifname: str = "eth0",
        config: Mapping[str, object] | bytes | None = None,
        plugin: tuple[str, ...] = (str(SHIM),),
        **env: str,
    ) -> subprocess.Popen[str]:
        """The plugin running in the node's namespace, its configuration on stdin."""
        variables = self.environment(verb, pod, container, ifname) | env
        process = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{self.node}", *plugin],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={name: value for name, value in variables.items() if value},
        )  # fmt: skip
        self.exit.callback(process.kill)
        assert process.stdin is not None
        given = (
            config if isinstance(config, bytes) else json.dumps({**self.config, **(config or {})})
        )
        # A verb that reads nothing may have ended before its input was written.
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(given.decode() if isinstance(given, bytes) else given)
            process.stdin.close()
        process.stdin = None
        return process

    def cni(self, verb: str, *args: Any, **kwargs: Any) -> Outcome:
        return finish(self.start(verb, *args, **kwargs))

    @contextmanager
    def daemon(self, *runner: str) -> Iterator["subprocess.Popen[str]"]:
        """The server in the node's namespace, started by `runner`, listening; ended at the end."""
        config = self.folder / "node.json"
        config.write_text(json.dumps(self.config))
        process = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{self.node}", *runner, sys.executable, str(DAEMON),
             str(self.folder), str(config)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "serving\n"
            yield process
        finally:
            process.terminate()
            process.wait(20)
            assert process.stdout is not None
            process.stdout.close()


def finish(process: "subprocess.Popen[str]") -> Outcome:
    stdout, stderr = process.communicate(timeout=60)
    return Outcome(process.returncode, json.loads(stdout) if stdout else None, stderr)


def details(outcome: Outcome) -> str:
    assert outcome.code == 1, outcome
    return f"{outcome.answer['msg']}: {outcome.answer.get('details', '')}"


def addresses(added: Outcome) -> list[str]:
    return [ip["address"].split("/")[0] for ip in added.answer["ips"]]


def nothing_left(lab: Lab) -> bool:
    routes = json.dumps(lab.ip("route", "show", "proto", "87"))
    return (lab.links(), lab.leases(), routes) == (set(), set(), "[]")


@contextmanager
def namespace(kind: str) -> Iterator[str]:
    name = f"wt-cni-{os.getpid()}-{kind}{next(_numbers)}"
    run("ip", "netns", "add", name)
    try:
        yield name
    finally:
        run("ip", "netns", "del", name)


@contextmanager
def lab(folder: Path, mode: str = "routed") -> Iterator[Lab]:
    with ExitStack() as stack:
        node = stack.enter_context(namespace("node"))
        run("ip", "-n", node, "link", "set", "lo", "up")
        for address in ("10.77.0.1/32", "fd77::1/128") if mode == "routed" else ():
            run("ip", "-n", node, "address", "add", address, "dev", "lo")
        config: dict[str, object] = {
            "cniVersion": "1.1.0", "name": "weft", "type": "weft-cni", "mode": mode,
            "bridge": "pods", "ranges": list(RANGES), "dataDir": str(folder / "local"),
        }  # fmt: skip
        yield Lab(folder, node, stack, config)
