"""One question about one video of 4 to 12 seconds."""

from random import Random

from loadtest.content.sentences import question
from loadtest.content.videos import Video
from loadtest.users.scenario import Conversation, Scenario, Turn


def conversation(seed: int, user: int, number: int) -> Conversation:
    name = f"video {seed} {user} {number}"
    random = Random(name)
    text = f"What happens in this video? {question(random, 12)}"
    return Conversation((Turn(text, video=Video(name, seconds=random.randint(4, 12))),))


SCENARIO = Scenario("video", "One question about one video", 1.0, 64, conversation)
