"""Every command against a real server on a unix socket, whose node is in memory."""

import asyncio
import json
import resource
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.unit.observe import small_node
from tests.unit.observe.pipe import Pipe
from tests.unit.observe.small_node import SERVER_IP, SmallNode, running
from tests.unit.observe.test_flows import event, judging_set
from weft.bpf.layout import (
    DIRECTION_COUNT,
    Counter,
    Direction,
    Event,
    Reason,
    pack_address,
    pack_u32,
)
from weft.cli.__main__ import main
from weft.proxy.model.objects import Kind, Ref
from weft.proxy.observe.flows import Flows
from weft.proxy.observe.server import Servicer, serving
from weft.proxy.observe.status import NodeReport

Before = Callable[[SmallNode], None]
LISTINGS = ("services", "endpoints", "workloads", "policy", "nodes")


def _as_it_is(node: SmallNode) -> None:
    pass


class Weft:
    """Runs the command against a node that is made for each call."""

    def __init__(self, socket: Path, capture: "pytest.CaptureFixture[str]") -> None:
        self.socket, self._capture = socket, capture

    def __call__(
        self, *argv: str, before: Before = _as_it_is, events: Sequence[Event] = ()
    ) -> tuple[int, str]:
        """Exit code and standard output; `events` come while the command runs."""
        code = asyncio.run(self._story(argv, before, events))
        return code, self._capture.readouterr().out

    async def _story(self, argv: Sequence[str], before: Before, events: Sequence[Event]) -> int:
        pipe = Pipe()
        async with running() as node:
            before(node)
            flows = Flows(lambda: node.view.world, pipe, lambda _: None)
            async with serving(
                self.socket, Servicer(node.view, flows, NodeReport(node.view, dict, dict))
            ):
                command = asyncio.to_thread(main, ["--socket", str(self.socket), *argv])
                running_command = asyncio.ensure_future(command)
                if events:
                    await asyncio.wait_for(pipe.joined.wait(), 10)
                    pipe.send(*events)
                return await running_command

    def json(self, *argv: str, before: Before = _as_it_is) -> Any:
        return json.loads(self(*argv, "-o", "json", before=before)[1])


@pytest.fixture
def weft(tmp_path: Path, capsys: "pytest.CaptureFixture[str]") -> Weft:
    return Weft(tmp_path / "weft.sock", capsys)


# --- Listings -----------------------------------------------------------------------------------
def test_services_are_shown_with_their_endpoints_and_status(weft: Weft) -> None:
    code, out = weft("services")
    assert code == 0
    assert out.splitlines()[1].split() == [
        "default", "web", "ClusterIP", "10.96.0.10", "80/TCP(http)", "1", "done"
    ]  # fmt: skip


def test_one_service_is_shown_with_what_it_leads_to(weft: Weft) -> None:
    for name in ("web", "default/web"):
        code, out = weft("services", name)
        assert code == 0
        assert "default/server" in out
        assert "default/far" in out


def test_one_service_is_shown_with_each_address_and_why_endpoints_are_not_used(weft: Weft) -> None:
    _, out = weft("services", "web", "-o", "wide")
    _, frontends, endpoints = (part.splitlines()[1:] for part in out.strip().split("\n\n"))
    assert [line.split() for line in frontends] == [
        ["default", "web", "cluster-ip", "10.96.0.10:80", "http/TCP", "1", "done"]
    ]
    assert any("no: not ready" in line and "default/far" in line for line in endpoints)
    assert any(" yes " in line and "default/server" in line for line in endpoints)


def test_what_a_client_gets_is_shown_address_by_address(weft: Weft) -> None:
    code, out = weft("services", "web", "--from", "default/client")
    assert code == 0
    words = ["default", "web", "cluster-ip", "10.96.0.10:80", "http/TCP", "10.244.1.5:8080"]
    assert out.splitlines()[1].split()[:6] == words
    assert "the client's own" in out
    (document,) = weft.json("services", "web", "--from", "n2")["items"]
    assert [one["gets"] for one in document["outcomes"]] == ["endpoints"]


def test_a_client_that_is_nobody_is_told_and_exits_1(weft: Weft) -> None:
    assert weft("services", "web", "--from", "nowhere") == (1, "")


@pytest.mark.parametrize("command", LISTINGS)
def test_every_listing_has_a_table_a_wider_one_and_json(weft: Weft, command: str) -> None:
    table, wide = weft(command)[1], weft(command, "-o", "wide")[1]
    document = weft.json(command)
    assert len(table.splitlines()) == len(document["items"]) + 1
    assert len(wide.splitlines()) == len(table.splitlines())
    assert document["apiVersion"] == "weft/v1"
    assert document["kind"].endswith("List")


@pytest.mark.parametrize("command", LISTINGS)
def test_a_name_that_nothing_has_is_a_failed_check(weft: Weft, command: str) -> None:
    assert weft(command, "nobody")[0] == 1


def test_json_keeps_fields_that_are_zero(weft: Weft) -> None:
    (endpoint,) = [e for e in weft.json("endpoints")["items"] if e["pod"] == "default/far"]
    assert endpoint["ready"] is False
    assert endpoint["chosen"] is False


def test_json_has_numbers_as_numbers_and_states_in_lower_case(weft: Weft) -> None:
    document = weft.json("status")
    (workloads,) = [use for use in document["tables"] if use["name"] == "workloads"]
    assert workloads["rows"] == 2
    assert weft.json("services")["items"][0]["status"]["state"] == "done"


def test_one_service_as_json_carries_its_endpoints(weft: Weft) -> None:
    (service,) = weft.json("services", "web")["items"]
    assert {e["pod"] for e in service["endpoints"]} == {"default/server", "default/far"}


# --- Judgements ---------------------------------------------------------------------------------
def test_status_of_a_node_in_order_exits_0(weft: Weft) -> None:
    code, out = weft("status")
    assert code == 0
    assert out.startswith("n1: in order")


def test_status_exits_1_when_a_check_fails(weft: Weft) -> None:
    def unread(node: SmallNode) -> None:
        node.loop.intake.broken[Kind.POLICY, Ref("default", "odd")] = "no spec"

    code, out = weft("status", before=unread)
    assert code == 1
    assert "NOT in order" in out
    assert "policy default/odd: no spec" in out
    assert weft.json("status", before=unread)["healthy"] is False


def test_dump_of_a_node_in_order_says_so_and_exits_0(weft: Weft) -> None:
    assert weft("dump") == (0, "the kernel holds exactly what the plan says\n")


def test_dump_shows_what_differs_and_exits_1(weft: Weft) -> None:
    def lose(node: SmallNode) -> None:
        node.tables["workloads"].delete([pack_address(SERVER_IP)])

    code, out = weft("dump", before=lose)
    assert code == 1
    assert out.splitlines()[1].split()[:3] == ["workloads", "missing", str(SERVER_IP)]


def test_drops_are_shown_by_reason_with_its_meaning(weft: Weft) -> None:
    def count(node: SmallNode) -> None:
        key = pack_u32(Reason.SOURCE_SPOOFED * DIRECTION_COUNT + Direction.FROM_POD)
        node.tables["counters"].update({key: Counter(1200, 72000).pack()})

    code, out = weft("drops", before=count)
    assert code == 0
    assert out.splitlines()[1].split()[:4] == ["source-spoofed", "from-pod", "1,200", "72,000"]
    assert weft("drops")[1] == "nothing was dropped\n"


# --- Flows --------------------------------------------------------------------------------------
def test_a_policy_drop_is_one_line_that_names_the_policy(weft: Weft) -> None:
    rule_set = asyncio.run(_set_of_the_server())
    drop = event(small_node.FAR_IP, reason=Reason.POLICY_INGRESS, rule_set=rule_set)
    code, out = weft("flows", "-f", "--count", "1", events=[drop])
    assert code == 0
    assert "DROPPED TCP  default/far(10.244.2.5):40000 -> default/server(10.244.1.5):8080" in out
    assert "by default/only-client" in out


async def _set_of_the_server() -> int:
    async with running() as node:
        return judging_set(node)


def test_flows_as_json_are_one_document_per_line(weft: Weft) -> None:
    _, out = weft("flows", "-f", "--count", "2", "-o", "json", events=[event(), event()])
    kinds = [json.loads(line)["kind"] for line in out.splitlines()]
    assert kinds == ["Flow", "Flow"]


def test_flows_without_follow_end_by_themselves(weft: Weft) -> None:
    assert weft("flows", "--for", "0.2") == (0, "")


def test_names_from_objects_cannot_steer_the_terminal(weft: Weft) -> None:
    def rename(node: SmallNode) -> None:
        key = (Kind.SERVICE, Ref("default", "odd"))
        node.loop.intake.broken[key] = "\x1b[2J\u202egone"

    out = weft("status", before=rename)[1]
    assert "\x1b" not in out
    assert "\\x1b[2J\\u202egone" in out


# --- The server and the way to it -----------------------------------------------------------------
def test_only_root_may_use_the_socket(tmp_path: Path) -> None:
    async def story() -> None:
        path = tmp_path / "run" / "weft.sock"
        async with running() as node:
            flows = Flows(lambda: node.view.world, Pipe(), lambda _: None)
            async with serving(path, Servicer(node.view, flows, NodeReport(node.view, dict, dict))):
                assert stat.S_IMODE(path.stat().st_mode) == 0o600

    asyncio.run(story())


def test_a_client_that_leaves_is_forgotten(weft: Weft) -> None:
    async def story() -> None:
        pipe = Pipe()
        async with running() as node:
            flows = Flows(lambda: node.view.world, pipe, lambda _: None)
            async with serving(
                weft.socket, Servicer(node.view, flows, NodeReport(node.view, dict, dict))
            ):
                argv = ["--socket", str(weft.socket), "flows", "--for", "0.2"]
                assert await asyncio.to_thread(main, argv) == 0
                await asyncio.wait_for(pipe.left.wait(), 10)

    asyncio.run(story())


def test_a_daemon_that_is_not_there_is_told_in_three_lines(
    tmp_path: Path, capsys: "pytest.CaptureFixture[str]"
) -> None:
    assert main(["--socket", str(tmp_path / "none.sock"), "status"]) == 3
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("weft: cannot reach the daemon at ")
    assert lines[1].strip() == "why:  there is no such socket"


def test_a_socket_that_nobody_answers_is_unreachable(
    tmp_path: Path, capsys: "pytest.CaptureFixture[str]"
) -> None:
    path = tmp_path / "dead.sock"
    path.touch()
    assert main(["--socket", str(path), "services"]) == 3
    assert "Traceback" not in capsys.readouterr().err


def test_usage_errors_exit_2() -> None:
    for argv in (["nonsense"], ["services", "-o", "xml"], []):
        with pytest.raises(SystemExit) as ended:
            main(argv)
        assert ended.value.code == 2


def test_help_comes_at_once_and_loads_no_library() -> None:
    program = (
        "import sys\nfrom weft.cli.__main__ import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'grpc', 'google.protobuf', 'kubernetes'} & sys.modules.keys()\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    assert min(_cpu_s(program) for _ in range(5)) < 0.15


def _cpu_s(program: str) -> float:
    """The machine may be busy: what counts is the work, not the wait."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
