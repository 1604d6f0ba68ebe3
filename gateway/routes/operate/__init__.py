"""What operators look after: labels, GPUs, maintenance, alerts, enrolments and public pages."""
