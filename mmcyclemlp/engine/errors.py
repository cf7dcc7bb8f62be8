"""How a command ends in one line."""


class UserError(Exception):
    """Something given to a command is wrong; says what and the remedy."""

    def __str__(self):
        # torch puts the traceback of a data loader's worker before it.
        return super().__str__().rpartition('UserError: ')[2].rstrip()


class Stopped(SystemExit):
    """A run was asked to end, and is saved; Python's exit code is 75."""

    def __init__(self):
        super().__init__(75)
