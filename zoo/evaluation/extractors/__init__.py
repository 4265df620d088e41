"""From images to features, kept in shards."""
