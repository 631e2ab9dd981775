"""The search agent: protocols it speaks, models that write its turns, and the one rollout."""
