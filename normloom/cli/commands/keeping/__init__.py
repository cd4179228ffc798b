"""Commands that maintain a store and the machine."""
