"""Audits: a drawn sample of a table is answered by people, and corrects what a judge says of all its rows."""
