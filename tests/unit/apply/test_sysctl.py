"""The node's sysctls, on a folder that stands for /proc/sys/net."""

import re
from pathlib import Path

import pytest

from weft.proxy.apply.sysctl import prepare_links, prepare_node, reserve_ports

POD_LINKS = re.compile(r"weft[0-9a-f]{11}")
POD_LINK = "weft0123456789a"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    values = {
        "ipv4/ip_forward": "0",
        "ipv4/ip_local_reserved_ports": "",
        "ipv6/conf/all/forwarding": "0",
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
    prepare_node(root, POD_LINKS)
    assert value(root, "ipv4/ip_forward") == "1"
    assert value(root, "ipv6/conf/all/forwarding") == "1"


def test_links_that_accept_advertisements_still_do_as_routers(root: Path) -> None:
    prepare_node(root, POD_LINKS)
    assert value(root, "ipv6/conf/eth0/accept_ra") == "2"


def test_links_that_accept_none_and_pods_links_stay_as_they_are(root: Path) -> None:
    prepare_node(root, POD_LINKS)
    assert value(root, "ipv6/conf/eth1/accept_ra") == "0"
    assert value(root, f"ipv6/conf/{POD_LINK}/accept_ra") == "1"


def test_a_node_without_ipv6_is_prepared_all_the_same(root: Path) -> None:
    for path in sorted((root / "ipv6").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (root / "ipv6").rmdir()
    prepare_node(root, POD_LINKS)
    assert value(root, "ipv4/ip_forward") == "1"


def test_own_links_filter_loosely_and_one_that_is_gone_is_no_error(root: Path) -> None:
    prepare_links(root, ["weft.vx", "weft0"])
    assert value(root, "ipv4/conf/weft.vx/rp_filter") == "2"


def test_a_sysctl_that_cannot_be_set_is_said_with_what_to_do(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "ipv4/ip_forward").unlink()
    (root / "ipv4/ip_forward").mkdir()
    prepare_node(root, POD_LINKS)
    assert "set it by hand" in caplog.text


@pytest.mark.parametrize(
    ("held", "after"),
    [("", "61000-65535"), ("8080,9000-9010", "8080,9000-9010,61000-65535"),
     ("61000-65535", "61000-65535")],
)  # fmt: skip
def test_ports_of_masquerade_are_reserved_beside_those_of_others(
    root: Path, held: str, after: str
) -> None:
    (root / "ipv4/ip_local_reserved_ports").write_text(f"{held}\n")
    reserve_ports(root, 61000, 65535)
    assert value(root, "ipv4/ip_local_reserved_ports") == after
