"""What the harness adds to methods that PEFT ships: losses, schedules, checks and fits. A file a method."""
