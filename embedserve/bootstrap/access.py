"""Settings to who may call."""

from pydantic import SecretStr

from embedserve.api.app import AppLimits
from embedserve.api.keys import FORMAT, ApiKey, parse_keys
from embedserve.api.librechat_access import LibreChatAccess
from embedserve.api.signed_tokens import SHORTEST_SECRET
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
    secret = _long_enough(
        settings.librechat_secret, "librechat_secret", "the JWT_SECRET of your LibreChat"
    )
    return LibreChatAccess(secret, settings.librechat_index)


def _tokens_of(settings: Settings) -> UserTokens | None:
    """Return how a front end signs who its user is; None: none does."""
    if settings.user_token_secret is None:
        return None
    whose = "the FORWARD_USER_INFO_HEADER_JWT_SECRET of your Open WebUI"
    secret = _long_enough(settings.user_token_secret, "user_token_secret", whose)
    return UserTokens(secret, settings.user_token_header, settings.user_token_leeway_s)


def _long_enough(value: SecretStr, setting: str, whose: str) -> str:
    secret = value.get_secret_value().strip()
    if len(secret) < SHORTEST_SECRET:
        raise StartupError(
            f"Setting `{setting}` has less than {SHORTEST_SECRET} characters. Give it {whose}, or "
            "unset it."
        )
    return secret


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
