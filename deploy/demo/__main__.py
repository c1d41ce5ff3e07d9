"""`make demo`: two nodes, six pods, one Service, two policies, shown in a picture.

Everything runs for real: a weftd per node on a folder of manifests, pods wired by weft-cni, traffic
through the programs. KEEP=1 leaves it running until Enter. Nothing is left behind.
"""

import os
import sys
import time
from collections import Counter

from deploy.demo import picture
from deploy.demo.story import ALLOW, DENY, PORT, SERVICE, VIPS, Story
from deploy.netlab import Lab, Pod

REQUESTS = 60


def main() -> int:
    began = time.monotonic()
    with Lab(f"weft-demo-{os.getpid()}", mode="auto") as lab:
        story = Story(lab)
        print(picture.step("Two nodes, each a network namespace with a weftd of its own"))
        story.start_nodes()
        print(picture.step("Six pods, wired by weft-cni over the daemon's socket"))
        story.wire_pods()
        print(picture.cluster(lab.nodes))
        print(picture.step(f"Service {SERVICE} at {VIPS[0]} and [{VIPS[1]}], three endpoints"))
        story.publish_service()
        for vip in VIPS:
            answers = ask_often(story.pods["shop"], vip)
            print(picture.balance(f"{REQUESTS} connections from pod shop to {vip}:80", answers))
        print(
            picture.step(
                f"Policy {DENY} denies all, policy {ALLOW} lets pods labelled role=shop in"
            )
        )
        story.publish_policies()
        print(picture.verdicts(story.verdicts()))
        print(picture.step("What was dropped, and by which policy (weft drops, weft flows)"))
        print(story.explained_drops())
        print(f"\nDone in {time.monotonic() - began:.0f} s.")
        keep(lab)
    return 0


def ask_often(pod: Pod, vip: str) -> Counter[str]:
    """How often each endpoint answered, asked from one shell in the pod."""
    script = (
        "import socket,sys\n"
        f"for _ in range({REQUESTS}):\n"
        f"    with socket.create_connection(({vip!r}, {PORT}), 5) as s:\n"
        "        print(s.makefile().readline().split()[0])\n"
    )
    return Counter(pod.run(sys.executable, "-c", script).split())


def keep(lab: Lab) -> None:
    if os.environ.get("KEEP") != "1":
        return
    for node in lab.nodes:
        print(
            f"node {node.name}: ip netns exec {node.namespace} sh; weft --socket {node.api_socket}"
        )
    input("Enter ends the demo. ")


if __name__ == "__main__":
    sys.exit(main())
