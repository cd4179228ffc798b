"""The report of a build: its figures as data, and one page that draws them."""
