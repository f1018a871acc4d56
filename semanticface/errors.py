"""The errors a user can meet. Each message names the thing at fault and, after a colon or full stop, the fix."""

from __future__ import annotations


class SemanticFaceError(Exception):
    """Base of every error the command line reports without a traceback."""


class AnswerError(SemanticFaceError):
    """Text that is not a valid answer.

    Attributes:
        code: short machine-readable reason, such as ``missing_keys`` or ``truncated``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class PictureError(SemanticFaceError):
    """A picture that cannot be used.

    Attributes:
        code: short machine-readable reason, such as ``not_a_picture`` or ``no_face``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class TableError(SemanticFaceError):
    """A CSV or JSONL file that does not have the expected form."""


class ConfigError(SemanticFaceError):
    """A configuration with an unknown key, a missing value or a value out of range."""


class ModelError(SemanticFaceError):
    """A model folder or id that cannot be loaded safely."""


class DatasetError(SemanticFaceError):
    """A dataset folder that is missing, incomplete or of another form."""


class VideoError(SemanticFaceError):
    """A video that cannot be used."""


class ServerError(SemanticFaceError):
    """A server that answers no request at all: it is not there, refuses the key, or does not know the model."""
