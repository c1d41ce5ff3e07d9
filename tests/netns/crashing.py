"""weftd, ended without a word after a step of its migration: crashing.py STEP [weftd's flags].

Its exit code is CRASHED.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

from weft.bpf import clsact, hook, load, migrate, pins
from weft.proxy.__main__ import main

CRASHED = 86


def crash(*_: object, **_named: object) -> None:
    os._exit(CRASHED)


def after(owner: object, name: str, calls: int = 1) -> None:
    """End once the function has been called so often."""
    whole: Callable[..., Any] = getattr(owner, name)
    done: list[None] = []

    def last(*args: object, **named: object) -> object:
        answer = whole(*args, **named)
        done.append(None)
        if len(done) == calls:
            crash()
        return answer

    setattr(owner, name, last)


STEPS: dict[str, Callable[[], None]] = {
    "maps made": lambda: setattr(load, "migrate", crash),
    "one map copied": lambda: after(migrate, "copy"),
    "all copied": lambda: after(load, "migrate"),
    "one hook replaced": lambda: after(clsact, "set_block"),
    "hooks replaced": lambda: after(hook.Hooks, "attach"),
    "rest of one copied": lambda: setattr(pins, "unpin", crash),
    "one unpinned": lambda: after(pins, "unpin"),
}


if __name__ == "__main__":
    STEPS[sys.argv.pop(1)]()
    sys.exit(main())
