"""Owns one word said in one namespace of a lab and heard, or not, in another."""

import subprocess
import sys
from pathlib import Path

from deploy.netlab import Lab, LabNode, Pod
from deploy.netlab.shell import wait_for

GROUP = Path(__file__).with_name("group.py")
PORT = 5353


def hears(
    lab: Lab, speaker: Pod | LabNode, listener: Pod | LabNode, to: str, limit_s: int,
    *, links: tuple[str, str] = ("eth0", "eth0"),
) -> bool:  # fmt: skip
    """Whether the listener hears what the speaker says once. links: the one's and the other's."""
    ready = lab.folder / "group.ready"
    ready.unlink(missing_ok=True)
    words = (sys.executable, GROUP, "hear", to, str(PORT), links[1], ready, str(limit_s))
    with subprocess.Popen(listener.command(*words), stdout=subprocess.PIPE, text=True) as process:
        wait_for("the listener", ready.exists)
        speaker.run(sys.executable, GROUP, "say", to, str(PORT), links[0])
        said, _ = process.communicate(timeout=30)
    return said.strip() != "nothing"
