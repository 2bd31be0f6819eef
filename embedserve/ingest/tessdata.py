"""Where Tesseract's language files lie. Tesseract itself comes with the extraction library."""

from pathlib import Path

from embedserve.errors import StartupError

# Where Debian, Fedora, Homebrew and a build from source put them.
FOLDERS = (
    "/usr/share/tesseract-ocr/5/tessdata",
    "/usr/share/tesseract-ocr/4.00/tessdata",
    "/usr/share/tessdata",
    "/usr/share/tesseract/tessdata",
    "/usr/local/share/tessdata",
    "/opt/homebrew/share/tessdata",
)


def language_folder(languages: str, folder: Path | None) -> str:
    """Return the folder that has a file for each language; nothing when none is asked for.

    Raises StartupError that names what is missing.
    """
    if not languages:
        return ""
    names = [f"{language}.traineddata" for language in languages.split("+")]
    places = [folder] if folder else [Path(place) for place in FOLDERS]
    for place in places:
        if all((place / name).is_file() for name in names):
            return str(place.resolve())
    looked = ", ".join(f"`{place}`" for place in places)
    raise StartupError(
        f"OCR in `{languages}` needs {', '.join(names)}, looked for in {looked}. Install them "
        "(on Debian `tesseract-ocr-eng` and its kin), or set EMBEDSERVE_TESSDATA."
    )
