"""Commands that show what a store or a system holds, and change nothing."""
