"""Owns the way of a delta into the kernel: gate, order, errors, retries, and the repair of drift.

Never decides what is wanted. Everything here runs on the loop's worker, one call at a time.
"""

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass

from weft.proxy.apply import anchors
from weft.proxy.apply.desired import Delta, Desired, RowKey
from weft.proxy.apply.gate import Stage
from weft.proxy.apply.ledger import Ledger, State, key_text
from weft.proxy.apply.order import STEPS, Step, steps
from weft.proxy.apply.target import NotMended, Target

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Counts:
    """Rows since the daemon's start, by table."""

    written: Counter[str]
    deleted: Counter[str]
    repaired: Counter[str]
    """Rows that the kernel had lost, altered or gained by another hand."""
    refused: Counter[str]
    """Writes that did not come to be, each attempt anew."""
    undeleted: Counter[str]
    """Deletions likewise."""


class Applier:
    """Brings `desired` into the targets and keeps the status of each row in `ledger`."""

    def __init__(
        self, targets: Mapping[str, Target], desired: Desired, clock: Callable[[], float]
    ) -> None:
        self.ledger = Ledger()
        self.counts = Counts(Counter(), Counter(), Counter(), Counter(), Counter())
        self.stage = Stage.STARTING
        self.repairs: dict[str, Callable[[], int]] = {}
        """What is compared like a table but has no rows: each mends, and says how much."""
        self.unmended: dict[str, str] = {}
        """Repairs that last failed, with the reason."""
        self._targets = targets
        self._desired = desired
        self._clock = clock
        self._ours: set[RowKey] = set()

    def apply(self, delta: Delta) -> None:
        """Write `delta` as far as the stage allows; the rest is pending."""
        if self.stage is not Stage.LISTED:
            delta = self._gated(delta)
        self._write(delta)

    def advance(self, stage: Stage) -> None:
        """More of the cluster is known: compare every table and write what is now allowed."""
        log.info("stage", extra={"stage": stage, "before": self.stage})
        self.stage = stage
        if stage is Stage.LISTED:
            self._ours.clear()
            self.ledger.done(self.ledger.held())
            self._write(self._difference(step.table for step in STEPS if step.up))
        else:
            self.apply(self._held())

    def retry(self) -> None:
        """Attempt the rows whose time has come."""
        delta = Delta()
        for place in self.ledger.due(self._clock()):
            self._add(delta, place)
        self._write(delta)

    def compare(self, table: str) -> int:
        """Bring one table back to what is desired; the number of rows that had drifted."""
        if table in self.repairs:
            return self._repair(table)
        if self.stage is Stage.STARTING or table not in self._targets:
            return 0
        delta = self._difference([table])
        if self.stage is not Stage.LISTED:
            delta = self._gated(delta)
        drifted = [place for place in delta.places() if self.ledger.status(place).reason == ""]
        if drifted:
            self.counts.repaired[table] += len(drifted)
            keys = [key_text(place.key) for place in drifted[:5]]
            log.warning("drift", extra={"table": table, "rows": len(drifted), "first": keys})
        self._write(delta)
        return len(drifted)

    def _repair(self, name: str) -> int:
        mended, why = 0, ""
        try:
            mended = self.repairs[name]()
        except NotMended as error:
            mended, why = error.mended, str(error)
        except OSError as error:
            why = str(error)
        if why and self.unmended.get(name) != why:
            log.error("repair failed", extra={"what": name, "error": why})
        self.unmended[name] = why
        if not why:
            del self.unmended[name]
        self.counts.repaired[name] += mended
        return mended

    def dump(self, table: str) -> dict[Hashable, object]:
        """One table as the kernel has it. Raises OSError."""
        return dict(self._targets[table].dump()) if table in self._targets else {}

    def dumps(self) -> Mapping[str, Mapping[Hashable, object]]:
        """Every table as the kernel has it. Raises OSError."""
        return {table: self.dump(table) for table in self._targets}

    def next_retry_s(self) -> float:
        return self.ledger.next_retry_s()

    def _held(self) -> Delta:
        delta = Delta()
        for place in self.ledger.held():
            self._add(delta, place)
        return delta

    def _add(self, delta: Delta, place: RowKey) -> None:
        value = self._desired.value(place)
        if value is None:
            delta.delete(place)
        else:
            delta.upsert(place, value)

    def _difference(self, tables: Iterable[str]) -> Delta:
        """What makes the kernel's tables equal to the desired ones."""
        delta = Delta()
        for table in tables:
            if table in self._targets:
                self._compare_into(delta, table)
        return delta

    def _compare_into(self, delta: Delta, table: str) -> None:
        """A table that cannot be read gets its rows again and loses none until it can."""
        missing = self._desired.rows(table)
        try:
            for key, value in self._targets[table].dump():
                if missing.get(key) == value:
                    del missing[key]
                elif self._desired.value(RowKey(table, key)) is None:
                    delta.delete(RowKey(table, key))
        except OSError as error:
            log.error("dump failed", extra={"table": table, "error": str(error)})
        for key, value in missing.items():
            delta.upsert(RowKey(table, key), value)

    def _gated(self, delta: Delta) -> Delta:
        allowed = Delta()
        present = {table: self._present(table) for table in delta.upserts}
        for place in delta.places():
            value = self._desired.value(place)
            if value is None:
                if self.stage.may_delete(place.table) or place in self._ours:
                    allowed.delete(place)
                self.ledger.done([place])
            elif self._may_write(place, value, present[place.table]):
                allowed.upsert(place, value)
                self._ours.add(place)
        return allowed

    def _present(self, table: str) -> Mapping[Hashable, object] | None:
        """What the kernel holds; None when it does not say."""
        try:
            return self.dump(table)
        except OSError as error:
            log.error("dump failed", extra={"table": table, "error": str(error)})
            return None

    def _may_write(
        self, place: RowKey, value: object, present: Mapping[Hashable, object] | None
    ) -> bool:
        if present is not None:
            if present.get(place.key) == value:
                return False
            is_ours = place.key not in present or place in self._ours
            if is_ours and self.stage.may_add(place.table):
                return True
        self.ledger.hold(place, f"waits for sources: {self.stage}", self._clock())
        return False

    def _write(self, delta: Delta) -> None:
        for step in steps(delta):
            if step.table in self._targets:
                self._write_step(step, delta)

    def _write_step(self, step: Step, delta: Delta) -> None:
        table = step.table
        upserts: Mapping[Hashable, object] = delta.upserts.get(table, {}) if step.up else {}
        deletes: set[Hashable] = set() if step.up else delta.deletes.get(table, set())
        held = self._held_back(table, upserts)
        wanted = {k: v for k, v in upserts.items() if k not in held} if held else upserts
        try:
            errors = self._targets[table].write(wanted, deletes)
        except OSError as error:
            errors = dict.fromkeys([*wanted, *deletes], str(error))
        errors = {**errors, **held} if held else errors
        refused = sum(key in upserts for key in errors)
        undeleted = sum(key in deletes for key in errors)
        self.counts.written[table] += len(upserts) - refused
        self.counts.deleted[table] += len(deletes) - undeleted
        self.counts.refused[table] += refused
        self.counts.undeleted[table] += undeleted
        self.ledger.done(RowKey(table, k) for k in (*upserts, *deletes) if k not in errors)
        if errors:
            self._fail(table, errors)

    def _held_back(self, table: str, upserts: Mapping[Hashable, object]) -> Mapping[Hashable, str]:
        """The rows that what they hang on was refused for (anchors)."""
        if table != anchors.ANCHORED or not upserts or not self.ledger.errors():
            return {}
        refused = (
            (place, status.reason)
            for place, status in self.ledger.unfinished().items()
            if status.state is State.ERROR
        )
        return anchors.held_back(upserts, anchors.lacking(refused, self._desired))

    def _fail(self, table: str, errors: Mapping[Hashable, str]) -> None:
        now_s = self._clock()
        for key, reason in errors.items():
            self.ledger.fail(RowKey(table, key), reason, now_s)
        key, reason = next(iter(errors.items()))
        log.error(
            "rows refused",
            extra={"table": table, "rows": len(errors), "first": key_text(key), "error": reason},
        )
