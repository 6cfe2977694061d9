"""From a chat to tokens, and from tokens back to text: templates, offsets, segments, thinking, trims, stop texts."""
