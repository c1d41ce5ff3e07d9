"""The control plane: etcd, API server, controller-manager and scheduler in one namespace.

Owns their command lines and the identities that they and the nodes use. Never talks to the API
beyond asking whether it is ready.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.lab import host, pki, spec, switch
from deploy.lab.pki import Pki
from deploy.lab.spec import Cluster

_SERVICES = f"{spec.SERVICE_NETWORK4},{spec.SERVICE_NETWORK6}"
_ISSUER = "https://kubernetes.default.svc.cluster.local"
_ETCD = "http://127.0.0.1:2379"


# Who speaks to the API beside the administrator and the nodes.
_COMPONENTS = ("kube-controller-manager", "kube-scheduler", "kube-proxy")


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """A started API server: its proofs, and who may speak to it (name -> kubeconfig)."""

    pki: Pki
    kubeconfigs: Mapping[str, Path]


def start(cluster: Cluster, binaries: Mapping[str, Path]) -> ControlPlane:
    """Makes the namespace, starts etcd and the API server; returns before they answer."""
    switch.plug_in(cluster, cluster.control_namespace, "cp", spec.API_ADDRESS)
    _launch(cluster, "etcd", "/usr/bin/etcd", _etcd_flags(cluster))
    folder = cluster.state / "pki"
    admin = pki.identity("admin", "system:masters")
    who = {name: pki.identity(f"system:{name}") for name in _COMPONENTS}
    for node in cluster.nodes():
        who[node.name] = pki.identity(f"system:node:{node.name}", "system:nodes")
    made = pki.create(folder, [admin, *who.values()])
    _launch(cluster, "kube-apiserver", binaries["kube-apiserver"], _api_flags(made))
    pki.write_kubeconfig(cluster.kubeconfig, admin, made.ca_cert)
    return ControlPlane(
        pki=made,
        kubeconfigs={
            name: pki.write_kubeconfig(folder / f"{name}.kubeconfig", identity, made.ca_cert)
            for name, identity in who.items()
        },
    )


def start_controllers(cluster: Cluster, plane: ControlPlane, binaries: Mapping[str, Path]) -> None:
    """Starts controller-manager and scheduler, once the API server knows what they may do."""
    for name, more in (
        ("kube-controller-manager", _manager_flags(plane.pki)),
        ("kube-scheduler", []),
    ):
        flags = [*_client_flags(plane.kubeconfigs[name]), *more]
        _launch(cluster, name, binaries[name], flags)


def kubectl_words(cluster: Cluster, kubectl: Path) -> list[str]:
    """The words before a kubectl command: in the control plane's namespace, as admin."""
    inside = host.namespace_exec(cluster.control_namespace)
    return [*inside, str(kubectl), f"--kubeconfig={cluster.kubeconfig}"]


def wait_ready(cluster: Cluster, kubectl: Path, *, timeout_s: float = 120) -> None:
    """Returns when the API server says that it is ready, which its first roles are part of."""
    words = [*kubectl_words(cluster, kubectl), "get", "--raw=/readyz"]
    host.wait_until(
        "the API server is ready",
        lambda: host.succeeds(*words),
        timeout_s=timeout_s,
        where=cluster.state / "log" / "kube-apiserver.log",
        every_s=0.3,
    )


def _launch(cluster: Cluster, name: str, binary: str | Path, flags: list[str]) -> None:
    argv = [*host.namespace_exec(cluster.control_namespace), str(binary), *flags]
    host.spawn(argv, log=cluster.state / "log" / f"{name}.log", cgroup=f"{cluster.cgroup}/cp")


def _etcd_flags(cluster: Cluster) -> list[str]:
    return [
        f"--data-dir={cluster.state / 'etcd'}",
        f"--listen-client-urls={_ETCD}",
        f"--advertise-client-urls={_ETCD}",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--quota-backend-bytes=4294967296",
    ]


def _api_flags(made: Pki) -> list[str]:
    return [
        f"--etcd-servers={_ETCD}",
        f"--advertise-address={spec.API_ADDRESS.v4}",
        f"--secure-port={spec.API_PORT}",
        f"--tls-cert-file={made.api_cert}",
        f"--tls-private-key-file={made.api_key}",
        f"--client-ca-file={made.ca_cert}",
        f"--token-auth-file={made.tokens}",
        f"--service-account-issuer={_ISSUER}",
        f"--service-account-key-file={made.account_key}",
        f"--service-account-signing-key-file={made.account_key}",
        f"--service-cluster-ip-range={_SERVICES}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--kubelet-preferred-address-types=InternalIP",
        "--max-requests-inflight=2000",
        "--max-mutating-requests-inflight=1000",
    ]


def _client_flags(kubeconfig: Path) -> list[str]:
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--leader-elect=false",
    ]


def _manager_flags(made: Pki) -> list[str]:
    return [
        "--allocate-node-cidrs=true",
        f"--cluster-cidr={spec.POD_NETWORK4},{spec.POD_NETWORK6}",
        f"--service-cluster-ip-range={_SERVICES}",
        f"--root-ca-file={made.ca_cert}",
        f"--service-account-private-key-file={made.account_key}",
        "--use-service-account-credentials=true",
        "--node-monitor-period=2s",
    ]
