"""Why a month's uptime is what it is: losses by cause, days, and timelines of each GPU."""
