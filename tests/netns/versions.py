"""Owns other versions of Weft for tests of upgrades: copies of the checkout, structs altered."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from deploy.netlab.node import ROOT
from deploy.netlab.shell import run

_FOLDERS = ("bpf", "cni", "cli", "proxy")

NEWER = {
    "maps.h": {
        # Tables that only this version has.
        """BPF_RINGBUF_OUTPUT(events, 256);
""": """BPF_RINGBUF_OUTPUT(events, 256);
BPF_TABLE("lru_hash", struct tuple, struct snat, extras, 1024);
BPF_F_TABLE("hash", u64, struct sandbox, boxes, 1024, BPF_F_NO_PREALLOC);
"""
    },
    "layout.h": {
        # A field in the middle, one wider, and what lies behind them moved.
        """	__u64 responder_revision; /* ingress revision of a local responder, else 0 */
	struct address vip;
	__be16 vip_port;
	__u8 flags; /* enum flow_flag */
	__u8 path;  /* enum flow_path */
	__u32 ifindex; /* PATH_UPLINK: the link that its client's last packet came by */
	__be16 client_port; /* the initiator's, where the flow has another (apart.h); 0: its own */
	__u16 pad0;
	__u32 seen; /* jiffies, low 32 bits */
""": """	__u64 marker;
	__u64 responder_revision;
	struct address vip;
	__be16 vip_port;
	__u16 flags;
	__u8 path;
	__u8 pad0;
	__be16 client_port;
	__u32 ifindex;
	__u32 seen;
""",
        # A table that follows from the plan: filled anew beside the old one.
        """	__u32 ifindex; /* host-side link */
	__u32 flags;   /* enum workload_flag */
	__u8 mac[6];   /* the pod's side */
""": """	__u32 flags;
	__u32 ifindex;
	__u8 mac[6];
""",
        # Of the key of three tables.
        """	__u8 proto;
	__u8 pad[3];
};

/*
 * flows""": """	__u16 proto;
	__u8 pad[2];
};

/*
 * flows""",
        """struct snat {
""": """struct snat {
	__u64 marker;
""",
        """	struct address addr;
	__be16 port;
	__be16 client_port; /* what the backend is to see of the client; 0: its own */
	__u32 seen; /* jiffies, low 32 bits */
};

/* affinities""": """	__u32 marker;
	__u32 seen;
	struct address addr;
	__be16 port;
	__be16 client_port;
	__u32 pad2;
};

/* affinities""",
        # The rest of what the programs remember: keys turned round, values moved or wider.
        """	__u64 service;
	struct address client;
};""": """	struct address client;
	__u64 service;
};""",
        """	__u64 cookie;
	struct address addr; /* the backend */
	__be16 port;
	__u16 pad0;
""": """	struct address addr;
	__u64 cookie;
	__be16 port;
	__u16 pad0;
""",
        """struct socket_vip {
""": """struct socket_vip {
	__u32 marker;
""",
        """	__be32 id;
	__u8 proto; /* IPv6: 0 */
	__u8 pad[3];
};""": """	__u32 proto;
	__be32 id;
};""",
        """struct fragment {
""": """struct fragment {
	__u32 marker;
""",
        """	__u32 translated; /* one went through a Service here */
	__u32 by_stack;	  /* one's flow took the stack */
""": """	__u64 marker;
	__u32 by_stack;
	__u32 translated;
""",
    },
}
"""Texts of headers and what a later version has in their place."""

NEWER_TABLES = ("boxes", "extras")


def tree(folder: Path, edits: Mapping[str, Mapping[str, str]]) -> Path:
    """A copy of the checkout in `folder` with edited headers, its objects compiled: what PYTHONPATH
    has to be for its `weft`."""
    for name in _FOLDERS:
        shutil.copytree(
            ROOT / name, folder / "weft" / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    for header, changes in edits.items():
        _edit(folder / "weft" / "bpf" / "include" / header, changes)
    for module in ("weft.bpf.genlayout", "weft.bpf.build"):
        _run_module(folder, module)
    return folder


def _edit(path: Path, changes: Mapping[str, str]) -> None:
    text = path.read_text()
    for before, after in changes.items():
        assert text.count(before) == 1, f"{path.name} has no longer one:\n{before}"
        text = text.replace(before, after)
    path.write_text(text)


def _run_module(folder: Path, module: str) -> None:
    run("env", f"PYTHONPATH={folder}", sys.executable, "-m", module, timeout_s=120)
