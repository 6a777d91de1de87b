"""Why a request gets no answer."""

from __future__ import annotations


class Problem(Exception):
    """An HTTP status and what to tell the client, who reads `{"error": message}`."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status, self.message = status, message
