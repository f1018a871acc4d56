"""Exceptions for users. Each message names what is at fault and, after a colon or full stop, the fix."""

from __future__ import annotations


class SemanticFaceError(Exception):
    """Base of all errors that the command line reports without a traceback."""


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
    """A CSV or JSONL file in an unexpected format."""


class ConfigError(SemanticFaceError):
    """A configuration with an unknown key, a missing value or an invalid value."""


class ModelError(SemanticFaceError):
    """A model folder or id that cannot be loaded safely."""


class DatasetError(SemanticFaceError):
    """A dataset folder that is missing, incomplete or in another format."""


class VideoError(SemanticFaceError):
    """A video that cannot be used."""


class ServerError(SemanticFaceError):
    """A server that fails every request: unreachable, rejects the key, or does not serve the model."""
