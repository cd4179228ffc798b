"""What a build would do and why: keys, their causes, estimates, upper bounds."""
