"""From a store to batches on the device: order, loader, batched transforms."""
