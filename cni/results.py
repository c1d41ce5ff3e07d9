"""Owns what a runtime reads: results of ADD in every version's shape, errors, VERSION's answer.

Source: CNI SPEC.md section 5 and the converters of pkg/types. Never decides anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_interface

import msgspec

from weft.cni.spec import VERSIONS, Address, CniError, Code, Dns

Interface = IPv4Interface | IPv6Interface
Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Link:
    """One network device; sandbox is the runtime's netns path, empty for the node's own side."""

    name: str
    mac: str
    mtu_bytes: int
    sandbox: str


@dataclass(frozen=True, slots=True)
class AddResult:
    """What an ADD made. links: the host's end, then the pod's, which carries the addresses.

    gateways: the default gateway of each address, in the order of `addresses`.
    """

    links: tuple[Link, Link]
    addresses: tuple[Interface, ...]
    gateways: tuple[Address, ...]
    dns: Dns | None


def encode_result(result: AddResult, version: str) -> bytes:
    """The result in the shape of `version`, one of VERSIONS."""
    shape: Json = {"cniVersion": version}
    if version in {"0.1.0", "0.2.0"}:
        shape |= _by_family(result)
    else:
        shape |= _by_lists(result, version)
    if result.dns:
        shape["dns"] = result.dns
    return msgspec.json.encode(shape)


def encode_error(error: CniError, version: str) -> bytes:
    text: Json = {"cniVersion": version, "code": int(error.code), "msg": error.msg}
    return msgspec.json.encode(text | ({"details": error.details} if error.details else {}))


def encode_versions() -> bytes:
    return msgspec.json.encode({"cniVersion": VERSIONS[-1], "supportedVersions": VERSIONS})


def _by_family(result: AddResult) -> Json:
    """0.1.0 and 0.2.0 know one address per family and no interfaces."""
    return {
        f"ip{address.version}": {
            "ip": str(address),
            "gateway": str(gateway),
            "routes": [_default_route(gateway)],
        }
        for address, gateway in zip(result.addresses, result.gateways, strict=True)
    }


def _by_lists(result: AddResult, version: str) -> Json:
    pod_side = 1
    ips: list[Json] = []
    for address, gateway in zip(result.addresses, result.gateways, strict=True):
        family: Json = {} if version >= "1" else {"version": str(address.version)}
        place = {"address": str(address), "gateway": str(gateway), "interface": pod_side}
        ips.append(family | place)
    return {
        "interfaces": [_interface(link, version) for link in result.links],
        "ips": ips,
        "routes": [_default_route(gateway) for gateway in result.gateways],
    }


def _interface(link: Link, version: str) -> Json:
    shape: Json = {"name": link.name, "mac": link.mac}
    if version >= "1":
        shape["mtu"] = link.mtu_bytes
    return shape | ({"sandbox": link.sandbox} if link.sandbox else {})


def _default_route(gateway: Address) -> Json:
    return {"dst": "0.0.0.0/0" if gateway.version == 4 else "::/0", "gw": str(gateway)}


def addresses_in(prev_result: bytes, version: str, ifname: str) -> tuple[Interface, ...]:
    """The addresses that a previous result gives to `ifname` (those without an interface too).

    Raises CniError INVALID_CONFIG: no result, or one that does not read as `version` says.
    """
    if not prev_result or prev_result == b"null":
        raise CniError(Code.INVALID_CONFIG, "required prevResult missing")
    try:
        result = msgspec.json.decode(prev_result, type=_PrevResult)
        return tuple(ip_interface(text) for text in _texts(result, ifname))
    except (msgspec.DecodeError, ValueError) as error:
        raise CniError(
            Code.INVALID_CONFIG, f"cannot read prevResult as version {version}", str(error)
        ) from error


class _PrevAddress(msgspec.Struct):
    address: str
    interface: int | None = None


class _PrevFamily(msgspec.Struct):
    ip: str


class _PrevInterface(msgspec.Struct):
    name: str
    sandbox: str = ""


class _PrevResult(msgspec.Struct):
    interfaces: tuple[_PrevInterface, ...] = ()
    ips: tuple[_PrevAddress, ...] = ()
    ip4: _PrevFamily | None = None
    ip6: _PrevFamily | None = None


def _texts(result: _PrevResult, ifname: str) -> Sequence[str]:
    if result.ip4 or result.ip6:
        return [family.ip for family in (result.ip4, result.ip6) if family]
    ours: Mapping[int, bool] = {
        index: one.name == ifname and bool(one.sandbox)
        for index, one in enumerate(result.interfaces)
    }
    return [
        one.address for one in result.ips if one.interface is None or ours.get(one.interface, False)
    ]
