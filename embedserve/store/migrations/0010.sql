-- Files that were sent for no index yet.
CREATE TABLE files (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    purpose    TEXT NOT NULL,
    stored     TEXT NOT NULL,  -- its file, in the folder of no index (0)
    size_bytes INTEGER NOT NULL,
    sent_at    TEXT NOT NULL
) STRICT;
