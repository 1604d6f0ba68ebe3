"""Lets GPU hosts in: enrolment tokens, their redemption, and the renewal of credentials."""
