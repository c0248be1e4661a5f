"""The one exception type that a command turns into a sentence instead of a traceback."""


class UserError(Exception):
    """What happened, where (file and line, or record id), and what to do: one sentence, without patient text."""


class UsageError(UserError):
    """The command is written wrongly: an option with a value that it does not take, or options that exclude each other."""
