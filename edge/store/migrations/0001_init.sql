CREATE TABLE tasks (
    namespace     TEXT    NOT NULL,
    device        TEXT    NOT NULL,
    uid           TEXT    NOT NULL,
    epoch         INTEGER NOT NULL,
    generation    INTEGER NOT NULL,
    state         TEXT    NOT NULL,
    kind          TEXT    NOT NULL,
    name          TEXT    NOT NULL,
    role          TEXT    NOT NULL,
    issued_at     INTEGER NOT NULL,
    document      BLOB    NOT NULL,
    signature     TEXT    NOT NULL,
    nonce_n       INTEGER NOT NULL,
    phase         TEXT    NOT NULL,
    stage         TEXT    NOT NULL,
    round         INTEGER NOT NULL,
    samples       INTEGER NOT NULL,
    reason        TEXT    NOT NULL,
    progress      TEXT    NOT NULL,
    metrics       TEXT    NOT NULL,
    model         TEXT    NOT NULL,
    detail        TEXT    NOT NULL,
    attempts      INTEGER NOT NULL,
    serving       BLOB,
    serving_sha256 TEXT   NOT NULL,
    model_sha256  TEXT    NOT NULL,
    seq           INTEGER NOT NULL,
    acked         INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    PRIMARY KEY (namespace, device)
) STRICT, WITHOUT ROWID;

CREATE TABLE tombstones (
    uid        TEXT    NOT NULL PRIMARY KEY,
    namespace  TEXT    NOT NULL,
    device     TEXT    NOT NULL,
    epoch      INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    issued_at  INTEGER NOT NULL,
    buried_at  INTEGER NOT NULL,
    seq        INTEGER NOT NULL,
    nonce_n    INTEGER NOT NULL,
    settled    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX tombstones_by_device ON tombstones (namespace, device);
CREATE INDEX tombstones_by_age ON tombstones (buried_at);
CREATE INDEX tombstones_unsettled ON tombstones (buried_at) WHERE settled = 0;

CREATE TABLE models (
    sha256        TEXT    NOT NULL PRIMARY KEY,
    name          TEXT    NOT NULL,
    version       TEXT    NOT NULL,
    format        TEXT    NOT NULL,
    path          TEXT    NOT NULL,
    size          INTEGER NOT NULL,
    state         TEXT    NOT NULL,
    crashes       INTEGER NOT NULL,
    loading_since INTEGER NOT NULL,
    last_used     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE node (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
    id         INTEGER PRIMARY KEY,
    at         INTEGER NOT NULL,
    kind       TEXT    NOT NULL,
    reason     TEXT    NOT NULL,
    namespace  TEXT    NOT NULL,
    device     TEXT    NOT NULL,
    uid        TEXT    NOT NULL,
    generation INTEGER NOT NULL,
    message    TEXT    NOT NULL
) STRICT;
