"""The text that the tokenizer is trained on.

Plain words of the kind that people use about pictures. Enough of them that most of the 1024 tokens become words or
pieces of words, so that random tokens still read like (odd) prose.
"""

SENTENCES = """
The quick brown fox jumps over the lazy dog while a white cat sleeps under the old wooden table.
This picture shows a small house with a red roof, two open windows and a green garden in front of it.
A young woman in a long blue coat is walking along the street with a black umbrella in her left hand.
On the right side of the image there are three large trees, and behind them you can see a quiet lake.
The sky above the mountains is clear and bright, with only a few thin clouds near the horizon.
Several people are waiting at the station for the next train, and most of them are looking at their phones.
There is a yellow bicycle leaning against the stone wall next to a shop that sells bread and flowers.
The man in the middle of the photo holds a paper cup of coffee and smiles at the camera.
In the background, a tall building with many glass windows reflects the warm light of the evening sun.
The table in the kitchen carries a bowl of fresh fruit: apples, oranges, bananas and a bunch of grapes.
A silver car has stopped at the crossing because the traffic light is red, and a child is running across the road.
The first page of the document contains a title, a short summary and a table with four columns of numbers.
The second chart shows how the price of electric power changed between winter and summer of the last year.
This receipt lists every item with its quantity, the total amount, the tax and the date of the payment.
The text on the sign says that the museum opens at nine in the morning and closes at six in the evening.
Please read the label on the bottle, describe its color and shape, and tell me what is written below the logo.
What do you see in this video, and what happens after the first few seconds?
At the beginning a brown horse stands in the field; later it moves slowly toward the fence and eats some grass.
The player in the white shirt throws the ball to another player, who catches it and runs toward the line.
How many birds are sitting on the wire, and which one of them is the largest?
I can count seven birds, but the picture is dark, so the answer may be wrong.
The room is full of books, and a lamp on the desk gives a soft yellow light.
Her mother and her brother are sitting on a bench near the river, eating bread and cheese.
A group of students is listening to the teacher, who is drawing a map of the world on the board.
The surface of the water is smooth, and the boats in the harbor hardly move in the wind.
It looks like a cold morning in early spring, because the ground is wet and there are no leaves on the trees.
Compare both images and explain which parts are different, which are the same, and why it might matter.
The object in the lower corner seems to be a metal box with a round handle and a broken lock.
Some of the plants are green and healthy, while others have become dry and need more water.
The weather was nice, so they went outside, found a place by the beach and played until it was time to go home.
Nothing in this scene is moving except a small dog that follows a boy through the snow.
You are a helpful assistant that answers questions about images, documents and videos with care.
The screen of the computer shows an error message, and the user does not know what to do next.
A large airplane is flying above the city, leaving a straight white trail across the blue sky.
The bridge over the river was built of iron and stone more than one hundred years ago.
He opened the door, turned on the light and found a letter that somebody had left on the floor.
The market is busy today: farmers sell vegetables, eggs, honey and fish, and music comes from a corner.
An elephant drinks from the pool while two young lions rest in the shadow of a single tree.
The blue line in the graph rises quickly at first, then stays almost flat, and falls again near the end.
Each engine reads the question, looks at the picture and writes one word after another.
Every answer that you are reading here is random noise from a model that has learned nothing at all.
If something is not clear, ask again with a better picture, a shorter question or a different model.
Women, men and children dance together in the square, and an old man plays the guitar.
The train leaves the tunnel, crosses the valley and reaches the village before the rain begins.
My favorite color is orange, his is purple, hers is pink, and theirs is gray or black.
A doctor examines the hand of a patient and points at a small mark near the thumb.
The pizza on the plate has cheese, tomatoes, mushrooms and a little fresh basil on top.
Ten soldiers march in front of the palace, followed by a carriage with two white horses.
From this point of view the tower appears smaller than the church, although it is much higher.
Under the microscope the cells look like round, transparent rooms with a dark spot in the center.
""".strip().splitlines()

JSON_LINES = 20 * [
    """{"name": "get_weather", "arguments": {"city": "Paris"}}""",
    """{"name":"get_weather","arguments":{"city":"Paris"}}""",
    """{"kind":"receipt","paid":true,"total":false,"items":null}""",
]
"""What tool calls and JSON answers are spelled with. No words of these come out by themselves."""
