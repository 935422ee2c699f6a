"""The commands, a file for each part of the engine. `racetape.cli` puts them together."""
