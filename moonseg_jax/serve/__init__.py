"""Answers over HTTP, in the request and response of Moondream's `/v1/segment`."""
