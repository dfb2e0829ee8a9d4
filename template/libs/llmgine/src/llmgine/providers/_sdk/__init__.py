"""What adapters on top of a provider's SDK share: errors, streams, keys, options, odd JSON."""
