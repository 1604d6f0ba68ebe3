"""What operators do: identities, enrolment, maintenance, expected GPUs, backups, the audit log."""
