"""What a command says when it cannot do its work: what, why, and what to do next."""

from dataclasses import dataclass

from weft.cli.text import neutral

FAILED_CHECK, USAGE, UNREACHABLE = 1, 2, 3


@dataclass(eq=False)
class Failure(Exception):
    """Ends the command with `exit_code`; each part is one sentence without a full stop."""

    what: str
    why: str
    next_step: str
    exit_code: int

    def text(self) -> str:
        """Three lines for standard error."""
        why, next_step = neutral(self.why), neutral(self.next_step)
        return f"weft: {neutral(self.what)}\n  why:  {why}\n  next: {next_step}"
