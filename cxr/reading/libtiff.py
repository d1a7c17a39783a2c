"""libtiff, by which Pillow reads compressed TIFF, prints what is damaged: it goes into the error instead."""

import os
import re
import tempfile
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

_STDERR = 2  # libtiff writes to the file descriptor; Pillow offers no way to its handlers
_LINE = re.compile(rb"^(?:[A-Z_]\w*|tempfile\.tif): .*\.\n", re.MULTILINE)
_LOCK = threading.Lock()


def load(decode: Callable[[], object]) -> None:
    """``decode()``, which reads one TIFF, without a line on stderr.

    One at a time in a process. What other threads print meanwhile is printed when it ends.

    Raises:
        ValueError: ``decode`` raised an OSError that libtiff knew a reason for.
    """
    reasons: list[str] = []
    try:
        with _LOCK, _kept_from_stderr(reasons):
            decode()
    except OSError as error:
        if not reasons:
            raise
        raise ValueError(f"damaged TIFF ({reasons[0]})") from error


@contextmanager
def _kept_from_stderr(reasons: list[str]) -> Generator[None]:
    with tempfile.TemporaryFile() as caught:
        try:
            screen = os.dup(_STDERR)
        except OSError:  # closed, as for a service
            yield
            return
        os.dup2(caught.fileno(), _STDERR)
        try:
            yield
        finally:
            os.dup2(screen, _STDERR)
            os.close(screen)
            caught.seek(0)
            printed = caught.read()
            reasons += [line.decode(errors="replace").rstrip(".\n") for line in _LINE.findall(printed)]
            os.write(_STDERR, _LINE.sub(b"", printed))
