"""The first packet of a pod whose address the API has not said yet gets where policy lets it.

Pods come and go in rounds: a name, a namespace and soon an address are used again by a pod with
another uid and other labels. Nothing here ever tells the API the address of such a pod.
"""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from deploy.netlab import Lab, Pod
from tests.netns.conftest import assert_dump_equals_plan, lab_name
from tests.netns.fresh import OK, OTHER, Place, Stage, staged

pytestmark = pytest.mark.long

ROUNDS, PODS = 40, 50


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Lab(lab_name()) as lab:
        for name in ("east", "west"):
            lab.add_node(name)
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
    made = [Place(stage, f"fresh-{number}") for number in range(PODS)]
    yield made
    for place in made:
        place.close()


def test_first_syns_of_fresh_pods_pass_where_policy_lets_them_and_nowhere_else(
    stage: Stage, places: list[Place]
) -> None:
    reached: Counter[tuple[str, int]] = Counter()

    def live(place: Place, pod: Pod) -> set[int]:
        found = stage.reached(place.wire(pod))
        place.unwire(pod)
        return found

    with ThreadPoolExecutor(8) as many:
        for number in range(ROUNDS):
            # What a place's last pod might do its next one may not, and the other way round.
            labels = [OK if (index + number) % 2 else OTHER for index in range(PODS)]
            pods = [place.announce(of) for place, of in zip(places, labels, strict=True)]
            for of, found in zip(labels, many.map(live, places, pods), strict=True):
                reached.update((of["app"], family) for family in found)
    many_pods = ROUNDS * PODS // 2
    assert reached == {("ok", 4): many_pods, ("ok", 6): many_pods}
