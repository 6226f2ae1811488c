"""From what the registry answers to a lazy dataset, or to rows in memory."""
