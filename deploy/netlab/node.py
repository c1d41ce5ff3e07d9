"""Owns one node of a lab: its namespace, its daemon, and the pods that the executable wires."""

import json
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import IO

from deploy.netlab import manifests
from deploy.netlab.manifests import Address, Manifests
from deploy.netlab.shell import attempt, in_namespace, run, stop, wait_for

ROOT = Path(__file__).resolve().parents[2]
SHIM = ROOT / "build" / "weft-cni"
ANSWER = Path(__file__).with_name("answer.py")


@dataclass(frozen=True, slots=True)
class Pod:
    """A wired pod: a namespace whose link the executable made."""

    name: str
    space: str
    uid: str
    namespace: str
    cgroup: Path
    addresses: tuple[Address, ...]

    def command(self, *argv: str | Path) -> list[str]:
        return in_namespace(self.namespace, self.cgroup, argv)

    def run(self, *argv: str | Path, timeout_s: float = 30) -> str:
        return run(*self.command(*argv), timeout_s=timeout_s)

    def attempt(self, *argv: str | Path, timeout_s: float = 30) -> subprocess.CompletedProcess[str]:
        return attempt(*self.command(*argv), timeout_s=timeout_s)

    def address(self, version: int) -> Address:
        return next(a for a in self.addresses if a.version == version)


@dataclass(frozen=True, slots=True)
class Wire:
    """What a node's uplink is plugged into: a port of a bridge in the switch's namespace."""

    switch: str
    bridge: str
    port: str
    mtu_bytes: int


@dataclass(slots=True)
class LabNode:
    """A namespace that is a node: an uplink to the switch, a bpffs, a cgroup, one weftd."""

    name: str
    namespace: str
    folder: Path
    cgroup: Path
    underlay: tuple[str, ...]
    pod_cidrs: tuple[str, ...]
    manifests: Manifests
    mode: str
    flags: tuple[str, ...] = ()
    """More flags of its daemon; they win over the lab's."""
    tree: Path = ROOT / "build" / "tree"
    """Whose `weft` its daemon runs: another version's, where an upgrade is tried."""
    launcher: tuple[str | Path, ...] = ("-m", "weft.proxy")
    pods: dict[str, Pod] = field(default_factory=dict)
    added: dict[str, object] = field(default_factory=dict)
    """What ADD answered, by pod."""
    daemon: "subprocess.Popen[bytes] | None" = None
    _undo: ExitStack = field(default_factory=ExitStack)

    # --- the node itself ---
    def make(self, wire: Wire, *, gateway: tuple[str, ...]) -> None:
        for folder in ("bpf", "run", "lib", "net.d", "log"):
            (self.folder / folder).mkdir(parents=True)
        self.cgroup.mkdir()
        self._undo.callback(lambda: attempt("rmdir", self.cgroup))
        run("ip", "netns", "add", self.namespace)
        self._undo.callback(lambda: attempt("ip", "netns", "del", self.namespace))
        self.join(wire, gateway)
        run("mount", "-t", "bpf", "none", self.folder / "bpf")
        self._undo.callback(lambda: attempt("umount", "-l", self.folder / "bpf"))
        hosts = [str(ip_interface(a).ip) for a in self.underlay]
        self.manifests.put(manifests.node(self.name, hosts, self.pod_cidrs))

    def join(self, wire: Wire, gateway: tuple[str, ...]) -> None:
        """Give it the uplink eth0, also anew."""
        mtu = ("mtu", str(wire.mtu_bytes))
        run("ip", "-n", self.namespace, "link", "add", "eth0", *mtu, "type", "veth",
            "peer", "name", wire.port, *mtu, "netns", wire.switch)  # fmt: skip
        run("ip", "-n", wire.switch, "link", "set", wire.port, "master", wire.bridge, "up")
        for link in ("lo", "eth0"):
            run("ip", "-n", self.namespace, "link", "set", link, "up")
        for address in self.underlay:
            extra = ("nodad",) if ":" in address else ()
            run("ip", "-n", self.namespace, "addr", "add", address, "dev", "eth0", *extra)
        for address in gateway:
            run("ip", "-n", self.namespace, "route", "add", "default", "via", address)

    def close(self) -> None:
        for name in list(self.pods):
            self._drop_namespace(self.pods.pop(name))
        if self.daemon:
            stop(self.daemon)
        self._undo.close()

    def command(self, *argv: str | Path) -> list[str]:
        return in_namespace(self.namespace, self.cgroup, argv)

    def run(self, *argv: str | Path, timeout_s: float = 30) -> str:
        return run(*self.command(*argv), timeout_s=timeout_s)

    def attempt(self, *argv: str | Path, timeout_s: float = 30) -> subprocess.CompletedProcess[str]:
        return attempt(*self.command(*argv), timeout_s=timeout_s)

    def weft(self, *argv: str, check: bool = True) -> str:
        """What the `weft` command prints of this node; `check`: it must exit with 0."""
        command = self.weft_command(*argv)
        return run(*command) if check else attempt(*command).stdout

    def weft_command(self, *argv: str) -> list[str]:
        return self.command(sys.executable, "-m", "weft.cli", "--socket", self.api_socket, *argv)

    # --- its daemon ---
    @property
    def cni_socket(self) -> Path:
        return self.folder / "run" / "cni.sock"

    @property
    def api_socket(self) -> Path:
        return self.folder / "run" / "weft.sock"

    def daemon_argv(self) -> list[str]:
        return [
            sys.executable, *map(str, self.launcher),
            "--node", self.name,
            "--source", f"dir:{self.manifests.folder}",
            "--mode", self.mode,
            "--pins", str(self.folder / "bpf" / "weft"),
            "--cgroup", str(self.cgroup),
            "--cni-socket", str(self.cni_socket),
            "--api-socket", str(self.api_socket),
            "--state", str(self.folder / "lib"),
            "--conf-dir", str(self.folder / "net.d"),
            *self.flags,
        ]  # fmt: skip

    def launch(self) -> "subprocess.Popen[bytes]":
        """Run the daemon; its log is `log/weftd`."""
        with self._log() as log:
            self.daemon = subprocess.Popen(
                self.command(*self.daemon_argv()), stdout=log, stderr=log, env=self._environment()
            )
        return self.daemon

    def start(self, *, timeout_s: float = 60) -> None:
        """Run the daemon until it answers for CNI."""
        self.launch()
        self.await_ready(timeout_s=timeout_s)

    def await_ready(self, *, timeout_s: float = 60) -> None:
        conflist = self.folder / "net.d" / "05-weft.conflist"
        wait_for(
            f"{self.name} ready", lambda: self._alive() and conflist.exists(), timeout_s=timeout_s
        )

    def _alive(self) -> bool:
        if self.daemon and self.daemon.poll() is not None:
            raise RuntimeError(f"weftd of {self.name} ended:\n{self.log_tail()}")
        # A killed daemon leaves its sockets behind; this one is opened last.
        with socket.socket(socket.AF_UNIX) as api:
            return api.connect_ex(str(self.api_socket)) == 0

    def _log(self) -> IO[bytes]:
        return (self.folder / "log" / "weftd").open("ab")

    def log_tail(self, lines: int = 30) -> str:
        text = (self.folder / "log" / "weftd").read_text()
        return "\n".join(text.splitlines()[-lines:])

    def _environment(self) -> Mapping[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.tree)}

    def kill(self) -> None:
        """kill -9, as a crash would."""
        assert self.daemon
        self.daemon.kill()
        self.daemon.wait(10)

    # --- its pods ---
    def add_pod(
        self,
        name: str,
        *,
        labels: Mapping[str, str] | None = None,
        space: str = "default",
        annotations: Mapping[str, str] | None = None,
    ) -> Pod:
        """A pod as a runtime makes one: known to the API, a namespace, ADD, then its addresses."""
        uid = str(uuid.uuid4())
        said = labels or {}, annotations
        self.manifests.put(manifests.pod(name, space, uid, self.name, (), *said))
        namespace = f"{self.namespace}-{name}"
        run("ip", "netns", "add", namespace)
        pod = Pod(name, space, uid, namespace, self.cgroup, ())
        self.pods[name] = pod
        result = self.added[name] = json.loads(self.cni("ADD", pod))
        addresses = tuple(ip_address(ip["address"].split("/")[0]) for ip in result["ips"])
        pod = Pod(name, space, uid, namespace, self.cgroup, addresses)
        self.pods[name] = pod
        self.manifests.put(manifests.pod(name, space, uid, self.name, addresses, *said))
        return pod

    def add_host_pod(self, name: str) -> Pod:
        """A pod with `hostNetwork: true`: the node's own namespace and addresses, no ADD."""
        uid = str(uuid.uuid4())
        addresses = tuple(ip_interface(text).ip for text in self.underlay)
        said = manifests.pod(name, "default", uid, self.name, addresses, {}, host_network=True)
        self.manifests.put(said)
        return Pod(name, "default", uid, self.namespace, self.cgroup, addresses)

    def delete_pod(self, name: str) -> None:
        pod = self.pods.pop(name)
        self.cni("DEL", pod)
        self.manifests.remove("Pod", pod.name, pod.space)
        self._drop_namespace(pod)

    def cni(self, verb: str, pod: Pod) -> str:
        """Run weft-cni for a pod as containerd does; CommandFailed carries its error."""
        conflist = json.loads((self.folder / "net.d" / "05-weft.conflist").read_text())
        plugin = conflist["plugins"][0] | {
            "name": conflist["name"],
            "cniVersion": conflist["cniVersion"],
        }
        if verb == "CHECK":
            plugin["prevResult"] = self.added[pod.name]
        names = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": f"{self.name}-{pod.name}-{pod.uid[:8]}",
            "CNI_NETNS": f"/run/netns/{pod.namespace}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(SHIM.parent),
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE={pod.space};"
            f"K8S_POD_NAME={pod.name};K8S_POD_UID={pod.uid}",
            "WEFT_CNI_SOCKET": str(self.cni_socket),
        }
        environment = ["env", *(f"{k}={v}" for k, v in names.items())]
        return run(*self.command(*environment, SHIM), stdin=json.dumps(plugin))

    def serve(self, pod: Pod, port: int) -> None:
        """Start a server in the pod that answers with its name (see answer.py)."""
        ready = self.folder / "run" / f"{pod.name}.{port}.ready"
        argv: Sequence[str | Path] = (sys.executable, ANSWER, pod.name, str(port), ready)
        process = subprocess.Popen(
            pod.command(*argv), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._undo.callback(lambda: stop(process))
        wait_for(f"{pod.name} serves", ready.exists)

    def _drop_namespace(self, pod: Pod) -> None:
        attempt("ip", "netns", "del", pod.namespace)
