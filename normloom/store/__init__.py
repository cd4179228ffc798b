"""Tables on a disk: what is published, what is not yet, what is damaged."""
