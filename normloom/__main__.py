"""`python -m normloom` is the command `normloom`."""

from normloom.flows.__main__ import main

main()
