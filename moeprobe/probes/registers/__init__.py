"""The built-in probes: every module here is one, with its labelled examples in the JSON Lines file of the same name."""
