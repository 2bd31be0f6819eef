"""The files attached to a message. Its own text is for the extraction library. Worker only."""

import email.policy
import quopri  # noqa: F401 - loaded late otherwise, when no file can be opened any more
from collections.abc import Iterator
from email.message import EmailMessage, Message
from email.parser import BytesParser

from embedserve.ingest.archives import Allowance, Packed, label


def attachments(content: bytes, allowance: Allowance) -> Iterator[Packed]:
    """Yield the attached files of a message; raise ExtractionError over the limits of archives.

    The words of a message that is attached stand in the text of the library; what is attached to
    it in turn comes with the rest.
    """
    message = BytesParser(policy=email.policy.default).parsebytes(content)
    for number, part in enumerate(message.walk()):
        name = part.get_filename()
        if part.is_multipart() or _is_shown_picture(part) or (not name and _is_body(part)):
            continue
        allowance.count_member()
        attached = part.get_payload(decode=True)
        if isinstance(attached, bytes):
            allowance.count_bytes(len(attached))
            yield Packed(label(name or f"part {number} ({part.get_content_type()})"), attached)


def _is_body(part: Message | EmailMessage) -> bool:
    is_attached = part.get_content_disposition() == "attachment"
    return part.get_content_maintype() == "text" and not is_attached


def _is_shown_picture(part: Message | EmailMessage) -> bool:
    """Tell logos and the like, which belong to how a message looks, from what it brings."""
    is_inline = part.get_content_disposition() != "attachment"
    return part.get_content_maintype() == "image" and (is_inline or "Content-ID" in part)
