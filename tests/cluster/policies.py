"""NetworkPolicies that the cluster tests apply. Source: networking.k8s.io/v1."""

from __future__ import annotations

from tests.cluster.pods import Manifest


def default_deny(namespace: str, pod: str | None = None) -> Manifest:
    """Nothing may enter the namespace's pods, or the one named."""
    selected = {"matchLabels": {"pod": pod}} if pod else {}
    spec = {"podSelector": selected, "policyTypes": ["Ingress"]}
    return _policy(namespace, "default-deny", spec)


def allow_from(namespace: str, *, to: str, peer: str) -> Manifest:
    """The pod `peer` may reach every port of the pod `to`."""
    source = {"podSelector": {"matchLabels": {"pod": peer}}}
    selected = {"matchLabels": {"pod": to}}
    spec = {"podSelector": selected, "policyTypes": ["Ingress"], "ingress": [{"from": [source]}]}
    return _policy(namespace, f"allow-{peer}", spec)


def _policy(namespace: str, name: str, spec: Manifest) -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }
