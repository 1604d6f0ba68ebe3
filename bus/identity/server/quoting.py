"""Texts in a nats-server's configuration."""

import json


def quoted(value: object) -> str:
    """A text as the server's configuration language quotes it.

    Letters beyond ASCII stay as they are.
    """
    return json.dumps(str(value), ensure_ascii=False)
