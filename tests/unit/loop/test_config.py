"""The daemon's settings: flags over files over defaults, each wrong one named with its origin."""

import json
from ipaddress import ip_network
from pathlib import Path

import pytest

from weft.proxy.config import SETTINGS, ConfigError, load, shown
from weft.proxy.model.world import Mode

ALL_IPV6 = ip_network("::/0")


def test_every_setting_has_a_default_but_the_node_must_have_a_name() -> None:
    config = load(["--node", "n1"])
    assert (config.node, config.mode, config.api_servers) == ("n1", Mode.AUTO, ())
    with pytest.raises(ConfigError, match="--node is empty"):
        load(["--node", ""])


def test_a_flag_wins_over_a_file_and_a_file_over_the_default(tmp_path: Path) -> None:
    (tmp_path / "mode").write_text("bridge\n")
    (tmp_path / "overlay-port").write_text("4789")
    (tmp_path / "unknown-key").write_text("x")
    config = load(["--config", str(tmp_path), "--overlay-port", "9999"])
    assert (config.mode, config.overlay_port) == (Mode.BRIDGE, 9999)


def test_lists_are_written_with_commas_and_may_be_empty() -> None:
    flags = ["--api-servers", "https://a:6443, https://b:6443,", "--never-masquerade", ""]
    config = load(flags)
    assert config.api_servers == ("https://a:6443", "https://b:6443")
    assert config.never_masquerade == ()


@pytest.mark.parametrize(
    ("text", "networks"),
    [("primary", ()), ("", ()), ("192.0.2.0/24, ::/0", (ip_network("192.0.2.0/24"), ALL_IPV6))],
)
def test_node_ports_are_at_primary_addresses_or_those_of_prefixes(
    text: str, networks: tuple[object, ...]
) -> None:
    assert load(["--node-port-addresses", text]).node_port_addresses == networks


def test_addresses_to_listen_at_have_kube_proxys_ports_unless_they_name_one() -> None:
    config = load(["--healthz-bind-address", "10.0.0.1, [::1], ::", "--metrics-bind-address", ""])
    assert config.healthz_bind_address == (("10.0.0.1", 10256), ("::1", 10256), ("::", 10256))
    assert config.metrics_bind_address == ()
    config = load(["--metrics-bind-address", "0.0.0.0:9,[::]:8"])
    assert config.metrics_bind_address == (("0.0.0.0", 9), ("::", 8))


def test_the_settings_in_force_are_shown_as_an_operator_writes_them() -> None:
    said = shown(load(["--node", "n1", "--mode", "bridge", "--table-sizes", "flows=9"]))
    assert said.keys() == {name.replace("_", "-") for name in SETTINGS}
    assert (said["node"], said["mode"], said["overlay"]) == ("n1", "bridge", True)
    assert said["table-sizes"] == {"flows": 9}
    assert said["metrics-bind-address"] == ["127.0.0.1:10249", "[::1]:10249"]
    json.dumps(said)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--mode", "wire"], "--mode: 'wire'"),
        (["--source", "git:x"], "kube or dir:PATH"),
        (["--overlay-port", "70000"], "1 to 65535"),
        (["--healthz-bind-address", "localhost:10256"], "'localhost' does not"),
        (["--healthz-bind-address", "[::]:0"], "1 to 65535"),
        (["--masquerade", "maybe"], "true or false"),
        (["--never-masquerade", "10.0.0.1/8"], "host bits"),
        (["--table-sizes", "walls=3"], "tables are settings"),
        (["--snat-port-min", "65000", "--snat-port-max", "64000"], "lies above"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(flags: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(flags)


def test_a_wrong_file_is_named_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "mode").write_text("wire")
    with pytest.raises(ConfigError, match=str(tmp_path / "mode")):
        load(["--config", str(tmp_path)])


def test_help_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load(["--help"])
    text = capsys.readouterr().out
    assert [name for name in SETTINGS if f"--{name.replace('_', '-')} " not in text] == []
