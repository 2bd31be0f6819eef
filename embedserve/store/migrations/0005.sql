-- Documents come from folders, uploads and addresses, and may carry metadata.
ALTER TABLE documents ADD COLUMN source TEXT NOT NULL DEFAULT 'folder'
    CHECK (source IN ('folder', 'upload', 'url'));
ALTER TABLE documents ADD COLUMN metadata TEXT NOT NULL DEFAULT '{}';
ALTER TABLE documents ADD COLUMN etag TEXT;
ALTER TABLE documents ADD COLUMN last_modified TEXT;

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
