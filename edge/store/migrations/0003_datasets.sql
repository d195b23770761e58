CREATE TABLE datasets (
    namespace TEXT NOT NULL,
    name      TEXT NOT NULL,
    state     BLOB NOT NULL,
    PRIMARY KEY (namespace, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE dataset_files (
    namespace TEXT    NOT NULL,
    dataset   TEXT    NOT NULL,
    path      TEXT    NOT NULL,
    size      INTEGER NOT NULL,
    modified  INTEGER NOT NULL,
    sha256    TEXT    NOT NULL,
    ordinal   INTEGER NOT NULL,
    gone      INTEGER NOT NULL,
    PRIMARY KEY (namespace, dataset, path)
) STRICT, WITHOUT ROWID;
CREATE INDEX dataset_files_by_ordinal ON dataset_files (namespace, dataset, ordinal);

CREATE TABLE dataset_segments (
    namespace TEXT    NOT NULL,
    dataset   TEXT    NOT NULL,
    first     INTEGER NOT NULL,
    samples   INTEGER NOT NULL,
    header    BLOB    NOT NULL,
    sha256    TEXT    NOT NULL,
    size      INTEGER NOT NULL,
    PRIMARY KEY (namespace, dataset, first)
) STRICT, WITHOUT ROWID;

CREATE TABLE dataset_consumers (
    namespace TEXT    NOT NULL,
    dataset   TEXT    NOT NULL,
    job       TEXT    NOT NULL,
    position  INTEGER NOT NULL,
    state     BLOB    NOT NULL,
    PRIMARY KEY (namespace, dataset, job)
) STRICT, WITHOUT ROWID;

CREATE TABLE dataset_shards (
    namespace TEXT    NOT NULL,
    dataset   TEXT    NOT NULL,
    job       TEXT    NOT NULL,
    round     INTEGER NOT NULL,
    role      TEXT    NOT NULL,
    first     INTEGER NOT NULL,
    last      INTEGER NOT NULL,
    samples   INTEGER NOT NULL,
    sha256    TEXT    NOT NULL,
    size      INTEGER NOT NULL,
    file      TEXT    NOT NULL,
    kept      INTEGER NOT NULL,
    PRIMARY KEY (namespace, dataset, job, round, role)
) STRICT, WITHOUT ROWID;
CREATE INDEX dataset_shards_by_file ON dataset_shards (file) WHERE kept = 1;
