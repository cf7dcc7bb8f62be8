"""The mistakes of a user that end a command in one line."""


class UserError(Exception):
    """Something given to a command is wrong; says what and the remedy."""
