"""The web page of ManyEyes: a Gradio application that is an OpenAI client of the gateway."""
