"""The folders that the app writes to, and what of its environment must be set before gradio is imported.

Standard library only.
"""

import os
import secrets
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

from pipelines.settings import Settings

PROXIES = ("http_proxy", "https_proxy", "all_proxy")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def prepare(settings: Settings, environment: MutableMapping[str, str] = os.environ) -> None:
    """Has temporary files written among the data, and loopback reached without a proxy.

    Raises ValueError naming the setting whose folder can't be written.
    """
    temporary = settings.data.absolute() / "temp"
    _check(settings.data, "MARIONETTE_DATA")
    if not temporary.exists() or temporary.is_dir():  # else `recovery` moves away what is there
        _check(temporary, "MARIONETTE_DATA")
        tempfile.tempdir = str(temporary)
    if any(environment.get(name) or environment.get(name.upper()) for name in PROXIES):
        for name in ("no_proxy", "NO_PROXY"):
            listed = [part for part in environment.get(name, "").split(",") if part.strip()]
            own = [*LOOPBACK, *filter(None, [environment.get("GRADIO_SERVER_NAME")])]
            environment[name] = ",".join(dict.fromkeys([*listed, *own]))


def _check(folder: Path, variable: str) -> None:
    """Raises ValueError naming the `variable` where no file can be written to `folder`."""
    probe = folder / f".{secrets.token_hex(8)}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise ValueError(
            f"The folder {folder} can't be written ({error.strerror}). Set {variable} to another, or make it writable."
        ) from error
