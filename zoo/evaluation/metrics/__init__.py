"""From features, pairs and captions to numbers that say what they are comparable with."""
