"""Settings to who may call."""

from embedserve.api import librechat_access, signed_tokens
from embedserve.api.app import AppLimits
from embedserve.api.keys import FORMAT, ApiKey, parse_keys
from embedserve.api.librechat_access import LibreChatAccess
from embedserve.api.viewers import UserTokens, ViewerSources
from embedserve.bootstrap.address import is_loopback
from embedserve.errors import StartupError
from embedserve.services.ownership import Ownership
from embedserve.settings import Settings


def limits_of(settings: Settings) -> AppLimits:
    """Return what the application accepts; raise StartupError for keys that cannot be used."""
    return AppLimits(
        max_request_bytes=settings.max_request_bytes,
        allowed_origins=settings.allowed_origins,
        is_loopback=is_loopback(settings.host),
        max_requests=settings.max_requests,
        keys=read_keys(settings),
        ownership=Ownership(settings.home / "models"),
        viewers=ViewerSources(_tokens_of(settings), _librechat_of(settings)),
        public_url=settings.public_url or "",
    )


def _librechat_of(settings: Settings) -> LibreChatAccess | None:
    """Return how LibreChat shows who it is; None: it is not served."""
    if settings.librechat_secret is None:
        return None
    secret = settings.librechat_secret.get_secret_value()
    whose = "librechat_secret", "the JWT_SECRET of your LibreChat"
    _refuse_short(secret, librechat_access.SHORTEST_SECRET, *whose)
    return LibreChatAccess(secret, settings.librechat_index)


def _tokens_of(settings: Settings) -> UserTokens | None:
    """Return how a front end signs who its user is; None: none does."""
    if settings.user_token_secret is None:
        return None
    secret = settings.user_token_secret.get_secret_value().strip()  # as Open WebUI takes its own
    whose = "user_token_secret", "the FORWARD_USER_INFO_HEADER_JWT_SECRET of your Open WebUI"
    _refuse_short(secret, signed_tokens.SHORTEST_SECRET, *whose)
    return UserTokens(secret, settings.user_token_header, settings.user_token_leeway_s)


def _refuse_short(secret: str, least: int, setting: str, whose: str) -> None:
    if len(secret) < least:
        raise StartupError(
            f"Setting `{setting}` has less than {least} characters. Give it {whose}, or unset it."
        )


def read_keys(settings: Settings) -> list[ApiKey]:
    """Read the keys of both settings; raise StartupError where one of them has none."""
    found = []
    if settings.api_keys is not None:
        found += _some(parse_keys(settings.api_keys.get_secret_value().split(",")), "api_keys")
    if settings.api_keys_file:
        try:
            lines = settings.api_keys_file.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise StartupError(
                f"The API keys in `{settings.api_keys_file}` cannot be read: {error}. "
                "Correct EMBEDSERVE_API_KEYS_FILE, or unset it."
            ) from error
        found += _some(parse_keys(lines), "api_keys_file")
    return found


def _some(keys: list[ApiKey], setting: str) -> list[ApiKey]:
    # An empty variable would open a server that is meant to be closed.
    if not keys:
        raise StartupError(
            f"Setting `{setting}` has no key. {FORMAT} Or unset it: no key is asked."
        )
    return keys
