"""What a table is: contracts, taxonomies as data files, prompt templates as text files."""
