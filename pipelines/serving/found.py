"""What lies among the data and belongs to no job that is known: moved to the folder `found`, never deleted."""

import logging
from pathlib import Path

FOLDER = "found"

log = logging.getLogger(__name__)


class Found:
    """The folder `found` among the data. Nothing there is ever read, changed, deleted or counted by the app."""

    def __init__(self, data: Path):
        self._folder = data.absolute() / FOLDER

    def take(self, path: Path) -> bool:
        """Moves `path` here without replacing anything. Returns False where it has to stay where it is."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            target, number = self._folder / path.name, 0
            while target.exists() or target.is_symlink():
                number += 1
                target = self._folder / f"{path.name}-{number}"
            path.rename(target)
        except OSError as error:
            log.warning("%s belongs to no job that is known, and can't be moved to %s: %s", path, self._folder, error)
            return False
        log.warning("%s belongs to no job that is known: it is now %s", path, target)
        return True

    def make_folder(self, path: Path) -> None:
        """Makes the folder `path`; a file that is there in its place is moved here first."""
        if path.is_symlink() and not path.exists() or path.exists() and not path.is_dir():
            self.take(path)
        path.mkdir(parents=True, exist_ok=True)

    def count(self) -> int:
        """How many things are here."""
        return sum(1 for _ in self._folder.iterdir()) if self._folder.is_dir() else 0
