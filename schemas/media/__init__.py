"""Contracts of tables about media: images, memes, recordings, and what is known of them."""
