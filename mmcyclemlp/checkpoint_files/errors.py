"""What goes wrong with checkpoints."""


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read, written, or made to fit the network."""

    def __str__(self):
        return one_line(super().__str__())


def one_line(text):
    """Text with all that is not printable escaped: keys are the file's."""
    return ''.join(
        c if c.isprintable() else c.encode('unicode_escape').decode()
        for c in text)
