"""The objectives of training, with their batches and conditions."""
