-- Long documents are staged while they are cut and embedded.
CREATE TABLE drafts (
    id     INTEGER PRIMARY KEY,
    job_id TEXT NOT NULL REFERENCES jobs(id) ON DELETE CASCADE,
    path   TEXT NOT NULL,
    origin TEXT NOT NULL,
    chunks INTEGER NOT NULL,
    chars  INTEGER NOT NULL,
    UNIQUE (job_id, path)
) STRICT;

CREATE TABLE draft_chunks (
    draft_id   INTEGER NOT NULL REFERENCES drafts(id) ON DELETE CASCADE,
    ordinal    INTEGER NOT NULL,
    span_start INTEGER NOT NULL,
    span_end   INTEGER NOT NULL,
    page       INTEGER,
    heading    TEXT NOT NULL,
    text_hash  TEXT NOT NULL,
    text       TEXT NOT NULL,
    line_start INTEGER,
    line_end   INTEGER,
    UNIQUE (draft_id, ordinal)
) STRICT;
