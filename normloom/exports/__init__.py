"""A release as a data set that others can use: files, card, metadata, checksums, a repository on a hub."""
