"""The stacks, by lifetime: storage, network, fleet (one nested stack per shard), functions, edge, observability."""
