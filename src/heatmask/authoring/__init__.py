"""From a user's own images and labels to a bundle of their own, with its model card."""
