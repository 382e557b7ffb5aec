"""Counts of everything that a preparation leaves out, by reason."""

from __future__ import annotations

from dataclasses import dataclass, field

from recbole_bbqrec.errors import UserError


@dataclass
class Reason:
    """One reason for leaving something out: how often, and the first case met."""

    count: int
    first: str
    fault: bool


@dataclass
class Ledger:
    """Reasons in the order in which they were added.

    A *fault* is something wrong with the input, which ``--strict`` refuses; anything else was
    asked for (a minimum rating, a core) or is harmless (an item without interactions).
    """

    reasons: dict[str, Reason] = field(default_factory=dict)

    def add(self, reason: str, count: int, first: str = "", fault: bool = False) -> None:
        """Count ``count`` more cases; ``first`` is kept for the first of them. Zero is ignored."""
        if not count:
            return
        if reason in self.reasons:
            self.reasons[reason].count += int(count)
        else:
            self.reasons[reason] = Reason(int(count), first, fault)

    def count(self, reason: str) -> int:
        """Return the number of cases of one reason."""
        return self.reasons[reason].count if reason in self.reasons else 0

    def table(self) -> str:
        """Return one aligned line per reason; empty without any."""
        if not self.reasons:
            return ""
        width = max(len(f"{r.count:,}") for r in self.reasons.values())
        return "\n".join(f"  {r.count:>{width},}  {name}{_example(r)}" for name, r in self.items())

    def items(self) -> list[tuple[str, Reason]]:
        """Return pairs of name and reason."""
        return list(self.reasons.items())

    def refuse_faults(self) -> None:
        """Raise an error if there is a fault, as ``--strict`` demands.

        Raises:
            UserError: lists all faults.
        """
        faults = [f"{r.count:,} {name}{_example(r)}" for name, r in self.items() if r.fault]
        if faults:
            raise UserError(
                "--strict refuses the input: " + "; ".join(faults) + ". Nothing was written. "
                "Correct the files, or leave out --strict to go on without these."
            )


def _example(reason: Reason) -> str:
    return f" (first: {reason.first})" if reason.first else ""
