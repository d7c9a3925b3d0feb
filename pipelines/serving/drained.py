"""Slots that take no further jobs, because whoever runs the app wants it so: a file for each among the data.

The app reads them while it runs, so that `python -m pipelines drain 1` works from another terminal, and keeps to them
when it is started again. Standard library only.
"""

from pipelines.settings import Settings


class Drained:
    """The names of the drained slots."""

    def __init__(self, settings: Settings):
        self._data = settings.data.absolute()
        self._folder = self._data / "drained"

    def __contains__(self, slot: str) -> bool:
        return (self._folder / slot).exists()

    def add(self, slot: str) -> None:
        """Has `slot` take no further job. Raises ValueError where there are no data of an app."""
        if not self._data.is_dir():
            raise ValueError(f"No app has its data in {self._data}. Set MARIONETTE_DATA as the app has it.")
        self._folder.mkdir(exist_ok=True)
        (self._folder / slot).touch()

    def discard(self, slot: str) -> None:
        """Has `slot` take jobs again."""
        (self._folder / slot).unlink(missing_ok=True)
