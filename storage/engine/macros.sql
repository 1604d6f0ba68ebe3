-- Uptime in SQL, the same formula as `bus.contract.durations.uptime_percent`. Null where no time can be judged.
-- It is temporary, so that every connection has it and no history file contains it.
CREATE OR REPLACE TEMP MACRO uptime_percent(good_ms, judged_ms) AS
    100.0::DOUBLE * good_ms / nullif(judged_ms, 0);
