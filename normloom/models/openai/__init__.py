"""The engine for hosted models: endpoints that speak OpenAI's chat completions."""
