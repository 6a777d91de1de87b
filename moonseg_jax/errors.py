"""The errors a user meets: what was wrong, where, what to do."""


class UserError(ValueError):
    """Bad input or a setting that cannot work. The command line prints its message and exits with code 2."""


class SomeFailed(RuntimeError):
    """Some of many pieces of work failed and the others are done. The command line prints its message, exit code 1."""
