"""Steps that look and listen: media as rows, near-identical images, vectors of images and sound, text in images."""
