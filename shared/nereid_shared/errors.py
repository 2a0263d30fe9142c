# SPDX-License-Identifier: Apache-2.0
"""Every error that Nereid raises, in one tree.

    NereidError
    ├── UserError            the user can mend it: names file, field and mend; exit code 2
    ├── TemporaryError       the same call may succeed later; `delay_s` says when to try again
    │   ├── LinkDown         no connection to the broker
    │   ├── LinkBusy         the queue behind the window of unacknowledged publishes is full
    │   ├── Unavailable      the cluster's API did not answer, or asked us to slow down
    │   ├── Conflict         somebody else wrote first; read again
    │   └── Stopped          the caller ended a long call; what it had done is kept
    └── PermanentError       the same call fails for ever
        ├── MessageInvalid   a message that is not what its topic says
        ├── MessageTooLarge  a payload above the broker's or our own bound
        ├── PublishRefused   the broker answered a publish with a failure reason
        ├── SubscribeRefused the broker answered a subscribe with a failure reason
        ├── NotFound         no such object
        ├── AlreadyExists    an object of that name exists
        ├── Invalid          the API refused an object: one cause per field
        ├── Forbidden        the API refused the caller
        ├── Gone             the watch's resourceVersion is too old; list again
        ├── ModelInvalid     a model file or card that cannot be run
        ├── BadSample        one sample that cannot be read or scored
        └── RequestRefused   an HTTP request that a serving worker does not answer

Third-party errors are translated where they enter, with ``from``.
"""

from dataclasses import dataclass


class NereidError(Exception):
    """The root of the tree."""


class UserError(NereidError):
    """Something that the user can mend.

    Attributes:
        where: file, field or resource that is wrong, as the user wrote it.
        mend: what to do about it, as an imperative sentence.
        reason: a CamelCase word for conditions, where a resource's status shows the error.
    """

    def __init__(self, problem: str, *, where: str = "", mend: str = "", reason: str = "") -> None:
        self.problem, self.where, self.mend, self.reason = problem, where, mend, reason
        head = f"{where}: {problem}" if where else problem
        super().__init__(f"{head}. {mend}" if mend else head)


class TemporaryError(NereidError):
    """The same call may succeed later.

    Attributes:
        delay_s: seconds after which a new try makes sense, or None where the caller's back-off decides.
    """

    def __init__(self, message: str, *, delay_s: float | None = None) -> None:
        self.delay_s = delay_s
        super().__init__(message)


class LinkDown(TemporaryError):
    """There is no connection to the broker."""


class LinkBusy(TemporaryError):
    """The queue behind the window of unacknowledged publishes is full."""


class Unavailable(TemporaryError):
    """The cluster's API did not answer, or asked us to slow down."""


class Conflict(TemporaryError):
    """Somebody else wrote the object first."""


class Stopped(TemporaryError):
    """The caller ended a long call; what it had done is kept for the next one."""


class PermanentError(NereidError):
    """The same call fails for ever."""


class MessageInvalid(PermanentError):
    """A message that is not what its topic says."""


class MessageTooLarge(PermanentError):
    """A payload above the broker's bound or our own.

    Attributes:
        size_bytes: the payload's size.
        limit_bytes: the bound it broke.
    """

    def __init__(self, topic: str, *, size_bytes: int, limit_bytes: int) -> None:
        self.size_bytes, self.limit_bytes = size_bytes, limit_bytes
        super().__init__(f"{topic}: {size_bytes} bytes exceed the limit of {limit_bytes}")


class PublishRefused(PermanentError):
    """The broker answered a publish with a failure reason (MQTT 5, section 3.4.2.1).

    Attributes:
        reason_code: the PUBACK's reason code, 0x80 or above.
    """

    def __init__(self, topic: str, *, reason_code: int, reason: str) -> None:
        self.reason_code = reason_code
        super().__init__(f"{topic}: the broker refused the message: {reason} (0x{reason_code:02x})")


class SubscribeRefused(PermanentError):
    """The broker answered a subscribe with a failure reason (MQTT 5, section 3.9.3)."""


class NotFound(PermanentError):
    """No such object."""


class AlreadyExists(PermanentError):
    """An object of that name exists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldCause:
    """One field that an API refused: its path (``spec.edgeWorker.name``) and why."""

    field: str
    message: str


class Invalid(PermanentError):
    """The API refused an object.

    Attributes:
        causes: one entry per field, in the order of the schema.
    """

    def __init__(self, what: str, causes: tuple[FieldCause, ...]) -> None:
        self.what, self.causes = what, causes
        super().__init__(f"{what} is invalid: " + "; ".join(f"{c.field}: {c.message}" for c in causes))


class Forbidden(PermanentError):
    """The API refused the caller."""


class Gone(PermanentError):
    """The watch's resourceVersion is too old; list again."""


class ModelInvalid(PermanentError):
    """A model file or card that cannot be run.

    Attributes:
        reason: a CamelCase word for conditions, such as ``ModelCorrupt``.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        self.reason = reason
        super().__init__(message)


class BadSample(PermanentError):
    """One sample that cannot be read or scored.

    Attributes:
        reason: the ledger's key for it, such as ``undecodable``.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        self.reason = reason
        super().__init__(message)


class RequestRefused(PermanentError):
    """An HTTP request that a serving worker does not answer.

    Attributes:
        status: the HTTP status code that says so.
    """

    def __init__(self, message: str, *, status: int = 400) -> None:
        self.status = status
        super().__init__(message)
