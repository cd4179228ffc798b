"""The engine for processors: OpenVINO GenAI."""
