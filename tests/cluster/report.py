"""Reads what ginkgo reports of a run: which specs passed, failed or skipped themselves, and why.

Owns no opinion but one: a spec that skips itself must be among those that `specs` names.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.specs import SELF_SKIPS


@dataclass(frozen=True, slots=True)
class Outcome:
    """One spec that ran. state: ginkgo's word; why: its own, where it did not pass."""

    name: str
    state: str
    why: str
    seconds: float


def read(path: Path) -> tuple[Outcome, ...]:
    """The specs of a report that were chosen to run; () where ginkgo left none."""
    if not path.exists():
        return ()
    suites = json.loads(path.read_text())
    return tuple(_outcomes(one for suite in suites for one in suite.get("SpecReports") or ()))


def _outcomes(reports: Iterable[dict[str, object]]) -> Iterator[Outcome]:
    for said in reports:
        failure = said.get("Failure") or {}
        why = str(failure.get("Message", "")) if isinstance(failure, dict) else ""
        # What focus or skip left out is skipped without a word.
        if said["LeafNodeType"] == "It" and (said["State"] != "skipped" or why):
            containers = said.get("ContainerHierarchyTexts") or []
            names = [*containers, said["LeafNodeText"]] if isinstance(containers, list) else []
            seconds = float(str(said.get("RunTime", 0))) / 1e9
            yield Outcome(" ".join(map(str, names)), str(said["State"]), why, seconds)


def unforeseen(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Specs that skipped themselves for a reason that nobody wrote down."""
    return [
        one
        for one in outcomes
        if one.state == "skipped" and not any(re.search(s.pattern, one.name) for s in SELF_SKIPS)
    ]


def summary(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """Lines for a person: counts, then every spec that did not pass."""
    counts = Counter(one.state for one in outcomes)
    yield "specs: " + ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    for one in sorted(outcomes, key=lambda one: (one.state, one.name)):
        if one.state != "passed":
            yield f"  {one.state}: {one.name}: {one.why.splitlines()[0] if one.why else ''}"
