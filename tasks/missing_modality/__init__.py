"""Steps of the study of harmful memes with a missing modality."""
