"""The contract of a study: a question that is not answered by serving requests."""

from abc import ABC, abstractmethod

from rich.console import Console

from harness.settings import Settings


class Study(ABC):
    """Built from `study` in the config; its arguments are its own settings."""

    @abstractmethod
    def run(self, settings: Settings, console: Console) -> int:
        """Answer, print, keep what was found, and return an exit code.

        Raises ValueError of one line for settings that cannot be served.
        """
