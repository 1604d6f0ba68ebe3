-- History, append-only: no keys, no indexes (DuckDB's trouble lives there), nothing is ever updated in place
-- but the one row of `position`. Times are integer microseconds since 1970 UTC, durations integer milliseconds
-- (the ledger's grain), so that sums are exact and a healthy ping packs into a few bytes.

CREATE TYPE outcome AS ENUM ('answered', 'missed', 'excused');
CREATE TYPE verdict AS ENUM ('first', 'good', 'poor', 'excused');
CREATE TYPE gpu_state AS ENUM ('up', 'degraded', 'down', 'unknown');

-- Dictionaries: a small number in the row for a long name here.
CREATE TABLE agents (agent INTEGER NOT NULL, agent_id VARCHAR NOT NULL);
CREATE TABLE gpu_sets (gpu_set INTEGER NOT NULL, gpus VARCHAR NOT NULL); -- JSON [[uuid, index, name], ...]

-- One row for each outcome. What is the same in nearly every row costs nearly nothing.
CREATE TABLE pings (
    agent INTEGER NOT NULL,
    ping_seq BIGINT NOT NULL,
    pinged_us BIGINT NOT NULL,
    outcome outcome NOT NULL,
    verdict verdict NOT NULL,
    reason VARCHAR,
    uptime_percent DOUBLE,          -- as it was judged, unrounded
    up_ms BIGINT,                   -- the five are null together: nothing was reported
    degraded_ms BIGINT,
    down_ms BIGINT,
    unknown_ms BIGINT,
    excused_ms BIGINT,
    window_ms BIGINT,               -- null where it is the sum of the five
    -- Where the window lies. The scheduler measures it, from the last answered ping or the enrolment to this ping:
    -- until_ms is null, and since_ms is the window's length less the sum of the five, 0 but for a ping that was not
    -- answered, whose window stays open. In rows of schema 2 both are labels of the agent's clock, null without a report.
    until_ms BIGINT,                -- the label of the window's end, less pinged_us
    since_ms BIGINT,                -- the window's length, less the sum of the five
    consecutive_poor INTEGER NOT NULL,
    interval_seconds DOUBLE NOT NULL,
    next_us BIGINT NOT NULL,        -- next_ping_at, less pinged_us
    response_us BIGINT,
    late_us BIGINT,
    gpu_set INTEGER,                -- the GPUs reported; their share is the host's unless `gpus` says more
    remarks VARCHAR,                -- JSON list of what admission changed or found; null where it is nothing
    enrolled_us BIGINT              -- when the enrolment began, in whole milliseconds as windows do; null: the outcome did not say
);

-- The GPUs of a report, one row each, where they say more than the host's row does.
CREATE TABLE gpus (
    agent INTEGER NOT NULL,
    ping_seq BIGINT NOT NULL,
    pinged_us BIGINT NOT NULL,
    place INTEGER NOT NULL,
    uuid VARCHAR NOT NULL,
    gpu_index INTEGER,
    name VARCHAR NOT NULL,
    state gpu_state NOT NULL,
    reasons VARCHAR NOT NULL,       -- JSON list
    uptime_percent DOUBLE,
    up_ms BIGINT NOT NULL,
    degraded_ms BIGINT NOT NULL,
    down_ms BIGINT NOT NULL,
    unknown_ms BIGINT NOT NULL,
    excused_ms BIGINT NOT NULL
);

CREATE TABLE incidents (
    agent INTEGER NOT NULL,
    ping_seq BIGINT NOT NULL,
    pinged_us BIGINT NOT NULL,
    gpu VARCHAR,
    state VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    since_us BIGINT NOT NULL,
    until_us BIGINT
);

-- Reports byte for byte, with their signature: those that are signed, and those that were refused (the signature
-- may be empty then). They can be shown to a third party.
CREATE TABLE evidence (
    agent INTEGER NOT NULL,
    ping_seq BIGINT NOT NULL,
    pinged_us BIGINT NOT NULL,
    signature VARCHAR NOT NULL,
    payload VARCHAR NOT NULL
);

-- Messages that are no outcome: set aside for people, so that the loop goes on.
CREATE TABLE poisoned (
    stream_us BIGINT NOT NULL, sequence BIGINT NOT NULL, subject VARCHAR NOT NULL,
    detail VARCHAR NOT NULL, payload BLOB NOT NULL
);

-- How far ingest has come: written in the transaction of the rows. The fingerprint is that of the message at
-- `sequence`; when the stream shows another there, it lost its tail in a crash and was numbered again.
CREATE TABLE position (stream_us BIGINT NOT NULL, sequence BIGINT NOT NULL, fingerprint VARCHAR NOT NULL);

-- An agent whose ping_seq began again (the bucket was lost): from here on its numbers alone identify nothing.
CREATE TABLE restarts (agent INTEGER NOT NULL, pinged_us BIGINT NOT NULL);

-- Sums that can always be made again from `pings`: agents by day, the fleet by hour.
CREATE TABLE agent_days (
    agent INTEGER NOT NULL, day INTEGER NOT NULL,
    pings BIGINT NOT NULL, answered BIGINT NOT NULL, missed BIGINT NOT NULL, excused BIGINT NOT NULL,
    first BIGINT NOT NULL, good BIGINT NOT NULL, poor BIGINT NOT NULL,
    up_ms BIGINT NOT NULL, degraded_ms BIGINT NOT NULL, down_ms BIGINT NOT NULL,
    unknown_ms BIGINT NOT NULL, excused_ms BIGINT NOT NULL,
    first_seq BIGINT NOT NULL, last_seq BIGINT NOT NULL
);
CREATE TABLE fleet_hours (
    hour INTEGER NOT NULL,
    pings BIGINT NOT NULL, answered BIGINT NOT NULL, missed BIGINT NOT NULL, excused BIGINT NOT NULL,
    first BIGINT NOT NULL, good BIGINT NOT NULL, poor BIGINT NOT NULL,
    up_ms BIGINT NOT NULL, degraded_ms BIGINT NOT NULL, down_ms BIGINT NOT NULL,
    unknown_ms BIGINT NOT NULL, excused_ms BIGINT NOT NULL
);
-- Response times and lateness by hour, in buckets 2 % wide: percentiles of a month within 1 %.
CREATE TABLE fleet_latencies (hour INTEGER NOT NULL, measure VARCHAR NOT NULL, bucket INTEGER NOT NULL, pings BIGINT NOT NULL);

-- Up to where the sums above are made; what is newer is summed from `pings` when it is asked for.
CREATE TABLE sealed (rollup VARCHAR NOT NULL, until_us BIGINT NOT NULL);

-- Days whose outcomes live in Parquet (files of that generation, no others), with the rows of each file: where there
-- are none there is no file, null where they were not counted yet (schema 1). And before when retention has expired.
CREATE TABLE archived (
    day INTEGER NOT NULL, generation INTEGER NOT NULL,
    pings BIGINT NOT NULL, gpus BIGINT, incidents BIGINT, evidence BIGINT
);
CREATE TABLE forgotten (until_us BIGINT NOT NULL);

CREATE TABLE about (schema_version INTEGER NOT NULL);
INSERT INTO about VALUES (3);
