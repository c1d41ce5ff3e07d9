"""Nodes and pods as network namespaces of one machine, wired by the real daemon and executable.

`make demo`, the netns tests and the benches stand on it. It never touches the machine's own
network: all it makes hangs on namespaces of its own and goes with `Lab.close()`.
"""

from deploy.netlab.lab import Lab, LabNode, Pod

__all__ = ["Lab", "LabNode", "Pod"]
