"""What the lab decides without touching the machine: names, addresses, settings, pins."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from deploy.lab import api, binaries, node, reference, spec, switch
from deploy.lab.binaries import Binary, Module
from deploy.lab.spec import Cluster, Network, Shape


def cluster(name: str = "lab", shape: Shape = Shape.PLAIN) -> Cluster:
    return Cluster(name, 3, shape, Network.WEFT)


def test_every_machine_has_an_address_of_its_own() -> None:
    nodes = [n.address for n in cluster().nodes()]
    taken = [spec.SWITCH_ADDRESS, spec.API_ADDRESS, spec.RESOLVER_ADDRESS, switch.HIDDEN_RESOLVER]
    assert len({*nodes, *taken}) == len(nodes) + len(taken)
    assert all(a.v4 in spec.NODE_NETWORK4 and a.v6 in spec.NODE_NETWORK6 for a in nodes)


@pytest.mark.parametrize("namespace", ["lab-sw", "lab-cp", "lab-n1", "lab-n27"])
def test_a_cluster_owns_its_machines_namespaces(namespace: str) -> None:
    assert cluster().owns(namespace)


@pytest.mark.parametrize(
    "namespace", ["lab", "lab-two-cp", "lab2-n1", "lab-nx", "lab-n", "x-lab-n1"]
)
def test_a_cluster_does_not_own_what_only_looks_like_it(namespace: str) -> None:
    assert not cluster().owns(namespace)


def test_only_a_kind_node_asks_a_resolver_that_is_not_where_it_says() -> None:
    assert switch.resolver(cluster(shape=Shape.PLAIN)) == (spec.RESOLVER_ADDRESS, 53)
    hidden, _ = switch.resolver(cluster(shape=Shape.KIND))
    assert hidden != spec.RESOLVER_ADDRESS


def test_weft_is_told_where_the_api_server_is_and_keeps_its_other_settings(tmp_path: Path) -> None:
    manifest = tmp_path / "install.yaml"
    settings = {
        "kind": "ConfigMap",
        "metadata": {"name": "weft", "namespace": "kube-system"},
        "data": {"api-servers": "", "mode": "vxlan", "level": "info"},
    }
    manifest.write_text(yaml.safe_dump_all([settings, {"kind": "Pod", "metadata": {"name": "p"}}]))
    told, other = api.weft_manifests(manifest, {"mode": "bridge"})
    assert told["data"] == {"api-servers": spec.API_URL, "mode": "bridge", "level": "info"}
    assert other == {"kind": "Pod", "metadata": {"name": "p"}}


def test_a_manifest_without_the_settings_is_refused(tmp_path: Path) -> None:
    manifest = tmp_path / "install.yaml"
    manifest.write_text("kind: ConfigMap\nmetadata: {name: weft, namespace: default}\n")
    with pytest.raises(LookupError, match="has no ConfigMap weft in kube-system"):
        api.weft_manifests(manifest, {})


def test_a_missing_pin_is_named() -> None:
    with pytest.raises(LookupError, match=r"go/tools/go.mod does not require example.com/x"):
        binaries.version("example.com/x", Module.TOOLS)


def test_kubernetes_and_its_staging_modules_are_pinned_to_one_release() -> None:
    release = binaries.version("k8s.io/kubernetes", Module.KUBERNETES).removeprefix("v1.")
    text = (binaries.MODULES / Module.KUBERNETES / "go.mod").read_text()
    staged = [line.split() for line in text.splitlines() if " => k8s.io/" in line]
    assert len(staged) > 25
    assert {words[-1] for words in staged} == {f"v0.{release}"}


def test_a_binary_is_named_after_its_package_and_not_its_major_version() -> None:
    assert Binary("example.com/tool/v2", Module.TOOLS).name == "tool"
    assert Binary("example.com/x/cmd/tool", Module.TOOLS).name == "tool"


def test_no_two_binaries_share_a_name() -> None:
    names = [binary.name for binary in binaries.ALL]
    assert len(set(names)) == len(names)


def test_dns_is_served_where_kubelet_tells_pods_to_ask() -> None:
    path = Path(api.__file__).with_name("coredns.yaml")
    services = [d for d in api.read_manifests(path) if d["kind"] == "Service"]
    assert [s["spec"]["clusterIPs"] for s in services] == [
        [str(node.CLUSTER_DNS4), str(node.CLUSTER_DNS6)]
    ]


def test_the_reference_network_installs_what_its_configuration_names() -> None:
    plugins = reference.conflist(["10.244.0.0/24", "fd00:244::/64"])["plugins"]
    used = {p["type"] for p in plugins} | {p["ipam"]["type"] for p in plugins if "ipam" in p}
    assert used == set(reference.PLUGINS)


def test_a_cluster_is_found_again_as_it_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEFT_STATE", str(tmp_path))
    begun = Cluster("lab", 3, Shape.KIND, Network.WEFT, {"mode": "bridge"})
    begun.save()
    assert spec.load("lab") == begun
