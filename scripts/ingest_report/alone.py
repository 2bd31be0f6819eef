"""The engine by itself, in a process of its own, on the distinct chunks of a home's index.

It runs once the server has stopped, so neither is in the other's way, nor in its memory. One file
in one engine runs up to a quarter faster or slower from start to start, so one round tells a share
of speed no better than that.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

from embedserve.bootstrap.engine import open_engine
from embedserve.engine.encoder import Encoder
from embedserve.engine.tokenizer import TokenizedText
from embedserve.services.backup import CATALOG
from embedserve.services.definitions import IndexDefinition
from embedserve.services.embedded_text import EmbeddedTexts
from embedserve.services.token_budget import chunk_budget
from embedserve.settings import read_settings
from embedserve.store.database import Database
from embedserve.types import Chunk

# What is submitted to the engine at once; more of it waits while this runs.
_REQUEST_TEXTS = 1024

# One chunk for each text that was embedded.
_DISTINCT = """
SELECT d.title, c.text, c.heading FROM chunks c JOIN documents d ON d.id = c.document_id
WHERE c.id IN (SELECT min(id) FROM chunks GROUP BY text_hash) ORDER BY c.id
"""


@dataclass(frozen=True)
class Alone:
    """What the engine took for the distinct chunks by themselves."""

    seconds: float
    cpu_seconds: float
    texts: int
    tokens: int


def alone(home: Path, some: int) -> Alone:
    """Run the engine on the distinct chunks, or on `some` of them, tokenized beforehand."""
    settings = read_settings({"home": home}, {})
    with open_engine(settings) as engine:
        encoder = engine.encoders.get(settings.default_model)
        texts = _tokenized(home, encoder, some)
        started, cpu = time.perf_counter(), time.process_time()
        futures = [
            encoder.submit(texts[first : first + _REQUEST_TEXTS], lane="bulk", when_full="wait")
            for first in range(0, len(texts), _REQUEST_TEXTS)
        ]
        for future in futures:
            future.result()
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    return Alone(seconds, cpu_seconds, len(texts), sum(len(text.ids) for text in texts))


def _tokenized(home: Path, encoder: Encoder, some: int) -> list[TokenizedText]:
    embedded = EmbeddedTexts(encoder, chunk_budget(encoder, IndexDefinition()))
    database = Database(home / CATALOG)
    with database.read() as connection:
        rows = connection.execute(_DISTINCT).fetchall()
    database.close()
    if some:  # from everywhere
        rows = rows[:: max(1, len(rows) // some)]
    texts = []
    for title, text, heading in rows:
        chunk = Chunk(0, text, 0, len(text), heading=tuple(json.loads(heading)))
        texts += embedded.of(title, [chunk])
    return encoder.tokenize(texts)
