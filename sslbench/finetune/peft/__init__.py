"""Parameter-efficient tuning: what is added to a frozen upstream, and where."""
