"""What a model is: how it is asked, named and placed."""
