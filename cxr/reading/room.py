"""How many pixels are decoded at once, all threads together: small files of large pictures must not fill the memory."""

import threading
from collections.abc import Generator
from contextlib import contextmanager

# Sixteen radiographs of 3,000 x 2,500 pixels. The most that a pixel takes on its way is 11 bytes (RGBA), 1.3 GB in all.
PIXELS_AT_ONCE = 120_000_000


class Room:
    """A number of pixels that threads share."""

    def __init__(self, pixels: int) -> None:
        self._pixels = pixels
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def take(self, pixels: int) -> Generator[None]:
        """Waits until there is room for ``pixels``, and holds it; what is larger than the room has it alone."""
        with self._changed:
            self._changed.wait_for(lambda: self._taken == 0 or self._taken + pixels <= self._pixels)
            self._taken += pixels
        try:
            yield
        finally:
            with self._changed:
                self._taken -= pixels
                self._changed.notify_all()


ROOM = Room(PIXELS_AT_ONCE)
