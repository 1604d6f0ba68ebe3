"""The drill: a whole system under load, faults by seed, and an auditor that knows the truth."""
