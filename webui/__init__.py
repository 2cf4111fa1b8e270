"""The web page of ManyEyes: a Gradio page that talks to the gateway as any OpenAI client does."""
