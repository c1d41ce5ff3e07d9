"""A story told in a network namespace of its own, which goes with its end."""

import ctypes
import subprocess
import threading
from collections.abc import Callable

_CLONE_NEWNET = 0x40000000

Story = Callable[[], None]


def play(story: Story) -> None:
    """Run `story` in a new namespace, which goes with its thread."""
    failed: list[BaseException] = []

    def inside() -> None:
        try:
            if ctypes.CDLL(None).unshare(_CLONE_NEWNET):
                raise OSError("unshare: a new network namespace was refused")
            story()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def sh(command: str) -> str:
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    return done.stdout
