"""What a system declares for cards, audits and chats."""
