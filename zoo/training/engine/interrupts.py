"""Ctrl-C and the system's end (SIGTERM, SIGHUP) wait for the step that they fall into, so that it can be saved."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP


class Interrupts:
    """Between `with listening()` a signal that comes within `with held()` is passed on when that ends.

    A second one is passed on at once, for whoever doesn't want to wait. `whole`: whether no held block was cut off.
    """

    def __init__(self) -> None:
        self.whole = True
        self._held = False
        self._waiting: Callable[[], Any] | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take the place of the process's handlers; only its main thread may, and one that has its own is left."""
        before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in [getattr(signal, name) for name in NAMES if hasattr(signal, name)]:
                handler = signal.getsignal(number)
                if callable(handler):  # not one that is ignored, or ends the process without Python
                    before[number] = handler
                    signal.signal(number, self._heard(handler))
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """A block that is ended before a signal is passed on."""
        self.whole, self._held, self._waiting = False, True, None
        try:
            yield
            self.whole = True
        finally:
            self._held = False
        if self._waiting is not None:
            self._waiting()

    def _heard(self, handler: Callable[[int, Any], Any]) -> Callable[[int, Any], Any]:
        def heard(number: int, frame: Any) -> None:
            if self._held and self._waiting is None:
                self._waiting = lambda: handler(number, None)
            else:
                handler(number, frame)

        return heard
