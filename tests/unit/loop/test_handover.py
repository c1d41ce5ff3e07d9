"""Which attachments make this node tell others that an address was given on."""

from dataclasses import replace
from ipaddress import ip_address

from weft.proxy.apply.gate import Stage
from weft.proxy.handover import REMEMBERED_S, Handovers
from weft.proxy.loop import Turn
from weft.proxy.model.objects import Address, Kind, Pod, Ref, Workload
from weft.proxy.model.world import Change, Settings, World

X, Y = ip_address("10.244.1.5"), ip_address("fd00:1::5")


def link(uid: str) -> Workload:
    name = f"weft of {uid}"
    return Workload(name, Ref("default", uid), uid, (X, Y), 7, bytes(6), bytes(6))


class Heard:
    def __init__(self, *pods: Pod) -> None:
        world = World(Settings("n1"))
        for pod in pods:
            world = world.with_change(Change(Kind.POD, pod.ref, None, pod))
        self.addresses: list[Address] = []
        self._handovers = Handovers(lambda: world, self.addresses.extend)

    def turn(self, *steps: tuple[Workload | None, Workload | None], at_s: float = 0) -> None:
        changes = tuple(Change(Kind.ATTACHMENT, "weft", *step) for step in steps)
        self._handovers.observe(Turn(changes, Stage.LISTED, at_s, at_s, at_s))


def test_an_address_of_another_pod_a_moment_ago_is_told() -> None:
    heard = Heard()
    heard.turn((None, link("a")), (link("a"), None))
    heard.turn((None, link("b")), at_s=REMEMBERED_S - 1)
    assert heard.addresses == [X, Y]
    heard.turn((None, link("c")))
    assert heard.addresses == [X, Y], "told once"


def test_an_address_that_its_own_pod_takes_up_again_is_not() -> None:
    heard = Heard()
    heard.turn((link("a"), None))
    heard.turn((None, link("a")))
    assert heard.addresses == []


def test_what_was_long_ago_is_forgotten() -> None:
    heard = Heard()
    elsewhere = replace(link("z"), addresses=(ip_address("10.244.1.9"),))
    heard.turn((link("a"), None))
    heard.turn((elsewhere, None), at_s=REMEMBERED_S + 1)
    heard.turn((None, link("b")), at_s=REMEMBERED_S + 1)
    assert heard.addresses == []


def test_an_address_that_the_api_still_gives_to_another_is_told() -> None:
    former = Pod(Ref("default", "former"), "f", "n1", {}, (X,), False, False)
    heard = Heard(former)
    heard.turn((None, link("b")))
    assert heard.addresses == [X]
