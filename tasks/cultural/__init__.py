"""Steps that ask models about memes in several languages and compare their answers with people of several countries."""
