"""One node: its namespaces, its files, containerd and kubelet.

Owns what a node is made of; `nodeinit` carries it out from inside. Knows nothing of the network
that the pods will get.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.lab import binaries, host, spec, switch
from deploy.lab.spec import Cluster, Node, Shape

CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
PAUSE_IMAGE = "lab.weft.invalid/pause:1"
CLUSTER_DNS4 = spec.SERVICE_NETWORK4[10]
CLUSTER_DNS6 = spec.SERVICE_NETWORK6[10]

_INSTALLED = ("containerd", "containerd-shim-runc-v2", "ctr", "kubelet")
_CONTAINERD_CONFIG = f"""\
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = [
  "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs",
  "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{PAUSE_IMAGE}"
[plugins."io.containerd.cri.v1.runtime"]
  disable_apparmor = true
  restrict_oom_score_adj = true
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["/opt/cni/bin"]
  conf_dir = "/etc/cni/net.d"
  use_internal_loopback = true
[plugins."io.containerd.cri.v1.runtime".containerd]
  default_runtime_name = "runc"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  cgroup_writable = false
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  SystemdCgroup = false
"""

_KUBELET_CONFIG = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "failCgroupV1": False,
    "cgroupDriver": "cgroupfs",
    "cgroupRoot": "/",
    "enforceNodeAllocatable": [],
    "localStorageCapacityIsolation": False,
    "failSwapOn": False,
    "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
    "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
    "authorization": {"mode": "AlwaysAllow"},
    "clusterDNS": [str(CLUSTER_DNS4)],
    "clusterDomain": "cluster.local",
    "resolvConf": "/etc/resolv.conf",
    "volumePluginDir": "/var/lib/kubelet/volumeplugins",
    "serializeImagePulls": False,
    # Tests end containers again and again; kubelet's own five minutes would make them wait.
    "crashLoopBackOff": {"maxContainerRestartPeriod": "3s"},
    "imageGCHighThresholdPercent": 100,
    "imageGCLowThresholdPercent": 99,
    # A lab shares its disk with everything else on the machine: never evict for it.
    "evictionHard": {
        "memory.available": "0%",
        "nodefs.available": "0%",
        "nodefs.inodesFree": "0%",
        "imagefs.available": "0%",
    },
}


@dataclass(frozen=True, slots=True)
class Running:
    """A node that was started: `init_pid` is its process 1 as this machine numbers it."""

    node: Node
    init_pid: int

    def words(self) -> list[str]:
        """The words before a command that run it inside the node: its cgroups, its namespaces."""
        # Where cgroup version 2 is alone, the node's own processes are in a child of its root.
        cgroup = f"{self.node.cgroup}/init" if host.is_unified() else self.node.cgroup
        return [*host.joining(cgroup), "nsenter", f"--target={self.init_pid}", "--all", "--"]

    def run(self, *argv: str | Path, timeout_s: float = 120) -> str:
        """Runs a command inside the node and gives its output, as `host.run` does."""
        return host.run(*self.words(), *argv, timeout_s=timeout_s)


def start(cluster: Cluster, node: Node, tools: Mapping[str, Path], kubeconfig: Path) -> Running:
    """Makes the node's namespaces and starts its first process, which starts the rest."""
    switch.plug_in(cluster, node.namespace, node.name, node.address)
    host.create_cgroup(node.cgroup)
    for folder in ("lib", "log", "tmp", "cache"):
        (node.state / "var" / folder).mkdir(parents=True, exist_ok=True)
    (node.state / "var" / "run").symlink_to("/run")
    plan = node.state / "plan.json"
    plan.write_text(json.dumps(_plan(cluster, node, tools, kubeconfig), indent=1))
    init = Path(__file__).with_name("nodeinit.py")
    unshare = [
        "unshare",
        "--cgroup",
        "--mount",
        "--uts",
        "--ipc",
        "--pid",
        "--fork",
        "--kill-child",
    ]
    process = host.spawn(
        [*host.namespace_exec(node.namespace), *unshare, sys.executable, str(init), str(plan)],
        log=node.state / "init.log",
        cgroup=node.cgroup,
    )
    running = Running(node, _init_pid(process, node))
    (node.state / "init.pid").write_text(str(running.init_pid))
    return running


def find(node: Node) -> Running:
    """A node that `start` started; LookupError when it is not running."""
    try:
        pid = int((node.state / "init.pid").read_text())
    except FileNotFoundError as error:
        raise LookupError(f"node {node.name} was never started") from error
    if pid not in host.members(node.cgroup):
        raise LookupError(f"node {node.name} is not running; see {node.state / 'init.log'}")
    return Running(node, pid)


def _init_pid(process: subprocess.Popen[bytes], node: Node) -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")

    def has_child() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"node {node.name} ended at once; see {node.state / 'init.log'}")
        return bool(children.read_text().split())

    what = f"node {node.name} has its first process"
    host.wait_until(what, has_child, timeout_s=10, where=node.state / "init.log", every_s=0.01)
    return int(children.read_text().split()[0])


def _plan(
    cluster: Cluster, node: Node, tools: Mapping[str, Path], kubeconfig: Path
) -> dict[str, object]:
    """What `nodeinit` is to do. The node's /var is a folder of the cluster's state."""
    return {
        "name": node.name,
        "hierarchies": [[str(h.folder), h.type, h.options] for h in host.hierarchies()],
        "bpffs": cluster.shape is Shape.PLAIN,
        "binds": {
            "/var": str(node.state / "var"),
            str(binaries.cache_root()): str(binaries.cache_root()),
        },
        "links": {f"/usr/local/bin/{name}": str(tools[name]) for name in _INSTALLED},
        "files": _files(cluster, node, kubeconfig),
        "commands": _commands(cluster),
        "agents": _agents(node),
    }


def _files(cluster: Cluster, node: Node, kubeconfig: Path) -> dict[str, str]:
    resolver = spec.RESOLVER_ADDRESS
    hosts = f"127.0.0.1 localhost\n::1 localhost\n{node.address.v4} {node.name}\n"
    return {
        "/etc/hostname": f"{node.name}\n",
        "/etc/hosts": hosts,
        "/etc/machine-id": os.urandom(16).hex() + "\n",
        "/etc/resolv.conf": f"nameserver {resolver.v4}\noptions timeout:2 attempts:3\n",
        "/etc/containerd/config.toml": _CONTAINERD_CONFIG,
        "/etc/kubernetes/kubelet.conf": kubeconfig.read_text(),
        "/var/lib/kubelet/config.yaml": json.dumps(_KUBELET_CONFIG, indent=1),
    }


def _commands(cluster: Cluster) -> list[list[str]]:
    """What to run before the agents: in SHAPE=kind, the rules that hide the resolver."""
    if cluster.shape is Shape.PLAIN:
        return []
    hidden, port = switch.resolver(cluster)
    rules = [
        f"{family} daddr {named} {protocol} dport 53 dnat {family} to {target}"
        for protocol in ("udp", "tcp")
        for family, named, target in (
            ("ip", spec.RESOLVER_ADDRESS.v4, f"{hidden.v4}:{port}"),
            ("ip6", spec.RESOLVER_ADDRESS.v6, f"[{hidden.v6}]:{port}"),
        )
    ]
    body = "; ".join(rules)
    hooks = (("prerouting", "-100"), ("output", "-100"))
    chains = "".join(
        f"chain {hook} {{ type nat hook {hook} priority {priority}; {body}; }}; "
        for hook, priority in hooks
    )
    return [["nft", f"table inet lab-resolver {{ {chains} }}"]]


def _agents(node: Node) -> list[dict[str, object]]:
    containerd = ["containerd", "--config=/etc/containerd/config.toml"]
    kubelet = [
        "kubelet",
        "--config=/var/lib/kubelet/config.yaml",
        "--kubeconfig=/etc/kubernetes/kubelet.conf",
        f"--hostname-override={node.name}",
        f"--node-ip={node.address}",
        f"--node-labels=topology.kubernetes.io/zone={node.zone}",
    ]
    return [
        {"argv": containerd, "log": "/var/log/containerd.log", "after": None},
        {"argv": kubelet, "log": "/var/log/kubelet.log", "after": CONTAINERD_SOCKET},
    ]


def forget(node: Node) -> None:
    """Removes the node's files; its processes and mounts are gone by then."""
    shutil.rmtree(node.state, ignore_errors=True)
