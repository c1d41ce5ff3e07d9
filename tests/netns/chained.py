"""Pods of a lab that cnitool adds by a list of plugins: ours first, the project's own behind it."""

import json
import os
import uuid
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

from deploy.netlab import LabNode, Pod, manifests
from deploy.netlab.node import SHIM
from deploy.netlab.shell import run

CACHE = Path(os.environ.get("WEFT_CACHE", Path.home() / ".cache/weft"))
TOOLS = next(CACHE.glob("lab/*/bin/cnitool"), None)
PORTMAP: Mapping[str, object] = {"type": "portmap", "capabilities": {"portMappings": True}}
BANDWIDTH: Mapping[str, object] = {"type": "bandwidth", "capabilities": {"bandwidth": True}}


class Chain:
    """One node's list of plugins. runtime: what a runtime passes to those that ask for it."""

    def __init__(self, node: LabNode, *plugins: Mapping[str, object]) -> None:
        self._node = node
        self._folder = node.folder / "chained"
        self._state = node.folder / "chained-lib"
        for folder in (self._folder, self._state):
            folder.mkdir(exist_ok=True)
        listed = json.loads((node.folder / "net.d" / "05-weft.conflist").read_text())
        listed["plugins"] = [listed["plugins"][0], *plugins]
        self._network = listed["name"]
        (self._folder / "05-weft.conflist").write_text(json.dumps(listed))

    def add(self, name: str, runtime: object, annotations: Mapping[str, str]) -> Pod:
        uid = str(uuid.uuid4())
        said: tuple[Mapping[str, str], Mapping[str, str]] = ({}, annotations)
        node = self._node
        node.manifests.put(manifests.pod(name, "default", uid, node.name, (), *said))
        namespace = f"{node.namespace}-{name}"
        run("ip", "netns", "add", namespace)
        pod = Pod(name, "default", uid, namespace, node.cgroup, ())
        node.pods[name] = pod
        result = json.loads(self("add", pod, runtime))
        addresses = tuple(ip_address(ip["address"].split("/")[0]) for ip in result["ips"])
        pod = Pod(name, "default", uid, namespace, node.cgroup, addresses)
        node.pods[name] = pod
        node.manifests.put(manifests.pod(name, "default", uid, node.name, addresses, *said))
        return pod

    def delete(self, pod: Pod, runtime: object) -> None:
        self("del", pod, runtime)
        self._node.manifests.remove("Pod", pod.name, pod.space)
        run("ip", "netns", "del", self._node.pods.pop(pod.name).namespace)

    def __call__(self, verb: str, pod: Pod, runtime: object) -> str:
        """cnitool's cache lies in the node's folder, not in this machine's."""
        assert TOOLS is not None
        variables = {
            "NETCONFPATH": str(self._folder),
            "CNI_PATH": f"{SHIM.parent}:{TOOLS.parent}",
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE={pod.space};"
            f"K8S_POD_NAME={pod.name};K8S_POD_UID={pod.uid}",
            "CAP_ARGS": json.dumps(runtime),
            "WEFT_CNI_SOCKET": str(self._node.cni_socket),
        }
        inside = f'mount --bind {self._state} /var/lib && exec "$@"'
        call = ("unshare", "-m", "sh", "-c", inside, "sh", TOOLS, verb, self._network)
        environment = [f"{key}={value}" for key, value in variables.items()]
        return self._node.run("env", *environment, *call, f"/run/netns/{pod.namespace}")
