-- The vector index knows a generation of an index, where it knew the index itself before. Those
-- that there are keep the key under which their vectors lie.
CREATE TABLE generations (
    key       INTEGER PRIMARY KEY AUTOINCREMENT,
    index_id  INTEGER NOT NULL REFERENCES indexes(id) ON DELETE CASCADE,
    status    TEXT NOT NULL CHECK (status IN ('serving', 'building')),
    filled_to INTEGER NOT NULL DEFAULT 0,
    UNIQUE (index_id, status)
) STRICT;

INSERT INTO generations (key, index_id, status) SELECT id, id, 'serving' FROM indexes;

-- Ids of deleted indexes were keys as well, and no key is used twice.
DELETE FROM sqlite_sequence WHERE name = 'generations';
INSERT INTO sqlite_sequence (name, seq)
SELECT 'generations', seq FROM sqlite_sequence WHERE name = 'indexes';

ALTER TABLE dropped_indexes RENAME TO dropped_generations;
ALTER TABLE dropped_generations RENAME COLUMN index_id TO key;

ALTER TABLE jobs ADD COLUMN kind TEXT NOT NULL DEFAULT 'ingest'
    CHECK (kind IN ('ingest', 'reembed'));

CREATE TABLE model_changes (
    index_id   INTEGER PRIMARY KEY REFERENCES indexes(id) ON DELETE CASCADE,
    definition TEXT NOT NULL,
    model      TEXT NOT NULL,
    artefact   TEXT NOT NULL,
    dimensions INTEGER NOT NULL
) STRICT;

CREATE TABLE new_hashes (
    chunk_id  INTEGER PRIMARY KEY REFERENCES chunks(id) ON DELETE CASCADE,
    text_hash TEXT NOT NULL
) STRICT;
