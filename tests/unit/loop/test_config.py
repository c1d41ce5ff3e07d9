"""The daemon's settings: flags over files over defaults, each wrong one named with its origin."""

from pathlib import Path

import pytest

from weft.proxy.config import SETTINGS, ConfigError, load
from weft.proxy.model.world import Mode


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
    ("flags", "said"),
    [
        (["--mode", "wire"], "--mode: 'wire'"),
        (["--source", "git:x"], "kube or dir:PATH"),
        (["--overlay-port", "70000"], "1 to 65535"),
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
