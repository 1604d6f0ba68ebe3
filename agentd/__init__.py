"""GPU hosts: samples GPUs, keeps the uptime ledger, answers pings."""
