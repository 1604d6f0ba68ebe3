"""Loads the settings of a command from the environment and its options."""

import os
from pathlib import Path
from typing import Any

from bus import logs, settings
from bus.settings import Settings
from gpuping.client.bus_file import with_demo_alone


def settings_of_fleet(data_dir: Path | None) -> Settings:
    """Returns the settings of a command on a fleet that exists: the demo's where it runs alone."""
    return with_demo_alone(load_settings(default_log_level="warning", GPUPING_DATA_DIR=data_dir))


def load_settings(*, default_log_level: str | None = None, **options: Any) -> Settings:
    """Returns the settings, and sets up logging by them.

    An option that is not None wins over the environment. `default_log_level` counts where LOG_LEVEL
    is not set. Raises SettingsError for a setting that cannot be used.
    """
    given: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Path):
            given[name] = str(value)
        else:
            given[name] = value
    if not os.environ.get("LOG_LEVEL"):
        given["LOG_LEVEL"] = default_log_level
    loaded = settings.load(**given)
    logs.setup(loaded)
    return loaded
