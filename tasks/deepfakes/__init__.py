"""Steps that tell real recordings from generated ones: views, contrastive alignment, a refiner, equal error rates."""
