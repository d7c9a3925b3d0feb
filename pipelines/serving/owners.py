"""Who owns what: the owner that stands for a visitor's id, and what only this server knows. Standard library only.

A visitor is known by an id that their browser keeps, and whoever has it is the visitor. It is kept nowhere here: what
is stored, or written to the log, names an owner, which a key of this server makes of the id. Nobody comes from an owner
back to the id, and nobody who only reads the data folder can act in a visitor's name.
"""

import hmac
import json
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

from pipelines.media import video
from pipelines.settings import Settings

OWNER = re.compile("[0-9a-f]{64}")
VISITOR = re.compile("[0-9a-f]{32}")


class Owners:
    """The keys among the data, made when they are first asked for, and what they make of ids."""

    def __init__(self, settings: Settings):
        self._data = settings.data.absolute()
        self._key = bytes.fromhex(_kept(self._data / "key"))

    def of(self, visitor_id: object) -> str:
        """The owner that stands for `visitor_id`, 64 hexadecimal digits; for what is no id, a new one of nobody."""
        if isinstance(visitor_id, str) and VISITOR.fullmatch(visitor_id):
            return self.token("owner", visitor_id)
        return secrets.token_hex(32)

    def token(self, *parts: str) -> str:
        """64 hexadecimal digits that belong to `parts`, and that nobody can compute without the key of this server."""
        return hmac.digest(self._key, "\n".join(parts).encode(), "sha256").hex()

    @property
    def browser_secret(self) -> str:
        """What browsers encrypt a visitor's id with, where they keep it. The page publishes it: it opens nothing."""
        return _kept(self._data / "secret")

    def account(self, subject: str) -> str:
        """The visitor's id of a signed-in user, by what their account is called for ever; the same on every device."""
        return self._renewed_account(_half("user " + subject, self.browser_secret))

    def is_account(self, visitor_id: object) -> bool:
        """Whether `visitor_id` is one that `account` makes, or made before these ids had a key of their own."""
        return self._is_proved(visitor_id, self.browser_secret) or self._is_proved(visitor_id, self._key.hex())

    def renew(self, owners: Iterable[str]) -> dict[str, str]:
        """What those of `owners` are called now that are ids of visitors still, as in data from before version 3.

        The files beside the table, of clips and images, get the new names first. May be done any number of times: an
        owner keeps its name.
        """
        for file in (*self._data.glob("clips/*/clip.json"), *self._data.glob("images/*/image.json")):
            self._renew_file(file)
        return {old: self._renewed(old) for old in owners if not OWNER.fullmatch(old)}

    def _renew_file(self, file: Path) -> None:
        try:
            facts = json.loads(file.read_text("utf-8"))
            owner = facts["owner"]
        except (ValueError, KeyError, TypeError):  # damaged: nobody can ask for it, and it stays as it is
            return
        if not isinstance(owner, str) or OWNER.fullmatch(owner):
            return
        times = file.parent.stat()
        with video.whole(file) as new:
            new.write_text(json.dumps(facts | {"owner": self._renewed(owner)}), "utf-8")
        os.utime(file.parent, (times.st_atime, times.st_mtime))  # by which it is told how old it is

    def _renewed(self, visitor_id: str) -> str:
        if self._is_proved(visitor_id, self.browser_secret):
            return self.of(self._renewed_account(visitor_id[:16]))
        return self.token("owner", visitor_id)

    def _renewed_account(self, first: str) -> str:
        """The id of a user whose id began with `first` when only the published secret made it. That half stands for
        the account still, so that libraries of then are found."""
        key = self._key.hex()
        first = _half("user " + first, key)
        return first + _half("proof " + first, key)

    def _is_proved(self, visitor_id: object, key: str) -> bool:
        if not isinstance(visitor_id, str):
            return False
        return hmac.compare_digest(visitor_id[16:].encode(), _half("proof " + visitor_id[:16], key).encode())


def _half(text: str, key: str) -> str:
    return hmac.digest(key.encode(), text.encode(), "sha256").hex()[:16]


def _kept(file: Path) -> str:
    """64 hexadecimal digits in `file`, drawn at random when they are first asked for. Raises ValueError where it holds
    none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        draft = file.with_name(f".{file.name}-{secrets.token_hex(8)}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
            new.write(secrets.token_hex(32))
            new.flush()
            os.fsync(new.fileno())
        draft.replace(file)
    text = file.read_text("utf-8").strip()
    if not OWNER.fullmatch(text):
        raise ValueError(
            f"{file} should hold 64 hexadecimal digits. Bring it back from a copy of the data folder: without it "
            "nobody finds what they made."
        )
    return text
