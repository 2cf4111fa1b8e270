"""An agent that works a screen: a screenshot, an action, the next screenshot; all earlier ones travel again."""

from random import Random

from loadtest.content.images import Picture
from loadtest.content.sentences import question
from loadtest.users.scenario import Conversation, Scenario, Turn

STEPS = 4  # as many pictures as an engine takes in one request with the shipped configuration
TASK = "You operate this screen. Answer with one action: click(x, y), type(text) or done()."


def conversation(seed: int, user: int, number: int) -> Conversation:
    name = f"agent {seed} {user} {number}"
    random = Random(name)
    first = Turn(f"{TASK} Goal: {question(random, 16)}", (Picture("screen", f"{name} 0"),))
    later = (Turn("Done. The next screen:", (Picture("screen", f"{name} {step}"),)) for step in range(1, STEPS))
    return Conversation((first, *later))


SCENARIO = Scenario("agent", "A chain of screenshots and actions", 0.2, 24, conversation)
