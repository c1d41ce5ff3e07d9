"""Chains of others that drop what is forwarded: pods' traffic is accepted there, and only there."""

import pytest

from tests.netns.alone import play, sh
from weft.proxy.apply.forward import Forward
from weft.proxy.apply.target import NotMended

DROPPING = (
    "add table inet fw; add chain inet fw f { type filter hook forward priority 0; policy %s; }"
)


def drop(tool: str) -> None:
    """A FORWARD chain that drops, made by `tool`."""
    sh(f"nft '{DROPPING % 'drop'}'" if tool == "nft" else f"{tool} -P FORWARD DROP")


def shown(tool: str) -> str:
    return sh("nft list ruleset" if tool == "nft" else f"{tool} -S FORWARD")


TOOLS = ["nft", "iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"]


@pytest.mark.parametrize("tool", TOOLS)
def test_a_chain_that_drops_gets_both_rules_once_and_its_own_tool_shows_them(tool: str) -> None:
    def story() -> None:
        forward = Forward()
        assert forward.mend() == 0
        drop(tool)
        assert [forward.mend(), forward.mend(), forward.mend()] == [2, 0, 0]
        text = shown(tool)
        for way in ("from", "to"):
            assert text.count(f"weft: {way} pods, judged by Weft") == 1
        links = (
            ('iifname "weft*"', 'oifname "weft*"') if tool == "nft" else ("-i weft+", "-o weft+")
        )
        for link in links:
            assert link in text

    play(story)


@pytest.mark.parametrize("tool", TOOLS)
def test_rules_that_were_flushed_come_back_at_the_top(tool: str) -> None:
    def story() -> None:
        forward = Forward()
        drop(tool)
        assert forward.mend() == 2
        table, line = ("inet fw f", "") if tool == "nft" else ("", f"{tool} -F FORWARD")
        sh(line or f"nft flush chain {table}; nft add rule {table} ip daddr 192.0.2.1 drop")
        if tool != "nft":
            sh(f"{tool} -A FORWARD -p tcp -j DROP")
        assert forward.mend() == 2
        text = shown(tool)
        assert text.index("weft: to pods") < max(text.rfind("192.0.2.1"), text.rfind("-p tcp"))

    play(story)


@pytest.mark.parametrize("tool", TOOLS)
def test_a_chain_is_served_when_it_begins_to_drop_and_not_before(tool: str) -> None:
    def story() -> None:
        forward = Forward()
        accepting = f"nft '{DROPPING % 'accept'}'"
        sh(accepting if tool == "nft" else f"{tool} -P FORWARD ACCEPT")
        assert forward.mend() == 0
        assert "weft" not in shown(tool)
        drop(tool)
        assert forward.mend() == 2

    play(story)


def test_a_flushed_ruleset_that_comes_back_is_served_again() -> None:
    def story() -> None:
        forward = Forward()
        for _ in range(2):
            drop("nft")
            drop("iptables-nft")
            assert forward.mend() == 4
            sh("nft flush ruleset")
            assert forward.mend() == 0

    play(story)


def test_who_deletes_the_rule_again_and_again_is_said_and_not_fought() -> None:
    def story() -> None:
        now_s = 0.0
        forward = Forward(clock=lambda: now_s)
        drop("nft")
        put, said = 0, set()
        for _ in range(60):
            now_s += 1.0
            sh("nft flush chain inet fw f")
            try:
                put += forward.mend() > 0
            except NotMended as error:
                said.add(str(error))
        assert len(said) == 1
        assert "from inet fw f again and again" in said.pop()
        assert 3 < put < 10
        now_s += 600
        assert forward.mend() == 2

    play(story)
