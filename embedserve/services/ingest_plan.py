"""What a job has to do: folders are walked and compared with the catalog. Changes nothing."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from embedserve.ingest.scan import ScanRules, plan, scan
from embedserve.services.file_problems import missing_source, too_many_files
from embedserve.services.found import Found
from embedserve.services.interruption import Interruption
from embedserve.store.catalog import Catalog
from embedserve.types import FileProblem, FoundFile, KnownFile, Plan


@dataclass(frozen=True)
class Target:
    """A folder or file to walk, under its rules, and the part of it that a job is about."""

    root: Path
    rules: ScanRules
    below: Path
    """`root` itself, or a path inside it."""


@dataclass(frozen=True)
class Survey:
    """What was seen, what was known, and what follows."""

    plan: Plan
    found: Mapping[str, Found]
    known: Mapping[str, KnownFile]
    problems: Sequence[FileProblem]
    """What could not be entered or seen."""

    @property
    def to_read(self) -> tuple[FoundFile, ...]:
        """The files that are new or changed."""
        return (*self.plan.add, *self.plan.update)


def survey(
    catalog: Catalog,
    index_id: int | None,
    targets: Sequence[Target],
    *,
    max_files: int,
    only: Collection[str] = (),
    interruption: Interruption | None = None,
) -> Survey:
    """Walk every target and compare it with the catalog; no index: nothing is known.

    With `only`, the job is about these paths and what lies below them, and reads again what could
    not be read the last time. Of the targets together no more than `max_files` are taken; the rest
    is left as it is. Raises JobInterruptedError.
    """
    known: dict[str, KnownFile] = {}
    for target in targets if index_id is not None else ():
        below = catalog.documents.known_files(index_id or 0, str(target.below))
        known |= {path: file for path, file in below.items() if _is_meant(path, only)}
    if only:
        known = {path: _again(file) for path, file in known.items()}
    problems: list[FileProblem] = []
    found: dict[str, Found] = {}
    for target in targets:
        for file in _files(target, problems, interruption):
            if len(found) >= max_files:
                problems.append(too_many_files(str(target.below), max_files))
                break
            if _is_meant(file.path, only):
                # A file that several targets hold is taken once, for the first.
                found.setdefault(file.path, Found(file, target.root))
    files = [item.file for item in found.values()]
    # What lies below something that could not be read is not known to be gone.
    planned = plan(files, known, unseen=[problem.path for problem in problems])
    meant = [problem for problem in problems if _is_meant(problem.path, only)]
    return Survey(planned, found, known, meant)


def renamed(
    planned: Plan, known: Mapping[str, KnownFile], titles: Mapping[str, str]
) -> Iterator[tuple[FoundFile, list[KnownFile]]]:
    """Give new files with the documents, gone from their paths, whose content they may have.

    `titles` are those of the documents that are gone. A title that was made of the file's name is
    part of what was embedded, so such a file is one only under the same name.
    """
    by_size: dict[int, list[KnownFile]] = {}
    for path in planned.delete:
        if path in titles and known[path].problem is None:
            by_size.setdefault(known[path].size_bytes, []).append(known[path])
    for file in planned.add:
        former = [
            other
            for other in by_size.get(file.size_bytes, ())
            if _keeps_title(PurePath(other.path), PurePath(file.path), titles[other.path])
        ]
        if former:
            yield file, former


def _keeps_title(former: PurePath, present: PurePath, title: str) -> bool:
    if former.name == present.name:
        return True
    return former.suffix == present.suffix and title not in (former.stem, former.name)


def _files(
    target: Target, problems: list[FileProblem], interruption: Interruption | None
) -> Iterator[FoundFile]:
    if not target.root.exists():
        # It may be a disk that is not mounted: nothing is deleted for it.
        problems.append(missing_source(str(target.root)))
        return
    for file in scan(target.root, target.rules, problems.append):
        if interruption:
            interruption.check()
        if Path(file.path).is_relative_to(target.below):
            yield file


def _is_meant(path: str, only: Collection[str]) -> bool:
    return not only or path in only or any(str(parent) in only for parent in Path(path).parents)


def _again(file: KnownFile) -> KnownFile:
    if file.problem is None:
        return file
    return replace(file, problem=replace(file.problem, is_retryable=True))


def sum_of_bytes(files: Iterable[FoundFile]) -> int:
    """Return how much there is to read."""
    return sum(file.size_bytes for file in files)
