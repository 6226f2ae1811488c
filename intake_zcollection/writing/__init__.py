"""What all writes share: inputs, checks, merging, and the frame from intents to commit."""
