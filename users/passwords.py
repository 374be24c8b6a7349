"""What else happens when a password is changed, wherever that is done."""

from typing import Any

from knox.models import AuthToken

__all__ = ["TokensEndWithPassword"]


class TokensEndWithPassword:
    """A password validator that refuses none: Django tells validators of every new password.

    Sessions end by themselves, as they carry a hash of the password; tokens do not.
    """

    def validate(self, password: str, user: Any = None) -> None:
        """Accept any password."""

    def get_help_text(self) -> str:
        return "A new password ends all logins."

    def password_changed(self, password: str, user: Any = None) -> None:
        """Delete the user's tokens: whoever had the old password may have one."""
        if user is not None and not user._state.adding:
            AuthToken.objects.filter(user=user).delete()
