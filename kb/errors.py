"""The one exception type that a command turns into a sentence instead of a traceback."""


class UserError(Exception):
    """What happened, where (file and line, or record id), and what to do: one sentence, without patient text."""
