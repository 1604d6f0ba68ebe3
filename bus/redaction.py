"""Replaces secrets by `***` in text that is printed, logged or answered."""

import re

# `nats://user:password@host`, `nats://token@host` and `user:password@host`, also where the address
# is malformed. Several addresses have commas between them.
_USER_INFO = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:/+)[^\s,]*@")
_USER_INFO_ALONE = re.compile(r"(?<![\w/*])[^\s,:/'\"=({\[]+:(?!/)[^\s,]*@")
_TOKEN = re.compile(r"gpuping_[A-Za-z0-9_-]{40,}")
_SEED = re.compile(r"\bS[ANOCUX][A-Z2-7]{40,60}\b")
_JWT = re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_PATH = re.compile(r"(?<![\w/:.~-])(?:~|[A-Za-z]:)?[/\\][^\s,;:'\"()\[\]<>]+")
HIDDEN = "***"


def redact_address(address: str) -> str:
    """Returns one address, or several separated by commas, without user, password or token.

    Everything before the last `@` of an address is hidden, except its scheme.
    """
    parts = []
    for one in address.split(","):
        secret, at, host = one.rpartition("@")
        scheme, separator, _ = secret.partition("://")
        if not separator:
            scheme = ""
        if at:
            parts.append(f"{scheme}{separator}{HIDDEN}@{host}")
        else:
            parts.append(one)
    return ",".join(parts)


def redact(text: str) -> str:
    """Returns the text with `***` in place of its secrets.

    Secrets are the user and password or the token in an address, bearer tokens of the gateway,
    seeds of NATS keys and JSON web tokens.
    """
    text = _USER_INFO.sub(rf"\g<1>{HIDDEN}@", text)
    text = _USER_INFO_ALONE.sub(f"{HIDDEN}@", text)
    text = _TOKEN.sub(HIDDEN, text)
    text = _SEED.sub(HIDDEN, text)
    return _JWT.sub(HIDDEN, text)


def without_paths(text: str) -> str:
    """Returns the text with `***` in place of absolute paths, for readers from elsewhere."""
    return _PATH.sub(HIDDEN, text)
