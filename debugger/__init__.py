"""What a person talks to: one command registry behind prompt and scripts, and queries for root causes."""
