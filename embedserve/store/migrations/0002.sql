-- On what kind of machine the vectors of an artefact were computed.
CREATE TABLE origins (
    artefact TEXT PRIMARY KEY,
    origin   TEXT NOT NULL
) STRICT, WITHOUT ROWID;
