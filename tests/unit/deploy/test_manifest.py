"""install.yaml, line by line against what others' installations taught."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from weft.proxy.config import SETTINGS

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
Object = Mapping[str, Any]


def objects() -> list[Object]:
    return list(yaml.safe_load_all((DEPLOY / "install.yaml").read_text()))


def one(kind: str) -> Object:
    (found,) = [o for o in objects() if o["kind"] == kind]
    return found


def pod() -> Object:
    spec: Object = one("DaemonSet")["spec"]["template"]["spec"]
    return spec


def container(name: str) -> Object:
    both: list[Object] = [*pod()["initContainers"], *pod()["containers"]]
    (found,) = [c for c in both if c["name"] == name]
    return found


def mounts(name: str) -> Mapping[str, Object]:
    return {mount["mountPath"]: mount for mount in container(name)["volumeMounts"]}


def test_the_rights_in_the_api_are_these_and_no_others() -> None:
    rights = {
        (group, resource, verb)
        for rule in one("ClusterRole")["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    read = {
        ("", "services"), ("", "pods"), ("", "namespaces"), ("", "nodes"),
        ("discovery.k8s.io", "endpointslices"), ("networking.k8s.io", "networkpolicies"),
        ("networking.k8s.io", "servicecidrs"),
    }  # fmt: skip
    expected = {(*what, verb) for what in read for verb in ("get", "list", "watch")}
    written = {("", "nodes/status", "patch"), ("events.k8s.io", "events", "create")}
    assert rights == expected | written


def test_the_daemon_has_four_capabilities_and_a_read_only_root() -> None:
    context = container("weftd")["securityContext"]
    added = ["NET_ADMIN", "NET_RAW", "BPF", "PERFMON"]
    assert context["capabilities"] == {"drop": ["ALL"], "add": added}
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "privileged" not in context
    assert not {"hostPID", "hostIPC"} & pod().keys()


def test_only_the_step_that_mounts_bpffs_is_privileged() -> None:
    privileged = {
        c["name"] for c in (*pod()["initContainers"], *pod()["containers"])
        if c["securityContext"].get("privileged")
    }  # fmt: skip
    assert privileged == {"prepare-node"}
    assert mounts("prepare-node")["/sys/fs/bpf"]["mountPropagation"] == "Bidirectional"
    assert container("install-cni")["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_the_daemon_never_sees_the_nodes_keys_nor_its_executables() -> None:
    volumes = {mount["name"] for mount in container("weftd")["volumeMounts"]}
    assert not volumes & {"kubernetes", "cni-bin"}


def test_it_runs_on_every_node_before_anything_else_does() -> None:
    spec = pod()
    assert spec["hostNetwork"] is True
    assert spec["dnsPolicy"] == "Default"
    assert spec["priorityClassName"] == "system-node-critical"
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["terminationGracePeriodSeconds"] <= 10
    assert one("DaemonSet")["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"]


def test_probes_ask_loopback_and_liveness_does_not_depend_on_the_api_server() -> None:
    paths = {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/healthz"}
    for probe, path in paths.items():
        asked = container("weftd")[probe]["httpGet"]
        assert asked == {"host": "127.0.0.1", "port": 10256, "path": path}
    assert container("weftd")["ports"] == [{"name": "healthz", "containerPort": 10256}]


def test_no_image_is_fetched_that_is_already_there() -> None:
    for each in (*pod()["initContainers"], *pod()["containers"]):
        assert (each["image"], each["imagePullPolicy"]) == ("weft/weft:dev", "IfNotPresent")


def test_nothing_of_the_conflist_or_the_datapath_is_undone_when_the_pod_stops() -> None:
    assert "lifecycle" not in container("weftd")


def test_every_flag_and_every_key_is_a_setting_of_the_daemon() -> None:
    known = {name.replace("_", "-") for name in SETTINGS}
    flags = {flag.removeprefix("--").partition("=")[0] for flag in container("weftd")["args"]}
    assert flags - {"config"} <= known
    assert one("ConfigMap")["data"].keys() <= known
    assert "--config=/etc/weft" in container("weftd")["args"]


def test_every_folder_that_the_daemon_is_told_of_is_mounted() -> None:
    paths = [flag.partition("=")[2] for flag in container("weftd")["args"]]
    mounted = mounts("weftd").keys()
    for path in (path for path in paths if path.startswith("/")):
        assert any(path == m or path.startswith(f"{m}/") for m in mounted), path


def test_every_volume_is_declared_and_used() -> None:
    declared = {volume["name"] for volume in pod()["volumes"]}
    used = {
        mount["name"]
        for each in (*pod()["initContainers"], *pod()["containers"])
        for mount in each["volumeMounts"]
    }
    assert declared == used


# --- The init steps, as the shell runs them -------------------------------------------------------
def script(name: str, root: Path) -> str:
    """A step's script with the paths of a container moved under `root`."""
    (text,) = container(name)["args"]
    for path in ("/host/", "/usr/lib/weft/", "/run/weft/"):
        text = text.replace(path, f"{root}{path}")
    return str(text)


def run(script: str) -> None:
    subprocess.run(["/bin/sh", "-ec", script], check=True, capture_output=True)


@pytest.fixture
def node(tmp_path: Path) -> Path:
    for folder in ("host/opt/cni/bin", "host/etc/kubernetes", "usr/lib/weft", "run/weft"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "usr/lib/weft/weft-cni").write_text("new")
    return tmp_path


def test_the_executable_is_renamed_into_place_while_the_old_one_runs(node: Path) -> None:
    installed = node / "host/opt/cni/bin/weft-cni"
    installed.write_text("old")
    with installed.open() as running:
        run(script("install-cni", node))
        assert running.read() == "old"
    assert installed.read_text() == "new"
    assert installed.stat().st_mode & 0o7777 == 0o755
    assert [path.name for path in installed.parent.iterdir()] == ["weft-cni"]


def test_the_kubelets_server_is_noted_and_nothing_else_of_its_configuration(node: Path) -> None:
    (node / "host/etc/kubernetes/kubelet.conf").write_text(
        "clusters:\n- cluster:\n    certificate-authority-data: c2VjcmV0\n"
        "    server: https://api.example:6443\nusers:\n- user: {token: secret}\n"
    )
    run(prepared(node))
    noted = node / "run/weft/kubelet-api-servers"
    assert noted.read_text() == "https://api.example:6443\n"


def test_a_node_without_kubelet_conf_notes_nothing_and_starts(node: Path) -> None:
    run(prepared(node))
    assert (node / "run/weft/kubelet-api-servers").read_text() == ""


def prepared(node: Path) -> str:
    """The step without its first line, the mount: that needs a node."""
    mount, _, rest = script("prepare-node", node).partition("\n")
    assert mount.endswith("mount -t bpf bpf /sys/fs/bpf")
    return rest


def test_kind_gets_no_network_and_no_proxy_of_its_own() -> None:
    networking = yaml.safe_load((DEPLOY / "kind.yaml").read_text())["networking"]
    assert networking["disableDefaultCNI"] is True
    assert networking["kubeProxyMode"] == "none"
