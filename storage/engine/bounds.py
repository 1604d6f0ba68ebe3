"""Bounds beyond every number and every time that history keeps."""

FAR = 2**62  # half of BIGINT's range: what is added to it does not overflow
FIRST_US = -FAR  # microseconds since 1970
LAST_US = FAR
