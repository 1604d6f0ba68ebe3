"""When processes were started, which tells two processes of one pid apart."""

from pathlib import Path


def start_ticks(pid: int) -> int | None:
    """When a living process was started, in clock ticks since boot.

    Returns None when there is no such process. proc_pid_stat(5) describes the fields. The name in
    parentheses may itself hold spaces and parentheses.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields_after_name = stat.rpartition(")")[2].split()
    state = fields_after_name[0]
    if state == "Z":
        return None
    return int(fields_after_name[19])
