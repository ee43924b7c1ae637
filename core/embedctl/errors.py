"""Errors that say what happened, why, and what to do.

Every error that a user may meet is an `EmbedctlError`. The faces print its three lines; only `--debug`
shows a traceback. Nothing here imports anything else of ours.
"""

from __future__ import annotations

from typing import ClassVar


class EmbedctlError(Exception):
    """The base of all expected errors.

    Attributes:
        what: What happened, as one sentence without a final full stop.
        why: The cause as far as it is known; empty when `what` says it all.
        remedy: What the user can do about it; empty only when nothing can be done.
        exit_code: The exit code of the command line (2: not possible or wrong usage).
        retryable: The same call may work when it is made again a moment later, with nothing changed.
    """

    exit_code: ClassVar[int] = 2
    retryable: ClassVar[bool] = False

    def __init__(self, what: str, *, why: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.remedy = remedy

    @property
    def sentence(self) -> str:
        """What happened and why, for a place that shows the remedy apart or not at all."""
        return f"{self.what}: {self.why}" if self.why else self.what

    def __str__(self) -> str:
        return " — ".join(part for part in (self.what, self.why, self.remedy) if part)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, self.why, self.remedy))


def _rebuild(kind: type[EmbedctlError], what: str, why: str, remedy: str) -> EmbedctlError:
    return kind(what, why=why, remedy=remedy)


class SettingsError(EmbedctlError):
    """A setting has a value that is not allowed; names the file or variable, the key and what is allowed."""


class UsageError(EmbedctlError):
    """A call that cannot be carried out as it was made."""


class Cancelled(EmbedctlError):  # the user's wish, not a fault, hence no "Error" in its name
    """A job was cancelled; nothing half-done is left behind."""

    def __init__(self, what: str = "Cancelled", *, why: str = "", remedy: str = "") -> None:
        super().__init__(what, why=why, remedy=remedy)


# The store -------------------------------------------------------------------------------------------


class StoreError(EmbedctlError):
    """The history file cannot be used."""


class StoreNewerError(StoreError):
    """The file was written by a newer version of embedctl."""


class StoreForeignError(StoreError):
    """The file is a SQLite database of another program; it is never written to."""


class StoreCorruptError(StoreError):
    """The file is not a sound SQLite database of ours."""


class StoreReadOnlyError(StoreError):
    """The file or its folder cannot be written."""


class StoreFullError(StoreError):
    """The disk has no room for more history."""


class StoreBusyError(StoreError):
    """Another process records to the file, or holds it longer than a write may wait. Passes by itself."""

    retryable = True


# The Hub ---------------------------------------------------------------------------------------------


class HubError(EmbedctlError):
    """The Hub could not give what was asked of it."""


class HubOfflineError(HubError):
    """The Hub cannot be reached, or offline mode is on."""

    retryable = True


class HubNotFoundError(HubError):
    """The repository, revision or file does not exist (or is private and no token was given)."""


class HubGatedError(HubError):
    """The repository asks for its licence to be accepted first."""


class HubTokenError(HubError):
    """The Hub refused the token, or the token may not read this repository."""


class HubRateLimitError(HubError):
    """The Hub answered 429: too many requests."""

    retryable = True


class HubServerError(HubError):
    """The Hub answered with a 5xx status."""

    retryable = True


class HubSpaceError(HubError):
    """The disk has too little room for the files."""


class HubDamagedError(HubError):
    """A file's hash differs from the one that the Hub states."""


class HubConversionError(HubError):
    """Pickled weights could not be turned into safetensors; what was fetched is kept."""


# Backends --------------------------------------------------------------------------------------------


class BackendError(EmbedctlError):
    """A backend could not do what was asked of it."""


class BackendUnavailableError(BackendError):
    """The backend is not installed or does not answer."""

    retryable = True


class ModelMissingError(BackendError):
    """The backend is there, the model is not."""


class BackendNotLoadedError(BackendError):
    """The backend was asked to embed before it was loaded."""

    retryable = True


class BackendTimeoutError(BackendError):
    """The backend did not answer within the time allowed."""

    retryable = True


class BackendOutOfMemoryError(BackendError):
    """Memory did not suffice, even after halving the batch down to one text."""


class BackendAnswerError(BackendError):
    """The backend answered something that cannot be right: wrong count, not finite, wrong dimension."""


class WorkerCrashedError(BackendError):
    """The native worker process ended while it was needed; it is restarted with back-off."""

    retryable = True


class CanaryError(BackendError):
    """Known texts were embedded after a load and the vectors failed their check."""


class InvalidTextError(BackendError):
    """One text of a request cannot be embedded; `index` says which."""

    def __init__(self, what: str, *, why: str = "", remedy: str = "", index: int = -1) -> None:
        super().__init__(what, why=why, remedy=remedy)
        self.index = index

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_text_error, (self.what, self.why, self.remedy, self.index))


def _rebuild_text_error(what: str, why: str, remedy: str, index: int) -> InvalidTextError:
    return InvalidTextError(what, why=why, remedy=remedy, index=index)


class SwitchError(EmbedctlError):
    """A switch failed and was rolled back; the old backend is still active."""


# A running service ------------------------------------------------------------------------------------


class ServiceError(EmbedctlError):
    """A running service or console cannot be used as it is, or none can be reached."""


class ConnectionLostError(ServiceError):
    """The connection to a running service broke before it answered; the call may have had its effect."""

    retryable = True
