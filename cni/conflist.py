"""Owns the text of the network configuration list that runtimes read; never touches the file.

`cniVersion` is 1.0.0 because libcni before 1.2 knows nothing newer and ignores `cniVersions`;
newer ones take the highest of both (cni SPEC.md 1.1.0, section 1).
"""

from typing import Any

import msgspec

NAME = "weft"
TYPE = "weft-cni"
FILE = "05-weft.conflist"

# The network's name is part of libcni's cache file names: renaming it loses old pods' results.
_HEAD: dict[str, object] = {
    "cniVersion": "1.0.0",
    "cniVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"],
    "name": NAME,
}
_OURS: dict[str, object] = {
    "type": TYPE,
    "capabilities": {"io.kubernetes.cri.pod-annotations": True, "ips": True, "mac": True},
}


def render(present: bytes | None) -> bytes | None:
    """The list to write, or None when `present`, the file's text now, already says it.

    Plugins that other tools appended to our list stay, in their order, after ours. A text that
    does not read as a list of ours is replaced whole.
    """
    plugins = [_OURS, *_appended(present)]
    wanted = {**_HEAD, "plugins": plugins}
    if present is not None and _decoded(present) == wanted:
        return None
    return msgspec.json.format(msgspec.json.encode(wanted), indent=2) + b"\n"


def _appended(present: bytes | None) -> list[dict[str, Any]]:
    plugins = _decoded(present or b"").get("plugins")
    if not isinstance(plugins, list):
        return []
    return [one for one in plugins if isinstance(one, dict) and one.get("type") != TYPE]


def _decoded(text: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return {}
    return value if isinstance(value, dict) else {}
