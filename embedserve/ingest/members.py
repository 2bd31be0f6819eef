"""The members of an archive, a message or a mailbox, read one by one: a damaged one costs itself.

Runs in the worker only.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from embedserve.errors import ExtractionError
from embedserve.ingest.archives import OverAllowanceError, Packed
from embedserve.ingest.readers import NamedRead, Read, refusal

# Members that are named when they cannot be read.
MAX_NAMED_MEMBERS = 8
_REST = "the rest"


class Problem(NamedTuple):
    """A member that gave no text, with the reason."""

    name: str
    error: ExtractionError


@dataclass
class Members:
    """What the members came to."""

    inside: list[NamedRead] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Warnings of the members that were read."""
    rest: Problem | None = None
    """Why the members after these were not looked at, if any were left."""

    def warnings(self) -> tuple[str, ...]:
        """Say what was left out: the rest first, then single members, then parts of members."""
        named = [self.rest] if self.rest else []
        named += self.problems[:MAX_NAMED_MEMBERS]
        said = [f"`{name}` was left out ({error.code}): {error.message}" for name, error in named]
        if more := self.problems[MAX_NAMED_MEMBERS:]:
            said.append(f"{len(more)} more members were left out.")
        return (*said, *self.notes)

    def nothing(self) -> ExtractionError:
        """Make the error for a file of which no member gave text."""
        if self.rest and not self.problems:
            return self.rest.error
        codes = Counter(problem.error.code for problem in self.problems)
        if not codes:
            return refusal("no_text", "The archive holds no files.")
        code = next(iter(codes)) if len(codes) == 1 else "no_text"
        hint = self.problems[0].error.hint if len(codes) == 1 else ""
        if self.rest:
            code, hint = self.rest.error.code, self.rest.error.hint
        return refusal(code, "No member can be read. " + " ".join(self.warnings()), hint)


def read_members(
    members: Iterator[Packed], read: Callable[[Packed], NamedRead], deadline: float
) -> Members:
    """Read the members in turn, and none after `deadline` on the monotonic clock.

    Raises only what concerns the whole file: OverAllowanceError and MemoryError.
    """
    made = Members()
    try:
        for member in members:
            if time.monotonic() > deadline:
                made.rest = Problem(_REST, _out_of_time())
                break
            _read_member(made, member, read)
    except (OverAllowanceError, MemoryError):
        raise
    except Exception as error:  # damaged from here on; what came before is kept
        made.rest = Problem(_REST, _refusal_of(error))
    return made


def _read_member(made: Members, member: Packed, read: Callable[[Packed], NamedRead]) -> None:
    try:
        if member.problem is not None:
            raise member.problem
        if not member.content:
            raise refusal("empty_file", "It has 0 bytes.")
        found = read(member)
    except (OverAllowanceError, MemoryError):
        raise
    except Exception as error:  # a member is a file: what breaks its reader is its own
        made.problems.append(Problem(member.name, _refusal_of(error)))
        return
    made.inside += _side_by_side(found)
    made.notes += [f"`{found.name}`: {warning}" for warning in found.read.warnings]


def _side_by_side(found: NamedRead) -> list[NamedRead]:
    """Return a member and those inside it, each by its path."""
    name, read = found.name, found.read
    own = [NamedRead(name, replace(read, inside=[]))] if read.pages else []
    return own + [NamedRead(f"{name}/{one.name}", one.read) for one in read.inside]


def has_text(read: Read) -> bool:
    """Tell whether there are words in it; rules and bullets alone are none."""
    return bool(read.inside) or any(any(map(str.isalnum, page.text)) for page in read.pages)


def _refusal_of(error: Exception) -> ExtractionError:
    if isinstance(error, ExtractionError):
        return error
    if isinstance(error, RecursionError):
        return refusal("too_nested", "Its parts lie too deep inside of each other.")
    return refusal("corrupt", f"{type(error).__name__}: {str(error)[:200]}")


def _out_of_time() -> ExtractionError:
    return refusal(
        "timed_out",
        "The time for the file was used up.",
        "Unpack it beside it, or raise EMBEDSERVE_EXTRACT_TIMEOUT_S.",
    )
