"""The token of the first start: a file in the data directory that only its account reads."""

import secrets

from bus.files import made_once, replace_file
from bus.layout import DataLayout


def admin_token(layout: DataLayout) -> str:
    """The token of the first start, with the role `admin`."""
    made = made_once(layout.admin_token, _new_admin_token)
    return made.decode("ascii", "replace").strip()


def rotate_admin_token(layout: DataLayout) -> str:
    """A new token of that kind; the file no longer holds the old one."""
    token = _new_admin_token()
    replace_file(layout.admin_token, token)
    return token.decode("ascii").strip()


def _new_admin_token() -> bytes:
    return f"jb_admin_{secrets.token_urlsafe(32)}\n".encode()
