"""Owns the daemon's settings: each declared once, as a flag, a key of the ConfigMap and a default.

`--config FOLDER` holds one file per key, as a ConfigMap is mounted; flags win over files. Never
reads anything else of the machine than those files.
"""

import argparse
import contextlib
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from weft.bpf.layout import TABLES
from weft.proxy.model.world import ClientAddress, Mode, SocketHook
from weft.proxy.observe.web import SocketAddress

CLEANUP = "--cleanup"
"""What weftd is to do instead of running (proxy.cleanup)."""


class ConfigError(Exception):
    """A setting that cannot be used: which, where it came from, and what it may be."""


def _networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(part) for part in _parts(text))


def _node_ports(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    return () if text == "primary" else _networks(text)


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _switch(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("true or false")
    return text == "true"


def _entries(text: str) -> Mapping[str, int]:
    pairs = (part.partition("=") for part in _parts(text))
    found = {name: int(size) for name, _, size in pairs}
    if unknown := found.keys() - TABLES.keys():
        raise ValueError(f"{', '.join(sorted(unknown))}: tables are {', '.join(TABLES)}")
    return found


def _source(text: str) -> str:
    if text != "kube" and not text.startswith("dir:"):
        raise ValueError("kube or dir:PATH")
    return text


def _port(text: str) -> int:
    number = int(text)
    if not 0 < number < 65536:
        raise ValueError("a port, 1 to 65535")
    return number


def _port_or_none(text: str) -> int:
    return 0 if text == "0" else _port(text)


def _percent(text: str) -> int:
    number = int(text)
    if not 0 < number <= 100:
        raise ValueError("1 to 100")
    return number


def _packet_bytes(text: str) -> int:
    number = int(text)
    if number and not 1280 <= number < 65536:
        raise ValueError("bytes, 1280 to 65535, or 0")
    return number


def _listens(port: int) -> Callable[[str], tuple[SocketAddress, ...]]:
    """Reads addresses, by comma, to listen at; `port` where one names none."""
    return lambda text: tuple(_socket_address(part, port) for part in _parts(text))


def _socket_address(text: str, port: int) -> SocketAddress:
    with contextlib.suppress(ValueError):
        return SocketAddress(str(ip_address(text.strip("[]"))), port)
    host, _, number = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    return SocketAddress(str(ip_address(host)), _port(number))


@dataclass(frozen=True, slots=True)
class Setting:
    """What a field of Config is set by: its default as text, its help, and how text is read.

    `read` raises ValueError with what the text may be.
    """

    default: str
    help: str
    read: Callable[[str], Any] = str


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that an operator may set. A field `api_servers` is --api-servers and api-servers.

    Paths are those that this process sees: in a container, the places where hostPaths are mounted.
    """

    node: Annotated[str, Setting(platform.node(), "this node's name in the API")]
    source: Annotated[str, Setting("kube", "kube, or dir:PATH with manifests", _source)]
    api_servers: Annotated[
        tuple[str, ...], Setting("", "API server URLs, by comma, tried in order", _parts)
    ]
    kubeconfig: Annotated[str, Setting("", "kubeconfig, outside of a cluster")]
    kubelet_servers: Annotated[
        Path, Setting("/run/weft/kubelet-api-servers", "URLs that the kubelet uses", Path)
    ]
    mode: Annotated[
        Mode, Setting("auto", "how pods reach other nodes': auto, vxlan, direct or bridge", Mode)
    ]
    overlay: Annotated[bool, Setting("true", "bridge mode: tunnel between nodes", _switch)]
    overlay_vni: Annotated[int, Setting("4242", "VXLAN network identifier", int)]
    overlay_port: Annotated[int, Setting("8472", "VXLAN UDP port", _port)]
    ask_port: Annotated[
        int, Setting("8474", "UDP port where nodes ask whose an address is; 0: off", _port_or_none)
    ]
    path_mtu: Annotated[
        int,
        Setting("0", "largest packet between nodes; 0: learned, path by path", _packet_bytes),
    ]
    masquerade: Annotated[
        bool, Setting("true", "pods leave the cluster with the node's address", _switch)
    ]
    never_masquerade: Annotated[
        tuple[IPv4Network | IPv6Network, ...],
        Setting("", "prefixes to which pods keep their address, by comma", _networks),
    ]
    snat_port_min: Annotated[int, Setting("61000", "first port to masquerade with", _port)]
    snat_port_max: Annotated[int, Setting("65535", "last port to masquerade with", _port)]
    forward_accept: Annotated[
        bool, Setting("true", "accept pods' traffic in FORWARD chains that drop", _switch)
    ]
    event_sample: Annotated[int, Setting("0", "one new flow in this many is told", int)]
    socket_hook: Annotated[
        SocketHook,
        Setting("all", "sockets that translate VIPs: all, or node: not those of pods", SocketHook),
    ]
    client_address: Annotated[
        ClientAddress,
        Setting(
            "keep",
            "whom endpoints see: keep (the client), or masquerade (a node, as kube-proxy has it)",
            ClientAddress,
        ),
    ]
    node_port_addresses: Annotated[
        tuple[IPv4Network | IPv6Network, ...],
        Setting("primary", "where node ports are: primary (InternalIPs) or prefixes", _node_ports),
    ]
    external_ips: Annotated[bool, Setting("true", "serve Services at their externalIPs", _switch)]
    service_cidrs: Annotated[
        tuple[IPv4Network | IPv6Network, ...],
        Setting("", "ranges of ClusterIPs beside those of ServiceCIDRs, by comma", _networks),
    ]
    namespace_share: Annotated[
        int,
        Setting("50", "per cent of each table that one namespace's Services may take", _percent),
    ]
    table_sizes: Annotated[
        Mapping[str, int], Setting("", "rows of tables: TABLE=ROWS, by comma", _entries)
    ]
    healthz_bind_address: Annotated[
        tuple[SocketAddress, ...],
        Setting("0.0.0.0:10256,[::]:10256", "where /healthz and /livez answer", _listens(10256)),
    ]
    metrics_bind_address: Annotated[
        tuple[SocketAddress, ...],
        Setting("127.0.0.1:10249,[::1]:10249", "where /metrics answers", _listens(10249)),
    ]
    bind_address_hard_fail: Annotated[
        bool, Setting("false", "end when one of these ports is taken, as kube-proxy may", _switch)
    ]
    pins: Annotated[Path, Setting("/sys/fs/bpf/weft", "folder on the node's bpffs", Path)]
    cgroup: Annotated[Path, Setting("/sys/fs/cgroup", "the node's cgroup tree", Path)]
    sysctl: Annotated[Path, Setting("/proc/sys/net", "the node's /proc/sys/net", Path)]
    cni_socket: Annotated[Path, Setting("/run/weft/cni.sock", "what weft-cni calls", Path)]
    api_socket: Annotated[Path, Setting("/run/weft/weft.sock", "what weft calls", Path)]
    state: Annotated[Path, Setting("/var/lib/weft", "leases, deletions, checkpoint", Path)]
    conf_dir: Annotated[Path, Setting("/etc/cni/net.d", "CNI configuration folder", Path)]
    remove_taint: Annotated[str, Setting("", "taint to take off the node once it is ready")]
    log_level: Annotated[str, Setting("info", "debug, info, warning or error")]


def _declared() -> dict[str, Setting]:
    """Every field's setting by the field's name."""
    hints = get_type_hints(Config, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items()}


SETTINGS: Mapping[str, Setting] = _declared()


def load(argv: Sequence[str]) -> Config:
    """Flags over files over defaults. Raises ConfigError; --help and unknown flags exit."""
    parser = argparse.ArgumentParser("weftd", description="Weft's node daemon")
    parser.add_argument("--config", metavar="FOLDER", help="folder with one file per setting")
    for name, setting in SETTINGS.items():
        shown = f"{setting.help} (default: {setting.default or 'none'})"
        parser.add_argument(_flag(name), dest=name, metavar="VALUE", help=shown)
    parser.add_argument(
        CLEANUP, action="store_true", help="remove all that Weft left on a drained node, and end"
    )
    flags = vars(parser.parse_args(argv))
    flags.pop("cleanup")
    folder = flags.pop("config")
    texts = {name: (setting.default, "default") for name, setting in SETTINGS.items()}
    texts |= _from_folder(Path(folder)) if folder else {}
    texts |= {k: (text, _flag(k)) for k, text in flags.items() if text is not None}
    return _checked(Config(**{k: _read(k, text, where) for k, (text, where) in texts.items()}))


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _from_folder(folder: Path) -> dict[str, tuple[str, str]]:
    """Text and origin of each setting; files of other names are none of ours."""
    names = {name.replace("_", "-"): name for name in SETTINGS}
    try:
        paths = [path for path in folder.iterdir() if path.name in names and path.is_file()]
        return {names[p.name]: (p.read_text().strip(), str(p)) for p in paths}
    except OSError as error:
        raise ConfigError(f"--config {folder}: {error}") from error


def _read(name: str, text: str, where: str) -> Any:
    try:
        return SETTINGS[name].read(text)
    except ValueError as error:
        raise ConfigError(f"{where}: {text!r} cannot be used: {error}") from error


def _checked(config: Config) -> Config:
    if not config.node:
        raise ConfigError("--node is empty: it is the name of this machine's Node object")
    if config.snat_port_min > config.snat_port_max:
        raise ConfigError(
            f"snat-port-min {config.snat_port_min} lies above snat-port-max {config.snat_port_max}"
        )
    return config


def shown(config: Config) -> Mapping[str, object]:
    """The settings in force by key, as values that JSON has."""
    values = {name.replace("_", "-"): getattr(config, name) for name in SETTINGS}
    return {key: _shown(value) for key, value in values.items()}


def _shown(value: object) -> object:
    if isinstance(value, bool | int):
        return value
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple) and not isinstance(value, SocketAddress):
        return [_shown(item) for item in value]
    return str(value)
