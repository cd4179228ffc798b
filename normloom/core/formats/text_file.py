"""Text files that users hand over."""

from __future__ import annotations

from pathlib import Path

from normloom.core.errors import UsageError


def text_of(path: Path) -> str:
    """Return the text of a UTF-8 file, without a byte-order mark; raises UsageError, which says what is wrong."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist: check the name and the working directory") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text: save it as UTF-8") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
