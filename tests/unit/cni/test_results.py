"""What a runtime reads, in every version's shape (reference S12 to S16)."""

import json
from ipaddress import ip_address, ip_interface
from typing import Any

import pytest

from weft.cni.results import (
    AddResult,
    Link,
    addresses_in,
    encode_error,
    encode_result,
    encode_versions,
)
from weft.cni.spec import VERSIONS, CniError, Code, Dns

RESULT = AddResult(
    links=(
        Link("weft1", "02:00:00:00:00:01", 1400, ""),
        Link("eth0", "02:00:00:00:00:02", 1400, "/run/netns/a"),
    ),
    addresses=(ip_interface("10.0.0.5/32"), ip_interface("fd00::5/128")),
    gateways=(ip_address("169.254.1.1"), ip_address("fe80::1")),
    dns=None,
)
WITH_LISTS = [version for version in VERSIONS if version >= "0.3.0"]


def shape(version: str, result: AddResult = RESULT) -> Any:
    return json.loads(encode_result(result, version))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_result_carries_the_version_that_was_asked_for(version: str) -> None:
    assert shape(version)["cniVersion"] == version


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_the_first_versions_have_one_address_per_family(version: str) -> None:
    result = shape(version)
    assert result["ip4"] == {
        "ip": "10.0.0.5/32",
        "gateway": "169.254.1.1",
        "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}],
    }
    assert result["ip6"]["ip"] == "fd00::5/128"
    assert not {"ips", "interfaces", "routes"} & result.keys()


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0"])
def test_versions_below_1_say_each_addresss_family_and_no_mtu(version: str) -> None:
    result = shape(version)
    assert [ip["version"] for ip in result["ips"]] == ["4", "6"]
    assert "mtu" not in result["interfaces"][0]


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
def test_versions_from_1_say_the_mtu_and_no_family(version: str) -> None:
    result = shape(version)
    assert "version" not in result["ips"][0]
    assert result["interfaces"][1]["mtu"] == 1400


@pytest.mark.parametrize("version", WITH_LISTS)
def test_every_address_belongs_to_the_pods_interface_which_comes_second(version: str) -> None:
    result = shape(version)
    host, pod = result["interfaces"]
    assert (host["name"], pod["name"]) == ("weft1", "eth0")
    assert "sandbox" not in host
    assert pod["sandbox"] == "/run/netns/a"
    assert {ip["interface"] for ip in result["ips"]} == {1}


@pytest.mark.parametrize("version", WITH_LISTS)
def test_both_default_routes_are_told(version: str) -> None:
    assert shape(version)["routes"] == [
        {"dst": "0.0.0.0/0", "gw": "169.254.1.1"},
        {"dst": "::/0", "gw": "fe80::1"},
    ]


def test_dns_appears_only_where_the_configuration_has_some() -> None:
    assert "dns" not in shape("1.1.0")
    empty = AddResult(RESULT.links, RESULT.addresses, RESULT.gateways, Dns())
    assert "dns" not in shape("1.1.0", empty)
    given = AddResult(RESULT.links, RESULT.addresses, RESULT.gateways, Dns(search=("a.b",)))
    assert shape("1.1.0", given)["dns"] == {"search": ["a.b"]}


def test_an_error_says_code_message_and_details() -> None:
    error = json.loads(encode_error(CniError(Code.RANGE_EXHAUSTED, "full", "254 of 254"), "0.4.0"))
    assert error == {"cniVersion": "0.4.0", "code": 103, "msg": "full", "details": "254 of 254"}


def test_the_versions_answer_lists_them_all() -> None:
    answer = json.loads(encode_versions())
    assert answer == {"cniVersion": "1.1.0", "supportedVersions": list(VERSIONS)}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_previous_result_of_ours_gives_its_addresses_back(version: str) -> None:
    found = addresses_in(encode_result(RESULT, version), version, "eth0")
    assert found == RESULT.addresses


def test_addresses_of_other_interfaces_are_not_ours() -> None:
    other = {
        "interfaces": [{"name": "net1", "sandbox": "/x"}],
        "ips": [{"address": "10.9.9.9/24", "interface": 0}],
    }
    assert addresses_in(json.dumps(other).encode(), "1.0.0", "eth0") == ()


@pytest.mark.parametrize(
    "garbage", [b"", b"null", b'"x"', b'{"ips": 3}', b'{"ips":[{"address":"x"}]}']
)
def test_a_previous_result_that_does_not_read_is_an_invalid_configuration(garbage: bytes) -> None:
    with pytest.raises(CniError) as raised:
        addresses_in(garbage, "1.0.0", "eth0")
    assert raised.value.code == Code.INVALID_CONFIG
