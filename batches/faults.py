"""Why a task could not be judged, as exceptions that only the edges catch."""


class TaskFault(Exception):
    """The task cannot be judged as it is written. Trying again would end the same way."""


class InfraFault(Exception):
    """Trouble of this server or of what it depends on. Worth another attempt."""
