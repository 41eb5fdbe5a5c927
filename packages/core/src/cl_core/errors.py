"""The exceptions whose message is all that a user needs."""

import re

__all__ = ["InputError", "TrainingError"]


class InputError(Exception):
    """A fault in what the user gave: a file, an option, the data in it.

    The message is one line that says what is wrong, in which file or option, and what to do.
    Commands print it to standard error and end with exit code 2; from Python it is raised as is.

    Args:
        message: The line. A subclass must be constructible from it alone: so torch carries an
            exception out of a loader's worker, with the worker's traceback around the line.
    """

    def __init__(self, message: str) -> None:
        if message.startswith("Caught ") and "Original Traceback" in message:
            message = re.findall(r"^[\w.]+: (.*)$", message, re.MULTILINE)[-1]
        super().__init__(message)


class TrainingError(RuntimeError):
    """A training that cannot go on, as when its loss is not finite.

    The message is one line that says at which step, what is kept, and what to try.
    """
