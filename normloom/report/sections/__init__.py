"""The report of a build: its figures as data, and one page that draws them.

Each module of a section has two functions: `collect` turns tables into plain data, None if the section does not
apply, and `draw` turns that data into plots, tables and words. The page draws the data alone, so it and the JSON
say the same.
"""
