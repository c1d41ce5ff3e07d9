"""The node's sysctls, on a folder that stands for /proc/sys/net."""

import re
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from weft.proxy.apply.sysctl import Sysctls, with_ports
from weft.proxy.apply.target import NotMended
from weft.proxy.model.objects import Kind, Link, Node, Ref, Workload
from weft.proxy.model.world import Change, Key, Record, Settings, World

POD_LINKS = re.compile(r"weft[0-9a-f]{11}")
POD_LINK = "weft0123456789a"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    values = {
        "ipv4/ip_forward": "0",
        "ipv4/ip_local_reserved_ports": "",
        "ipv6/conf/all/forwarding": "0",
        "netfilter/nf_conntrack_tcp_timeout_close_wait": "60",
        "ipv6/conf/all/accept_ra": "1",
        "ipv6/conf/eth0/accept_ra": "1",
        "ipv6/conf/eth1/accept_ra": "0",
        f"ipv6/conf/{POD_LINK}/accept_ra": "1",
        "ipv4/conf/weft.vx/rp_filter": "1",
    }
    for name, value in values.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return tmp_path


def value(root: Path, name: str) -> str:
    return (root / name).read_text().strip()


def test_forwarding_is_on_in_both_families(root: Path) -> None:
    Sysctls(root, None).prepare(POD_LINKS)
    assert value(root, "ipv4/ip_forward") == "1"
    assert value(root, "ipv6/conf/all/forwarding") == "1"


def test_links_that_accept_advertisements_still_do_as_routers(root: Path) -> None:
    Sysctls(root, None).prepare(POD_LINKS)
    assert value(root, "ipv6/conf/eth0/accept_ra") == "2"


def test_links_that_accept_none_and_pods_links_stay_as_they_are(root: Path) -> None:
    Sysctls(root, None).prepare(POD_LINKS)
    assert value(root, "ipv6/conf/eth1/accept_ra") == "0"
    assert value(root, f"ipv6/conf/{POD_LINK}/accept_ra") == "1"


def test_a_node_without_ipv6_is_prepared_all_the_same(root: Path) -> None:
    for path in sorted((root / "ipv6").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (root / "ipv6").rmdir()
    Sysctls(root, None).prepare(POD_LINKS)
    assert value(root, "ipv4/ip_forward") == "1"


def world() -> World:
    """An uplink, a link of no concern, the overlay and a pod's link."""
    nobody = ()
    inside = (ip_address("172.17.0.1"),)
    records: list[tuple[Kind, Key, Record]] = [
        (Kind.LINK, "eth0", Link("eth0", 2, 1500, nobody, default_route=True)),
        (Kind.LINK, "docker0", Link("docker0", 3, 1500, inside, default_route=False)),
        (Kind.LINK, "weft.vx", Link("weft.vx", 4, 1450, nobody, default_route=False)),
        (Kind.NODE, Ref("", "n1"), Node(Ref("", "n1"), (), (ip_network("fd00:1::/64"),))),
        (Kind.ATTACHMENT, POD_LINK,
         Workload(POD_LINK, Ref("default", "web"), "u", nobody, 7, bytes(6), bytes(6))),
    ]  # fmt: skip
    found = World(Settings("n1"))
    for kind, key, record in records:
        found = found.with_change(Change(kind, key, None, record))
    return found


@pytest.fixture
def mended(root: Path) -> Sysctls:
    """A node in order."""
    for link in ("eth0", "docker0", "weft.vx", POD_LINK):
        for name in (f"ipv4/conf/{link}/forwarding", f"ipv4/conf/{link}/rp_filter"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text("0\n")
        (root / f"ipv6/conf/{link}").mkdir(parents=True, exist_ok=True)
        (root / f"ipv6/conf/{link}/disable_ipv6").write_text("0\n")
    sysctls = Sysctls(root, (61000, 65535))
    sysctls.mend(world())
    return sysctls


@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [
        ("ipv4/ip_forward", "0", "1"),
        ("ipv6/conf/all/forwarding", "0", "1"),
        ("ipv6/conf/eth0/accept_ra", "1", "2"),
        ("ipv4/conf/eth0/forwarding", "0", "1"),
        ("ipv4/conf/weft.vx/forwarding", "0", "1"),
        (f"ipv4/conf/{POD_LINK}/forwarding", "0", "1"),
        ("ipv4/conf/weft.vx/rp_filter", "1", "2"),
        (f"ipv6/conf/{POD_LINK}/disable_ipv6", "1", "0"),
        ("ipv4/ip_local_reserved_ports", "8080", "8080,61000-65535"),
    ],
)
def test_what_another_hand_wrote_is_put_back_and_counted(
    root: Path, mended: Sysctls, name: str, wrong: str, right: str
) -> None:
    assert mended.mend(world()) == 0
    (root / name).write_text(f"{wrong}\n")
    assert mended.mend(world()) == 1
    assert value(root, name) == right


@pytest.mark.parametrize(
    "name",
    ["ipv6/conf/eth0/accept_ra", "ipv4/conf/eth0/rp_filter", f"ipv4/conf/{POD_LINK}/rp_filter"],
)  # fmt: skip
def test_what_is_the_operators_stays(root: Path, mended: Sysctls, name: str) -> None:
    (root / name).write_text("0\n")
    assert mended.mend(world()) == 0
    assert value(root, name) == "0"


def test_a_bridge_of_others_goes_on_ignoring_advertisements(root: Path, mended: Sysctls) -> None:
    (root / "ipv6/conf/docker0/accept_ra").write_text("1")
    mended.mend(world())
    assert value(root, "ipv6/conf/docker0/accept_ra") == "1"


def test_a_link_that_comes_is_set_and_is_no_drift(root: Path, mended: Sysctls) -> None:
    (root / "ipv4/conf/weft.vx/rp_filter").unlink()
    mended.mend(World(Settings("n1")))
    (root / "ipv4/conf/weft.vx/rp_filter").write_text("1")
    assert mended.mend(world()) == 0
    assert value(root, "ipv4/conf/weft.vx/rp_filter") == "2"


def test_advertisements_are_accepted_before_forwarding_is_turned_on_again(
    root: Path, mended: Sysctls, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "ipv6/conf/eth0/accept_ra").write_text("1")
    (root / "ipv6/conf/all/forwarding").write_text("0")
    written: list[str] = []
    write = Path.write_text

    def noted(path: Path, text: str) -> int:
        written.append(path.name)
        return write(path, text)

    monkeypatch.setattr(Path, "write_text", noted)
    mended.mend(world())
    assert written == ["accept_ra", "forwarding"]


def test_a_link_that_forwards_already_and_accepts_nothing_is_left_alone(root: Path) -> None:
    (root / "ipv6/conf/eth0/forwarding").write_text("1")
    Sysctls(root, None).prepare(POD_LINKS)
    assert value(root, "ipv6/conf/eth0/accept_ra") == "1"


def test_a_sysctl_that_cannot_be_set_is_said_with_what_to_do(root: Path) -> None:
    (root / "ipv4/ip_forward").unlink()
    (root / "ipv4/ip_forward").mkdir()
    with pytest.raises(NotMended, match=r"ip_forward: cannot be set to 1.*set it by hand") as said:
        Sysctls(root, None).mend(World(Settings("n1")))
    assert said.value.mended == 0
    assert value(root, "ipv6/conf/all/forwarding") == "1"


@pytest.mark.parametrize(
    ("held", "after"),
    [("", "61000-65535"), ("8080,9000-9010", "8080,9000-9010,61000-65535"),
     ("61000-65535", "61000-65535"), ("8080,60000-65535", "8080,60000-65535")],
)  # fmt: skip
def test_ports_of_masquerade_are_reserved_beside_those_of_others(held: str, after: str) -> None:
    assert with_ports(held, 61000, 65535) == after


@pytest.mark.parametrize(("held", "kept"), [("60", "3600"), ("3600", "3600"), ("7200", "7200")])
def test_netfilter_forgets_no_half_closed_connection_before_an_hour(
    root: Path, held: str, kept: str
) -> None:
    name = "netfilter/nf_conntrack_tcp_timeout_close_wait"
    (root / name).write_text(f"{held}\n")
    Sysctls(root, None).mend(world())
    assert value(root, name) == kept


def test_a_kernel_without_netfilters_tracking_lacks_nothing(root: Path) -> None:
    (root / "netfilter/nf_conntrack_tcp_timeout_close_wait").unlink()
    Sysctls(root, None).mend(world())
    assert not (root / "netfilter/nf_conntrack_tcp_timeout_close_wait").exists()
