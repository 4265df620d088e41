"""What every room rests on: files that appear whole or not at all. No torch."""
