"""What buckets and their clients refuse, in one line that says what to do."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

from moonseg_jax.errors import UserError

MISSING, FORBIDDEN, UNKNOWN_CALLER = 404, 403, 401
CODES = {"PERMISSION_DENIED": FORBIDDEN, "UNAUTHENTICATED": UNKNOWN_CALLER, "NOT_FOUND": MISSING}
"""TensorStore's words for them."""
UNREACHABLE = ("aiohttp.client_exceptions", "requests.exceptions", "urllib3.exceptions")


@contextlib.contextmanager
def told(address: str | os.PathLike[str] | None = None) -> Iterator[None]:
    """Turns what the clients of buckets raise inside into one line.

    Args:
      address: that is read or written; None where it is known from the error alone.

    Raises:
      UserError: a bucket, an object or a permission is missing, or the service cannot be reached.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = explained(error, None if address is None else os.fspath(address))
        if reason is None:
            raise
        raise UserError(reason) from error


def explained(error: BaseException, address: str | None = None) -> str | None:
    """What an error of the clients of buckets means, and what to do; None for any other."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ImportError) and re.search("gcsfs|fsspec", str(cause)):
            return f"{address or 'gs://'}: buckets are read and written with gcsfs: pip install 'moonseg-jax[gcs]'"
        status = _status(cause)
        where = address or _named(cause)
        if status is not None and where is not None:
            return f"{where}: {_advice(status, where, cause)}"
        cause = cause.__cause__ or cause.__context__
    return None


def _status(error: BaseException) -> int | None:
    """The status that the service answered with; 0 where it could not be asked."""
    module = type(error).__module__
    text = str(error)
    if module.startswith("google.auth"):
        return UNKNOWN_CALLER
    if module.startswith(UNREACHABLE):
        return 0
    if module.startswith(("gcsfs", "google.api_core")) and isinstance(code := getattr(error, "code", None), int):
        return code
    if isinstance(error, FileNotFoundError) and error.errno is None:
        return MISSING
    if isinstance(error, OSError) and text.startswith("Forbidden: "):
        return FORBIDDEN
    found = re.match(rf"({'|'.join(CODES)}): ", text)
    return CODES[found[1]] if found else None


def _named(error: BaseException) -> str | None:
    """The bucket that an error's text names."""
    if type(error).__module__.startswith("google.auth"):
        return "gs://"
    found = re.search(r"/?b/([a-z0-9][a-z0-9._-]+)(?:/o/|/o$|/o\?|/o\n|\?|$)|gs://([a-z0-9][a-z0-9._-]+)", str(error))
    return f"gs://{found[1] or found[2]}" if found else None


def _advice(status: int, where: str, error: BaseException) -> str:
    bucket = "gs://" + where.removeprefix("gs://").split("/")[0]
    if status == MISSING:
        return f"no such bucket, or no such object in it: `gcloud storage ls {bucket}` shows what is there"
    if status == FORBIDDEN:
        return (
            f"no permission: give this account the roles storage.objectUser and storage.legacyBucketReader on {bucket} "
            "(`gcloud storage buckets add-iam-policy-binding`)"
        )
    if status == UNKNOWN_CALLER:
        return (
            "the service does not know who asks: run `gcloud auth application-default login`, or give this VM a "
            "service account"
        )
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return f"the bucket cannot be reached ({reason})"
