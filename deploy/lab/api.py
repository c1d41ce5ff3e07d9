"""What the lab asks of the cluster's API, by kubectl inside the control plane's namespace.

Owns the applying of manifests and the waiting for what they bring up.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deploy.lab import controlplane, host, spec
from deploy.lab.spec import Cluster

# The one setting of Weft's manifest that a cluster without Services at first must give.
_SETTINGS = ("ConfigMap", "kube-system", "weft")


@dataclass(frozen=True, slots=True)
class Api:
    """The cluster's API as its administrator sees it."""

    cluster: Cluster
    kubectl: Path

    def run(self, *words: str, stdin: str | None = None, timeout_s: float = 120) -> str:
        """kubectl's output; RuntimeError with its words when it fails."""
        return host.run(*self.words(*words), stdin=stdin, timeout_s=timeout_s)

    def words(self, *words: str) -> list[str]:
        """The whole command line of a kubectl command, for those who run it themselves."""
        return [*controlplane.kubectl_words(self.cluster, self.kubectl), *words]

    def get(self, *words: str) -> dict[str, Any]:
        """`kubectl get` of these words as the API's own JSON."""
        answer: dict[str, Any] = json.loads(self.run("get", *words, "--output=json"))
        return answer

    def apply(self, manifests: Iterable[Mapping[str, Any]]) -> None:
        """Applies manifests in their order."""
        text = yaml.safe_dump_all(manifests)
        self.run("apply", "--filename=-", stdin=text)

    def wait(self, what: str, condition: str, *, timeout_s: float = 120) -> None:
        """Returns when `condition` holds for all that `what` names (kubectl wait's words)."""
        words = [*what.split(), f"--for={condition}", f"--timeout={timeout_s:.0f}s"]
        self.run("wait", *words, timeout_s=timeout_s + 10)

    def wait_registered(self, *, timeout_s: float = 60) -> None:
        """Returns when every node has a Node with its pod prefixes in it."""
        host.wait_until(
            "every node has its podCIDRs",
            lambda: len(self.pod_prefixes()) == self.cluster.node_count,
            timeout_s=timeout_s,
            where=self.cluster.state,
            every_s=0.3,
        )

    def pod_prefixes(self) -> dict[str, list[str]]:
        """Node name -> its podCIDRs, of the nodes that have them."""
        nodes = {n["metadata"]["name"]: n["spec"] for n in self.get("nodes")["items"]}
        return {name: have["podCIDRs"] for name, have in nodes.items() if have.get("podCIDRs")}


def read_manifests(path: Path) -> list[dict[str, Any]]:
    """The objects of a YAML file; FileNotFoundError says what is missing."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def weft_manifests(path: Path, settings: Mapping[str, str]) -> list[dict[str, Any]]:
    """Weft's own manifest, with the API server's address and `settings` in its ConfigMap.

    Raises LookupError when the manifest has no such ConfigMap.
    """
    documents = read_manifests(path)
    for document in documents:
        metadata = document["metadata"]
        if (document["kind"], metadata.get("namespace"), metadata["name"]) == _SETTINGS:
            given = {"api-servers": spec.API_URL, **settings}
            document["data"] = {**(document.get("data") or {}), **given}
            return documents
    raise LookupError(f"{path} has no ConfigMap weft in kube-system")
