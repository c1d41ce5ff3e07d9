"""`python -m weft.cni`: one verb in this process, for cnitool and Podman where no daemon runs.

Speaks the protocol on stdin and stdout like any plugin. Its addresses come from the configuration's
`ranges`, its leases lie under `dataDir`.
"""

import asyncio
import logging
import os
import sys
from contextlib import ExitStack
from pathlib import Path

from weft.cni import results
from weft.cni.frame import NETNS_ERRNO, Answer, Call
from weft.cni.leases import LeaseStore
from weft.cni.local import AllowAll, open_namespace, prepare_host
from weft.cni.plugin import Descriptors, Plugin
from weft.cni.spec import VERSIONS, CniError, Code, Command, NetworkConfig, parse_config

DATA_DIR = Path("/var/lib/weft/cni-local")
# Verbs of one network run one after the other here: each holds the lease file while it runs.
_LOCK_TIMEOUT_S = 60.0


def main() -> int:
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    command = os.environ.get("CNI_COMMAND", "")
    if not command:
        versions = ", ".join(VERSIONS)
        print(f"weft.cni, the in-process CNI plugin\nCNI versions: {versions}", file=sys.stderr)
        return 0
    answer = _run(command)
    sys.stdout.buffer.write(answer.text)
    sys.stdout.flush()
    return answer.exit_code


def _run(command: str) -> Answer:
    if command == Command.VERSION:
        return Answer(0, results.encode_versions())
    env = {name: value for name, value in os.environ.items() if name.startswith("CNI_")}
    version = VERSIONS[-1]
    try:
        stdin = _read_stdin()
        config = parse_config(stdin)
        version = config.version
        with LeaseStore(_leases_path(config), _LOCK_TIMEOUT_S) as leases:
            return _run_verb(Call(env, stdin), config, leases)
    except CniError as error:
        return Answer(1, results.encode_error(error, version))
    except OSError as error:
        failure = CniError(Code.IO_FAILURE, f"{command} failed", str(error))
        return Answer(1, results.encode_error(failure, version))


def _run_verb(call: Call, config: NetworkConfig, leases: LeaseStore) -> Answer:
    node = AllowAll(config)
    command = call.env["CNI_COMMAND"]
    with ExitStack() as stack:
        descriptors: Descriptors | None = None
        if command in (Command.ADD, Command.CHECK) and call.env.get("CNI_NETNS"):
            try:
                descriptors = stack.enter_context(open_namespace(call.env["CNI_NETNS"]))
            except OSError as error:
                call.env[NETNS_ERRNO] = str(error.errno)
        if command == Command.ADD:
            prepare_host(node.network())
        return asyncio.run(Plugin(node, leases, deletions=None).run(call, descriptors))


def _read_stdin() -> bytes:
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise CniError(Code.IO_FAILURE, "cannot read stdin", str(error)) from error


def _leases_path(config: NetworkConfig) -> Path:
    """One folder per network. A name that could leave the folder is refused by its verb."""
    folder = Path(config.data_dir) if config.data_dir else DATA_DIR
    return folder / Path(config.name or "unnamed").name / "leases.jsonl"


if __name__ == "__main__":
    sys.exit(main())
