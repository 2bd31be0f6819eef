"""Settings to who may call."""

from embedserve.api.keys import FORMAT, ApiKey, parse_keys
from embedserve.errors import StartupError
from embedserve.settings import Settings


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
