"""The one exception type that a command turns into a sentence instead of a traceback."""


class UserError(Exception):
    """What happened, where (file and line, or record id), and what to do: one sentence, without patient text."""


class UsageError(UserError):
    """The command is written wrongly: a value that an option does not take, or options that exclude each other."""
