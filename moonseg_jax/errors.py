"""The one error a user meets: what was wrong, where, what to do."""


class UserError(ValueError):
    """Bad input or a setting that cannot work. The command line prints its message and exits with code 2."""
