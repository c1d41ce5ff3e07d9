"""The daemon of the CNI tests: the real server with a node that can be told to keep a pod waiting.

usage: cni_daemon.py FOLDER CONFIG. Serves FOLDER/cni.sock until it is terminated; writes one line
to stdout when it listens. Where FOLDER/hold exists, an attachment waits for SIGUSR1.
"""

import asyncio
import contextlib
import json
import signal
import sys
from dataclasses import replace
from pathlib import Path

from weft.cni.local import AllowAll, prepare_host
from weft.cni.node import NotReady, PodNetwork
from weft.cni.repair import open_leases, reconcile
from weft.cni.server import CniServer
from weft.cni.spec import Attachment, parse_config


class SlowNode(AllowAll):
    """Refuses while FOLDER/not-ready exists, and writes down whom it was told to forget.

    The configuration's `routeMtu` is what a daemon with a tunnel would say.
    """

    def __init__(self, config: bytes, folder: Path) -> None:
        super().__init__(parse_config(config))
        self._folder = folder
        self._route_mtu_bytes = int(json.loads(config).get("routeMtu", 0))
        self.go_on = asyncio.Event()

    def network(self) -> PodNetwork:
        return replace(super().network(), route_mtu_bytes=self._route_mtu_bytes)

    async def attached(self, attachment: Attachment) -> None:
        if (self._folder / "not-ready").exists():
            raise NotReady("the test says so")
        (self._folder / f"attaching-{attachment.container_id}").touch()
        if (self._folder / "hold").exists():
            await self.go_on.wait()

    async def detached(self, attachment: Attachment) -> None:
        with (self._folder / "detached").open("a") as file:
            file.write(f"{attachment.key}\n")


async def main(folder: Path, config: bytes) -> None:
    stop = asyncio.Event()
    node = SlowNode(config, folder)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, node.go_on.set)
    prepare_host(node.network())
    with contextlib.ExitStack() as stack:
        leases = stack.enter_context(open_leases(folder / "leases.jsonl"))
        await reconcile(leases)
        server = CniServer(folder / "cni.sock", leases, node, folder / "deletions")
        async with server.serve():
            print("serving", flush=True)
            await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]).read_bytes()))
