"""Runtimes, pods and the daemon die at any moment; nothing leaks and no address is held twice."""

import contextlib
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.cni_lab import Lab, finish, lab, nothing_left, run, wait_until

PODS, STEPS = 6, 40


class Chaos:
    """A daemon and some pods, moved by steps drawn from `seed`."""

    def __init__(self, node: Lab, seed: int) -> None:
        self._node = node
        self._draw = random.Random(seed)
        self._pods = {f"c{i}": node.pod() for i in range(PODS)}
        self._daemon: contextlib.ExitStack | None = None

    def step(self) -> None:
        kinds = [self.add, self.add, self.delete, self.killed_add, self.start, self.kill]
        self._draw.choice(kinds)()

    def add(self) -> None:
        container, pod = self._draw.choice(list(self._pods.items()))
        self._node.cni("ADD", pod, container)

    def delete(self) -> None:
        container, pod = self._draw.choice(list(self._pods.items()))
        assert self._node.cni("DEL", pod, container).code == 0

    def killed_add(self) -> None:
        """The time-out of a runtime hits the shim some microseconds or milliseconds after start."""
        container, pod = self._draw.choice(list(self._pods.items()))
        adding = self._node.start("ADD", pod, container)
        with contextlib.suppress(subprocess.TimeoutExpired):
            adding.wait(self._draw.random() * 0.02)
        adding.kill()
        finish(adding)

    def start(self) -> None:
        if self._daemon is None:
            self._daemon = contextlib.ExitStack()
            self._process = self._daemon.enter_context(self._node.daemon())

    def kill(self) -> None:
        """kill -9 while an ADD is somewhere on its way."""
        if self._daemon is not None:
            container, pod = self._draw.choice(list(self._pods.items()))
            adding = self._node.start("ADD", pod, container)
            with contextlib.suppress(subprocess.TimeoutExpired):
                adding.wait(self._draw.random() * 0.02)
            self._process.kill()
            self._process.wait()
            self._daemon.close()
            self._daemon = None
            finish(adding)

    def addresses_of_pods(self) -> list[str]:
        return [
            info["local"]
            for pod in self._pods.values()
            for link in self._node.ip("address", ns=pod)
            if link["ifname"] == "eth0"
            for info in link["addr_info"]
            if info["scope"] == "global"
        ]

    def end(self) -> None:
        """What a runtime does in the end: a DEL for every sandbox it ever made."""
        self.start()
        for container, pod in self._pods.items():
            assert self._node.cni("DEL", pod, container).code == 0

    def close(self) -> None:
        if self._daemon is not None:
            self._daemon.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Lab]:
    with lab(tmp_path) as one:
        yield one


@pytest.mark.parametrize("seed", range(4))
def test_whatever_dies_when_nothing_leaks_and_no_address_is_held_twice(
    node: Lab, seed: int
) -> None:
    with contextlib.closing(Chaos(node, seed)) as chaos:
        for _ in range(STEPS):
            chaos.step()
            held = chaos.addresses_of_pods()
            assert len(set(held)) == len(held)
        chaos.end()
        wait_until("nothing is left", lambda: nothing_left(node))
    assert run("ls", node.folder / "deletions") == ""
