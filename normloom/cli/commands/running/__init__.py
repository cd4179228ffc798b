"""Commands that build, or plan, schedule and follow builds."""
