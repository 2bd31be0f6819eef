-- The catalog, schema version 9, as a new file gets it; migrations/ brings older ones to the same.
-- Times are RFC 3339, UTC. Vectors are little-endian float32, one after the other.

-- AUTOINCREMENT here and on chunks: an id that once named something never names anything else,
-- so what the vector index still holds of the past can never be mistaken for the present.
CREATE TABLE indexes (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT NOT NULL UNIQUE,
    definition TEXT NOT NULL,
    model      TEXT NOT NULL,
    artefact   TEXT NOT NULL,
    dimensions INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    language   TEXT NOT NULL DEFAULT 'english'  -- that full-text search reads its texts in
) STRICT;

-- One row for each file, readable or not. The problem columns are null when the present version
-- of the file was read. `metadata` is a JSON object that came with an upload; `etag` and
-- `last_modified` are what a web server said of an address.
CREATE TABLE documents (
    id                   INTEGER PRIMARY KEY,
    index_id             INTEGER NOT NULL REFERENCES indexes(id) ON DELETE CASCADE,
    path                 TEXT NOT NULL,
    size_bytes           INTEGER NOT NULL,
    mtime_ns             INTEGER NOT NULL,
    sha256               TEXT NOT NULL,
    title                TEXT NOT NULL,
    kind                 TEXT NOT NULL,
    problem_code         TEXT,
    problem_stage        TEXT,
    problem_message      TEXT,
    problem_hint         TEXT,
    problem_is_retryable INTEGER,
    indexed_at           TEXT NOT NULL,
    source               TEXT NOT NULL DEFAULT 'folder'
        CHECK (source IN ('folder', 'upload', 'url')),
    metadata             TEXT NOT NULL DEFAULT '{}',
    etag                 TEXT,
    last_modified        TEXT,
    UNIQUE (index_id, path)
) STRICT;

-- What was sent to an index: `path` is the name that the sender gave it, `stored` the file below
-- uploads/<index id>/ of the home, never used twice. `job_id` is the job that is to ingest it, null
-- once that is done.
CREATE TABLE uploads (
    index_id    INTEGER NOT NULL REFERENCES indexes(id) ON DELETE CASCADE,
    path        TEXT NOT NULL,
    stored      TEXT NOT NULL UNIQUE,
    size_bytes  INTEGER NOT NULL,
    title       TEXT NOT NULL,
    metadata    TEXT NOT NULL,
    uploaded_at TEXT NOT NULL,
    job_id      TEXT,
    PRIMARY KEY (index_id, path)
) STRICT, WITHOUT ROWID;

CREATE INDEX uploads_by_job ON uploads (job_id);

-- index_id repeats what the document says, so that one index is scanned without touching others.
-- Lines count from 1; null for what was cut before they were kept, until it is read again.
CREATE TABLE chunks (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    index_id    INTEGER NOT NULL REFERENCES indexes(id) ON DELETE CASCADE,
    document_id INTEGER NOT NULL REFERENCES documents(id) ON DELETE CASCADE,
    ordinal     INTEGER NOT NULL,
    span_start  INTEGER NOT NULL,
    span_end    INTEGER NOT NULL,
    page        INTEGER,
    heading     TEXT NOT NULL,
    text_hash   TEXT NOT NULL,
    text        TEXT NOT NULL,
    line_start  INTEGER,
    line_end    INTEGER,
    UNIQUE (document_id, ordinal)
) STRICT;

-- Covers every scan that needs ids and vectors only: the texts are never read for it.
CREATE INDEX chunks_by_index ON chunks (index_id, id, text_hash);

-- Finds the chunks of one text: the first of them stands for all in the vector index and in the full text.
CREATE INDEX chunks_by_text ON chunks (index_id, text_hash);

-- Full text: segments of chunks that never change (store/postings.py). `ids` are int64, ascending,
-- `lengths` uint32, how many terms each chunk has, `words` those that there are,
-- a line each.
-- AUTOINCREMENT: a number names one segment for ever, so what was read of it can be kept.
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

-- The terms of a segment from one key on, until the next block.
CREATE TABLE lexical_blocks (
    segment_id INTEGER NOT NULL REFERENCES lexical_segments(id) ON DELETE CASCADE,
    first_key  INTEGER NOT NULL,
    postings   BLOB NOT NULL,
    PRIMARY KEY (segment_id, first_key)
) STRICT;

-- Chunks of a segment that are no more: a bit each, in order of their places.
CREATE TABLE lexical_removed (
    segment_id INTEGER PRIMARY KEY REFERENCES lexical_segments(id) ON DELETE CASCADE,
    chunks     INTEGER NOT NULL,
    bits       BLOB NOT NULL
) STRICT;

-- Chunks, from one id to another, that no segment has yet.
CREATE TABLE lexical_pending (
    index_id INTEGER NOT NULL REFERENCES indexes(id) ON DELETE CASCADE,
    first_id INTEGER NOT NULL,
    last_id  INTEGER NOT NULL,
    PRIMARY KEY (index_id, first_id)
) STRICT, WITHOUT ROWID;

-- A text is embedded once for each artefact. Rows outlive the chunks that asked for them: a file
-- that comes back, or a model that comes back, costs no compute.
-- Not WITHOUT ROWID: rows of 1.5 kB would spill out of an index's leaf into a page each.
CREATE TABLE vectors (
    artefact  TEXT NOT NULL,
    text_hash TEXT NOT NULL,
    vector    BLOB NOT NULL,
    PRIMARY KEY (artefact, text_hash)
) STRICT;

-- Where the vectors of an artefact were computed first: JSON of services/origins.py. Another class of
-- CPU may give other bits.
CREATE TABLE origins (
    artefact TEXT PRIMARY KEY,
    origin   TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What the vector index has yet to do, oldest first. No reference to chunks: a delete outlives
-- its chunk.
CREATE TABLE changes (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    index_id INTEGER NOT NULL REFERENCES indexes(id) ON DELETE CASCADE,
    chunk_id INTEGER NOT NULL,
    op       TEXT NOT NULL CHECK (op IN ('upsert', 'delete'))
) STRICT;

CREATE INDEX changes_by_index ON changes (index_id, seq);

-- Under which key the vector index holds an index: one serves, and another may be filled beside it.
-- `filled_to` is the last chunk that the one being built was given, in order of id.
-- AUTOINCREMENT: no key is used twice.
CREATE TABLE generations (
    key       INTEGER PRIMARY KEY AUTOINCREMENT,
    index_id  INTEGER NOT NULL REFERENCES indexes(id) ON DELETE CASCADE,
    status    TEXT NOT NULL CHECK (status IN ('serving', 'building')),
    filled_to INTEGER NOT NULL DEFAULT 0,
    UNIQUE (index_id, status)
) STRICT;

-- Generations that the vector index has yet to forget. No reference: their index may be gone.
CREATE TABLE dropped_generations (
    key INTEGER PRIMARY KEY
) STRICT;

-- What an index is to become once every chunk has a vector of another model; its own row, and all
-- queries, stay as they are until then.
CREATE TABLE model_changes (
    index_id   INTEGER PRIMARY KEY REFERENCES indexes(id) ON DELETE CASCADE,
    definition TEXT NOT NULL,
    model      TEXT NOT NULL,
    artefact   TEXT NOT NULL,
    dimensions INTEGER NOT NULL
) STRICT;

-- The text hash that a chunk will have then: its prompt and prefix may differ.
CREATE TABLE new_hashes (
    chunk_id  INTEGER PRIMARY KEY REFERENCES chunks(id) ON DELETE CASCADE,
    text_hash TEXT NOT NULL
) STRICT;

-- index_name is a word, not a reference: the history of a deleted index stays readable.
CREATE TABLE jobs (
    seq                 INTEGER PRIMARY KEY AUTOINCREMENT,
    id                  TEXT NOT NULL UNIQUE,
    index_name          TEXT NOT NULL,
    path                TEXT NOT NULL,
    status              TEXT NOT NULL CHECK (status IN (
        'queued', 'running', 'succeeded', 'succeeded_with_errors', 'failed', 'cancelled')),
    created_at          TEXT NOT NULL,
    started_at          TEXT,
    finished_at         TEXT,
    error               TEXT,
    files_total         INTEGER,
    chunks_embedded     INTEGER NOT NULL DEFAULT 0,
    is_cancel_requested INTEGER NOT NULL DEFAULT 0,
    runner              TEXT,
    kind                TEXT NOT NULL DEFAULT 'ingest' CHECK (kind IN ('ingest', 'reembed')),
    -- Of files that were committed: what was computed, what they gave, and their size. The total
    -- is of the files that have to be read.
    tokens_embedded     INTEGER NOT NULL DEFAULT 0,
    chunks              INTEGER NOT NULL DEFAULT 0,
    bytes_done          INTEGER NOT NULL DEFAULT 0,
    bytes_total         INTEGER,
    retry_of            TEXT  -- a word, not a reference: that job may be forgotten
) STRICT;

CREATE INDEX jobs_by_status ON jobs (status, seq);
CREATE INDEX jobs_by_index ON jobs (index_name, seq);

-- Files by outcome. Written with job_files, and kept when those rows of an old job are deleted.
CREATE TABLE job_counts (
    job_id  TEXT NOT NULL REFERENCES jobs(id) ON DELETE CASCADE,
    outcome TEXT NOT NULL,
    files   INTEGER NOT NULL,
    PRIMARY KEY (job_id, outcome)
) STRICT, WITHOUT ROWID;

CREATE TABLE job_files (
    job_id               TEXT NOT NULL REFERENCES jobs(id) ON DELETE CASCADE,
    path                 TEXT NOT NULL,
    outcome              TEXT NOT NULL,
    chunks               INTEGER NOT NULL,
    problem_code         TEXT,
    problem_stage        TEXT,
    problem_message      TEXT,
    problem_hint         TEXT,
    problem_is_retryable INTEGER,
    warnings             TEXT NOT NULL,  -- JSON list of sentences
    PRIMARY KEY (job_id, path)
) STRICT, WITHOUT ROWID;

-- The only files that a job is about; none for all below its path.
CREATE TABLE job_paths (
    job_id TEXT NOT NULL REFERENCES jobs(id) ON DELETE CASCADE,
    path   TEXT NOT NULL,
    PRIMARY KEY (job_id, path)
) STRICT, WITHOUT ROWID;

-- A document that a job has cut and embedded a part of: `chunks` of them, which are the first `chars`
-- characters. No query looks here. `origin` is what they were made from and how; a job that goes on
-- after a stop takes them up when that is the same.
CREATE TABLE drafts (
    id     INTEGER PRIMARY KEY,
    job_id TEXT NOT NULL REFERENCES jobs(id) ON DELETE CASCADE,
    path   TEXT NOT NULL,
    origin TEXT NOT NULL,
    chunks INTEGER NOT NULL,
    chars  INTEGER NOT NULL,
    UNIQUE (job_id, path)
) STRICT;

-- As in `chunks`, without ids.
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

-- Files that were sent for no index yet.
CREATE TABLE files (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    purpose    TEXT NOT NULL,
    stored     TEXT NOT NULL,  -- its file, in the folder of no index (0)
    size_bytes INTEGER NOT NULL,
    sent_at    TEXT NOT NULL
) STRICT;

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
