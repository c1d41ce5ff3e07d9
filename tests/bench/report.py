"""Owns how a bench prints what it measured; never measures."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One line: what, the value with its unit, and the goal of the design where there is one."""

    what: str
    value: str
    goal: str = ""


def show(title: str, figures: Sequence[Figure]) -> None:
    width = max(len(f.what) for f in figures)
    print(f"\n{title}")
    for figure in figures:
        goal = f"   goal {figure.goal}" if figure.goal else ""
        print(f"  {figure.what:<{width}}  {figure.value:>12}{goal}", flush=True)
