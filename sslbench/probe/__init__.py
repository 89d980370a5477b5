"""The probe engine: tasks on frozen features, as SUPERB defines them, with the lr grid in one go."""
