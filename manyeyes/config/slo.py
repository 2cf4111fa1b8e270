"""What people may expect of a pool."""

from pydantic import Field

from manyeyes.config.base import Section


class Slo(Section):
    """What people may expect of a pool: alerts go by it, and the load test counts by the same figures unless told otherwise."""

    first_s: float = Field(2, gt=0, le=600)
    """Longest wait for the first byte of a streamed answer, in seconds."""
    total_s: float = Field(5, gt=0, le=7200)
    """Longest wait for a whole answer, in seconds. Raise it where answers are long: 500 tokens at 50 a second take 10 s."""
    share: float = Field(0.95, gt=0, lt=1)
    """Of the requests that are answered, this part has to keep both."""
    success: float = Field(0.99, gt=0, lt=1)
    """This part of requests has to be answered; one that the client got wrong (4xx) counts neither way."""
