-- What a job has read and embedded, and the files that a retry is about.
ALTER TABLE jobs ADD COLUMN tokens_embedded INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN chunks INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN bytes_done INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN bytes_total INTEGER;
ALTER TABLE jobs ADD COLUMN retry_of TEXT;

CREATE TABLE job_paths (
    job_id TEXT NOT NULL REFERENCES jobs(id) ON DELETE CASCADE,
    path   TEXT NOT NULL,
    PRIMARY KEY (job_id, path)
) STRICT, WITHOUT ROWID;
