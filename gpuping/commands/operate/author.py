"""Who changes something by a command, as the audit log and bookings name him."""

import getpass


def author() -> str:
    """The user of this machine who runs the command."""
    return f"user {getpass.getuser()}"
