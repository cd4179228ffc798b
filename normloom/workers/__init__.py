"""Where parts are made: this process or Ray's actors, each holding a model."""
