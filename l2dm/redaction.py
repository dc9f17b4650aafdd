"""Which names and words are secrets, and texts without them: for messages, logs and records.

Standard library only. What is recognised: a login in an address (`http://user:password@host`), a
value behind a name that sounds like a secret (`?token=...`, `DB_PASS=...`), `Bearer ...`, and the
values that the process's environment holds under such names, once `learn` was told of it.
"""

import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

HIDDEN = "***"
SHORTEST = 6  # characters of a value of the environment that is looked for in texts

_WORD = (
    r"SECRET|PASSWORD|PASSWD|PASSPHRASE|PASSCODE|(?:^|[_-])(?:PWD|TOKEN|JWT)(?:$|[_-])"
    r"|(?:^|[_-])(?:PASS|PW|PAT|AUTH|AUTHORIZATION|DSN|SAS|SIG|SIGNATURE|COOKIE|BEARER)$"
    r"|(?:API|APP|ACCESS|PRIVATE|SIGNING|SHARED|ACCOUNT|STORAGE|MASTER|ENCRYPTION|DEPLOY|HMAC|SSH"
    r"|SESSION|LICENSE)[_-]?KEY(?![_-]?(?:ID|FILE|PATH))"
    r"|[A-Z]TOKEN$"
    r"|(?<!^GOOGLE_APPLICATION_)CREDENTIAL(?!S_FILE)"  # these two name a file
)
_NAME = re.compile(_WORD, re.IGNORECASE)
_LOGIN = re.compile(r"(?<=://)[^\s/?#\"'<>@:]*:[^\s/?#\"'<>]+@")
_TOKEN_AS_USER = re.compile(r"(?<=://)[^\s/?#\"'<>@:]{16,}@")
_CALLED = r"(?P<name>[A-Za-z][\w.-]{0,80})"
_ASSIGNED = re.compile(_CALLED + r"(?P<sign>=)(?P<value>[^\s&;,\"'<>()\[\]{}]+)")
_QUOTED = re.compile(_CALLED + r"(?P<sign>[\"']?\s?[:=]\s?)(?P<q>[\"'])(?P<value>[^\"']+)(?P=q)")
_BEARER = re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{8,}")

_FOLDER = "PWD"  # of every shell: where the process stands; a password in an ODBC address
_KNOWN: list[str] = []  # values that this process was told of


def is_secret(name: str) -> bool:
    """Whether a variable, a key or a parameter of this name holds a secret."""
    return bool(_NAME.search(name))


def holds_login(text: str) -> bool:
    """Whether an address in the text holds a password, or a parameter with a secret."""
    return bool(_LOGIN.search(text)) or any(
        is_secret(found["name"]) for found in re.finditer(r"[?&;](?P<name>[\w.-]+)=[^&\s]", text)
    )


def learn(environment: Mapping[str, str]) -> None:
    """Hide what this environment holds under secret names, too, wherever it stands from now on."""
    found = set(_KNOWN)
    for name, value in environment.items():
        if is_secret(name):
            if name != _FOLDER and not _is_path(value):
                found.add(value)
        elif login := _LOGIN.search(value):
            password = login[0].rpartition("@")[0].partition(":")[2]
            found |= {password, unquote(password)}
    # longest first: one may hold another
    _KNOWN[:] = sorted((one for one in found if len(one) >= SHORTEST), key=len, reverse=True)


def _is_path(value: str) -> bool:
    """Whether the secret lies in a file: its path is none, and messages need it."""
    return value.startswith("/") and "\0" not in value and os.path.exists(value)


def redacted(text: str) -> str:
    """The text without what is recognised as a secret."""
    text = _LOGIN.sub(f"{HIDDEN}@", text)
    text = _TOKEN_AS_USER.sub(f"{HIDDEN}@", text)
    text = _BEARER.sub(rf"\1 {HIDDEN}", text)
    text = _ASSIGNED.sub(_hide, text)
    text = _QUOTED.sub(_hide, text)
    return _without_known(text)


def in_path(path: str) -> str:
    """A path as whoever is to open it needs it: without the secrets that this process holds.

    What merely looks like one is a name that somebody gave: `token=7/` is a folder.
    """
    return _without_known(path)


def _without_known(text: str) -> str:
    for value in _KNOWN:
        text = text.replace(value, HIDDEN)
    return text


def _hide(found: "re.Match[str]") -> str:
    if not is_secret(found["name"]):
        return found[0]
    quote = found.groupdict().get("q") or ""
    return f"{found['name']}{found['sign']}{quote}{HIDDEN}{quote}"


def in_data(value: Any) -> Any:
    """Every text of JSON's kinds of values without secrets; keys stay."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {key: in_data(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [in_data(one) for one in value]
    return value
