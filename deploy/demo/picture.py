"""Owns how the demo looks on a terminal; never asks or does anything."""

from collections.abc import Mapping, Sequence

from deploy.netlab import LabNode

WIDTH = 86
BAR = 40


def step(text: str) -> str:
    return f"\n== {text} {'=' * max(0, WIDTH - len(text) - 4)}"


def cluster(nodes: Sequence[LabNode]) -> str:
    """The nodes side by side, a box each, joined by the switch."""
    boxes = [box(node) for node in nodes]
    height = max(len(b) for b in boxes)
    padded = [b[:-1] + [row("")] * (height - len(b)) + b[-1:] for b in boxes]
    joint = ["  ===  " if i == height // 2 else "       " for i in range(height)]
    lines = [
        left + gap + right for left, gap, right in zip(padded[0], joint, padded[1], strict=True)
    ]
    return "\n".join([*lines, f"{'on one network: no tunnel between them (mode auto)':^{WIDTH}}"])


def box(node: LabNode) -> list[str]:
    edge = "+" + "-" * 37 + "+"
    lines = [edge, row(f"node {node.name}  {node.underlay[0].split('/')[0]}")]
    lines += [row("")]
    for pod in node.pods.values():
        lines += [row(f"[{pod.name}]"), row(f"   {pod.address(4)}  {pod.address(6)}")]
    return [*lines, edge]


def row(text: str) -> str:
    return f"| {text:<36.36}|"


def balance(title: str, answers: Mapping[str, int]) -> str:
    total = sum(answers.values())
    bars = [
        f"  {name:<8} {count:>3}  {'#' * round(BAR * count / total)}"
        for name, count in sorted(answers.items())
    ]
    return "\n".join([title, *bars])


def verdicts(answers: Mapping[str, str]) -> str:
    return "\n".join(
        f"  {name:<9} -> web:80   " + (f"allowed, {who} answered" if who else "DROPPED, no answer")
        for name, who in answers.items()
    )
