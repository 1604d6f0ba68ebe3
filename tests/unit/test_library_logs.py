"""What libraries log: warnings come through, and noise at the end of each connection does not."""

import logging

from bus import logs, settings


def test_the_end_of_a_tls_connection_is_no_warning():
    logs.setup(settings.load({}))
    library = logging.getLogger("asyncio")
    texts = (
        "returning true from eof_received() has no effect when using ssl",
        "Task was destroyed but it is pending!",
    )
    shown = []
    for text in texts:
        record = library.makeRecord("asyncio", logging.WARNING, "x.py", 1, text, (), None)
        if library.filter(record):
            shown.append(text)
    assert shown == [texts[1]]
