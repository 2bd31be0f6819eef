"""A folder of real documents that never rests: edited, renamed, added to, deleted from."""

import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

OF_MANY_FORMATS = (
    *("english.cp500.txt", "footnotes.docx", "gbk.zip", "protect.xlsx", "resume.html"),
    *("russian.cp866.txt", "test-columnar.ods", "testCSV.csv", "testEPUB.epub", "testEXCEL.xlsx"),
    *("testLotusEml.eml", "testODTStyles2.odt", "testODTnotaZipFile.odt", "testPDF.pdf"),
    *("testPPT.pptx", "testRTF.rtf", "testWORD.doc", "testWORD.docx", "testXML.xml"),
)
"""One small file of each format; three of them cannot be read, each for another reason."""
MAX_CHAPTER_BYTES = 10_000
TEXT = {".md", ".txt", ".html", ".csv", ".xml"}
HALF_WRITTEN_S = 0.02


def sources(data: Path) -> list[Path]:
    """Return the files that the folder's documents are copies of."""
    book = data / "docs-rust-book" / "files" / "src"
    chapters = sorted(
        path for path in book.glob("*.md") if path.stat().st_size <= MAX_CHAPTER_BYTES
    )
    return chapters + [data / "docs-tika" / "files" / name for name in OF_MANY_FORMATS]


class MovingFolder:
    """One change at a time, drawn by `chance`; `counts` says how often each kind was made."""

    def __init__(self, root: Path, sources: list[Path], chance: random.Random) -> None:
        self.root = root
        self._sources = sources
        self._chance = chance
        self._made = 0
        self.counts: Counter[str] = Counter()
        root.mkdir()

    def fill(self, files: int) -> None:
        """Begin with so many documents."""
        for source in self._chance.sample(self._sources, files):
            shutil.copyfile(source, self.root / source.name)

    def change(self) -> None:
        """Make one change that calls for some work."""
        kinds: dict[Callable[[], None], int] = {
            self._edit: 6,
            self._add: 3,
            self._delete: 2,
            self._rename: 3,
            self._copy: 2,
            self._empty: 1,
            self._touch: 1,
        }
        [change] = self._chance.choices(list(kinds), list(kinds.values()))
        # The order in which the system lists files is not the same everywhere.
        if not any(self.root.rglob("*.md")):
            change = self._add
        self._counted(change)

    def edit(self) -> None:
        """Put a sentence that was never there into a text; give another file other content."""
        self._counted(self._edit)

    def _counted(self, change: Callable[[], None]) -> None:
        change()
        self.counts[change.__name__.strip("_")] += 1

    def _any_file(self) -> Path:
        return self._chance.choice(sorted(path for path in self.root.rglob("*") if path.is_file()))

    def _new_path(self, former: Path) -> Path:
        self._made += 1
        folder = self.root / self._chance.choice(("", "one", "one/two"))
        folder.mkdir(parents=True, exist_ok=True)
        stem = former.stem.partition(" ")[0]
        return folder / f"{stem} {self._made}{former.suffix}"

    def _edit(self) -> None:
        path = self._any_file()
        if path.suffix not in TEXT:
            of_kind = [source for source in self._sources if source.suffix == path.suffix]
            _write(path, self._chance.choice(of_kind).read_bytes())
            return
        self._made += 1
        lines = path.read_bytes().split(b"\n")
        place = self._chance.randrange(len(lines) + 1)
        lines.insert(place, f"Note {self._made}: {self._chance.random()} was added.".encode())
        if self._chance.random() < 0.3:
            del lines[self._chance.randrange(len(lines))]
        _write(path, b"\n".join(lines))

    def _add(self) -> None:
        source = self._chance.choice(self._sources)
        _write(self._new_path(source), source.read_bytes())

    def _delete(self) -> None:
        self._any_file().unlink()

    def _rename(self) -> None:
        former = self._any_file()
        former.rename(self._new_path(former))

    def _copy(self) -> None:
        former = self._any_file()
        shutil.copyfile(former, self._new_path(former))

    def _empty(self) -> None:
        _write(self._any_file(), b"")

    def _touch(self) -> None:
        os.utime(self._any_file())


def _write(path: Path, content: bytes) -> None:
    """Write as many programs do: in place, in parts, so that it may be read when half is there."""
    middle = len(content) // 2
    with path.open("wb") as file:
        file.write(content[:middle])
        file.flush()
        time.sleep(HALF_WRITTEN_S)
        file.write(content[middle:])
