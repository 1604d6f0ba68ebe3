-- The days of some agents: every window is divided at midnight (UTC), in proportion to its time on
-- each side. What a window tells of the time before the registration is left out: nobody had looked
-- then, so it is the window's unknown time first.
SELECT
    agent,
    day,
    round(sum((up_ms + degraded_ms) * share))::BIGINT AS up_ms,
    round(sum((down_ms + unknown_ms) * share))::BIGINT AS lost_ms,
    round(sum(excused_ms * share))::BIGINT AS excused_ms
FROM (
    SELECT
        *,
        (least(ends_us, (day + 1) * $day_us) - greatest(begins_us, day * $day_us))::DOUBLE
            / (ends_us - begins_us) AS share
    FROM (
        SELECT
            *,
            unnest(generate_series(begins_us // $day_us, (ends_us - 1) // $day_us)) AS day
        FROM (
            SELECT
                agent, up_ms, degraded_ms, down_ms, excused_ms, ends_us,
                greatest(0, unknown_ms - greatest(0, counted_since_us - told_us) // 1000) AS unknown_ms,
                greatest(told_us, counted_since_us) AS begins_us
            FROM (
                SELECT
                    *,
                    pinged_us + coalesce(until_ms, 0) * 1000 AS ends_us,
                    pinged_us + coalesce(until_ms, 0) * 1000
                        - (
                            up_ms + degraded_ms + down_ms + unknown_ms + excused_ms
                            + coalesce(since_ms, 0)
                        ) * 1000 AS told_us
                FROM {accountable_pings} AS p
                JOIN (
                    SELECT unnest(
                        from_json($agents, '[{"agent": "INTEGER", "counted_since_us": "BIGINT"}]'),
                        recursive := true
                    )
                ) AS asked USING (agent)
                WHERE p.pinged_us >= $since_us AND p.up_ms IS NOT NULL
            )
        )
        WHERE begins_us >= 0 AND ends_us > begins_us
    )
)
WHERE day BETWEEN $first_day AND $last_day
GROUP BY agent, day
ORDER BY agent, day;
