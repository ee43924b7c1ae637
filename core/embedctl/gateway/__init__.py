"""The HTTP service: OpenAI's and Ollama's embedding APIs over one engine, whichever backend is active."""
