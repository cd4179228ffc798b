"""`python -m normloom` is the command `normloom`."""

from normloom.cli.app import main

main()
