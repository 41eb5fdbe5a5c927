"""The one exception that means: the user can fix this."""

__all__ = ["InputError"]


class InputError(Exception):
    """A fault in what the user gave: a file, an option, the data in it.

    The message is one line that says what is wrong, in which file or option, and what to do.
    Commands print it to standard error and end with exit code 2; from Python it is raised as is.
    """
