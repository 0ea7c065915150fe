"""Why a command was refused: one exception, a few shades of it, its text meant for the person who reads the answer."""


class Refused(Exception):
    """The command is not allowed in the present state (HTTP 409 unless the service says otherwise)."""

    status = 409

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).__name__
        """A machine-readable reason, where the service's wire has one (placement's `code`, neutron's `type`)."""


class Conflict(Refused):
    """Something else holds what this command needs: a name, an address, a generation (409)."""


class NotFound(Refused):
    """There is no such thing, or not for this caller (404)."""

    status = 404


class Invalid(Refused):
    """The request contradicts itself or names what cannot be (400)."""

    status = 400


class Forbidden(Refused):
    """The caller may not do this (403)."""

    status = 403


class OverQuota(Forbidden):
    """The project's quota has no room for it (403, as Nova answers)."""
