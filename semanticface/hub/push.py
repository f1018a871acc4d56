"""Upload files to the Hub in one commit, and verify the result.

Everything goes through ``huggingface_hub``: its login (``hf auth login`` or ``HF_TOKEN``), its endpoint
(``HF_ENDPOINT``), its retries. A token is never an argument and never printed.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import validate_repo_id

from semanticface.errors import ConfigError, SemanticFaceError
from semanticface.hub.card_mark import README
from semanticface.hub.licences import check_licence
from semanticface.hub.upload_list import UploadEntry

Kind = Literal["model", "space"]
_LOGIN = "Log in with `hf auth login`, or set HF_TOKEN to a token with write permission."
_LICENCE = re.compile(r"""^license:[ ]*['"]?([^\s'"]+)""", re.MULTILINE)
_TOKEN = re.compile(r"hf_[A-Za-z0-9]+")


@dataclass(frozen=True, slots=True)
class Pushed:
    """The repository after an upload.

    Attributes:
        url: its address.
        commit: its new head.
        private: its visibility.
        others: names of files from before that are not part of this upload.
    """

    url: str
    commit: str
    private: bool
    others: tuple[str, ...]


def check_id(repo: str) -> None:
    """Raise a ConfigError unless ``repo`` is a valid OWNER/NAME."""
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ConfigError(f"{repo!r} is not a valid name on the Hub: {error}") from error
    if repo.count("/") != 1:
        raise ConfigError(f"{repo!r} has no owner: write it as OWNER/NAME.")


def push(entries: Sequence[UploadEntry], repo: str, *, kind: Kind = "model", public: bool = False) -> Pushed:
    """Upload the included files to a repository, which is created if needed.

    Args:
        entries: of which none may be refused.
        repo: as OWNER/NAME.
        kind: of repository; a Space is a Gradio Space.
        public: visibility of a new repository; an existing one must match.

    Raises:
        ConfigError: a file is refused, or the existing repository has another visibility.
        SemanticFaceError: the Hub refuses or cannot be reached, or the uploaded files do not match.
    """
    check_id(repo)
    refused = [each for each in entries if each.verdict == "refused"]
    if refused:
        raise ConfigError(f"{refused[0].path}: {refused[0].why}. Nothing was uploaded.")
    files = [each for each in entries if each.verdict == "included"]
    _check_licence(files)
    api = HfApi()
    with _explain_errors(repo, api.endpoint):
        api.whoami()
        head = _head(api, repo, kind, public)
        operations = [
            CommitOperationAdd(each.name, each.path if each.content is None else each.content) for each in files
        ]
        message = "Upload with semanticface push"
        commit = api.create_commit(repo, operations, commit_message=message, repo_type=kind, parent_commit=head)
        there = api.list_repo_tree(repo, recursive=True, revision=commit.oid, repo_type=kind)
        found = {entry.path: entry for entry in there if isinstance(entry, RepoFile)}
        private = bool(api.repo_info(repo, repo_type=kind).private)
    wrong = [each.name for each in files if not _same(each, found.get(each.name))]
    url = f"{api.endpoint}/{'spaces/' if kind == 'space' else ''}{repo}"
    if wrong:
        raise SemanticFaceError(f"{url}: the Hub does not have {', '.join(wrong)} as uploaded. Push again.")
    if private == public:
        raise SemanticFaceError(
            f"{url} is {'private' if private else 'public'} now, not as requested. See its settings."
        )
    others = sorted(set(found) - {each.name for each in files} - {".gitattributes"})
    return Pushed(url, commit.oid, private, tuple(others))


def _check_licence(files: Sequence[UploadEntry]) -> None:
    """Check the licence in the card, before there is a repository that would stay empty."""
    for each in files:
        if each.name == README:
            text = each.path.read_text(encoding="utf-8") if each.content is None else each.content.decode()
            found = _LICENCE.search(text.partition("\n---")[0])
            check_licence(found and found[1])


def _head(api: HfApi, repo: str, kind: Kind, public: bool) -> str | None:
    """Return the head of a repository, which is created if needed."""
    try:
        info = api.repo_info(repo, repo_type=kind)
    except RepositoryNotFoundError:
        api.create_repo(repo, private=not public, repo_type=kind, space_sdk="gradio" if kind == "space" else None)
        info = api.repo_info(repo, repo_type=kind)
    if bool(info.private) == public:
        state, fix = ("private", "leave out --public") if info.private else ("public", "pass --public if you mean that")
        raise ConfigError(f"{repo} exists and is {state}: {fix}, or change it in its settings on the Hub.")
    return info.sha


def _same(entry: UploadEntry, there: RepoFile | None) -> bool:
    """Whether the Hub has a file's bytes, by its hash: sha256 of large files, git's of others."""
    if there is None or there.size != entry.size:
        return False
    if there.lfs is not None:
        digest = hashlib.sha256()
        _feed(digest, entry)
        return digest.hexdigest() == there.lfs.sha256
    digest = hashlib.sha1(f"blob {entry.size}\0".encode())
    _feed(digest, entry)
    return digest.hexdigest() == there.blob_id


def _feed(digest: hashlib._Hash, entry: UploadEntry) -> None:
    if entry.content is not None:
        digest.update(entry.content)
        return
    with entry.path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)


@contextlib.contextmanager
def _explain_errors(repo: str, endpoint: str) -> Iterator[None]:
    """Turn the Hub's and the connection's errors within the block into ones that say what to do."""
    try:
        yield
    except LocalTokenNotFoundError as error:
        raise SemanticFaceError(f"{endpoint}: you are not logged in. {_LOGIN}") from error
    except OfflineModeIsEnabled as error:
        raise SemanticFaceError("HF_HUB_OFFLINE is set, so nothing can be uploaded. Unset it.") from error
    except HfHubHTTPError as error:
        raise SemanticFaceError(_refusal(error, repo, endpoint)) from error
    except (HTTPError, OSError) as error:
        raise SemanticFaceError(
            f"{endpoint} cannot be reached ({_plain(error)}). Check the connection, and HF_ENDPOINT if it is set; "
            "then run the same command again."
        ) from error
    except (ValueError, RuntimeError) as error:
        if isinstance(error.__cause__, HfHubHTTPError):  # of one of several files
            raise SemanticFaceError(_refusal(error.__cause__, repo, endpoint)) from error
        raise SemanticFaceError(f"{endpoint} refused the upload to {repo}: {_plain(error)}.") from error


def _refusal(error: HfHubHTTPError, repo: str, endpoint: str) -> str:
    code = error.response.status_code
    owner = repo.partition("/")[0]
    said = _TOKEN.sub("hf_…", " ".join((error.server_message or "").split())).rstrip(".")
    if code == 401:
        return f"{endpoint} does not accept your token (401). {_LOGIN}"
    if code == 403:
        return f"{endpoint}: your token may not write to {owner} (403). Use one that may, or another owner."
    if code in (409, 412):
        return f"{endpoint}/{repo} was changed by someone else meanwhile ({code}). Check it, and push again."
    if code == 404:
        return f"{endpoint} has no {owner}, or no {repo} that you can access (404). Check the spelling."
    if code == 429 or code >= 500:
        return f"{endpoint} is busy or broken ({code}). Try again later."
    return f"{endpoint} refused the upload to {repo} ({code}): {said or _plain(error)}."


def _plain(error: Exception) -> str:
    """Return an error in one line, with tokens masked."""
    text = " ".join(str(error).split())
    return _TOKEN.sub("hf_…", text or type(error).__name__).rstrip(".")
