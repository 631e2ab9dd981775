"""What the trainings of both learners stand on: several processes, trackers."""
