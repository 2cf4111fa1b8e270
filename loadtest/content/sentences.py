"""Sentences from a seed: plain words, no two questions alike."""

from random import Random

WORDS = """
    window tower river number label colour shadow engine ticket market garden signal bottle mirror letter corner bridge
    paper table street figure screen button handle ladder border circle copper silver yellow purple narrow wide early
    broken hidden second middle upper lower behind before under beside between written painted printed counted measured
""".split()  # noqa: SIM905, a list of 50 quoted words reads worse


def sentence(random: Random, words: int) -> str:
    return " ".join(random.choice(WORDS) for _ in range(words)).capitalize() + "."


def question(random: Random, words: int) -> str:
    return f"What about the {sentence(random, words).lower().rstrip('.')}?"
