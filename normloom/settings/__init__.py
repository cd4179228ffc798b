"""Systems, profiles and settings: from what a user asks to a flow of stages."""
