                SELECT
                    $base_us + (hour * 3600000000 - $base_us) // $grain * $grain AS key,
                    bucket, pings
                FROM fleet_latencies
                WHERE measure = $measure AND hour >= $first AND hour < $end
                UNION ALL
