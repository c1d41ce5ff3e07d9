"""An address that passes from pod to pod at once: nothing of the last one's rights or flows stays.

The node's ranges are so small that there is no other address, and the API never says that the
former pod is gone.
"""

from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from deploy.netlab import Lab, manifests
from tests.netns.conftest import assert_dump_equals_plan, lab_name
from tests.netns.fresh import OK, OTHER, Place, Stage, staged

pytestmark = pytest.mark.long

TIGHT = ("10.244.1.0/30", "fd00:10:244:1::/126")
"""One IPv4 address for pods."""
TURNS = 10


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Lab(lab_name()) as lab:
        for name in ("east", "west"):
            lab.add_node(name)
        east = lab.nodes[0]
        east.pod_cidrs = TIGHT
        hosts = [address.split("/")[0] for address in east.underlay]
        lab.manifests.put(manifests.node(east.name, hosts, TIGHT))
        with staged(lab) as made:
            yield made


@pytest.fixture(autouse=True)
def law(stage: Stage) -> Iterator[None]:
    """After every test the kernel holds exactly the full plan."""
    yield
    for node in stage.lab.nodes:
        assert_dump_equals_plan(node)


@pytest.fixture
def places(stage: Stage) -> Iterator[list[Place]]:
    made = [Place(stage, f"heir-{number}") for number in range(2 * TURNS)]
    yield made
    for place in made:
        place.close()


def test_a_pod_at_anothers_address_has_its_own_rights_and_none_of_its_flows(
    stage: Stage, places: list[Place]
) -> None:
    for number, place in enumerate(places):
        labels = OTHER if number % 2 else OK
        pod = place.wire(place.announce(labels))
        assert pod.address(4) == ip_address("10.244.1.2"), "another address was free"
        # Who may not dials from the very port of who might, whose flow nobody has ended.
        found = stage.reached(pod, (4,), source_port=40_000 + number // 2)
        assert found == (set() if number % 2 else {4}), f"pod {number}"
        place.report(pod, labels)
        place.unwire(pod)
