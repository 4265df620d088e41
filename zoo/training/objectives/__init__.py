"""What a run minimises, and what its batches and conditions are made of."""
