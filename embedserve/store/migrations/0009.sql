-- Full text: what is there is read into it afterwards, step by step.
ALTER TABLE indexes ADD COLUMN language TEXT NOT NULL DEFAULT 'english';

CREATE TABLE lexical_segments (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    index_id INTEGER NOT NULL REFERENCES indexes(id) ON DELETE CASCADE,
    chunks   INTEGER NOT NULL,
    first_id INTEGER NOT NULL,
    last_id  INTEGER NOT NULL,
    ids      BLOB NOT NULL,
    lengths  BLOB NOT NULL,
    words    TEXT NOT NULL
) STRICT;

CREATE INDEX lexical_segments_by_index ON lexical_segments (index_id, id);

CREATE TABLE lexical_blocks (
    segment_id INTEGER NOT NULL REFERENCES lexical_segments(id) ON DELETE CASCADE,
    first_key  INTEGER NOT NULL,
    postings   BLOB NOT NULL,
    PRIMARY KEY (segment_id, first_key)
) STRICT;

CREATE TABLE lexical_removed (
    segment_id INTEGER PRIMARY KEY REFERENCES lexical_segments(id) ON DELETE CASCADE,
    chunks     INTEGER NOT NULL,
    bits       BLOB NOT NULL
) STRICT;

CREATE TABLE lexical_pending (
    index_id INTEGER NOT NULL REFERENCES indexes(id) ON DELETE CASCADE,
    first_id INTEGER NOT NULL,
    last_id  INTEGER NOT NULL,
    PRIMARY KEY (index_id, first_id)
) STRICT, WITHOUT ROWID;

INSERT INTO lexical_pending SELECT index_id, min(id), max(id) FROM chunks GROUP BY index_id;
