"""Owns the ACCEPT for pods' traffic in chains of others that drop what is forwarded.

What takes the stack meets every FORWARD chain of the node, and docker, ufw and firewalls of
operators make ones that drop: pods then reach neither the outside nor their node's Services. Weft
judges that traffic itself. Chains that accept are left alone, and no rule is ever removed, also not
at the end: pods' traffic goes on without a daemon.
"""

import logging
import shutil
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from weft.proxy.apply import nftables, xtables
from weft.proxy.apply.nftables import Accept
from weft.proxy.apply.target import NotMended

log = logging.getLogger(__name__)

NAME = "forward"
LINKS = "weft"
"""What the names of pods' links, the bridge, the overlay and the hold links begin with."""

_RULES = (
    Accept(nftables.OUT, LINKS, "weft: to pods, judged by Weft"),
    Accept(nftables.IN, LINKS, "weft: from pods, judged by Weft"),
)
_FREE = 3
"""So often a rule comes back at once; then somebody deletes it on purpose, and it waits."""
_WAIT_LAST_S = 60.0
_FORGET_S = 120.0


@dataclass(slots=True)
class _Contest:
    """How often a rule had to be put back lately, and when it may be again."""

    times: int = 0
    last_s: float = 0.0
    next_s: float = 0.0

    def note(self, now_s: float) -> None:
        self.times = self.times + 1 if now_s - self.last_s < _FORGET_S else 1
        self.last_s = now_s
        wait_s = 2.0 ** (self.times - _FREE) if self.times > _FREE else 0.0
        self.next_s = now_s + min(wait_s, _WAIT_LAST_S)


@dataclass(slots=True)
class Forward:
    """Puts the rules where they are missing; asked every second, it looks where something moved."""

    clock: Callable[[], float] = time.monotonic
    _seen: int | None = -1
    """The generation of nftables at which nothing was missing."""
    _contests: dict[Hashable, _Contest] = field(default_factory=dict)
    _troubles: list[str] = field(default_factory=list)

    def mend(self) -> int:
        """How many rules were put in. Raises NotMended with the chains that still drop."""
        self._troubles.clear()
        mended = [*self._nftables(), *self._legacy()]
        if mended:
            said = {"table": NAME, "rows": len(mended), "first": mended[:5]}
            log.warning("drift", extra=said)
        if self._troubles:
            raise NotMended("; ".join(self._troubles), len(mended))
        return len(mended)

    def _nftables(self) -> Iterator[str]:
        with nftables.opened() as kernel:
            generation = kernel.generation()
            if generation in (None, self._seen):
                return
            for chain in kernel.dropping():
                have = kernel.comments(chain)
                missing = [rule for rule in _RULES if rule.comment not in have]
                if missing and self._may(chain, str(chain)):
                    yield from self._insert(kernel, chain, missing)
            # What was put in moves the generation again, and is looked at once more.
            self._seen = generation if not self._troubles else -1

    def _insert(
        self, kernel: nftables.Nftables, chain: nftables.Chain, rules: Sequence[Accept]
    ) -> Iterator[str]:
        try:
            kernel.insert(chain, rules)
        except OSError as error:
            self._troubles.append(
                f"{chain} drops pods' traffic and takes no rule ({error}): let it accept links "
                f"named {LINKS}*"
            )
            return
        yield from (f"{chain}: {rule.comment}" for rule in rules)

    def _legacy(self) -> Iterator[str]:
        for family in xtables.FAMILIES:
            have = xtables.accepted(family, LINKS)
            for rule, there in zip(_RULES, reversed(have or ()), strict=False):
                if not there and self._may((family.tool, rule), f"{family.tool} FORWARD"):
                    yield from self._insert_legacy(family, rule)

    def _insert_legacy(self, family: xtables.Family, rule: Accept) -> Iterator[str]:
        words = ("-i" if rule.by == nftables.IN else "-o", f"{LINKS}+", "-j", "ACCEPT")
        comment = ("-m", "comment", "--comment", rule.comment)
        by_hand = f"pods' traffic is dropped: {family.tool} -I FORWARD {' '.join(words)}"
        if shutil.which(family.tool) is None:
            self._troubles.append(f"{family.tool} is not installed, {by_hand}")
            return
        try:
            xtables.insert(family, *words, *comment)
        except OSError as error:
            self._troubles.append(f"{error}, {by_hand}")
            return
        yield f"{family.tool} FORWARD: {rule.comment}"

    def _may(self, place: Hashable, name: str) -> bool:
        """Whether a rule may be put there now: another that deletes it again and again is said, not
        fought.
        """
        contest = self._contests.setdefault(place, _Contest())
        now_s = self.clock()
        if now_s < contest.next_s:
            self._troubles.append(
                f"another program deletes Weft's rule from {name} again and again, and pods' "
                f"traffic is dropped: let it accept links named {LINKS}*"
            )
            return False
        contest.note(now_s)
        return True
