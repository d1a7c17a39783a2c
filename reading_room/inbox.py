"""Folders that others write to: a file is handed out once it has come to rest, and once only."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from warnings import warn

from cxr import reading


def hashed(text: str) -> str:
    """A short name for any text, from which nobody reads the text."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:24]


def place_of(path: Path) -> str:
    """By which a path is known again."""
    return hashed(str(path.absolute()))


def state_of(path: Path) -> str:
    """By which an unchanged file is known again without being read; empty where it cannot be looked at."""
    try:
        found = path.stat()
    except OSError:
        return ""
    return hashed(f"{path.absolute()}\0{found.st_size}\0{found.st_mtime_ns}\0{found.st_ctime_ns}")


@dataclass
class Inbox:
    """What has arrived in ``folders``, but not in those ``left_out``.

    Attributes:
        stable_seconds: a file whose size and times have not changed for so long is no longer being written.
        known: states of files that need not be handed out.
    """

    folders: Sequence[str]
    left_out: Sequence[Path]
    stable_seconds: float
    known: set[str]
    _waiting: dict[Path, tuple[str, float]] = field(default_factory=dict)
    _away: set[str] = field(default_factory=set)

    def arrived(self, now: float) -> list[tuple[Path, str]]:
        """Files at rest with their states, those of earlier calls left out; ``now`` in seconds of a steady clock."""
        ready: list[tuple[Path, str]] = []
        waiting: dict[Path, tuple[str, float]] = {}
        for path in self._listed():
            state = state_of(path)
            if not state or state in self.known:
                continue
            before, since = self._waiting.get(path, ("", now))
            since = since if state == before else now
            if now - since >= self.stable_seconds:
                ready.append((path, state))
                self.known.add(state)
            else:
                waiting[path] = (state, since)
        self._waiting = waiting
        return ready

    def _listed(self) -> Iterator[Path]:
        for folder in self.folders:
            with suppress(OSError):  # empty, or a share that is away for a while: that it was there is known already
                yield from reading.find_images([folder], self.left_out)
            self._tell_of(folder)

    def _tell_of(self, folder: str) -> None:
        """Warn once that a folder is not there: else it would seem that nothing is sent."""
        try:
            is_there = Path(folder).is_dir()
        except OSError:  # of some shares that are away
            is_there = False
        if not is_there and folder not in self._away:
            now = f"{datetime.now():%H:%M:%S}"  # also lets a second absence be told: Python drops repeated warnings
            warn(f"{now} {Path(folder).absolute()} is not there; waiting for it to come back", stacklevel=2)
        (self._away.discard if is_there else self._away.add)(folder)
