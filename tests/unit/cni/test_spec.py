"""What a runtime may say, and what it is told when it says it wrong (reference S01 to S10)."""

import json
from ipaddress import ip_address
from typing import Any

import pytest

from weft.cni.spec import VERSIONS, CniError, Code, Command, Request, parse_request

ENV = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/a",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/cni/bin",
}
CONFIG = {"cniVersion": "1.1.0", "name": "weft", "type": "weft-cni"}


def parse(env: dict[str, str] | None = None, **config: object) -> Request:
    return parse_request({**ENV, **(env or {})}, json.dumps({**CONFIG, **config}).encode())


def refused(env: dict[str, str] | None = None, **config: object) -> CniError:
    with pytest.raises(CniError) as raised:
        parse(env, **config)
    return raised.value


@pytest.mark.parametrize("version", VERSIONS)
def test_every_published_version_is_read(version: str) -> None:
    assert parse(cniVersion=version).config.version == version


def test_a_missing_version_means_0_1_0() -> None:
    config = json.dumps({"name": "weft", "type": "weft-cni"}).encode()
    assert parse_request(ENV, config).config.version == "0.1.0"


def test_an_unknown_version_is_refused_naming_both_sides() -> None:
    error = refused(cniVersion="2.0.0")
    assert error.code == Code.INCOMPATIBLE_VERSION
    assert "2.0.0" in error.details
    assert "1.1.0" in error.details


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("ADD", "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH"),
        ("CHECK", "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH"),
        ("DEL", "CNI_CONTAINERID,CNI_IFNAME,CNI_PATH"),
        ("GC", "CNI_PATH"),
        ("STATUS", "CNI_PATH"),
    ],
)
def test_all_missing_variables_are_named_in_one_message(command: str, missing: str) -> None:
    with pytest.raises(CniError) as raised:
        parse_request({"CNI_COMMAND": command}, json.dumps(CONFIG).encode())
    assert raised.value.code == Code.INVALID_ENVIRONMENT
    assert raised.value.msg == f"required env variables [{missing}] missing"


def test_a_del_needs_no_namespace() -> None:
    assert parse({"CNI_COMMAND": "DEL", "CNI_NETNS": ""}).netns == ""


def test_an_unknown_command_is_refused() -> None:
    assert refused({"CNI_COMMAND": "PATCH"}).code == Code.INVALID_ENVIRONMENT


@pytest.mark.parametrize("container_id", ["-a", "a/b", "a b", ".a", "ä"])
def test_a_container_id_of_other_characters_is_refused(container_id: str) -> None:
    assert refused({"CNI_CONTAINERID": container_id}).code == Code.INVALID_ENVIRONMENT


@pytest.mark.parametrize("ifname", [".", "..", "a/b", "a:b", "a b", "a\tb", "sixteen-letters-"])
def test_an_interface_name_that_the_kernel_refuses_is_refused(ifname: str) -> None:
    assert refused({"CNI_IFNAME": ifname}).code == Code.INVALID_ENVIRONMENT


def test_an_interface_name_of_fifteen_characters_is_taken() -> None:
    assert parse({"CNI_IFNAME": "fifteen-letters"}).ifname == "fifteen-letters"


@pytest.mark.parametrize("stdin", [b"", b"{", b"[]", b"\xff", b'{"name": 5}'])
def test_a_configuration_that_is_no_object_of_the_right_types_is_a_decoding_failure(
    stdin: bytes,
) -> None:
    with pytest.raises(CniError) as raised:
        parse_request(ENV, stdin)
    assert raised.value.code == Code.DECODING_FAILURE
    assert raised.value.details


@pytest.mark.parametrize("name", ["", "/etc", "a b"])
def test_a_missing_or_wrong_network_name_is_an_invalid_configuration(name: str) -> None:
    assert refused(name=name).code == Code.INVALID_CONFIG


@pytest.mark.parametrize(
    ("command", "version"),
    [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0"), ("STATUS", "0.4.0")],
)
def test_a_verb_newer_than_the_configuration_is_refused(command: str, version: str) -> None:
    error = refused({"CNI_COMMAND": command}, cniVersion=version)
    assert error.code == Code.INCOMPATIBLE_VERSION
    assert error.msg == f"config version does not allow {command}"


def test_what_the_runtime_says_of_the_pod_is_read() -> None:
    args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web;K8S_POD_UID=u;X=y"
    request = parse({"CNI_ARGS": args})
    assert (request.pod_namespace, request.pod_name, request.pod_uid) == ("ns", "web", "u")


def test_an_unknown_argument_without_ignore_unknown_is_refused() -> None:
    error = refused({"CNI_ARGS": "COLOUR=red"})
    assert error.code == Code.INVALID_ENVIRONMENT
    assert "COLOUR" in error.details


def test_an_argument_without_a_value_is_refused() -> None:
    assert refused({"CNI_ARGS": "IgnoreUnknown"}).code == Code.INVALID_ENVIRONMENT


def test_unknown_keys_of_the_configuration_are_ignored() -> None:
    assert parse(mystery={"a": 1}).config.name == "weft"


@pytest.mark.parametrize(
    ("env", "config", "address", "mac"),
    [
        ({"CNI_ARGS": "IP=10.0.0.9;MAC=02:00:00:00:00:09"}, {}, "10.0.0.9", "02:00:00:00:00:09"),
        (
            {"CNI_ARGS": "IP=10.0.0.9;MAC=02:00:00:00:00:09"},
            {"args": {"cni": {"ips": ["10.0.0.8"], "mac": "02:00:00:00:00:08"}}},
            "10.0.0.8",
            "02:00:00:00:00:08",
        ),
        (
            {},
            {
                "args": {"cni": {"ips": ["10.0.0.8"], "mac": "02:00:00:00:00:08"}},
                "runtimeConfig": {"ips": ["10.0.0.7/24"], "mac": "02-00-00-00-00-0A"},
            },
            "10.0.0.7",
            "02:00:00:00:00:0a",
        ),
    ],
)
def test_the_runtime_config_wins_over_args_and_args_over_the_environment(
    env: dict[str, str], config: dict[str, Any], address: str, mac: str
) -> None:
    request = parse(env, **config)
    assert (request.addresses, request.mac) == ((ip_address(address),), mac)


@pytest.mark.parametrize("ips", [["ten"], ["10.0.0.1", "10.0.0.2"], ["10.0.0.1/99"]])
def test_addresses_that_cannot_be_had_name_the_field(ips: list[str]) -> None:
    error = refused(runtimeConfig={"ips": ips})
    assert error.code == Code.UNSUPPORTED_FIELD
    assert str(ips) in error.details


@pytest.mark.parametrize("mac", ["01:00:00:00:00:01", "00:00:00:00:00:00", "x", "02:00:00:00:00"])
def test_a_mac_that_is_no_unicast_address_is_refused(mac: str) -> None:
    assert refused(runtimeConfig={"mac": mac}).code == Code.UNSUPPORTED_FIELD


def test_a_del_forgives_what_it_can_do_without() -> None:
    request = parse(
        {"CNI_COMMAND": "DEL", "CNI_ARGS": "COLOUR=red"},
        prevResult="garbage",
        runtimeConfig={"ips": ["ten"]},
    )
    assert request.command is Command.DEL


def test_the_misnamed_key_of_libcni_is_read_too() -> None:
    config = parse({"CNI_COMMAND": "GC"}, **{"cni.dev/attachments": [{"containerID": "a"}]}).config
    assert config.attachments is not None
    assert config.valid_attachments is None
