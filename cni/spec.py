"""Owns the protocol's text: a runtime's environment and JSON become a `Request`, or a `CniError`.

Source: containernetworking/cni SPEC.md 1.1.0 and, where it is silent, what pkg/skel answers.
Never does I/O and never decides what a verb does.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface

import msgspec

from weft.cni.frame import NETNS_ERRNO

Address = IPv4Address | IPv6Address

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
_FIRST_WITH = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}


class Command(StrEnum):
    ADD = "ADD"
    DEL = "DEL"
    CHECK = "CHECK"
    GC = "GC"
    STATUS = "STATUS"
    VERSION = "VERSION"


class Code(IntEnum):
    """Error codes: below 100 the specification's, from 100 on ours."""

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    INVALID_ENVIRONMENT = 4
    IO_FAILURE = 5
    DECODING_FAILURE = 6
    INVALID_CONFIG = 7
    INVALID_NETNS = 8
    TRY_AGAIN = 11
    UNAVAILABLE = 50
    INTERNAL = 100
    NO_RANGE = 101
    BAD_RANGE = 102
    RANGE_EXHAUSTED = 103
    ADDRESS_OUTSIDE_RANGES = 104
    ADDRESS_TAKEN = 105
    ALREADY_ATTACHED = 106
    INTERFACE_EXISTS = 107
    WIRING_FAILED = 108
    NOT_AS_ADDED = 109
    LEASES_UNUSABLE = 110
    GC_INCOMPLETE = 111


class CniError(Exception):
    """A failure as the runtime will read it: a code, a short message and what to do about it."""

    def __init__(self, code: Code, msg: str, details: str = "") -> None:
        super().__init__(f"{msg}: {details}" if details else msg)
        self.code = code
        self.msg = msg
        self.details = details


@dataclass(frozen=True, slots=True)
class Attachment:
    """One interface of one pod, as it was wired. Equal attachments describe equal wiring.

    netns is the runtime's path, verbatim. addresses hold one address per family, no prefix length.
    netns_cookie: the kernel's number of the pod's network namespace; 0: made before it was kept.
    """

    container_id: str
    ifname: str
    netns: str
    pod_namespace: str
    pod_name: str
    pod_uid: str
    addresses: tuple[Address, ...]
    host_ifname: str
    host_ifindex: int
    host_mac: str
    pod_mac: str
    mtu_bytes: int
    network: str = ""
    netns_cookie: int = 0

    @property
    def key(self) -> "Key":
        return Key(self.container_id, self.ifname)


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """What the specification calls an attachment's identity inside one network."""

    container_id: str
    ifname: str

    def __str__(self) -> str:
        return f"{self.container_id}/{self.ifname}"


class Dns(msgspec.Struct, frozen=True, omit_defaults=True):
    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.nameservers or self.domain or self.search or self.options)


class Wish(msgspec.Struct, frozen=True):
    """What may be asked of one attachment, under `runtimeConfig` or `args.cni`."""

    ips: tuple[str, ...] = ()
    mac: str = ""


class Args(msgspec.Struct, frozen=True):
    cni: Wish = Wish()


class ValidAttachment(msgspec.Struct, frozen=True):
    container_id: str = msgspec.field(name="containerID", default="")
    ifname: str = ""


class NetworkConfig(msgspec.Struct, frozen=True):
    """The configuration on stdin. Keys that are not named here are accepted and ignored.

    mode, bridge, ranges, mtu and dataDir matter only where no daemon serves (`python -m weft.cni`).
    """

    version: str = msgspec.field(name="cniVersion", default="")
    name: str = ""
    type: str = ""
    dns: Dns | None = None
    args: Args | None = None
    runtime: Wish | None = msgspec.field(name="runtimeConfig", default=None)
    prev_result: msgspec.Raw = msgspec.field(name="prevResult", default=msgspec.Raw(b""))
    valid_attachments: tuple[ValidAttachment, ...] | None = msgspec.field(
        name="cni.dev/valid-attachments", default=None
    )
    # libcni also sends this misnamed key (containernetworking/cni issue 1101).
    attachments: tuple[ValidAttachment, ...] | None = msgspec.field(
        name="cni.dev/attachments", default=None
    )
    mode: str = "routed"
    bridge: str = "weft0"
    ranges: tuple[str, ...] = ()
    mtu_bytes: int = msgspec.field(name="mtu", default=1500)
    data_dir: str = msgspec.field(name="dataDir", default="")


@dataclass(frozen=True, slots=True)
class Request:
    """A well-formed call of one verb. Fields that the verb does not need are empty.

    netns_errno: why the caller's side could not open `netns`, 0 where it could.
    """

    command: Command
    container_id: str
    ifname: str
    netns: str
    netns_errno: int
    netns_override: bool
    pod_namespace: str
    pod_name: str
    pod_uid: str
    addresses: tuple[Address, ...]
    mac: str
    config: NetworkConfig

    @property
    def key(self) -> Key:
        return Key(self.container_id, self.ifname)


_REQUIRED = {
    Command.ADD: ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    Command.CHECK: ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    Command.DEL: ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"),
    Command.GC: ("CNI_PATH",),
    Command.STATUS: ("CNI_PATH",),
    Command.VERSION: (),
}
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_ARGS = {
    "IgnoreUnknown",
    "IP",
    "MAC",
    "K8S_POD_NAMESPACE",
    "K8S_POD_NAME",
    "K8S_POD_INFRA_CONTAINER_ID",
    "K8S_POD_UID",
}


def parse_request(env: Mapping[str, str], stdin: bytes) -> Request:
    """The request that `env` and `stdin` make, checked in skel's order: environment, then JSON.

    Raises CniError with codes 1, 2, 4, 6 or 7. A DEL forgives whatever it can do without.
    """
    command = _command(env)
    config = parse_config(stdin)
    _check_names(command, env, config)
    _check_version(command, config)
    try:
        args, addresses, mac = _wishes(env, config)
    except CniError:
        if command is not Command.DEL:
            raise
        args, addresses, mac = {}, (), ""
    return Request(
        command=command,
        container_id=env.get("CNI_CONTAINERID", ""),
        ifname=env.get("CNI_IFNAME", ""),
        netns=env.get("CNI_NETNS", ""),
        netns_errno=int(env.get(NETNS_ERRNO, "0")),
        netns_override=env.get("CNI_NETNS_OVERRIDE", "").lower() in {"1", "true"},
        pod_namespace=args.get("K8S_POD_NAMESPACE", ""),
        pod_name=args.get("K8S_POD_NAME", ""),
        pod_uid=args.get("K8S_POD_UID", ""),
        addresses=addresses,
        mac=mac,
        config=config,
    )


def parse_config(stdin: bytes) -> NetworkConfig:
    """Raises CniError DECODING_FAILURE. A missing cniVersion means 0.1.0 (SPEC, section 1)."""
    try:
        config = msgspec.json.decode(stdin, type=NetworkConfig)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CniError(
            Code.DECODING_FAILURE, "cannot decode the network configuration", str(error)
        ) from error
    return config if config.version else msgspec.structs.replace(config, version="0.1.0")


def _command(env: Mapping[str, str]) -> Command:
    word = env.get("CNI_COMMAND", "")
    try:
        command = Command(word)
    except ValueError:
        raise CniError(Code.INVALID_ENVIRONMENT, f"unknown CNI_COMMAND: {word}") from None
    missing = [name for name in _REQUIRED[command] if not env.get(name)]
    if missing:
        names = ",".join(missing)
        raise CniError(Code.INVALID_ENVIRONMENT, f"required env variables [{names}] missing")
    return command


def _check_names(command: Command, env: Mapping[str, str], config: NetworkConfig) -> None:
    if not config.name:
        raise CniError(Code.INVALID_CONFIG, "missing network name", "the key `name` is required")
    if not _NAME.fullmatch(config.name):
        raise CniError(Code.INVALID_CONFIG, "invalid characters found in network name", config.name)
    if "CNI_CONTAINERID" not in _REQUIRED[command]:
        return
    if not _NAME.fullmatch(env["CNI_CONTAINERID"]):
        raise CniError(
            Code.INVALID_ENVIRONMENT, "invalid characters in containerID", env["CNI_CONTAINERID"]
        )
    _check_ifname(env["CNI_IFNAME"])


def _check_ifname(ifname: str) -> None:
    """The kernel's own rule (dev_valid_name): 1 to 15 bytes, no `/`, `:` or white space."""
    if len(ifname.encode(errors="surrogateescape")) > 15:
        raise CniError(Code.INVALID_ENVIRONMENT, "interface name is too long", f"{ifname}: max 15")
    if ifname in {".", ".."} or re.search(r"[/:\s]", ifname):
        raise CniError(Code.INVALID_ENVIRONMENT, "interface name is invalid", ifname)


def _check_version(command: Command, config: NetworkConfig) -> None:
    if config.version not in VERSIONS:
        raise CniError(
            Code.INCOMPATIBLE_VERSION,
            "incompatible CNI versions",
            f"config is {config.version!r}, plugin supports {', '.join(VERSIONS)}",
        )
    first = _FIRST_WITH.get(command)
    if first and VERSIONS.index(config.version) < VERSIONS.index(first):
        raise CniError(
            Code.INCOMPATIBLE_VERSION,
            f"config version does not allow {command}",
            f"config is {config.version}, {command} came with {first}",
        )


def _wishes(
    env: Mapping[str, str], config: NetworkConfig
) -> tuple[dict[str, str], tuple[Address, ...], str]:
    """CNI_ARGS, and the addresses and MAC asked for: runtimeConfig > args.cni > CNI_ARGS."""
    args = _parse_args(env.get("CNI_ARGS", ""))
    runtime = config.runtime or Wish()
    by_args = config.args.cni if config.args else Wish()
    from_env = tuple(filter(None, args.get("IP", "").split(",")))
    addresses = _parse_addresses(runtime.ips or by_args.ips or from_env)
    return args, addresses, _parse_mac(runtime.mac or by_args.mac or args.get("MAC", ""))


def _parse_args(text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(";") if pair]
    bare = [key for key, equals, _ in pairs if not equals]
    if bare:
        raise CniError(Code.INVALID_ENVIRONMENT, "CNI_ARGS: invalid pair", f"{bare[0]!r} has no =")
    args = {key: value for key, _, value in pairs}
    unknown = sorted(args.keys() - _ARGS)
    if unknown and args.get("IgnoreUnknown", "").lower() not in {"1", "true", "t"}:
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            "CNI_ARGS: unknown keys",
            f"{', '.join(unknown)} (IgnoreUnknown=1 lets them pass)",
        )
    return args


def _parse_addresses(texts: tuple[str, ...]) -> tuple[Address, ...]:
    try:
        addresses = tuple(
            ip_interface(text).ip if "/" in text else ip_address(text) for text in texts
        )
    except ValueError as error:
        raise CniError(
            Code.UNSUPPORTED_FIELD,
            "cannot parse a requested address",
            f"ips = {list(texts)}: {error}",
        ) from error
    if len({address.version for address in addresses}) < len(addresses):
        raise CniError(
            Code.UNSUPPORTED_FIELD,
            "more than one address asked for in one family",
            f"ips = {list(texts)}",
        )
    return addresses


def _parse_mac(text: str) -> str:
    mac = text.lower().replace("-", ":")
    if mac and (not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1 or not mac.strip("0:")):
        raise CniError(
            Code.UNSUPPORTED_FIELD, "the requested MAC is not a unicast address", f"mac = {text!r}"
        )
    return mac
