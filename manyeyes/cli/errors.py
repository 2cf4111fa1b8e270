"""Something that keeps the cluster from coming up."""


class CliError(Exception):
    """Each problem is one sentence with what to do next; `make` prints them all and ends with 2."""

    def __init__(self, *problems: str, details: str = "") -> None:
        self.problems = problems
        self.details = details
        super().__init__("\n".join(problems))
