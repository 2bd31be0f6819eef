"""Commands that carry indexes away and back: export, import."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from embedserve.cli.client import Home, connect
from embedserve.cli.console import AsJson, print_result, size
from embedserve.errors import EmbedserveError, PathNotFoundError

PAGE_BYTES = 1 << 20


def export(
    name: Annotated[str, typer.Argument(help="Name of the index.")],
    file: Annotated[Path, typer.Argument(help="Archive to write.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Write an index with documents, chunks, vectors and definition to one archive."""
    if file.exists() and not force:
        raise EmbedserveError(f"`{file}` exists. Choose another file, or replace it with --force.")
    partial = file.with_name(f"{file.name}.partial")
    try:
        with connect(home) as client, partial.open("wb") as target:
            for part in client.download("indexes", name, "export"):
                target.write(part)
            target.flush()
            os.fsync(target.fileno())
        partial.replace(file)
    except OSError as error:
        raise EmbedserveError(f"`{file}` cannot be written: {error.strerror}.") from error
    finally:
        partial.unlink(missing_ok=True)
    written = file.stat().st_size
    result = {"index": name, "file": str(file), "bytes": written}
    print_result(result, f"exported index {name}: {file}, {size(written)}", as_json=as_json)


def import_(
    file: Annotated[Path, typer.Argument(help="Archive that `index export` wrote.")],
    name: Annotated[
        str | None, typer.Option(help="Another name for the index.", show_default=False)
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Add the index of an archive; its vectors are not computed again."""
    if not file.is_file():
        raise PathNotFoundError(f"`{file}` is no file. Give the archive that was exported.")
    query = {"name": name} if name else {}
    with connect(home) as client, file.open("rb") as source:
        index = client.upload("indexes", "import", body=parts_of(source), **query)
    counts = index["counts"]
    sentence = f"imported index {index['name']}: {counts['chunks']} chunks of {index['model']}"
    print_result(index, sentence, as_json=as_json)


def parts_of(file: BinaryIO) -> Iterator[bytes]:
    """Give a file in pieces, as it is sent."""
    while part := file.read(PAGE_BYTES):
        yield part
