"""Answers as JSON."""

from typing import Any

import msgspec


def json_text(answer: Any) -> str:
    """The answer as indented JSON, for people and programs alike."""
    return msgspec.json.format(msgspec.json.encode(answer)).decode()


def print_json(answer: Any) -> None:
    """Prints the answer as indented JSON on standard output."""
    print(json_text(answer))
