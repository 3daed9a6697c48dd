"""One reader per source -> Trajectory; Trajectory -> Candidates."""
